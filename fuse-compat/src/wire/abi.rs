//! The C structures and numbers of the FUSE protocol, version 7.45 (`<linux/fuse.h>`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol version that umvu speaks.
pub const MAJOR: u32 = 7;
pub const MINOR: u32 = 45;

/// The node id of a file system's root.
pub const ROOT_ID: u64 = 1;

macro_rules! opcodes {
    ($($name:ident = $value:literal),* $(,)?) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Opcode { $($name = $value),* }

        impl Opcode {
            /// In capitals, as the header file and traces have it.
            pub fn name(self) -> &'static str {
                match self { $(Opcode::$name => stringify!($name)),* }
            }
        }
    };
}

#[allow(non_camel_case_types)]
mod opcode {
    opcodes! {
        LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8, MKDIR = 9, UNLINK = 10,
        RMDIR = 11, RENAME = 12, LINK = 13, OPEN = 14, READ = 15, WRITE = 16, STATFS = 17, RELEASE = 18, FSYNC = 20,
        SETXATTR = 21, GETXATTR = 22, LISTXATTR = 23, REMOVEXATTR = 24, FLUSH = 25, INIT = 26, OPENDIR = 27,
        READDIR = 28, RELEASEDIR = 29, FSYNCDIR = 30, GETLK = 31, SETLK = 32, SETLKW = 33, ACCESS = 34, CREATE = 35,
        INTERRUPT = 36, BMAP = 37, DESTROY = 38, IOCTL = 39, POLL = 40, NOTIFY_REPLY = 41, BATCH_FORGET = 42,
        FALLOCATE = 43, READDIRPLUS = 44, RENAME2 = 45, LSEEK = 46, COPY_FILE_RANGE = 47, SYNCFS = 50, TMPFILE = 51,
        STATX = 52, COPY_FILE_RANGE_64 = 53,
    }
}
pub use opcode::Opcode;

bitflags::bitflags! {
    /// What INIT negotiates: `flags`, and from bit 32 on `flags2`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        const ASYNC_READ = 1;
        const POSIX_LOCKS = 1 << 1;
        const ATOMIC_O_TRUNC = 1 << 3;
        const EXPORT_SUPPORT = 1 << 4;
        const BIG_WRITES = 1 << 5;
        const DONT_MASK = 1 << 6;
        const SPLICE_WRITE = 1 << 7;
        const SPLICE_MOVE = 1 << 8;
        const SPLICE_READ = 1 << 9;
        const FLOCK_LOCKS = 1 << 10;
        const HAS_IOCTL_DIR = 1 << 11;
        const AUTO_INVAL_DATA = 1 << 12;
        const DO_READDIRPLUS = 1 << 13;
        const READDIRPLUS_AUTO = 1 << 14;
        const ASYNC_DIO = 1 << 15;
        const WRITEBACK_CACHE = 1 << 16;
        const NO_OPEN_SUPPORT = 1 << 17;
        const PARALLEL_DIROPS = 1 << 18;
        const HANDLE_KILLPRIV = 1 << 19;
        const POSIX_ACL = 1 << 20;
        const ABORT_ERROR = 1 << 21;
        const MAX_PAGES = 1 << 22;
        const CACHE_SYMLINKS = 1 << 23;
        const NO_OPENDIR_SUPPORT = 1 << 24;
        const EXPLICIT_INVAL_DATA = 1 << 25;
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        const SETXATTR_EXT = 1 << 29;
        const INIT_EXT = 1 << 30;
        const HAS_EXPIRE_ONLY = 1 << 35;
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        const PASSTHROUGH = 1 << 37;
        const NO_EXPORT_SUPPORT = 1 << 38;
        const _ = !0;
    }

    /// `open_flags` of an OPEN reply.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FopenFlags: u32 {
        const DIRECT_IO = 1;
        const KEEP_CACHE = 2;
        const NONSEEKABLE = 4;
        const CACHE_DIR = 8;
        const STREAM = 16;
        const NOFLUSH = 32;
        const PARALLEL_DIRECT_WRITES = 64;
        const PASSTHROUGH = 128;
        const _ = !0;
    }

    /// Which fields of SETATTR are meant.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SetattrValid: u32 {
        const MODE = 1;
        const UID = 2;
        const GID = 4;
        const SIZE = 8;
        const ATIME = 0x10;
        const MTIME = 0x20;
        const FH = 0x40;
        const ATIME_NOW = 0x80;
        const MTIME_NOW = 0x100;
        const LOCKOWNER = 0x200;
        const CTIME = 0x400;
        const KILL_SUIDGID = 0x800;
    }
}

