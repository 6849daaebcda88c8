//! Names for the numbers in arguments.

use std::fmt::Write as _;

/// How an argument is to be read.
#[derive(Clone, Copy, Debug)]
pub enum Named {
    /// Bits, with the name that it has when none is set.
    Bits(&'static str, &'static [(u64, &'static str)]),
    /// One of several.
    OneOf(&'static [(u64, &'static str)]),
    /// The flags of open(2), whose lowest bits are one of three.
    Open,
}

macro_rules! named {
    ($($name:ident),* $(,)?) => { &[$((libc::$name as u64, stringify!($name))),*] };
}

/// Longer names first, where one contains the bits of another.
const OPEN: &[(u64, &str)] = named![
    O_CREAT,
    O_EXCL,
    O_NOCTTY,
    O_TRUNC,
    O_APPEND,
    O_NONBLOCK,
    O_SYNC,
    O_DSYNC,
    O_ASYNC,
    O_DIRECT,
    O_TMPFILE,
    O_DIRECTORY,
    O_NOFOLLOW,
    O_NOATIME,
    O_CLOEXEC,
    O_PATH,
];
const AT: &[(u64, &str)] = named![
    AT_SYMLINK_NOFOLLOW,
    AT_SYMLINK_FOLLOW,
    AT_NO_AUTOMOUNT,
    AT_EMPTY_PATH,
    AT_STATX_FORCE_SYNC,
    AT_STATX_DONT_SYNC,
];
const UNLINK: &[(u64, &str)] = named![AT_REMOVEDIR];
const EACCESS: &[(u64, &str)] = named![AT_EACCESS, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH];
const ACCESS: &[(u64, &str)] = named![R_OK, W_OK, X_OK];
const RENAME: &[(u64, &str)] = named![RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT];
const PROT: &[(u64, &str)] = named![PROT_READ, PROT_WRITE, PROT_EXEC];
const MAP: &[(u64, &str)] = named![
    MAP_SHARED_VALIDATE,
    MAP_SHARED,
    MAP_PRIVATE,
    MAP_FIXED,
    MAP_ANONYMOUS,
    MAP_GROWSDOWN,
    MAP_DENYWRITE,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_NONBLOCK,
    MAP_STACK,
    MAP_FIXED_NOREPLACE,
];
const MSYNC: &[(u64, &str)] = named![MS_ASYNC, MS_INVALIDATE, MS_SYNC];
const MOUNT: &[(u64, &str)] = named![
    MS_RDONLY,
    MS_NOSUID,
    MS_NODEV,
    MS_NOEXEC,
    MS_SYNCHRONOUS,
    MS_REMOUNT,
    MS_MANDLOCK,
    MS_DIRSYNC,
    MS_NOATIME,
    MS_NODIRATIME,
    MS_BIND,
    MS_MOVE,
    MS_REC,
    MS_SILENT,
    MS_UNBINDABLE,
    MS_PRIVATE,
    MS_SLAVE,
    MS_SHARED,
    MS_RELATIME,
    MS_STRICTATIME,
    MS_LAZYTIME,
];
const UMOUNT: &[(u64, &str)] = named![MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW];
const WHENCE: &[(u64, &str)] = named![SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE];
const FCNTL: &[(u64, &str)] = named![
    F_DUPFD,
    F_GETFD,
    F_SETFD,
    F_GETFL,
    F_SETFL,
    F_GETLK,
    F_SETLK,
    F_SETLKW,
    F_SETOWN,
    F_GETOWN,
    F_OFD_GETLK,
    F_OFD_SETLK,
    F_OFD_SETLKW,
    F_SETLEASE,
    F_GETLEASE,
    F_NOTIFY,
    F_DUPFD_CLOEXEC,
    F_SETPIPE_SZ,
    F_GETPIPE_SZ,
    F_ADD_SEALS,
    F_GET_SEALS,
];
const FLOCK: &[(u64, &str)] = named![LOCK_SH, LOCK_EX, LOCK_UN, LOCK_NB];
const FALLOCATE: &[(u64, &str)] = named![
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_ZERO_RANGE,
    FALLOC_FL_INSERT_RANGE,
];
const SPLICE: &[(u64, &str)] = named![SPLICE_F_MOVE, SPLICE_F_NONBLOCK, SPLICE_F_MORE, SPLICE_F_GIFT];
const XATTR: &[(u64, &str)] = named![XATTR_CREATE, XATTR_REPLACE];
const RWF: &[(u64, &str)] = named![RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND];
const MSG: &[(u64, &str)] = named![
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    MSG_DONTWAIT,
    MSG_EOR,
    MSG_WAITALL,
    MSG_NOSIGNAL,
    MSG_MORE,
    MSG_CMSG_CLOEXEC,
];
const DUP: &[(u64, &str)] = named![O_CLOEXEC];

/// How the `n`th argument of a call is to be read, if its numbers have names.
pub fn of(call: &str, n: usize) -> Option<Named> {
    let zero = |bits| Some(Named::Bits("0", bits));
    match (call, n) {
        ("open", 1) | ("openat", 2) => Some(Named::Open),
        ("access", 1) | ("faccessat" | "faccessat2", 2) => Some(Named::Bits("F_OK", ACCESS)),
        ("faccessat2", 3) => zero(EACCESS),
        ("unlinkat", 2) => zero(UNLINK),
        ("newfstatat" | "utimensat" | "fchmodat2", 3)
        | ("linkat" | "fchownat" | "execveat" | "name_to_handle_at", 4)
        | ("statx" | "setxattrat" | "getxattrat" | "listxattrat" | "removexattrat", 2) => zero(AT),
        ("renameat2", 4) => zero(RENAME),
        ("mmap", 2) => Some(Named::Bits("PROT_NONE", PROT)),
        ("mmap", 3) => zero(MAP),
        ("msync", 2) => zero(MSYNC),
        ("mount", 3) => zero(MOUNT),
        ("umount2", 1) => zero(UMOUNT),
        ("lseek", 2) => Some(Named::OneOf(WHENCE)),
        ("fcntl", 1) => Some(Named::OneOf(FCNTL)),
        ("flock", 1) => zero(FLOCK),
        ("fallocate", 1) => zero(FALLOCATE),
        ("splice" | "copy_file_range", 5) | ("tee" | "vmsplice", 3) => zero(SPLICE),
        ("setxattr" | "lsetxattr" | "fsetxattr", 4) => zero(XATTR),
        ("preadv2" | "pwritev2", 5) => zero(RWF),
        ("sendmsg" | "recvmsg", 2) | ("sendto", 3) => zero(MSG),
        ("dup3", 2) => zero(DUP),
        _ => None,
    }
}

/// Is there a mode, as the last argument? open(2) reads it only when it creates a file.
pub fn has_mode(call: &str, args: &[u64; 6]) -> bool {
    let creates = |flags: u64| flags as i32 & (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) != 0;
    match call {
        "open" => creates(args[1]),
        "openat" => creates(args[2]),
        _ => true,
    }
}

/// The argument with data that the call takes; the next one is its length.
pub fn takes(call: &str) -> Option<usize> {
    match call {
        "write" | "pwrite64" | "sendto" => Some(1),
        "setxattr" | "lsetxattr" | "fsetxattr" => Some(2),
        _ => None,
    }
}

/// The argument where the call puts as many bytes as it returns.
pub fn gives(call: &str) -> Option<usize> {
    match call {
        "getcwd" => Some(0),
        "read" | "pread64" | "readlink" | "listxattr" | "llistxattr" | "flistxattr" => Some(1),
        "readlinkat" | "getxattr" | "lgetxattr" | "fgetxattr" => Some(2),
        _ => None,
    }
}

impl Named {
    pub fn show(self, value: u64) -> String {
        // All of these are 32 bits wide, whatever else the register holds.
        let value = u64::from(value as u32);
        match self {
            Named::Bits(none, names) => bits(String::new(), value, names, none),
            Named::OneOf(names) => names
                .iter()
                .find(|(number, _)| *number == value)
                .map_or_else(|| format!("{value:#x}"), |(_, name)| (*name).to_owned()),
            Named::Open => {
                let mode = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"][(value & 3) as usize];
                // Only on 32-bit machines does it say anything.
                let rest = value & !3 & !0o100_000;
                bits(mode.to_owned(), rest, OPEN, "")
            }
        }
    }
}

fn bits(mut text: String, value: u64, names: &[(u64, &str)], none: &str) -> String {
    let mut rest = value;
    for (bits, name) in names {
        if rest & bits == *bits && *bits != 0 {
            rest &= !bits;
            if !text.is_empty() {
                text.push('|');
            }
            text.push_str(name);
        }
    }
    if rest != 0 {
        let bar = if text.is_empty() { "" } else { "|" };
        let _ = write!(text, "{bar}{rest:#x}");
    }
    if text.is_empty() { none.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TABLE;

    #[test]
    fn flags_have_their_names() {
        let show = |call, n, value: i32| of(call, n).unwrap().show(value as u64);
        assert_eq!(show("openat", 2, libc::O_RDONLY), "O_RDONLY");
        assert_eq!(
            show("openat", 2, libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC),
            "O_RDWR|O_CREAT|O_CLOEXEC"
        );
        assert_eq!(
            show("openat", 2, libc::O_TMPFILE | libc::O_WRONLY),
            "O_WRONLY|O_TMPFILE"
        );
        assert_eq!(show("openat", 2, libc::O_DIRECTORY), "O_RDONLY|O_DIRECTORY");
        assert_eq!(show("openat", 2, libc::O_SYNC), "O_RDONLY|O_SYNC");
        assert_eq!(show("access", 1, 0), "F_OK");
        assert_eq!(show("access", 1, 5), "R_OK|X_OK");
        assert_eq!(show("unlinkat", 2, 0x200), "AT_REMOVEDIR");
        assert_eq!(show("lseek", 2, 2), "SEEK_END");
        assert_eq!(show("fcntl", 1, 9999), "0x270f");
        assert_eq!(show("umount2", 1, 0x102), "MNT_DETACH|0x100");
    }

    #[test]
    fn named_arguments_exist() {
        for entry in TABLE {
            for n in 0..6 {
                if of(entry.name, n).is_some() {
                    assert!(
                        n < entry.args.len() || entry.args.is_empty(),
                        "{} has no argument {n}",
                        entry.name
                    );
                }
            }
            for n in [takes(entry.name), gives(entry.name)].into_iter().flatten() {
                assert_eq!(entry.args[n], crate::table::Arg::Buf, "{}", entry.name);
            }
        }
    }
}
