//! Names: mknod, symlink, link, unlink, rename, readlink.

use fsmodules::api::{Access, AttrQuery, Errno, FileKind, Name, RenameFlags};

use crate::trap::Reply;
use crate::view::{Events, Found, Last, Place, VirtualPlace, WalkFlags};

use super::context::{CWD, NameIn, Slot, Target};
use super::{Ctx, host, mem, procfs, protected};

pub async fn mknodat(cx: &Ctx) -> Result<Reply, Errno> {
    let slot = match cx.new_slot(cx.fd(0), &cx.path(1)?).await? {
        Slot::Native => return Ok(Reply::Passthrough),
        Slot::Host(name) => return host::make(cx, 1, &name).await,
        Slot::Virtual(slot) => slot,
    };
    let mode = if cx.int(2) & libc::S_IFMT == 0 {
        cx.int(2) | libc::S_IFREG
    } else {
        cx.int(2)
    };
    if slot.child.is_some() {
        return Err(Errno::EEXIST);
    }
    if slot.slash {
        return Err(Errno::ENOENT);
    }
    let kind = FileKind::from_mode(mode);
    match kind {
        Some(FileKind::Regular | FileKind::Fifo | FileKind::Socket) => {}
        // Making device nodes takes CAP_MKNOD.
        Some(FileKind::CharDevice | FileKind::BlockDevice) if cx.is_root() => {}
        // But for the whiteout of overlays.
        Some(FileKind::CharDevice) if cx.int(3) == 0 => {}
        Some(FileKind::CharDevice | FileKind::BlockDevice | FileKind::Directory) => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    }
    slot.check_writable()?;
    slot.node().mknod(cx.cx(), &slot.name, mode, cx.int(3)).await?;
    slot.dir
        .name_happened(&slot.name, kind.unwrap_or(FileKind::Regular), Events::CREATE);
    Ok(Reply::Return(0))
}

pub async fn symlinkat(cx: &Ctx) -> Result<Reply, Errno> {
    let target = cx.path(0)?;
    let slot = match cx.new_slot(cx.fd(1), &cx.path(2)?).await? {
        Slot::Native => return Ok(Reply::Passthrough),
        Slot::Host(name) => return host::make(cx, 2, &name).await,
        Slot::Virtual(slot) => slot,
    };
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    if slot.child.is_some() {
        return Err(Errno::EEXIST);
    }
    if slot.slash {
        return Err(Errno::ENOENT);
    }
    slot.check_writable()?;
    slot.node().symlink(cx.cx(), &slot.name, &target).await?;
    slot.dir.name_happened(&slot.name, FileKind::Symlink, Events::CREATE);
    Ok(Reply::Return(0))
}

pub async fn linkat(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.int(4);
    if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & libc::AT_SYMLINK_FOLLOW as u32 != 0;
    let old = cx.target_at(cx.fd(0), &cx.path(1)?, flags, follow).await?;
    let new = match cx.new_slot(cx.fd(2), &cx.path(3)?).await {
        Ok(new) => new,
        // On the host, nobody has looked yet whether there is something to link; that error comes first.
        Err(errno) if !matches!(old, Target::Virtual(_)) => {
            let flags = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
            let found = cx.walk(cx.fd(0), &cx.path(1)?, flags).await?;
            return Err(found.place.map_or(Errno::ENOENT, |_| errno));
        }
        Err(errno) => return Err(errno),
    };
    match (old, new) {
        (Target::Native, Slot::Native) => Ok(Reply::Passthrough),
        (Target::Native | Target::Host(_), Slot::Native | Slot::Host(_)) => host::link(cx, flags).await,
        (Target::Virtual(old), Slot::Virtual(new)) => link(cx, &old, &new).await,
        (Target::Virtual(_), _) => {
            let found = cx.walk(cx.fd(2), &cx.path(3)?, WalkFlags::PARENT).await?;
            Err(found.place.map_or(Errno::EXDEV, |_| Errno::EEXIST))
        }
        (_, Slot::Virtual(new)) => {
            let flags = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
            let found = cx.walk(cx.fd(0), &cx.path(1)?, flags).await?;
            Err(match (found.place, new.child) {
                (None, _) => Errno::ENOENT,
                (_, Some(_)) => Errno::EEXIST,
                _ => Errno::EXDEV,
            })
        }
    }
}

