//! Calls on files of the host that the view shows elsewhere or allows less of: the kernel makes them, with the path
//! where it has the file.

use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;

use fsmodules::api::{Access, Errno, MountFlags, OpenFlags};
use rustix::fs::{Mode, OFlags};

use crate::abi::RawCall;
use crate::task::Task;
use crate::trap::Reply;
use crate::view::{Found, Mount, Mounts, WalkFlags};

use super::context::{HostFile, Slot, host_file};
use super::{Ctx, owners};

/// A call that changes the file at the path in argument `arg`.
pub async fn change(cx: &Ctx, arg: usize, file: &HostFile) -> Result<Reply, Errno> {
    file.check_writable()?;
    if let Some(creds) = cx.task.creds() {
        owners::check_change(cx, &creds, file)?;
    }
    cx.with_paths(&[(arg, file)]).await
}

/// A call that makes the name in argument `arg`.
pub async fn make(cx: &Ctx, arg: usize, name: &HostFile) -> Result<Reply, Errno> {
    name.check_makeable()?;
    match cx.task.creds() {
        Some(creds) => owners::make(cx, &creds, arg, name).await,
        None => cx.with_paths(&[(arg, name)]).await,
    }
}

/// A call that removes the name in argument `arg`.
pub async fn remove(cx: &Ctx, arg: usize, name: &HostFile) -> Result<Reply, Errno> {
    name.check_removable()?;
    match cx.task.creds() {
        Some(creds) => owners::remove(cx, &creds, arg, name).await,
        None => cx.with_paths(&[(arg, name)]).await,
    }
}

/// Tells a descriptor that was opened through a read-only mount from one that has its number later, of which nobody is
/// told: a flag that the kernel keeps, and that means nothing for reading.
const READ_ONLY_MARK: OpenFlags = OpenFlags::from_bits_retain(libc::O_DSYNC as u32);

pub fn is_marked(task: &Task, fd: i32) -> bool {
    let info = task
        .look(&format!("fdinfo/{fd}"), std::fs::read_to_string)
        .unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| OpenFlags::from_bits_retain(flags).contains(READ_ONLY_MARK))
}

/// Through which mount a descriptor of this file of the host was opened, if not through the base mount. A copy of a
/// descriptor, of which nobody is told, has the mark of the first one.
pub fn opened_through(mounts: &Mounts, task: &Task, fd: i32, path: &Path) -> Option<Rc<Mount>> {
    let through = task.files().through(fd);
    through.or_else(|| mounts.read_only(path).filter(|_| is_marked(task, fd)))
}

/// openat(2), and openat2(2), whose restrictions the walk has kept. The descriptor of a directory keeps in mind through
/// which mount it was opened.
pub async fn open(cx: &Ctx, found: &Found, file: &HostFile, flags: OpenFlags, mode: u32) -> Result<Reply, Errno> {
    let writes = flags.writable() || flags.contains(OpenFlags::TRUNC);
    let makes = flags.contains(OpenFlags::CREAT) && found.place.is_none() || flags.contains(OpenFlags::TMPFILE);
    if !flags.contains(OpenFlags::PATH) && (makes || writes && !is_special(file)) {
        file.check_writable()?;
    }
    let mut mark = OpenFlags::empty();
    mark.set(READ_ONLY_MARK, !flags.writable() && file.check_writable().is_err());
    let mut call = cx.call;
    call.nr = libc::SYS_openat as u32;
    call.args[2] = (flags | mark).bits().into();
    call.args[3] = mode.into();
    let reply = match cx.task.creds() {
        Some(creds) => owners::open(cx, &creds, call, found, file, flags).await?,
        None => cx.call_with_paths(call, &[(1, file)]).await?,
    };
    if let Reply::Return(fd @ 0..) = reply {
        cx.task.files().opened_through(fd as i32, &file.mount);
    }
    Ok(reply)
}

/// Opens a file or directory of the host that is there, for a caller who has the rights of umvu itself. Where the engine
/// can hand the caller a descriptor, umvu opens it, which takes no stop of the caller.
pub async fn open_existing(cx: &Ctx, openat: RawCall, file: &HostFile) -> Result<Reply, Errno> {
    match hand_over(cx, OFlags::from_bits_retain(openat.args[2] as u32), file) {
        Some(fd) => Ok(Reply::Return(fd.into())),
        None => cx.call_with_paths(openat, &[(1, file)]).await,
    }
}