/// `write_flags` and `read_flags`
pub const WRITE_CACHE: u32 = 1;
pub const WRITE_LOCKOWNER: u32 = 2;
pub const WRITE_KILL_SUIDGID: u32 = 4;
pub const READ_LOCKOWNER: u32 = 2;
/// `getattr_flags`
pub const GETATTR_FH: u32 = 1;
/// `release_flags`
pub const RELEASE_FLOCK_UNLOCK: u32 = 2;
/// `fsync_flags`
pub const FSYNC_FDATASYNC: u32 = 1;
/// `lk_flags`
pub const LK_FLOCK: u32 = 1;
/// POLL `flags`: please notify later.
pub const POLL_SCHEDULE_NOTIFY: u32 = 1;
/// IOCTL `flags`
pub const IOCTL_RETRY: u32 = 4;
pub const IOCTL_DIR: u32 = 16;
/// The longest name in a request; longer ones are ENAMETOOLONG without asking.
pub const MAX_NAME: usize = 1024;

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub struct $name { $(pub $field: $type),* }
        )*
    };
}

structs! {
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16 }
    OutHeader { len: u32, error: i32, unique: u64 }
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// Answers everything that finds or makes a file. A node id of 0 is a negative entry.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32,
        attr: Attr,
    }
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    OpenOut { fh: u64, open_flags: u32, backing_id: i32 }
    CreateOut { entry: EntryOut, open: OpenOut }
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11] }
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }
    ForgetIn { nlookup: u64 }
    BatchForgetIn { count: u32, dummy: u32 }
    ForgetOne { nodeid: u64, nlookup: u64 }
    InterruptIn { unique: u64 }
    GetattrIn { getattr_flags: u32, dummy: u32, fh: u64 }
    SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    MkdirIn { mode: u32, umask: u32 }
    RenameIn { newdir: u64 }
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    LinkIn { oldnodeid: u64 }
    AccessIn { mask: u32, padding: u32 }
    OpenIn { flags: u32, open_flags: u32 }
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// READ, READDIR and READDIRPLUS.
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteOut { size: u32, padding: u32 }
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    LseekOut { offset: u64 }
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    CopyFileRangeIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
    CopyFileRangeOut { bytes_copied: u64 }
    IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    PollIn { fh: u64, kh: u64, flags: u32, events: u32 }
    PollOut { revents: u32, padding: u32 }
    Kstatfs {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }
    SetxattrIn { size: u32, flags: u32 }
    SetxattrExtIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    GetxattrIn { size: u32, padding: u32 }
    GetxattrOut { size: u32, padding: u32 }
    FileLock { start: u64, end: u64, kind: u32, pid: u32 }
    LkIn { fh: u64, owner: u64, lk: FileLock, lk_flags: u32, padding: u32 }
    SyncfsIn { padding: u64 }
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    SxTime { tv_sec: i64, tv_nsec: u32, reserved: i32 }
    StatxOut {
        attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2],
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16,
        ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// A directory entry; the name follows, padded to 8 bytes.
    DirentHeader { ino: u64, off: u64, namelen: u32, kind: u32 }
    NotifyPoll { kh: u64 }
    NotifyInvalInode { ino: u64, off: i64, len: i64 }
    NotifyInvalEntry { parent: u64, namelen: u32, flags: u32 }
    NotifyDelete { parent: u64, child: u64, namelen: u32, padding: u32 }
    NotifyStore { nodeid: u64, offset: u64, size: u32, padding: u32 }
    NotifyRetrieve { notify_unique: u64, nodeid: u64, offset: u64, size: u32, padding: u32 }
    NotifyRetrieveIn { dummy1: u64, offset: u64, size: u32, dummy2: u32, dummy3: u64, dummy4: u64 }
    NotifyPrune { count: u32, padding: u32, spare: u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_header_file() {
        let sizes = [
            (size_of::<InHeader>(), 40),
            (size_of::<OutHeader>(), 16),
            (size_of::<Attr>(), 88),
            (size_of::<EntryOut>(), 128),
            (size_of::<AttrOut>(), 104),
            (size_of::<CreateOut>(), 144),
            (size_of::<InitIn>(), 64),
            (size_of::<InitOut>(), 64),
            (size_of::<SetattrIn>(), 88),
            (size_of::<ReadIn>(), 40),
            (size_of::<WriteIn>(), 40),
            (size_of::<Kstatfs>(), 80),
            (size_of::<LkIn>(), 48),
            (size_of::<StatxOut>(), 288),
            (size_of::<DirentHeader>(), 24),
            (size_of::<NotifyRetrieveIn>(), 40),
            (size_of::<CopyFileRangeIn>(), 56),
        ];
        for (n, (size, expected)) in sizes.iter().enumerate() {
            assert_eq!(size, expected, "structure {n}");
        }
    }
}
