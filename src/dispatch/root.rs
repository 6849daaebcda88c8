//! The caller's root directory: chroot(2) and pivot_root(2). As with mounts, everybody in a view may change what the
//! view shows.

use std::rc::Rc;

use fsmodules::api::{Access, Errno, FileKind, errno};

use crate::trap::Reply;
use crate::view::{Place, WalkFlags};

use super::Ctx;
use super::context::CWD;

pub async fn chroot(cx: &Ctx) -> Result<Reply, Errno> {
    let place = directory(cx, &cx.path(0)?).await?;
    cx.task.fs().root.replace(place);
    Ok(Reply::Return(0))
}

/// pivot_root(2): (new root, where to put the old one).
///
/// Both must be directories, the new one a mount's root and the second at or below it. Everybody whose root or working
/// directory is the old one is moved to the new one.
pub async fn pivot_root(cx: &Ctx) -> Result<Reply, Errno> {
    let new = directory(cx, &cx.path(0)?).await?;
    let put_old = directory(cx, &cx.path(1)?).await?;
    let mounts = &cx.hv.mounts;
    let old = cx.task.fs().root.borrow().clone();
    if [&new, &put_old]
        .iter()
        .any(|place| Rc::ptr_eq(place.mount(), old.mount()))
    {
        return Err(Errno::EBUSY);
    }
    let (Some(mount), Some(_)) = (mounts.mount_at(&new), mounts.reachable_path(&put_old, &new)) else {
        return Err(Errno::EINVAL);
    };
    mounts.pivot(&mount, &old, &put_old)?;
    for task in cx.hv.tasks.borrow().values() {
        let fs = task.fs();
        if fs.root.borrow().same(&old) {
            fs.root.replace(new.clone());
        }
        let worked_there = fs.cwd.borrow().same(&old);
        if worked_there {
            fs.set_cwd(new.clone());
            fs.moved.set(true);
        }
    }
    Ok(Reply::Return(0))
}

async fn directory(cx: &Ctx, path: &[u8]) -> Result<Place, Errno> {
    let found = cx.walk(CWD, path, WalkFlags::FOLLOW).await?;
    let place = found.place.ok_or(Errno::ENOENT)?;
    match &place {
        Place::Virtual(place) => {
            if place.node().kind() != FileKind::Directory {
                return Err(Errno::ENOTDIR);
            }
            place.node().access(cx.cx(), Access::EXECUTE).await?;
        }
        Place::Host(place) => {
            if !std::fs::metadata(&place.path)?.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            rustix::fs::access(&place.path, rustix::fs::Access::EXEC_OK).map_err(errno)?;
        }
    }
    Ok(place)
}
