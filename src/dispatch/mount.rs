//! mount(2) and umount2(2).

use std::rc::Rc;

use fsmodules::api::{Errno, File, FileKind, Layer, MountFlags, MountRequest, Op};

use crate::trap::Reply;
use crate::view::{Place, WalkFlags};

use super::context::CWD;
use super::{Ctx, upkeep};

const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MS_MOVE: u64 = 8192;
const MS_REC: u64 = 16384;
/// MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED: nothing propagates between views.
const PROPAGATION: u64 = 0xf << 17;
const MS_MGC_MASK: u64 = 0xffff_0000;
const MS_MGC_VALUE: u64 = 0xc0ed_0000;
/// Options are at most one page.
const MAX_DATA: usize = 4096;

/// mount(2): (source, target, type, flags, data).
pub async fn mount(cx: &Ctx) -> Result<Reply, Errno> {
    let mut bits = cx.arg(3);
    if bits & MS_MGC_MASK == MS_MGC_VALUE {
        bits &= !MS_MGC_MASK;
    }
    let flags = MountFlags::from_bits_truncate(bits);
    if bits & MS_REMOUNT != 0 {
        return remount(cx, flags).await;
    }
    if bits & MS_BIND != 0 {
        return bind(cx, bits & MS_REC != 0).await;
    }
    if bits & MS_MOVE != 0 {
        return move_mount(cx).await;
    }
    if bits & PROPAGATION != 0 {
        // A view is a namespace without peers: there is nobody for mounts to be propagated to, or not.
        let at = place(cx, &cx.path(1)?, true).await?;
        return match cx.hv.mounts.mount_at(&at).is_some() || is_hosts_mountpoint(&at) {
            true => Ok(Reply::Return(0)),
            false => Err(Errno::EINVAL),
        };
    }
    new_mount(cx, flags).await
}

async fn new_mount(cx: &Ctx, flags: MountFlags) -> Result<Reply, Errno> {
    let fstype = text(&cx.path(2)?)?;
    let Some(module) = cx.hv.module_for(&fstype) else {
        return Ok(Reply::Passthrough);
    };
    let source = if cx.arg(0) == 0 {
        String::new()
    } else {
        text(&cx.path(0)?)?
    };
    let flags = match cx.cx().caller.ids().fsuid {
        0 => flags,
        _ => flags | module.flags_for_users(),
    };
    let data = if cx.arg(4) == 0 { Vec::new() } else { options(cx)? };
    let path = cx.path(1)?;
    let at = place(cx, &path, true).await?;
    let target = kind(&at)?;
    let files = cx.task.files();
    let file = |fd: i32| -> Option<Rc<dyn File>> { files.get(fd)?.file.clone() };
    let layer = |path: String| -> Op<'_, Layer> { Box::pin(layer(cx, path)) };
    let request = MountRequest {
        source: &source,
        fstype: &fstype,
        flags,
        data: &data,
        path: &text(&path)?,
        target,
        layer: &layer,
        file: &file,
    };
    let fs = module.mount(cx.cx(), request).await?;
    cx.hv.mounts.mount(&at, fs, flags)?;
    Ok(Reply::Return(0))
}

/// A file of the view for a file system that is built on it.
async fn layer(cx: &Ctx, path: String) -> Result<Layer, Errno> {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    let place = place(cx, path.as_bytes(), true).await?;
    let read_only = place.mount().flags().contains(MountFlags::RDONLY);
    Ok(match place {
        Place::Virtual(place) => Layer {
            node: place.node().clone(),
            read_only,
        },
        Place::Host(place) => Layer {
            read_only: read_only
                || statvfs(&place.path).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY)),
            node: cx.hv.host_files.at(&place.path)?,
        },
    })
}

/// The NUL-terminated options, as far as a page.
fn options(cx: &Ctx) -> Result<Vec<u8>, Errno> {
    use crate::trap::GuestMemory;
    match cx.memory().read_cstr(cx.arg(4), MAX_DATA) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
        other => other,
    }
}