async fn link(cx: &Ctx, old: &VirtualPlace, new: &NameIn) -> Result<Reply, Errno> {
    if new.child.is_some() {
        return Err(Errno::EEXIST);
    }
    if new.slash {
        return Err(Errno::ENOENT);
    }
    new.check_writable()?;
    if !old.mount.same_mount(&new.dir.mount) {
        return Err(Errno::EXDEV);
    }
    if old.node().kind() == FileKind::Directory {
        return Err(Errno::EPERM);
    }
    protected::check_link(cx, old).await?;
    new.node().link(cx.cx(), old.node(), &new.name).await?;
    old.happened_itself(Events::ATTRIB);
    new.dir.name_happened(&new.name, old.node().kind(), Events::CREATE);
    Ok(Reply::Return(0))
}

pub async fn unlinkat(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.int(2);
    if flags & !(libc::AT_REMOVEDIR as u32) != 0 {
        return Err(Errno::EINVAL);
    }
    remove(cx, cx.fd(0), 1, flags != 0).await
}

pub async fn rmdir(cx: &Ctx) -> Result<Reply, Errno> {
    remove(cx, CWD, 0, true).await
}

async fn remove(cx: &Ctx, dirfd: i32, arg: usize, directory: bool) -> Result<Reply, Errno> {
    let mut slot = match cx.slot(dirfd, &cx.path(arg)?).await {
        Ok(Slot::Native) => return Ok(Reply::Passthrough),
        Ok(Slot::Host(name)) => return host::remove(cx, arg, &name).await,
        Ok(Slot::Virtual(slot)) => slot,
        // The last component is "." or "..", which unlink(2) and rmdir(2) tell apart.
        Err(Errno::EINVAL | Errno::ENOTEMPTY | Errno::EBUSY) if !directory => return Err(Errno::EISDIR),
        Err(errno) => return Err(errno),
    };
    slot.check_writable()?;
    let child = child(&slot)?;
    let is_directory = child.node().kind() == FileKind::Directory;
    if (directory || slot.slash) && !is_directory {
        return Err(Errno::ENOTDIR);
    }
    if !directory && is_directory {
        return Err(Errno::EISDIR);
    }
    if cx.hv.mounts.is_mountpoint(&child) {
        return Err(Errno::EBUSY);
    }
    mem::close_unmapped(cx, &cx.task).await;
    let last = is_last_name(cx, &child).await;
    if directory {
        slot.node().rmdir(cx.cx(), &slot.name).await?;
    } else {
        slot.node().unlink(cx.cx(), &slot.name).await?;
    }
    slot.dir.dentry.forget(&slot.name);
    let kind = child.node().kind();
    slot.child = None;
    if kind != FileKind::Directory {
        child.happened_itself(Events::ATTRIB);
    }
    if last {
        child.name_was_last();
    }
    slot.dir.name_happened(&slot.name, kind, Events::DELETE);
    Ok(Reply::Return(0))
}

/// Is the name that it was found by the only one that the file has? Asked for those who watch the file.
async fn is_last_name(cx: &Ctx, place: &VirtualPlace) -> bool {
    if !place.is_watched() {
        return false;
    }
    let attr = place.node().attr(cx.cx(), AttrQuery::KNOWN).await;
    place.node().kind() == FileKind::Directory || attr.is_ok_and(|attr| attr.nlink <= 1)
}

/// The existing file of that name, which must be of the same mount: else it is a mountpoint.
fn child(slot: &NameIn) -> Result<VirtualPlace, Errno> {
    match &slot.child {
        None => Err(Errno::ENOENT),
        Some(Place::Virtual(place)) if place.mount.same_mount(&slot.dir.mount) => Ok(place.clone()),
        Some(_) => Err(Errno::EBUSY),
    }
}

