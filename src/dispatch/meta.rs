//! Attributes: the stat family, access, chmod, chown, utimens, truncate, statfs.

use std::os::unix::ffi::OsStringExt;

use fsmodules::api::{
    Access, Attr, AttrMask, AttrQuery, Errno, FileKind, MountFlags, OpenFlags, SetAttr, SetTime, StatFs, Time,
    split_dev,
};

use crate::abi::{Stat, Statfs, Statx, StatxTimestamp, Timespec, Timeval, Utimbuf};
use crate::trap::Reply;
use crate::view::{Events, Mount, VirtualPlace};

use super::context::{CWD, HostFile, Target, check_writable};
use super::io::not_path_only;
use super::{Ctx, host, lease, owners};

const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
const AT_SYMLINK_NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;
const AT_NO_AUTOMOUNT: u32 = libc::AT_NO_AUTOMOUNT as u32;
const AT_STATX_FORCE_SYNC: u32 = 0x2000;
const AT_STATX_DONT_SYNC: u32 = 0x4000;
const STATX_BTIME: u32 = 0x800;
const STATX_BASIC_STATS: u32 = 0x7ff;
const STATX_MNT_ID: u32 = 0x1000;
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
/// What the kernel's FUSE can tell: the above, and that a file is a point of automatic mounts or mapped from a device
/// directly, which none is here.
const STATX_ATTRIBUTES: u64 = STATX_ATTR_MOUNT_ROOT | 0x1000 | 0x20_0000;
const UTIME_NOW: i64 = 0x3fff_ffff;
const UTIME_OMIT: i64 = 0x3fff_fffe;

fn no_follow(flags: u32) -> bool {
    flags & AT_SYMLINK_NOFOLLOW != 0
}

/// Resolves the (dirfd, path) of a `*at` call.
async fn resolve(cx: &Ctx, flags: u32) -> Result<Target, Errno> {
    // statx(2) and newer kernels' fstatat(2) take a null path with AT_EMPTY_PATH.
    let path = if cx.arg(1) == 0 && flags & AT_EMPTY_PATH != 0 {
        Vec::new()
    } else {
        cx.path(1)?
    };
    cx.target_at(cx.fd(0), &path, flags, !no_follow(flags)).await
}

pub async fn newfstatat(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.int(3);
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0 {
        return Err(Errno::EINVAL);
    }
    match resolve(cx, flags).await? {
        Target::Native => Ok(Reply::Passthrough),
        Target::Host(file) if cx.task.creds().is_some() => {
            owners::stat(cx, file.as_path(), !no_follow(flags) || file.is_open, cx.arg(2))
        }
        Target::Host(file) => cx.with_paths(&[(1, &shown(&file))]).await,
        Target::Virtual(place) => put_stat(cx, &place, cx.arg(2)).await,
    }
}

/// Where the attributes of a file are. One of umvu's commands has those of the host's command that it replaces: test
/// suites of file systems ask whether fusermount3 is set-user-id, and do nothing if it is not.
fn shown(file: &HostFile) -> Vec<u8> {
    match file.mount.replaced() {
        Some(path) => path.into_os_string().into_vec(),
        None => file.to_vec(),
    }
}

pub async fn fstat(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.open_file(cx.fd(0)) else {
        return match cx.task.creds() {
            Some(_) => owners::stat(cx, &cx.task.fd_link(cx.fd(0)), true, cx.arg(1)).map_err(no_such_fd),
            None => Ok(Reply::Passthrough),
        };
    };
    put_stat(cx, &open.place, cx.arg(1)).await
}

/// A link below /proc/PID/fd that is not there means a descriptor that is not open.
fn no_such_fd(errno: Errno) -> Errno {
    if errno == Errno::ENOENT { Errno::EBADF } else { errno }
}

async fn put_stat(cx: &Ctx, place: &VirtualPlace, address: u64) -> Result<Reply, Errno> {
    permits(cx, place)?;
    let attr = place.node().attr(cx.cx(), AttrQuery::default()).await?;
    cx.write_value(address, &stat(&attr, place.mount.dev()))?;
    Ok(Reply::Return(0))
}

/// May the caller look at files of this mount at all?
fn permits(cx: &Ctx, place: &VirtualPlace) -> Result<(), Errno> {
    place.mount.fs().map_or(Ok(()), |fs| fs.permits(cx.cx()))
}

