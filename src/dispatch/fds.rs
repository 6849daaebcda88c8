//! Descriptors of virtual files: close, dup, fcntl, close_range. Where they move and die.

use fsmodules::api::{Errno, OpenFlags};

use crate::task::{FdEntry, Files, OpenFile};
use crate::trap::{F_GETOWN_EX, F_GETSIG, F_SETOWN_EX, F_SETSIG, Reply};

use super::install::{catch_low, dup_seen, hand_over, settle};
use super::{Ctx, dnotify, inotify, lease, lock, signals};

/// fcntl(2) commands that the libc crate does not name.
const F_DUPFD_QUERY: i32 = 1027;
const F_CREATED_QUERY: i32 = 1028;
const F_GET_RW_HINT: i32 = 1035;
const F_SET_RW_HINT: i32 = 1036;

const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// close(2): FLUSH, whose error is the result; the descriptor is gone in every case.
pub async fn close(cx: &Ctx) -> Result<Reply, Errno> {
    let fd = cx.fd(0);
    if fd <= 2 {
        cx.task.files().standard_open.set(false);
    }
    // Out of our table first, while the placeholder still occupies the number.
    let Some(entry) = cx.task.files().remove(fd) else {
        return Ok(Reply::Passthrough);
    };
    if let Err(errno) = flush(cx, entry).await {
        cx.close(fd).await?;
        return Err(errno);
    }
    Ok(Reply::Passthrough)
}

/// What every close of a descriptor does, before the description itself may go.
async fn flush(cx: &Ctx, entry: FdEntry) -> Result<(), Errno> {
    cx.hv.dnotify.close(cx.task.files().id, entry.file.id);
    match &entry.file.file {
        Some(file) => file.flush(cx.cx()).await,
        None => Ok(()),
    }
}

async fn flush_all(cx: &Ctx, entries: Vec<FdEntry>) {
    for entry in entries {
        // Nobody is left to be told of an error.
        let _ = flush(cx, entry).await;
    }
}

/// A process ends: all its descriptors close. Devices first: a server that dies must not wait for itself.
pub async fn close_all(cx: &Ctx, files: &Files) {
    let (devices, others): (Vec<_>, Vec<_>) = files.take_all().into_iter().partition(|entry| entry.file.is_device());
    drop(devices);
    flush_all(cx, others).await;
}

/// execve(2) succeeded: descriptors marked close-on-exec are gone.
pub async fn close_on_exec(cx: &Ctx) {
    let entries = cx.task.files().take_cloexec();
    flush_all(cx, entries).await;
}

pub async fn close_range(cx: &Ctx) -> Result<Reply, Errno> {
    let (first, last, flags) = (cx.int(0), cx.int(1), cx.int(2));
    let bound = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let files = cx.task.files();
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Ok(Reply::Passthrough);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 && files.shared() {
        files.leave();
        cx.task.files.replace(files.copy());
    }
    let files = cx.task.files();
    files.standard_open.set(false);
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        for (fd, _) in files.list() {
            if (bound(first)..=bound(last)).contains(&fd) {
                files.set_cloexec(fd, true);
            }
        }
    } else {
        flush_all(cx, files.take_range(bound(first), bound(last))).await;
    }
    Ok(Reply::Passthrough)
}

/// unshare(2) with `CLONE_FILES` or `CLONE_FS`.
pub async fn unshare(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.arg(0);
    let result = cx.finish_run(cx.call).await?;
    if matches!(result, Reply::Return(0)) {
        cx.task.unshare(flags);
    }
    Ok(result)
}

pub async fn dup(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(file) = cx.open_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    if let Some(fd) = hand_over(cx, &file, 0, false) {
        return Ok(Reply::Return(fd.into()));
    }
    let _numbering = cx.task.files().numbering();
    let fd = cx.run(libc::SYS_dup, cx.call.args).await? as i32;
    let fd = settle(cx, fd, false).await?;
    cx.task.files().insert(fd, file, false);
    Ok(Reply::Return(fd.into()))
}

/// dup2(2) and dup3(2): the number is given, so a virtual file may come to stand at a low one.
pub async fn dup2(cx: &Ctx) -> Result<Reply, Errno> {
    let (old, new) = (cx.fd(0), cx.fd(1));
    let files = cx.task.files();
    let file = files.get(old);
    if old == new || (file.is_none() && files.get(new).is_none()) {
        return Ok(Reply::Passthrough);
    }
    if file.is_some() {
        catch_low(cx, new).await?;
    }
    let _numbering = files.numbering();
    let result = cx.run(cx.call.nr.into(), cx.call.args).await?;
    let cloexec = i64::from(cx.call.nr) == libc::SYS_dup3 && cx.int(2) & libc::O_CLOEXEC as u32 != 0;
    let replaced = match file {
        Some(file) => files.insert(new, file, cloexec),
        None => files.remove(new),
    };
    if let Some(entry) = replaced {
        flush_all(cx, vec![entry]).await;
    }
    Ok(Reply::Return(result))
}

