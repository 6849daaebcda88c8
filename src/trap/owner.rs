//! Who hears by a signal of what happens to an open file: its owner, as fcntl(2) sets it (`struct fown_struct`).
//!
//! To another process only the kernel sends such a signal, which tells the number of the descriptor. So it does: a
//! thread of umvu's, with a descriptor table of its own, has a file of the same owner at that number, to which the same
//! happens.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};

use fsmodules::api::{Errno, errno};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Resource, Rlimit, dumpable_behavior, geteuid, getrlimit, getuid, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{Uid, set_thread_res_uid};

use super::sys;

pub const F_SETSIG: i32 = 10;
pub const F_GETSIG: i32 = 11;
pub const F_SETOWN_EX: i32 = 15;
pub const F_GETOWN_EX: i32 = 16;
const F_OWNER_PID: i32 = 1;
const F_OWNER_PGRP: i32 = 2;

/// What happens to a file.
#[derive(Clone, Copy)]
pub enum Happening {
    /// `POLL_MSG`: a lease is broken, or something has changed in a directory.
    Message,
    /// `POLL_IN`: there is something to read.
    Input,
}

/// `struct f_owner_ex`: the kind of owner, and its id.
pub type Target = [i32; 2];

pub struct FileOwner {
    /// A file of no other use: with it the kernel keeps the owner, and knows when that is gone.
    kept: OwnedFd,
    /// The real and the effective user who has set it: in their name the signals are sent.
    set_by: Cell<(u32, u32)>,
}

impl FileOwner {
    /// Nobody yet.
    pub fn new() -> Result<FileOwner, Errno> {
        Ok(FileOwner {
            kept: eventfd(0, EventfdFlags::CLOEXEC).map_err(errno)?,
            set_by: Cell::default(),
        })
    }

    /// `F_GETOWN_EX`
    pub fn target(&self) -> Result<Target, Errno> {
        sys::file_owner(self.kept.as_fd())
    }

    /// `F_SETOWN_EX`, by a real and an effective user.
    pub fn set_target(&self, target: Target, by: (u32, u32)) -> Result<(), Errno> {
        sys::set_file_owner(self.kept.as_fd(), target)?;
        self.set_by.set(by);
        Ok(())
    }

    /// `F_GETOWN`
    pub fn number(&self) -> Result<i32, Errno> {
        let [kind, id] = self.target()?;
        Ok(if kind == F_OWNER_PGRP { -id } else { id })
    }

    /// `F_SETOWN`
    pub fn set_number(&self, number: i32, by: (u32, u32)) -> Result<(), Errno> {
        let id = number.checked_abs().ok_or(Errno::EINVAL)?;
        let kind = if number < 0 { F_OWNER_PGRP } else { F_OWNER_PID };
        self.set_target([kind, id], by)
    }

    /// `F_GETSIG`
    pub fn signal(&self) -> Result<i32, Errno> {
        sys::fcntl(self.kept.as_fd(), F_GETSIG, 0)
    }

    /// `F_SETSIG`
    pub fn set_signal(&self, signal: u64) -> Result<(), Errno> {
        sys::fcntl(self.kept.as_fd(), F_SETSIG, signal).map(drop)
    }

    /// Nobody again.
    pub fn clear(&self) {
        // Neither can fail.
        let _ = self.set_number(0, (0, 0));
        let _ = self.set_signal(0);
    }

    /// This is happening to the file with this descriptor. Who cannot be told is not.
    pub fn tell(&self, descriptor: i32, happening: Happening) {
        let (Ok(target), Ok(signal)) = (self.target(), self.signal()) else {
            return;
        };
        if target[1] == 0 {
            return;
        }
        let by = self.set_by.get();
        let told = std::thread::Builder::new().spawn(move || tell(descriptor, happening, target, signal, by));
        // The signal is there before anybody goes on.
        if let Ok(thread) = told {
            let _ = thread.join();
        }
    }
}

/// In a thread that ends afterwards.
fn tell(descriptor: i32, happening: Happening, target: Target, signal: i32, by: (u32, u32)) -> Result<(), Errno> {
    sys::leave_descriptors()?;
    let own = |file: &OwnedFd| {
        become_user(by)?;
        sys::set_file_owner(file.as_fd(), target)?;
        sys::fcntl(file.as_fd(), F_SETSIG, signal as u64)
    };
    match happening {
        Happening::Message => {
            let file = memfd_create("lease", MemfdFlags::CLOEXEC).map_err(errno)?;
            let file = at_number(file, descriptor)?;
            sys::fcntl(file.as_fd(), libc::F_SETLEASE, libc::F_RDLCK as u64)?;
            own(&file)?;
            // Does not wait until the lease is given up.
            let path = format!("/proc/thread-self/fd/{descriptor}");
            let _ = openat(
                CWD,
                path,
                OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            );
        }
        Happening::Input => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
            let writer = at_number(writer, descriptor + 1)?;
            let reader = at_number(reader, descriptor)?;
            own(&reader)?;
            sys::fcntl(reader.as_fd(), libc::F_SETFL, libc::O_ASYNC as u64)?;
            rustix::io::write(&writer, b"i").map_err(errno)?;
        }
    }
    Ok(())
}

/// Makes that its number, which may be beyond umvu's own limit.
fn at_number(file: OwnedFd, number: i32) -> Result<OwnedFd, Errno> {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, all);
    let moved = sys::move_descriptor(file, number);
    let _ = setrlimit(Resource::Nofile, limit);
    moved
}

/// Only for this thread: the kernel sends a signal to whom its sender may send one.
fn become_user(user: (u32, u32)) -> Result<(), Errno> {
    if user == (getuid().as_raw(), geteuid().as_raw()) {
        return Ok(());
    }
    let dumpable = dumpable_behavior().map_err(errno)?;
    let (real, effective) = (Uid::from_raw(user.0), Uid::from_raw(user.1));
    set_thread_res_uid(real, effective, effective).map_err(errno)?;
    // Changed for the whole process with the user.
    set_dumpable_behavior(dumpable).map_err(errno)
}
