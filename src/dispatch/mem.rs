//! Mapping virtual files. The mapping itself is the kernel's, of the placeholder's memory file.

use std::collections::HashSet;

use fsmodules::api::{Backing, Errno, MapRequest, MountFlags};
use rustix::fs::{major, minor};

use crate::task::{Mapped, Task};
use crate::trap::Reply;

use super::install::PAGE;
use super::io::served;
use super::{Ctx, upkeep};

pub async fn mmap(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.fd(3);
    if flags & libc::MAP_ANONYMOUS != 0 {
        return Ok(Reply::Passthrough);
    }
    let Some(open) = cx.data_file(cx.fd(4)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    let shared = matches!(flags & libc::MAP_TYPE, libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE);
    let writable = shared && open.flags.get().writable();
    let protection = cx.fd(2);
    let refused = shared && protection & libc::PROT_WRITE != 0 && !writable || !open.flags.get().readable();
    if refused || cx.arg(1) == 0 || !cx.arg(5).is_multiple_of(PAGE) {
        // The placeholder is open for the same: the kernel says what is wrong.
        return Ok(Reply::Passthrough);
    }
    if protection & libc::PROT_EXEC != 0 && open.place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EPERM);
    }
    let request = MapRequest {
        offset: cx.arg(5),
        len: cx.arg(1),
        shared,
        writable,
    };
    file.map(cx.cx(), request).await?;
    let mapped = Mapped { open, shared };
    if !writable {
        // Should the file be found unmapped before it is mapped, nothing is lost but that the server knows it as open.
        note(cx, mapped);
        return Ok(Reply::Passthrough);
    }
    // Noted once it is there, so that what is noted and not there is gone.
    let reply = cx.finish_run(cx.call).await?;
    if matches!(reply, Reply::Return(1..)) {
        note(cx, mapped);
    }
    Ok(reply)
}

fn note(cx: &Ctx, mapped: Mapped) {
    let mm = cx.task.mm();
    let mut all = mm.mapped.borrow_mut();
    match all.iter_mut().find(|other| other.open.id == mapped.open.id) {
        Some(known) => known.shared |= mapped.shared,
        None => all.push(mapped),
    }
    upkeep::look_after(&cx.hv);
}

/// Closes the files that a process has mapped no more, as munmap(2) is never caught: done before anything that a file's
/// being open would be seen by. What the mappings changed is written back first.
pub async fn close_unmapped(cx: &Ctx, task: &Task) {
    let mm = task.mm();
    if mm.mapped.borrow().is_empty() {
        return;
    }
    let Ok(maps) = task.look("maps", std::fs::read) else {
        return;
    };
    let maps = String::from_utf8_lossy(&maps);
    // The device and the inode; numbers of memory files come to be those of other files, too.
    let files: HashSet<(&str, &str)> = maps
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(3);
            Some((words.next()?, words.next()?))
        })
        .collect();
    let in_use = |mapped: &Mapped| {
        let memory = mapped.open.file.as_ref().and_then(|file| match file.backing() {
            Backing::Memory(memory) => rustix::fs::fstat(memory).ok(),
            _ => None,
        });
        memory.is_none_or(|memory| {
            let device = format!("{:02x}:{:02x}", major(memory.st_dev), minor(memory.st_dev));
            files.contains(&(device.as_str(), memory.st_ino.to_string().as_str()))
        })
    };
    let (kept, gone): (Vec<_>, Vec<_>) = mm.mapped.take().into_iter().partition(in_use);
    mm.mapped.borrow_mut().extend(kept);
    for Mapped { open, .. } in gone {
        if let Ok(file) = served(&open) {
            // As when the kernel unmaps: nobody hears of errors.
            let _ = file.write_back(cx.cx()).await;
        }
    }
}

/// msync(2): what shared mappings of the process have changed goes to the servers.
pub async fn msync(cx: &Ctx) -> Result<Reply, Errno> {
    if cx.fd(2) & libc::MS_SYNC == 0 {
        return Ok(Reply::Passthrough);
    }
    let mapped = cx.task.mm().mapped.borrow().clone();
    for Mapped { open, .. } in mapped.into_iter().filter(|mapped| mapped.shared) {
        served(&open)?.fsync(cx.cx(), true).await?;
    }
    Ok(Reply::Passthrough)
}