/// renameat(2), which has no flags, and renameat2(2).
pub async fn renameat2(cx: &Ctx) -> Result<Reply, Errno> {
    let raw = if i64::from(cx.call.nr) == libc::SYS_renameat2 {
        cx.int(4)
    } else {
        0
    };
    let Some(flags) = RenameFlags::from_bits(raw) else {
        return Err(Errno::EINVAL);
    };
    if flags.contains(RenameFlags::EXCHANGE) && flags != RenameFlags::EXCHANGE {
        return Err(Errno::EINVAL);
    }
    let old = busy_if_special(cx.unseen_slot(cx.fd(0), &cx.path(1)?).await)?;
    let new = match busy_if_special(cx.unseen_slot(cx.fd(2), &cx.path(3)?).await) {
        Ok(new) => new,
        Err(errno) => {
            // On the host, nobody has looked yet whether the old name's directory is there; that error comes first.
            if !matches!(old, Slot::Virtual(_)) {
                cx.walk(cx.fd(0), &cx.path(1)?, WalkFlags::PARENT).await?;
            }
            return Err(errno);
        }
    };
    match (old, new) {
        (Slot::Native, Slot::Native) => Ok(Reply::Passthrough),
        (Slot::Native | Slot::Host(_), Slot::Native | Slot::Host(_)) => host::rename(cx).await,
        (Slot::Virtual(old), Slot::Virtual(new)) => rename(cx, old, new, flags).await,
        _ => Err(Errno::EXDEV),
    }
}

/// rename(2) of ".", ".." or a root is busy.
fn busy_if_special(slot: Result<Slot, Errno>) -> Result<Slot, Errno> {
    slot.map_err(|errno| {
        if matches!(errno, Errno::EINVAL | Errno::ENOTEMPTY) {
            Errno::EBUSY
        } else {
            errno
        }
    })
}

async fn rename(cx: &Ctx, mut old: NameIn, mut new: NameIn, flags: RenameFlags) -> Result<Reply, Errno> {
    if !old.dir.mount.same_mount(&new.dir.mount) {
        return Err(Errno::EXDEV);
    }
    old.check_writable()?;
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    cx.see(&mut old, WalkFlags::empty()).await?;
    let moved = child(&old)?;
    let target = if exchange { WalkFlags::empty() } else { WalkFlags::FRESH };
    cx.see(&mut new, target).await?;
    let moved_is_directory = moved.node().kind() == FileKind::Directory;
    if flags.contains(RenameFlags::NOREPLACE) && new.child.is_some() {
        return Err(Errno::EEXIST);
    }
    if exchange && new.child.is_none() {
        return Err(Errno::ENOENT);
    }
    if !moved_is_directory && (old.slash || new.slash && !exchange) {
        return Err(Errno::ENOTDIR);
    }
    // A directory cannot become its own descendant, nor replace its own ancestor.
    if moved_is_directory && new.dir.dentry.is_within(&moved.dentry) {
        return Err(Errno::EINVAL);
    }
    if cx.hv.mounts.is_mountpoint(&moved) {
        return Err(Errno::EBUSY);
    }
    let victim = match &new.child {
        None => None,
        Some(_) => {
            let victim = child(&new)?;
            check_victim(cx, &old, &moved, &victim, flags)?;
            if victim.node().id() == moved.node().id() {
                return Ok(Reply::Return(0));
            }
            Some(victim)
        }
    };
    if old.node().id() != new.node().id() {
        let exchanged = victim.as_ref().filter(|_| exchange);
        for file in [&moved].into_iter().chain(exchanged) {
            // A directory's ".." changes: one must be allowed to write to it.
            if file.node().kind() == FileKind::Directory {
                file.node().permission(cx.cx(), Access::WRITE).await?;
            }
        }
    }
    mem::close_unmapped(cx, &cx.task).await;
    let last = match &victim {
        Some(victim) => is_last_name(cx, victim).await,
        None => false,
    };
    old.node()
        .rename(cx.cx(), &old.name, new.dir.node(), &new.name, flags)
        .await?;
    move_dentries(&old, &new, flags);
    new.child = None;
    let (replaced, exchanged) = if exchange { (None, victim) } else { (victim, None) };
    tell_of_move(&old, &new, &moved, replaced.as_ref());
    if let Some(other) = exchanged {
        tell_of_move(&new, &old, &other, None);
    }
    if let Some(victim) = replaced.filter(|_| last) {
        victim.name_was_last();
    }
    Ok(Reply::Return(0))
}