fn stat(attr: &Attr, dev: u64) -> Stat {
    Stat {
        st_dev: dev,
        st_ino: attr.ino,
        st_nlink: attr.nlink.into(),
        st_mode: attr.mode,
        st_uid: attr.uid,
        st_gid: attr.gid,
        st_rdev: wide_dev(attr.rdev),
        st_size: attr.size as i64,
        st_blksize: attr.blksize.into(),
        st_blocks: attr.blocks as i64,
        st_atime: attr.atime.sec,
        st_atime_nsec: attr.atime.nsec.into(),
        st_mtime: attr.mtime.sec,
        st_mtime_nsec: attr.mtime.nsec.into(),
        st_ctime: attr.ctime.sec,
        st_ctime_nsec: attr.ctime.nsec.into(),
        ..zerocopy::FromZeros::new_zeroed()
    }
}

/// The kernel's 32-bit device number (`new_encode_dev`) as `dev_t` of glibc's makedev(3).
pub fn wide_dev(dev: u32) -> u64 {
    let (major, minor) = split_dev(dev);
    libc::makedev(major, minor)
}

pub async fn statx(cx: &Ctx) -> Result<Reply, Errno> {
    let (flags, mask) = (cx.int(2), cx.int(3));
    let known = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC;
    if flags & !known != 0
        || flags & (AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC) == AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC
    {
        return Err(Errno::EINVAL);
    }
    if mask & 0x8000_0000 != 0 {
        return Err(Errno::EINVAL);
    }
    let place = match resolve(cx, flags).await? {
        Target::Native => return Ok(Reply::Passthrough),
        Target::Host(file) if cx.task.creds().is_some() => {
            return owners::statx(cx, file.as_path(), !no_follow(flags) || file.is_open);
        }
        Target::Host(file) => return cx.with_paths(&[(1, &shown(&file))]).await,
        Target::Virtual(place) => place,
    };
    let query = AttrQuery {
        mask: AttrMask::from_bits_truncate(mask),
        force: flags & AT_STATX_FORCE_SYNC != 0,
        cached: flags & AT_STATX_DONT_SYNC != 0,
    };
    let shown = match permits(cx, &place) {
        // Who asks for nothing is told where the file is (`fuse_getattr`).
        Err(_) if mask == 0 => Statx {
            stx_mask: STATX_MNT_ID,
            ..extended_stat(&Attr::default(), &place, mask)
        },
        Err(errno) => return Err(errno),
        Ok(()) => extended_stat(&place.node().attr(cx.cx(), query).await?, &place, mask),
    };
    cx.write_value(cx.arg(4), &shown)?;
    Ok(Reply::Return(0))
}

fn extended_stat(attr: &Attr, place: &VirtualPlace, asked: u32) -> Statx {
    let time = |t: Time| StatxTimestamp {
        tv_sec: t.sec,
        tv_nsec: t.nsec,
        pad: 0,
    };
    let (rmajor, rminor) = split_dev(attr.rdev);
    let dev = place.mount.dev();
    let is_root = place.dentry.is_root();
    let (mount_mask, mount_id) = if asked & STATX_MNT_ID_UNIQUE != 0 {
        (STATX_MNT_ID_UNIQUE, place.mount.unique_id())
    } else {
        (STATX_MNT_ID, place.mount.id().into())
    };
    Statx {
        stx_mask: STATX_BASIC_STATS | mount_mask | if attr.btime.is_some() { STATX_BTIME } else { 0 },
        stx_blksize: attr.blksize,
        stx_attributes: if is_root { STATX_ATTR_MOUNT_ROOT } else { 0 },
        stx_attributes_mask: STATX_ATTRIBUTES,
        stx_nlink: attr.nlink,
        stx_uid: attr.uid,
        stx_gid: attr.gid,
        stx_mode: attr.mode as u16,
        stx_ino: attr.ino,
        stx_size: attr.size,
        stx_blocks: attr.blocks,
        stx_atime: time(attr.atime),
        stx_btime: time(attr.btime.unwrap_or_default()),
        stx_ctime: time(attr.ctime),
        stx_mtime: time(attr.mtime),
        stx_rdev_major: rmajor,
        stx_rdev_minor: rminor,
        stx_dev_major: libc::major(dev),
        stx_dev_minor: libc::minor(dev),
        stx_mnt_id: mount_id,
        ..zerocopy::FromZeros::new_zeroed()
    }
}