fn hand_over(cx: &Ctx, how: OFlags, file: &HostFile) -> Option<i32> {
    let tid = cx.task.tid.get();
    if cx.task.process().confined.get() || !cx.hv.tracer.borrow().takes_fd(tid) {
        return None;
    }
    let own = (how - OFlags::CREATE) | OFlags::CLOEXEC | OFlags::NOCTTY;
    // What goes wrong, the caller shall hear from the kernel.
    let opened = rustix::fs::open(file.as_path(), own, Mode::empty()).ok()?;
    let cloexec = how.contains(OFlags::CLOEXEC);
    cx.hv
        .tracer
        .borrow_mut()
        .reply_with_fd(tid, opened.as_fd(), None, cloexec)
}

/// Writing to FIFOs, sockets and devices is no writing to the file system.
fn is_special(file: &HostFile) -> bool {
    std::fs::metadata(file.as_path()).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

/// access(2) and its family.
pub async fn access(cx: &Ctx, file: &HostFile, mask: Access, flags: u32) -> Result<Reply, Errno> {
    let reply = match cx.task.creds() {
        Some(creds) => {
            let follow = flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0;
            let effective = flags & libc::AT_EACCESS as u32 != 0;
            owners::access(cx, &creds, file.as_path(), follow, mask, effective)?;
            Reply::Return(0)
        }
        None => cx.with_paths(&[(1, file)]).await?,
    };
    if matches!(reply, Reply::Return(0)) {
        if mask.contains(Access::WRITE) && !is_special(file) {
            file.check_writable()?;
        }
        let noexec = file.mount.flags().contains(MountFlags::NOEXEC);
        if mask.contains(Access::EXECUTE) && noexec && std::fs::metadata(file.as_path()).is_ok_and(|m| m.is_file()) {
            return Err(Errno::EACCES);
        }
    }
    Ok(reply)
}

/// linkat(2) between files of the host.
pub async fn link(cx: &Ctx, flags: u32) -> Result<Reply, Errno> {
    let follow = flags & libc::AT_SYMLINK_FOLLOW as u32 != 0;
    let old_path = cx.path(1)?;
    let old = if old_path.is_empty() {
        None
    } else {
        let walk = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
        let found = cx.walk(cx.fd(0), &old_path, walk).await?;
        // A link below /proc stands for the open file, which no path names.
        host_file(&found).filter(|_| !follow || !old_path.starts_with(b"/proc/"))
    };
    let new = name(cx, cx.fd(2), &cx.path(3)?).await?;
    new.check_makeable()?;
    if let Some(creds) = cx.task.creds() {
        owners::check_link(cx, &creds, &new)?;
    }
    let Some(old) = old else {
        return cx.with_paths(&[(3, &new)]).await;
    };
    if !Rc::ptr_eq(&old.mount, &new.mount) {
        return Err(Errno::EXDEV);
    }
    cx.with_paths(&[(1, &old), (3, &new)]).await
}

/// renameat2(2) between directories of the host.
pub async fn rename(cx: &Ctx) -> Result<Reply, Errno> {
    let old = name(cx, cx.fd(0), &cx.path(1)?).await?;
    let new = name(cx, cx.fd(2), &cx.path(3)?).await?;
    if !Rc::ptr_eq(&old.mount, &new.mount) {
        return Err(Errno::EXDEV);
    }
    old.check_removable()?;
    new.check_removable()?;
    match cx.task.creds() {
        Some(creds) => owners::rename(cx, &creds, &old, &new).await,
        None => cx.with_paths(&[(1, &old), (3, &new)]).await,
    }
}

/// The name at the end of a path, which is in a directory of the host.
async fn name(cx: &Ctx, dirfd: i32, path: &[u8]) -> Result<HostFile, Errno> {
    match cx.walked_slot(dirfd, path).await {
        Ok(Slot::Host(name)) => Ok(name),
        Ok(_) => Err(Errno::EXDEV),
        // ".", ".." and roots are busy.
        Err(Errno::EINVAL | Errno::ENOTEMPTY) => Err(Errno::EBUSY),
        Err(errno) => Err(errno),
    }
}