fn text(bytes: &[u8]) -> Result<String, Errno> {
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

async fn place(cx: &Ctx, path: &[u8], follow: bool) -> Result<Place, Errno> {
    let flags = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
    cx.walk(CWD, path, flags).await?.place.ok_or(Errno::ENOENT)
}

/// Has the host mounted something there, the root of everything included?
fn is_hosts_mountpoint(place: &Place) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let Place::Host(place) = place else { return false };
    let stat = statx(CWD, &place.path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn kind(place: &Place) -> Result<FileKind, Errno> {
    match place {
        Place::Virtual(place) => Ok(place.node().kind()),
        Place::Host(place) => {
            use std::os::unix::fs::MetadataExt;
            let meta = std::fs::symlink_metadata(&place.path)?;
            FileKind::from_mode(meta.mode()).ok_or(Errno::EINVAL)
        }
    }
}

/// Changes what a mount of the view allows; file systems keep their options.
async fn remount(cx: &Ctx, flags: MountFlags) -> Result<Reply, Errno> {
    let at = place(cx, &cx.path(1)?, true).await?;
    match cx.hv.mounts.mount_at(&at) {
        Some(mount) => {
            mount.set_flags(flags);
            Ok(Reply::Return(0))
        }
        None if matches!(at, Place::Host(_)) => Ok(Reply::Passthrough),
        None => Err(Errno::EINVAL),
    }
}

async fn bind(cx: &Ctx, recursive: bool) -> Result<Reply, Errno> {
    let source = place(cx, &cx.path(0)?, true).await?;
    let at = place(cx, &cx.path(1)?, true).await?;
    let directory = |place: &Place| kind(place).map(|kind| kind == FileKind::Directory);
    if directory(&source)? != directory(&at)? {
        return Err(Errno::ENOTDIR);
    }
    cx.hv.mounts.bind(&source, &at, recursive);
    Ok(Reply::Return(0))
}

async fn move_mount(cx: &Ctx) -> Result<Reply, Errno> {
    let source = place(cx, &cx.path(0)?, true).await?;
    let at = place(cx, &cx.path(1)?, true).await?;
    let Some(mount) = cx.hv.mounts.mount_at(&source) else {
        return if matches!(source, Place::Host(_)) {
            Ok(Reply::Passthrough)
        } else {
            Err(Errno::EINVAL)
        };
    };
    cx.hv.mounts.move_to(&mount, &at)?;
    Ok(Reply::Return(0))
}

/// umount2(2): (target, flags).
pub async fn umount2(cx: &Ctx) -> Result<Reply, Errno> {
    const KNOWN: i32 = libc::MNT_FORCE | libc::MNT_DETACH | libc::MNT_EXPIRE | libc::UMOUNT_NOFOLLOW;
    let flags = cx.fd(1);
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & libc::MNT_EXPIRE != 0 && flags & (libc::MNT_FORCE | libc::MNT_DETACH) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = cx.path(0)?;
    let walk = if flags & libc::UMOUNT_NOFOLLOW != 0 {
        WalkFlags::empty()
    } else {
        WalkFlags::FOLLOW
    };
    let found = cx.walk(CWD, &path, walk | WalkFlags::NO_CROSSING_CHECK).await?;
    let at = found.place.ok_or(Errno::ENOENT)?;
    let Some(mount) = cx.hv.mounts.mount_at(&at) else {
        return if matches!(at, Place::Host(_)) && found.native {
            Ok(Reply::Passthrough)
        } else {
            Err(Errno::EINVAL)
        };
    };
    drop(at);
    if flags & libc::MNT_FORCE != 0
        && let Some(fs) = mount.fs()
    {
        fs.abort();
    }
    if flags & libc::MNT_DETACH == 0 {
        upkeep::close_unused(&cx.hv).await;
        if cx.hv.mounts.is_busy(&mount) {
            return Err(Errno::EBUSY);
        }
        if flags & libc::MNT_EXPIRE != 0 && !mount.expire() {
            return Err(Errno::EAGAIN);
        }
        if let Some(fs) = mount.fs() {
            // As the kernel: what is dirty goes out first, and nobody hears of errors.
            let _ = fs.sync(cx.cx()).await;
        }
        if cx.hv.mounts.is_busy(&mount) {
            return Err(Errno::EBUSY);
        }
    }
    cx.hv.mounts.detach(&mount);
    Ok(Reply::Return(0))
}
