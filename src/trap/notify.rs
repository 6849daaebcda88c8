//! The notify engine: caught calls come through seccomp user notification (seccomp_unotify(2)), which costs one switch
//! each way and no ptrace stop. [`super::Tracer`] uses it beside ptrace, which keeps the lives of threads and the calls
//! that must be made anew in the guest.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use fsmodules::api::Errno;

use super::{Reply, Tid, sys};
use crate::abi::RawCall;

/// A call that waits for its answer. Valid until then, or until its thread dies: the kernel never uses an id twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    id: u64,
    /// Where the call returns to.
    pub call_end: u64,
}

/// `-ERESTARTSYS`: the kernel makes the call again, unless a signal has a handler without `SA_RESTART`.
const RESTART: i32 = -512;

/// The supervisor's end of a filter.
pub struct Listener {
    fd: OwnedFd,
}

impl Listener {
    pub fn new(fd: OwnedFd) -> Listener {
        // Keep a caller and umvu on one core, where a switch costs a tenth. Kernels before 6.6 cannot.
        let _ = sys::notify_sync_wake_up(fd.as_fd());
        Listener { fd }
    }

    /// The next call, once the descriptor is readable; `None` if its caller has died meanwhile.
    pub fn receive(&self) -> Option<(Tid, Notification, RawCall)> {
        let received = sys::notify_receive(self.fd.as_fd()).ok()?;
        let call = RawCall {
            nr: received.data.nr as u32,
            args: received.data.args,
        };
        let notification = Notification {
            id: received.id,
            call_end: received.data.instruction_pointer,
        };
        Some((Tid::from_raw(received.pid as i32), notification, call))
    }

    /// Ends the call. A caller that has died needs no answer.
    pub fn answer(&self, notification: Notification, reply: Reply) {
        let (value, error, flags) = match reply {
            Reply::Return(value) => (value, 0, 0),
            Reply::Error(errno) => (0, -errno.raw(), 0),
            Reply::Restart => (0, RESTART, 0),
            Reply::Passthrough => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let _ = sys::notify_send(self.fd.as_fd(), notification.id, value, error, flags);
    }

    /// Makes the caller have a file, at this number or else at the lowest free one, and ends the call with the number as
    /// its result.
    pub fn answer_with_fd(
        &self,
        notification: Notification,
        file: BorrowedFd<'_>,
        at: Option<i32>,
        cloexec: bool,
    ) -> Result<i32, Errno> {
        let set = at.map_or(0, |_| libc::SECCOMP_ADDFD_FLAG_SETFD);
        let place = libc::seccomp_notif_addfd {
            id: notification.id,
            flags: (set | libc::SECCOMP_ADDFD_FLAG_SEND) as u32,
            srcfd: file.as_raw_fd() as u32,
            newfd: at.unwrap_or(0) as u32,
            newfd_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        sys::notify_add_fd(self.fd.as_fd(), &place)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
