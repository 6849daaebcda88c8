//! Structures as guests lay them out in memory (asm/stat.h, linux/stat.h, bits/statfs.h, and others).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct stat` of newfstatat(2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_nlink: u64,
    pub st_mode: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub pad: u32,
    pub st_rdev: u64,
    pub st_size: i64,
    pub st_blksize: i64,
    pub st_blocks: i64,
    pub st_atime: i64,
    pub st_atime_nsec: i64,
    pub st_mtime: i64,
    pub st_mtime_nsec: i64,
    pub st_ctime: i64,
    pub st_ctime_nsec: i64,
    pub unused: [i64; 3],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StatxTimestamp {
    pub tv_sec: i64,
    pub tv_nsec: u32,
    pub pad: i32,
}

/// `struct statx`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Statx {
    pub stx_mask: u32,
    pub stx_blksize: u32,
    pub stx_attributes: u64,
    pub stx_nlink: u32,
    pub stx_uid: u32,
    pub stx_gid: u32,
    pub stx_mode: u16,
    pub pad: u16,
    pub stx_ino: u64,
    pub stx_size: u64,
    pub stx_blocks: u64,
    pub stx_attributes_mask: u64,
    pub stx_atime: StatxTimestamp,
    pub stx_btime: StatxTimestamp,
    pub stx_ctime: StatxTimestamp,
    pub stx_mtime: StatxTimestamp,
    pub stx_rdev_major: u32,
    pub stx_rdev_minor: u32,
    pub stx_dev_major: u32,
    pub stx_dev_minor: u32,
    pub stx_mnt_id: u64,
    pub spare: [u64; 13],
}

/// `struct iocb` (linux/aio_abi.h).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iocb {
    pub aio_data: u64,
    pub aio_key: u32,
    pub aio_rw_flags: u32,
    pub aio_lio_opcode: u16,
    pub aio_reqprio: i16,
    pub aio_fildes: u32,
    pub aio_buf: u64,
    pub aio_nbytes: u64,
    pub aio_offset: i64,
    pub aio_reserved2: u64,
    pub aio_flags: u32,
    pub aio_resfd: u32,
}

impl Iocb {
    /// Where `aio_key` is.
    pub const KEY: u64 = 8;
}

/// `struct statfs`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Statfs {
    pub f_type: i64,
    pub f_bsize: i64,
    pub f_blocks: u64,
    pub f_bfree: u64,
    pub f_bavail: u64,
    pub f_files: u64,
    pub f_ffree: u64,
    pub f_fsid: [i32; 2],
    pub f_namelen: i64,
    pub f_frsize: i64,
    pub f_flags: i64,
    pub f_spare: [i64; 4],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timespec {
    pub tv_sec: i64,
    pub tv_nsec: i64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timeval {
    pub tv_sec: i64,
    pub tv_usec: i64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Utimbuf {
    pub actime: i64,
    pub modtime: i64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iovec {
    pub base: u64,
    pub len: u64,
}

/// `struct flock` of fcntl(2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flock {
    pub l_type: i16,
    pub l_whence: i16,
    pub pad: u32,
    pub l_start: i64,
    pub l_len: i64,
    pub l_pid: i32,
    pub pad2: u32,
}

/// `struct msghdr` of sendmsg(2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Msghdr {
    pub msg_name: u64,
    pub msg_namelen: u32,
    pub pad: u32,
    pub msg_iov: u64,
    pub msg_iovlen: u64,
    pub msg_control: u64,
    pub msg_controllen: u64,
    pub msg_flags: u32,
    pub pad2: u32,
}

/// `struct mmsghdr` of sendmmsg(2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mmsghdr {
    pub msg_hdr: Msghdr,
    pub msg_len: u32,
    pub pad: u32,
}

/// `struct cmsghdr` of cmsg(3); the data follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cmsghdr {
    pub cmsg_len: u64,
    pub cmsg_level: i32,
    pub cmsg_type: i32,
}

/// Appends a `struct linux_dirent64` (getdents64(2)) unless that would exceed `limit` bytes.
pub fn put_dirent64(out: &mut Vec<u8>, limit: usize, ino: u64, off: u64, kind: u8, name: &[u8]) -> bool {
    let len = (19 + name.len() + 1).next_multiple_of(8);
    if out.len() + len > limit {
        return false;
    }
    let end = out.len() + len;
    out.extend_from_slice(&ino.to_ne_bytes());
    out.extend_from_slice(&off.to_ne_bytes());
    out.extend_from_slice(&(len as u16).to_ne_bytes());
    out.push(kind);
    out.extend_from_slice(name);
    out.resize(end, 0);
    true
}

/// Appends a `struct linux_dirent` (getdents(2)), whose type stands in its last byte.
pub fn put_dirent(out: &mut Vec<u8>, limit: usize, ino: u64, off: u64, kind: u8, name: &[u8]) -> bool {
    let len = (18 + name.len() + 2).next_multiple_of(8);
    if out.len() + len > limit {
        return false;
    }
    let end = out.len() + len;
    out.extend_from_slice(&ino.to_ne_bytes());
    out.extend_from_slice(&off.to_ne_bytes());
    out.extend_from_slice(&(len as u16).to_ne_bytes());
    out.extend_from_slice(name);
    out.resize(end, 0);
    out[end - 1] = kind;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_kernels() {
        assert_eq!(size_of::<Stat>(), size_of::<libc::stat>());
        assert_eq!(size_of::<Statx>(), size_of::<libc::statx>());
        assert_eq!(size_of::<Statfs>(), size_of::<libc::statfs>());
        assert_eq!(size_of::<Flock>(), size_of::<libc::flock>());
        assert_eq!(size_of::<Msghdr>(), size_of::<libc::msghdr>());
        assert_eq!(size_of::<Mmsghdr>(), size_of::<libc::mmsghdr>());
        assert_eq!(size_of::<Cmsghdr>(), size_of::<libc::cmsghdr>());
        assert_eq!(
            std::mem::offset_of!(Stat, st_size),
            std::mem::offset_of!(libc::stat, st_size)
        );
        assert_eq!(
            std::mem::offset_of!(Statx, stx_mnt_id),
            std::mem::offset_of!(libc::statx, stx_mnt_id)
        );
    }

    #[test]
    fn directory_entries_fit_or_do_not() {
        let mut out = Vec::new();
        assert!(put_dirent64(&mut out, 24, 1, 2, 8, b"abcd"));
        assert_eq!(out.len(), 24);
        assert_eq!(&out[19..24], b"abcd\0");
        assert!(!put_dirent64(&mut out, 47, 1, 2, 8, b"abcd"));
        let mut out = Vec::new();
        assert!(put_dirent(&mut out, 24, 1, 2, 8, b"abcd"));
        assert_eq!((out[23], out[22]), (8, 0));
    }
}