/// faccessat(2), which has no flags, and faccessat2(2).
pub async fn faccessat(cx: &Ctx) -> Result<Reply, Errno> {
    const AT_EACCESS: u32 = libc::AT_EACCESS as u32;
    let flags = if i64::from(cx.call.nr) == libc::SYS_faccessat2 {
        cx.int(3)
    } else {
        0
    };
    let Some(mask) = Access::from_bits(cx.int(2)) else {
        return Err(Errno::EINVAL);
    };
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_EACCESS) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & AT_EACCESS == 0 && cx.task.creds().is_some() {
        cx.act_as_real();
    }
    let place = match resolve(cx, flags).await? {
        Target::Native => return Ok(Reply::Passthrough),
        Target::Host(file) => return host::access(cx, &file, mask, flags).await,
        Target::Virtual(place) => place,
    };
    let kind = place.node().kind();
    if mask.contains(Access::WRITE) && matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink) {
        check_writable(&place)?;
    }
    if mask.contains(Access::EXECUTE) && kind == FileKind::Regular && place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    place.node().access(cx.cx(), mask).await?;
    Ok(Reply::Return(0))
}

async fn change(cx: &Ctx, place: &VirtualPlace, change: SetAttr<'_>) -> Result<Reply, Errno> {
    check_writable(place)?;
    place.node().setattr(cx.cx(), change).await?;
    if change.mode.is_some()
        && place.node().kind() == FileKind::Directory
        && let Some((parent, name)) = place.dentry.named()
    {
        // As by `fuse_setattr`: who may enter it may have changed.
        parent.node().doubt(&name);
    }
    place.happened(events_of(&change));
    Ok(Reply::Return(0))
}

/// As the kernel's `fsnotify_change`.
fn events_of(change: &SetAttr<'_>) -> Events {
    let mut events = Events::empty();
    events.set(
        Events::ATTRIB,
        change.uid.is_some() || change.gid.is_some() || change.mode.is_some(),
    );
    events.set(Events::MODIFY, change.size.is_some());
    events |= match (change.atime, change.mtime) {
        (Some(_), Some(_)) => Events::ATTRIB,
        (Some(_), None) => Events::ACCESS,
        (None, Some(_)) => Events::MODIFY,
        (None, None) => Events::empty(),
    };
    events
}

fn mode_change(mode: u32) -> SetAttr<'static> {
    SetAttr {
        mode: Some(mode & 0o7777),
        ..SetAttr::default()
    }
}

/// fchmodat(2), which has no flags, and fchmodat2(2).
pub async fn fchmodat(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = if i64::from(cx.call.nr) == libc::SYS_fchmodat2 {
        cx.int(3)
    } else {
        0
    };
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    match resolve(cx, flags).await? {
        Target::Native => Ok(Reply::Passthrough),
        Target::Host(file) => {
            file.check_writable()?;
            match cx.task.creds() {
                Some(creds) => {
                    let follow = !no_follow(flags) || file.is_open;
                    owners::chmod(cx, &creds, file.as_path(), follow, cx.int(2))
                }
                None => cx.with_paths(&[(1, &file)]).await,
            }
        }
        Target::Virtual(place) if place.node().kind() == FileKind::Symlink => Err(Errno::EOPNOTSUPP),
        Target::Virtual(place) => change(cx, &place, mode_change(cx.int(2))).await,
    }
}

pub async fn fchmod(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.open_file(cx.fd(0)) else {
        cx.check_fd_writable(cx.fd(0))?;
        return match cx.task.creds() {
            Some(creds) => owners::chmod(cx, &creds, &cx.task.fd_link(cx.fd(0)), true, cx.int(1)).map_err(no_such_fd),
            None => Ok(Reply::Passthrough),
        };
    };
    not_path_only(&open)?;
    change(cx, &open.place, mode_change(cx.int(1))).await
}

/// −1 leaves an id alone.
fn owner_change(uid: u32, gid: u32) -> SetAttr<'static> {
    let id = |n: u32| (n != u32::MAX).then_some(n);
    SetAttr {
        uid: id(uid),
        gid: id(gid),
        ..SetAttr::default()
    }
}

