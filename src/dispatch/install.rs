//! Puts placeholders into guests: real descriptors that stand for virtual files.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use fsmodules::api::{Backing, Errno, OpenFlags};
use rustix::fs::{Mode, OFlags};

use crate::table::{FdLevel, PLACEHOLDERS, is_placeholder};
use crate::task::OpenFile;
use crate::trap::{self, Reply};

use super::Ctx;
use super::carrier::Way;
use super::context::CWD;

/// The page size of x86-64, and of every guest mapping made here.
pub const PAGE: u64 = 4096;

/// Answers the call with a descriptor for an open file.
pub async fn install(cx: &Ctx, file: Rc<OpenFile>) -> Result<Reply, Errno> {
    let cloexec = file.flags.get().contains(OpenFlags::CLOEXEC);
    if let Some(fd) = hand_over(cx, &file, 0, cloexec) {
        return Ok(Reply::Return(fd.into()));
    }
    Ok(Reply::Return(put(cx, file, cloexec).await?.into()))
}

/// Has the guest open a descriptor for an open file.
pub async fn put(cx: &Ctx, file: Rc<OpenFile>, cloexec: bool) -> Result<i32, Errno> {
    let mut flags = file.flags.get();
    flags.set(OpenFlags::CLOEXEC, cloexec);
    let fd = match file.file.as_ref().map(|file| file.backing()) {
        Some(Backing::Memory(memory)) => reopen(cx, memory, flags & REOPEN_FLAGS).await?,
        Some(Backing::Stream) => super::stream::connect(cx, &file).await?,
        Some(Backing::Nothing) => reopen(cx, cx.hv.nowhere(), flags & OpenFlags::CLOEXEC).await?,
        None => reopen(cx, cx.hv.nowhere(), OpenFlags::PATH | (flags & OpenFlags::CLOEXEC)).await?,
    };
    let fd = settle(cx, fd, cloexec).await?;
    // What stood there before cannot be virtual: the number was free.
    cx.task.files().insert(fd, file, cloexec);
    Ok(fd)
}

/// What a placeholder's own description has of the flags of its file.
const REOPEN_FLAGS: OpenFlags = OpenFlags::WRONLY
    .union(OpenFlags::RDWR)
    .union(OpenFlags::CLOEXEC)
    .union(OpenFlags::NONBLOCK);

/// Where the engine can hand the caller a descriptor: does so, and answers the call with its number. It is the lowest
/// one, from `min` on, where the filter sees it.
pub fn hand_over(cx: &Ctx, file: &Rc<OpenFile>, min: i32, cloexec: bool) -> Option<i32> {
    let tid = cx.task.tid.get();
    if !cx.hv.tracer.borrow().takes_fd(tid) || !standard_open(cx) {
        return None;
    }
    let files = cx.task.files();
    // Another thread's number could be the same one.
    if files.is_numbering() {
        return None;
    }
    let mut fd = files.free_from(min);
    // A file of the host may have come to stand there, by dup2(2) or in a process with very many.
    while is_open(cx, fd) {
        fd = files.free_from(fd + 1);
    }
    if is_highest(cx, fd) {
        return None;
    }
    let give = |source: BorrowedFd<'_>| cx.hv.tracer.borrow_mut().reply_with_fd(tid, source, Some(fd), cloexec);
    let given = match file.file.as_ref().map(|file| file.backing()) {
        Some(Backing::Memory(memory)) => {
            let flags = OFlags::from_bits_retain((file.flags.get() & REOPEN_FLAGS).bits());
            give(anew(memory, flags)?.as_fd())
        }
        Some(Backing::Stream) => give(super::stream::local_end(cx, file)?.as_fd()),
        Some(Backing::Nothing) => give(cx.hv.nowhere()),
        None => give(anew(cx.hv.nowhere(), OFlags::PATH)?.as_fd()),
    };
    // Not given: the number is beyond the guest's RLIMIT_NOFILE.
    files.insert(given?, file.clone(), cloexec);
    given
}

/// Is it the highest number that the caller may have? It gets that one last, as from the kernel: who has opened so many
/// files that this one comes takes it that there is no other left.
fn is_highest(cx: &Ctx, fd: i32) -> bool {
    trap::soft_limit(cx.task.tid.get(), libc::RLIMIT_NOFILE) == fd as u64 + 1
}