pub async fn fcntl(cx: &Ctx) -> Result<Reply, Errno> {
    let (fd, command) = (cx.fd(0), cx.fd(1));
    let Some(file) = cx.open_file(fd) else {
        return Ok(Reply::Passthrough);
    };
    let path_only = file.file.is_none();
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => dup_from(cx, fd, command == libc::F_DUPFD_CLOEXEC).await,
        libc::F_GETFD => Ok(Reply::Passthrough),
        libc::F_SETFD => {
            cx.task
                .files()
                .set_cloexec(fd, cx.int(2) & libc::FD_CLOEXEC as u32 != 0);
            Ok(Reply::Passthrough)
        }
        F_DUPFD_QUERY => {
            let other = cx.open_file(cx.fd(2));
            Ok(Reply::Return(other.is_some_and(|other| other.id == file.id).into()))
        }
        _ if file.is_native() => Ok(Reply::Passthrough),
        libc::F_GETFL => Ok(Reply::Return(shown_flags(file.shown_flags()))),
        _ if path_only => Err(Errno::EBADF),
        libc::F_SETFL => {
            set_flags(&file, fd, OpenFlags::from_bits_retain(cx.int(2)))?;
            Ok(Reply::Return(0))
        }
        libc::F_GETLK | libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
            lock::fcntl_lock(cx, &file, command).await
        }
        libc::F_GETOWN | libc::F_SETOWN | F_GETSIG | F_SETSIG | F_GETOWN_EX | F_SETOWN_EX => {
            signals::fcntl(cx, &file, command)
        }
        // The kernel's own, kept for the inode of the placeholder.
        F_GET_RW_HINT | F_SET_RW_HINT => Ok(Reply::Passthrough),
        F_CREATED_QUERY => Ok(Reply::Return(file.created.get().into())),
        libc::F_GETLEASE => Ok(Reply::Return(lease::get(cx, &file).into())),
        libc::F_SETLEASE => {
            lease::set(cx, &file, fd, cx.fd(2)).await?;
            Ok(Reply::Return(0))
        }
        libc::F_NOTIFY => {
            dnotify::notify(cx, &file, fd, cx.int(2))?;
            Ok(Reply::Return(0))
        }
        libc::F_GETPIPE_SZ | libc::F_SETPIPE_SZ => Err(Errno::EBADF),
        _ => Err(Errno::EINVAL),
    }
}

/// `F_SETFL`
fn set_flags(file: &OpenFile, descriptor: i32, mut flags: OpenFlags) -> Result<(), Errno> {
    match inotify::instance(file) {
        Some(instance) => {
            let wanted = flags.contains(OpenFlags::ASYNC);
            instance.set_async(wanted.then(|| file.owner()).transpose()?, descriptor);
        }
        // Of other files nobody is told.
        None => flags.set(OpenFlags::ASYNC, file.flags.get().contains(OpenFlags::ASYNC)),
    }
    file.set_flags(flags);
    Ok(())
}

/// `F_DUPFD`: the lowest free number from a minimum on, which for a virtual file is at least the placeholders' range.
async fn dup_from(cx: &Ctx, fd: i32, cloexec: bool) -> Result<Reply, Errno> {
    let Some(file) = cx.open_file(fd) else {
        return Ok(Reply::Passthrough);
    };
    let min = i32::try_from(cx.arg(2)).map_err(|_| Errno::EINVAL)?;
    if let Some(new) = hand_over(cx, &file, min, cloexec) {
        return Ok(Reply::Return(new.into()));
    }
    let _numbering = cx.task.files().numbering();
    let new = match dup_seen(cx, fd, min as u32, cloexec).await? {
        Some(new) => new,
        None => {
            let new = cx.run(libc::SYS_fcntl, cx.call.args).await? as i32;
            catch_low(cx, new).await?;
            new
        }
    };
    cx.task.files().insert(new, file, cloexec);
    Ok(Reply::Return(new.into()))
}

/// What `F_GETFL` shows: the access mode and the status flags, not those that only matter at open.
fn shown_flags(flags: OpenFlags) -> i64 {
    let once = OpenFlags::CREAT
        | OpenFlags::EXCL
        | OpenFlags::NOCTTY
        | OpenFlags::TRUNC
        | OpenFlags::CLOEXEC
        | OpenFlags::EXEC;
    let large = if flags.contains(OpenFlags::PATH) {
        OpenFlags::empty()
    } else {
        OpenFlags::LARGEFILE
    };
    i64::from(((flags - once) | large).bits())
}