/// As the kernel's `fsnotify_move`.
fn tell_of_move(from: &NameIn, to: &NameIn, moved: &VirtualPlace, replaced: Option<&VirtualPlace>) {
    let kind = moved.node().kind();
    from.dir.name_moved(&from.name, kind, &to.dir, &to.name);
    if let Some(replaced) = replaced {
        replaced.happened_itself(Events::ATTRIB);
    }
    moved.happened_itself(Events::MOVE_SELF);
}

fn check_victim(
    cx: &Ctx,
    old: &NameIn,
    moved: &VirtualPlace,
    victim: &VirtualPlace,
    flags: RenameFlags,
) -> Result<(), Errno> {
    let directory = |place: &VirtualPlace| place.node().kind() == FileKind::Directory;
    if directory(victim) && old.dir.dentry.is_within(&victim.dentry) {
        return Err(if flags.contains(RenameFlags::EXCHANGE) {
            Errno::EINVAL
        } else {
            Errno::ENOTEMPTY
        });
    }
    if !flags.contains(RenameFlags::EXCHANGE) {
        match (directory(moved), directory(victim)) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
    }
    if cx.hv.mounts.is_mountpoint(victim) {
        Err(Errno::EBUSY)
    } else {
        Ok(())
    }
}

/// Whoever stands in what was moved, or has it open, stands there now.
fn move_dentries(old: &NameIn, new: &NameIn, flags: RenameFlags) {
    let (from, to): ((_, &Name), (_, &Name)) = ((&old.dir.dentry, &old.name), (&new.dir.dentry, &new.name));
    if flags.contains(RenameFlags::EXCHANGE) {
        from.0.exchange(from.1, to.0, to.1);
    } else {
        from.0.rename(from.1, to.0, to.1);
    }
}

pub async fn readlinkat(cx: &Ctx) -> Result<Reply, Errno> {
    let path = cx.path(1)?;
    if path.is_empty() {
        // The link that an O_PATH descriptor refers to.
        return match cx.open_file(cx.fd(0)) {
            Some(open) => put_link(cx, &open.place).await,
            None => Ok(Reply::Passthrough),
        };
    }
    if !procfs::may_matter(&path) && cx.is_quick(cx.fd(0), &path) {
        return Ok(Reply::Passthrough);
    }
    let found = cx.walk(cx.fd(0), &path, WalkFlags::empty()).await?;
    if let Some(target) = procfs::read_link(cx, &found) {
        return put_target(cx, &target);
    }
    match found {
        Found { native: true, .. } => Ok(Reply::Passthrough),
        Found {
            place: Some(Place::Virtual(place)),
            ..
        } => put_link(cx, &place).await,
        Found {
            place: Some(Place::Host(place)),
            ..
        } => cx.with_paths(&[(1, &place.bytes())]).await,
        Found {
            parent: Some(Place::Host(parent)),
            last: Last::Name(name),
            ..
        } => cx.with_paths(&[(1, &parent.join(&name))]).await,
        _ => Err(Errno::ENOENT),
    }
}

async fn put_link(cx: &Ctx, place: &VirtualPlace) -> Result<Reply, Errno> {
    cx.answered(place);
    if place.node().kind() != FileKind::Symlink {
        return Err(Errno::EINVAL);
    }
    let target = place.node().readlink(cx.cx()).await?;
    put_target(cx, &target)
}

/// Cut to the buffer's size, without a NUL, as readlink(2) does.
fn put_target(cx: &Ctx, target: &[u8]) -> Result<Reply, Errno> {
    let size = cx.fd(3);
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    let len = target.len().min(size as usize);
    cx.write(cx.arg(2), &target[..len])?;
    Ok(Reply::Return(len as i64))
}