pub async fn fchownat(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.int(4);
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    match resolve(cx, flags).await? {
        Target::Native => Ok(Reply::Passthrough),
        Target::Host(file) => {
            file.check_writable()?;
            match cx.task.creds() {
                Some(creds) => {
                    let follow = !no_follow(flags) || file.is_open;
                    owners::chown(cx, &creds, file.as_path(), follow, [cx.int(2), cx.int(3)])
                }
                None => cx.with_paths(&[(1, &file)]).await,
            }
        }
        Target::Virtual(place) => change(cx, &place, owner_change(cx.int(2), cx.int(3))).await,
    }
}

pub async fn fchown(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.open_file(cx.fd(0)) else {
        cx.check_fd_writable(cx.fd(0))?;
        return match cx.task.creds() {
            Some(creds) => {
                let path = cx.task.fd_link(cx.fd(0));
                owners::chown(cx, &creds, &path, true, [cx.int(1), cx.int(2)]).map_err(no_such_fd)
            }
            None => Ok(Reply::Passthrough),
        };
    };
    not_path_only(&open)?;
    change(cx, &open.place, owner_change(cx.int(1), cx.int(2))).await
}

/// utimensat(2); with a null path it is futimens(3).
pub async fn utimensat(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.int(3);
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let place = if cx.arg(1) == 0 && flags & AT_EMPTY_PATH == 0 {
        let Some(open) = cx.open_file(cx.fd(0)) else {
            cx.check_fd_writable(cx.fd(0))?;
            return Ok(Reply::Passthrough);
        };
        not_path_only(&open)?;
        open.place.clone()
    } else {
        match resolve(cx, flags).await? {
            Target::Native => return Ok(Reply::Passthrough),
            Target::Host(file) => return host::change(cx, 1, &file).await,
            Target::Virtual(place) => place,
        }
    };
    let times = if cx.arg(2) == 0 {
        [Some(SetTime::Now); 2]
    } else {
        let times: [Timespec; 2] = cx.read_value(cx.arg(2))?;
        [set_time(times[0])?, set_time(times[1])?]
    };
    set_times(cx, &place, times).await
}

fn set_time(time: Timespec) -> Result<Option<SetTime>, Errno> {
    match time.tv_nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        nsec @ 0..=999_999_999 => Ok(Some(SetTime::At(Time {
            sec: time.tv_sec,
            nsec: nsec as u32,
        }))),
        _ => Err(Errno::EINVAL),
    }
}

async fn set_times(cx: &Ctx, place: &VirtualPlace, [atime, mtime]: [Option<SetTime>; 2]) -> Result<Reply, Errno> {
    if atime.is_none() && mtime.is_none() {
        return Ok(Reply::Return(0));
    }
    change(
        cx,
        place,
        SetAttr {
            atime,
            mtime,
            ..SetAttr::default()
        },
    )
    .await
}

/// utime(2): seconds.
pub async fn utime(cx: &Ctx) -> Result<Reply, Errno> {
    let times = if cx.arg(1) == 0 {
        [Some(SetTime::Now); 2]
    } else {
        let times: Utimbuf = cx.read_value(cx.arg(1))?;
        [times.actime, times.modtime].map(|sec| Some(SetTime::At(Time { sec, nsec: 0 })))
    };
    by_old_path(cx, CWD, 0, times).await
}

fn microseconds(cx: &Ctx, address: u64) -> Result<[Option<SetTime>; 2], Errno> {
    if address == 0 {
        return Ok([Some(SetTime::Now); 2]);
    }
    let times: [Timeval; 2] = cx.read_value(address)?;
    if times.iter().any(|t| !(0..1_000_000).contains(&t.tv_usec)) {
        return Err(Errno::EINVAL);
    }
    Ok(times.map(|t| {
        Some(SetTime::At(Time {
            sec: t.tv_sec,
            nsec: t.tv_usec as u32 * 1000,
        }))
    }))
}

pub async fn utimes(cx: &Ctx) -> Result<Reply, Errno> {
    let times = microseconds(cx, cx.arg(1))?;
    by_old_path(cx, CWD, 0, times).await
}

pub async fn futimesat(cx: &Ctx) -> Result<Reply, Errno> {
    let times = microseconds(cx, cx.arg(2))?;
    if cx.arg(1) == 0 {
        let Some(open) = cx.open_file(cx.fd(0)) else {
            return Ok(Reply::Passthrough);
        };
        return set_times(cx, &open.place, times).await;
    }
    by_old_path(cx, cx.fd(0), 1, times).await
}

