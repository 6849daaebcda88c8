//! Directories: reading them, making them, standing in them.

use fsmodules::api::{Access, DirEntry, Errno, FileKind};

use crate::abi;
use crate::task::OpenFile;
use crate::trap::Reply;
use crate::view::{Events, Place, VirtualPlace};

use super::carrier::Way;
use super::context::{CWD, Slot};
use super::io::served;
use super::{Ctx, host};

/// A directory entry is never longer than this in a guest's buffer.
const MAX_BUFFER: usize = 1 << 20;

pub async fn getdents64(cx: &Ctx) -> Result<Reply, Errno> {
    read_entries(cx, abi::put_dirent64).await
}

/// getdents(2), of long ago.
pub async fn getdents(cx: &Ctx) -> Result<Reply, Errno> {
    read_entries(cx, abi::put_dirent).await
}

/// Appends an entry (inode, cookie, type, name) if it fits the limit.
type Put = fn(&mut Vec<u8>, usize, u64, u64, u8, &[u8]) -> bool;

async fn read_entries(cx: &Ctx, put: Put) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    if open.place.node().kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    if open.place.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let room = (cx.int(2) as usize).min(MAX_BUFFER);
    let mut pos = open.pos.lock().await;
    let mut out = Vec::new();
    let entries = match take_read_ahead(&open, *pos) {
        Some(entries) => entries,
        None => file.readdir(cx.cx(), *pos, room).await?,
    };
    for (n, entry) in entries.iter().enumerate() {
        if !put(&mut out, room, entry.ino, entry.off, entry.kind, &entry.name) {
            if out.is_empty() {
                return Err(Errno::EINVAL);
            }
            open.entries.replace((*pos, entries[n..].to_vec()));
            break;
        }
        *pos = entry.off;
    }
    open.place.happened(Events::ACCESS);
    cx.write(cx.arg(1), &out)?;
    Ok(Reply::Return(out.len() as i64))
}

/// Entries that an earlier call had no room for, if the position is still the same.
fn take_read_ahead(open: &OpenFile, pos: u64) -> Option<Vec<DirEntry>> {
    let (from, entries) = std::mem::take(&mut *open.entries.borrow_mut());
    (from == pos && !entries.is_empty()).then_some(entries)
}

pub async fn mkdirat(cx: &Ctx) -> Result<Reply, Errno> {
    match cx.new_slot(cx.fd(0), &cx.path(1)?).await? {
        Slot::Native => Ok(Reply::Passthrough),
        Slot::Host(name) => host::make(cx, 1, &name).await,
        Slot::Virtual(slot) => {
            if slot.child.is_some() {
                return Err(Errno::EEXIST);
            }
            slot.check_writable()?;
            slot.node().mkdir(cx.cx(), &slot.name, cx.int(2) & 0o1777).await?;
            slot.dir.name_happened(&slot.name, FileKind::Directory, Events::CREATE);
            Ok(Reply::Return(0))
        }
    }
}

pub async fn chdir(cx: &Ctx) -> Result<Reply, Errno> {
    let path = cx.path(0)?;
    let found = cx.walk(CWD, &path, crate::view::WalkFlags::FOLLOW).await?;
    match found.place {
        Some(Place::Virtual(place)) => enter(cx, place).await,
        Some(Place::Host(place)) if found.native => {
            let result = cx.run(cx.call.nr.into(), cx.call.args).await?;
            cx.task.fs().set_cwd(Place::Host(place));
            Ok(Reply::Return(result))
        }
        Some(Place::Host(place)) => {
            let reply = cx.with_paths(&[(0, &place.bytes())]).await?;
            if matches!(reply, Reply::Return(0)) {
                cx.task.fs().set_cwd(Place::Host(place));
            }
            Ok(reply)
        }
        None if found.native => Ok(Reply::Passthrough),
        None => Err(Errno::ENOENT),
    }
}

pub async fn fchdir(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.open_file(cx.fd(0)) else {
        let place = cx.place_of(cx.fd(0))?;
        let result = cx.run(cx.call.nr.into(), cx.call.args).await?;
        cx.task.fs().set_cwd(place);
        return Ok(Reply::Return(result));
    };
    enter(cx, open.place.clone()).await
}

/// Makes a virtual directory the working directory. The kernel believes the task to be nowhere.
async fn enter(cx: &Ctx, place: VirtualPlace) -> Result<Reply, Errno> {
    if place.node().kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    place.node().access(cx.cx(), Access::EXECUTE).await?;
    move_to(cx, Place::Virtual(place)).await?;
    Ok(Reply::Return(0))
}

/// Makes a directory the working directory, in the view and as far as the kernel has it.
pub async fn move_to(cx: &Ctx, place: Place) -> Result<(), Errno> {
    match &place {
        Place::Host(host) => kernel_moves(cx, &host.bytes()).await?,
        Place::Virtual(_) => {
            let way = Way::to(cx, cx.hv.nowhere()).await?;
            let moved = kernel_moves(cx, &way.path).await;
            way.end(cx).await?;
            moved?;
        }
    }
    cx.task.fs().set_cwd(place);
    Ok(())
}

async fn kernel_moves(cx: &Ctx, path: &[u8]) -> Result<(), Errno> {
    let slot = cx.scratch_string(path).await?;
    cx.run(libc::SYS_chdir, [slot.address, 0, 0, 0, 0, 0]).await.map(drop)
}

pub async fn getcwd(cx: &Ctx) -> Result<Reply, Errno> {
    let (address, size) = (cx.arg(0), cx.arg(1));
    let mut path = {
        let fs = cx.task.fs();
        let cwd = fs.cwd.borrow();
        let root = fs.root.borrow();
        if cwd.is_plain() && root.is_host_root() {
            return Ok(Reply::Passthrough);
        }
        let cwd = match &*cwd {
            // The kernel knows where it has been moved to meanwhile.
            Place::Host(place) => {
                let link = cx.task.look("cwd", std::fs::read_link);
                let path = link.map_err(|_| Errno::ENOENT)?;
                std::fs::symlink_metadata(&path).map_err(|_| Errno::ENOENT)?;
                cx.hv.mounts.host_place(&path, &root, Some(&place.mount))
            }
            place => place.clone(),
        };
        if let Place::Virtual(place) = &cwd
            && place.dentry.is_deleted()
        {
            return Err(Errno::ENOENT);
        }
        cx.hv.mounts.view_path(&cwd, &root)
    };
    path.push(0);
    if path.len() as u64 > size {
        return Err(Errno::ERANGE);
    }
    cx.write(address, &path)?;
    Ok(Reply::Return(path.len() as i64))
}
