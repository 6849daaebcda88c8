//! The values that cross the module boundary.

use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Errno, File, Vnode};

/// Data on its way to a guest: written one after the other, without gluing them together first.
pub type Chunks = SmallVec<[Bytes; 2]>;

/// A point in time, as in `struct timespec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub sec: i64,
    /// 0..=999_999_999
    pub nsec: u32,
}

/// What `utimensat(2)` wants done with one of the two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    At(Time),
}

/// The type of a file; it never changes during a [`Vnode`]'s life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    Fifo,
    CharDevice,
    Directory,
    BlockDevice,
    Regular,
    Symlink,
    Socket,
}

impl FileKind {
    /// From the type bits of `st_mode` (`S_IFMT`).
    pub fn from_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & 0o170000 {
            0o010000 => FileKind::Fifo,
            0o020000 => FileKind::CharDevice,
            0o040000 => FileKind::Directory,
            0o060000 => FileKind::BlockDevice,
            0o100000 => FileKind::Regular,
            0o120000 => FileKind::Symlink,
            0o140000 => FileKind::Socket,
            _ => return None,
        })
    }

    /// The type bits of `st_mode`.
    pub fn mode(self) -> u32 {
        u32::from(self.dirent_type()) << 12
    }

    /// The `d_type` of a directory entry (`DT_REG` and so on).
    pub fn dirent_type(self) -> u8 {
        match self {
            FileKind::Fifo => 1,
            FileKind::CharDevice => 2,
            FileKind::Directory => 4,
            FileKind::BlockDevice => 6,
            FileKind::Regular => 8,
            FileKind::Symlink => 10,
            FileKind::Socket => 12,
        }
    }
}

/// The attributes of a file. `st_dev` is not among them: it belongs to the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    pub ino: u64,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Device number of a device node, in the kernel's 32-bit encoding (`new_encode_dev`).
    pub rdev: u32,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub blksize: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// Time of birth, where the file system knows it.
    pub btime: Option<Time>,
}

bitflags::bitflags! {
    /// Attributes of a file, with the bits of `statx(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AttrMask: u32 {
        const MODE = 0x2;
        const UID = 0x8;
        const GID = 0x10;
        const ATIME = 0x20;
        const MTIME = 0x40;
        const CTIME = 0x80;
        const SIZE = 0x200;
        const BLOCKS = 0x400;
        /// All that `stat(2)` tells.
        const BASIC = 0x7ff;
        const BTIME = 0x800;
    }
}

/// Which attributes are asked for, and how fresh they must be (`statx(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttrQuery {
    /// All are told; these must be right.
    pub mask: AttrMask,
    /// `AT_STATX_FORCE_SYNC`: ask even if the cached attributes are valid.
    pub force: bool,
    /// `AT_STATX_DONT_SYNC`: do not ask if anything is known at all.
    pub cached: bool,
}

impl Default for AttrQuery {
    /// As `stat(2)` asks.
    fn default() -> AttrQuery {
        AttrQuery {
            mask: AttrMask::BASIC,
            force: false,
            cached: false,
        }
    }
}

impl AttrQuery {
    /// What is known will do.
    pub const KNOWN: AttrQuery = AttrQuery {
        mask: AttrMask::BASIC,
        force: false,
        cached: true,
    };
}

/// What to change (`chmod`, `chown`, `truncate`, `utimensat`); `None` leaves a field alone.
#[derive(Clone, Copy, Default)]
pub struct SetAttr<'a> {
    /// Permission bits with set-id and sticky bits, without the type.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// The open file, when the change came through a descriptor (`ftruncate`).
    pub file: Option<&'a dyn File>,
}

impl SetAttr<'_> {
    /// Does it concern the owner? So does what changes nothing at all, as `chown(path, -1, -1)`.
    pub fn is_of_owner(&self) -> bool {
        let others = self.mode.is_some() || self.size.is_some() || self.atime.is_some() || self.mtime.is_some();
        self.uid.is_some() || self.gid.is_some() || !others
    }
}

bitflags::bitflags! {
    /// Permissions to check (`access(2)`), same values as `R_OK` and so on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u32 {
        const EXECUTE = 1;
        const WRITE = 2;
        const READ = 4;
    }

    /// Flags of `renameat2(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        const NOREPLACE = 1;
        const EXCHANGE = 2;
        const WHITEOUT = 4;
    }

    /// Flags of `setxattr(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct XattrFlags: u32 {
        const CREATE = 1;
        const REPLACE = 2;
    }

    /// Flags of `open(2)`, with x86-64's (and the generic ABI's) values; unknown bits are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        const WRONLY = 0o1;
        const RDWR = 0o2;
        const CREAT = 0o100;
        const EXCL = 0o200;
        const NOCTTY = 0o400;
        const TRUNC = 0o1000;
        const APPEND = 0o2000;
        const NONBLOCK = 0o4000;
        const DSYNC = 0o10000;
        const ASYNC = 0o20000;
        const DIRECT = 0o40000;
        const LARGEFILE = 0o100000;
        const DIRECTORY = 0o200000;
        const NOFOLLOW = 0o400000;
        const NOATIME = 0o1000000;
        const CLOEXEC = 0o2000000;
        const SYNC = 0o4010000;
        const PATH = 0o10000000;
        const TMPFILE = 0o20200000;
        /// Internal: opened by `execve(2)` (the kernel's `FMODE_EXEC`, sent to FUSE servers as 040).
        const EXEC = 0o40;
        const _ = !0;
    }
}

impl OpenFlags {
    /// May data be read through it?
    pub fn readable(self) -> bool {
        self.bits() & 3 != 1 && !self.contains(OpenFlags::PATH)
    }

    /// May data be written through it?
    pub fn writable(self) -> bool {
        matches!(self.bits() & 3, 1 | 2) && !self.contains(OpenFlags::PATH)
    }
}

/// One component of a path: not empty, no `/`, no NUL, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// `ENOENT` if the bytes cannot be the name of a directory entry, `ENAMETOOLONG` if they are too many for any.
    pub fn new(bytes: &[u8]) -> Result<Name, Errno> {
        if bytes.len() > 4095 {
            return Err(Errno::ENAMETOOLONG);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(Errno::ENOENT);
        }
        Ok(Name(bytes.into()))
    }

    /// The name of an extended attribute (xattr(7)), which may have slashes in it.
    pub fn attribute(bytes: &[u8]) -> Result<Name, Errno> {
        if bytes.is_empty() || bytes.contains(&0) {
            Err(Errno::ERANGE)
        } else {
            Ok(Name(bytes.into()))
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An entry of a directory, as `getdents64(2)` returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub ino: u64,
    /// Opaque cookie: reading from here continues *after* this entry.
    pub off: u64,
    /// `DT_*`
    pub kind: u8,
    pub name: SmallVec<[u8; 32]>,
}

/// The result of [`Vnode::create`].
pub struct Created {
    pub node: Rc<dyn Vnode>,
    pub file: Rc<dyn File>,
}

/// What `statfs(2)` tells, without the flags, which belong to the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// `f_type`
    pub magic: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub bsize: u64,
    pub namelen: u64,
    pub frsize: u64,
}

/// The major and minor number in the kernel's 32-bit form of a device number (`new_decode_dev`), as [`Attr::rdev`] has it.
pub fn split_dev(dev: u32) -> (u32, u32) {
    ((dev & 0xfff00) >> 8, (dev & 0xff) | ((dev >> 12) & 0xfff00))
}