async fn by_old_path(cx: &Ctx, dirfd: i32, arg: usize, times: [Option<SetTime>; 2]) -> Result<Reply, Errno> {
    match cx.target(dirfd, &cx.path(arg)?, true).await? {
        Target::Native => Ok(Reply::Passthrough),
        Target::Host(file) => host::change(cx, arg, &file).await,
        Target::Virtual(place) => set_times(cx, &place, times).await,
    }
}

pub async fn truncate(cx: &Ctx) -> Result<Reply, Errno> {
    let size = cx.arg(1);
    match cx.target(CWD, &cx.path(0)?, true).await? {
        Target::Native => Ok(Reply::Passthrough),
        Target::Host(file) => host::change(cx, 0, &file).await,
        Target::Virtual(place) => {
            if size > i64::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            match place.node().kind() {
                FileKind::Regular => {}
                FileKind::Directory => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
            check_writable(&place)?;
            place.node().permission(cx.cx(), Access::WRITE).await?;
            let _opening = lease::opening(cx, &place, OpenFlags::WRONLY).await?;
            change(
                cx,
                &place,
                SetAttr {
                    size: Some(size),
                    ..SetAttr::default()
                },
            )
            .await
        }
    }
}

pub async fn statfs(cx: &Ctx) -> Result<Reply, Errno> {
    match cx.target(CWD, &cx.path(0)?, true).await? {
        Target::Native => Ok(Reply::Passthrough),
        Target::Host(file) => {
            let reply = cx.with_paths(&[(0, &file)]).await?;
            if matches!(reply, Reply::Return(0)) && file.mount.flags() != MountFlags::empty() {
                let mut stat: Statfs = cx.read_value(cx.arg(1))?;
                stat.f_flags |= statfs_flags(file.mount.flags());
                cx.write_value(cx.arg(1), &stat)?;
            }
            Ok(reply)
        }
        Target::Virtual(place) => put_statfs(cx, &place).await,
    }
}

pub async fn fstatfs(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.open_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    put_statfs(cx, &open.place).await
}

async fn put_statfs(cx: &Ctx, place: &VirtualPlace) -> Result<Reply, Errno> {
    let stat = place.node().statfs(cx.cx()).await?;
    cx.write_value(cx.arg(1), &file_system_stat(&stat, &place.mount))?;
    Ok(Reply::Return(0))
}

fn file_system_stat(stat: &StatFs, mount: &Mount) -> Statfs {
    let dev = mount.dev();
    Statfs {
        f_type: stat.magic as i64,
        f_bsize: stat.bsize as i64,
        f_blocks: stat.blocks,
        f_bfree: stat.bfree,
        f_bavail: stat.bavail,
        f_files: stat.files,
        f_ffree: stat.ffree,
        f_fsid: [dev as i32, (dev >> 32) as i32],
        f_namelen: stat.namelen as i64,
        f_frsize: stat.frsize as i64,
        f_flags: statfs_flags(mount.flags()),
        ..zerocopy::FromZeros::new_zeroed()
    }
}

/// `ST_*` of statvfs(3), with the kernel's `ST_VALID`.
fn statfs_flags(flags: MountFlags) -> i64 {
    const ST_VALID: i64 = 0x20;
    const ST_RELATIME: i64 = 0x1000;
    // The low bits (rdonly, nosuid, nodev, noexec, synchronous) and the two atime bits have mount(2)'s values.
    let same = MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC
        | MountFlags::SYNCHRONOUS
        | MountFlags::NOATIME
        | MountFlags::NODIRATIME;
    let relatime = if flags.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME) {
        0
    } else {
        ST_RELATIME
    };
    ST_VALID | relatime | (flags & same).bits() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers() {
        // 10:229, and a minor number that needs its high bits.
        assert_eq!(split_dev(10 << 8 | 229), (10, 229));
        assert_eq!(
            split_dev((0x12345 & 0xff) | (8 << 8) | ((0x12345 & !0xff) << 12)),
            (8, 0x12345)
        );
    }

    #[test]
    fn times_of_utimensat() {
        let time = |tv_nsec| Timespec { tv_sec: 5, tv_nsec };
        assert_eq!(set_time(time(UTIME_NOW)), Ok(Some(SetTime::Now)));
        assert_eq!(set_time(time(UTIME_OMIT)), Ok(None));
        assert_eq!(set_time(time(7)), Ok(Some(SetTime::At(Time { sec: 5, nsec: 7 }))));
        assert_eq!(set_time(time(1_000_000_000)), Err(Errno::EINVAL));
    }
}