/// Another description of one of umvu's own files.
pub fn anew(fd: BorrowedFd<'_>, flags: OFlags) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Are the standard descriptors open? If not, the next file that the guest opens belongs there.
fn standard_open(cx: &Ctx) -> bool {
    let known = &cx.task.files().standard_open;
    if !known.get() {
        known.set((0..=2).all(|fd| is_open(cx, fd)));
    }
    known.get()
}

fn is_open(cx: &Ctx, fd: i32) -> bool {
    cx.task.look_at_fd(fd, std::fs::symlink_metadata).is_ok()
}

/// Lets the guest open one of umvu's own descriptors anew, at the lowest free number.
pub async fn reopen(cx: &Ctx, fd: BorrowedFd<'_>, flags: OpenFlags) -> Result<i32, Errno> {
    let way = Way::to(cx, fd).await?;
    let slot = cx.scratch_string(&way.path).await?;
    let args = [CWD as u64, slot.address, flags.bits().into(), 0, 0, 0];
    let opened = cx.run(libc::SYS_openat, args).await;
    way.end(cx).await?;
    Ok(opened? as i32)
}

/// Moves a placeholder from the number that the kernel chose to where the filter sees it, unless a standard
/// descriptor was free: whoever closed it wants this one there.
pub async fn settle(cx: &Ctx, fd: i32, cloexec: bool) -> Result<i32, Errno> {
    if is_placeholder(fd) {
        return Ok(fd);
    }
    if fd > 2 {
        let _numbering = cx.task.files().numbering();
        // No room up there (RLIMIT_NOFILE): then it stays, and all descriptors of the process are caught.
        if let Some(moved) = dup_seen(cx, fd, 0, cloexec).await? {
            cx.close(fd).await?;
            return Ok(moved);
        }
    }
    catch_low(cx, fd).await?;
    Ok(fd)
}

/// Duplicates a descriptor to the lowest number, from `min` on, where the filter sees it; `None` if there is no room.
pub async fn dup_seen(cx: &Ctx, fd: i32, min: u32, cloexec: bool) -> Result<Option<i32>, Errno> {
    let command = if cloexec { libc::F_DUPFD_CLOEXEC } else { libc::F_DUPFD };
    for range in PLACEHOLDERS {
        let from = range.start.max(min);
        let args = [fd as u64, command as u64, from.into(), 0, 0, 0];
        let Ok(new) = cx.run(libc::SYS_fcntl, args).await else {
            continue;
        };
        if range.contains(&(new as u32)) && !is_highest(cx, new as i32) {
            return Ok(Some(new as i32));
        }
        cx.close(new as i32).await?;
    }
    Ok(None)
}

/// Makes sure that calls on this number are caught in the caller's process, by a further filter if need be.
pub async fn catch_low(cx: &Ctx, fd: i32) -> Result<(), Errno> {
    let needed = FdLevel::for_fd(fd);
    let process = cx.task.process();
    if process.level.get() >= needed {
        return Ok(());
    }
    add_filter(cx, &trap::added_filter(needed)).await?;
    process.level.set(needed);
    Ok(())
}

/// Makes sure that calls on ids and owners are caught in the caller's process.
pub async fn catch_ids(cx: &Ctx) -> Result<(), Errno> {
    let process = cx.task.process();
    if !process.ids_caught.get() {
        add_filter(cx, &trap::ids_filter()).await?;
        process.ids_caught.set(true);
    }
    Ok(())
}

/// Makes sure that calls which tell the address of another socket are caught in the caller's process. One that has
/// confined itself may not be let do so, and can do without.
pub async fn catch_peers(cx: &Ctx) -> Result<(), Errno> {
    let process = cx.task.process();
    if !process.peers_caught.get() && !process.confined.get() {
        add_filter(cx, &trap::peers_filter()).await?;
        process.peers_caught.set(true);
    }
    Ok(())
}

async fn add_filter(cx: &Ctx, program: &[u8]) -> Result<(), Errno> {
    let slot = cx.scratch().await?;
    // struct sock_fprog, then the instructions.
    let mut bytes = Vec::with_capacity(16 + program.len());
    bytes.extend_from_slice(&((program.len() / 8) as u64).to_ne_bytes());
    bytes.extend_from_slice(&(slot.address + 16).to_ne_bytes());
    bytes.extend_from_slice(program);
    if bytes.len() as u64 > crate::task::SLOT_LEN {
        return Err(Errno::ENOMEM);
    }
    cx.write(slot.address, &bytes)?;
    let args = [
        libc::SECCOMP_SET_MODE_FILTER.into(),
        libc::SECCOMP_FILTER_FLAG_TSYNC,
        slot.address,
        0,
        0,
        0,
    ];
    cx.run(libc::SYS_seccomp, args).await.map(drop)
}
