//! Catches system calls. The only place that knows ptrace, seccomp and `waitpid`.
//!
//! [`Tracer`] delivers [`Event`]s and applies [`Reply`]s. Whoever uses it does not know how a call was caught: it may
//! let the kernel run further calls in the guest ([`Tracer::run`]) and must give each call one reply.

mod filter;
mod host;
mod memory;
mod notify;
mod owner;
mod placement;
mod reach;
mod restart;
mod spawn;
mod state;
mod sys;
mod tracer;

pub use filter::{added_filter, ids_filter, peers_filter};
pub use memory::{GuestMemory, Memory};
pub use owner::{F_GETOWN_EX, F_GETSIG, F_SETOWN_EX, F_SETSIG, FileOwner, Happening, Target};
pub use reach::{others_are_out_of_reach, reaching};
pub use spawn::{SpawnError, SpawnSpec, be_traced, control_call, exec_path, probe};
pub use sys::{EndSignal, ignore_background_stops, signal_thread, soft_limit};
pub use tracer::{Tracer, status_field};

use std::fmt;

use fsmodules::api::Errno;

use crate::abi::RawCall;

/// How calls are caught. Both engines use ptrace for the lives of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// By notification where the kernel has it, else by ptrace.
    #[default]
    Auto,
    /// By ptrace stops: works everywhere.
    Ptrace,
    /// By seccomp user notification (Linux 5.19 and newer).
    Notify,
}

impl std::str::FromStr for Engine {
    type Err = String;

    fn from_str(name: &str) -> Result<Engine, String> {
        match name {
            "auto" => Ok(Engine::Auto),
            "ptrace" => Ok(Engine::Ptrace),
            "notify" => Ok(Engine::Notify),
            other => Err(format!("`{other}` is not known; it is auto, ptrace or notify")),
        }
    }
}

/// A thread id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(i32);

impl Tid {
    pub fn from_raw(raw: i32) -> Tid {
        Tid(raw)
    }

    pub fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a thread or process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    Exited(i32),
    Signaled(i32),
}

/// What happened to a tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It makes a call, and waits for [`Tracer::reply`].
    Syscall { tid: Tid, call: RawCall },
    /// A call of [`Tracer::run`] is done.
    Ran { tid: Tid, result: i64 },
    /// A signal waits for a parked thread; it is delivered with the reply.
    Signal { tid: Tid },
    /// A new thread or process, with the flags of clone(2). It runs as soon as this event has been taken.
    Created { parent: Tid, child: Tid, flags: u64 },
    /// It executes another program; until now its id was `former`.
    Exec { tid: Tid, former: Tid },
    /// It is about to exit, and waits for [`Tracer::resume`].
    Exiting { tid: Tid },
    /// It is gone.
    Exited { tid: Tid, status: WaitStatus },
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Return(i64),
    Error(Errno),
    /// The kernel makes the call, as it is.
    Passthrough,
    /// A signal interrupted it: its handler's `SA_RESTART` decides between a restart and `EINTR`.
    Restart,
}

/// Why a tracee could not be dealt with. A thread that is gone is no error: its [`Event::Exited`] follows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this host does not allow {what} ({errno}); umvu needs ptrace and seccomp filters")]
    Forbidden { what: &'static str, errno: Errno },
    #[error("{op} failed for process {tid}: {errno}")]
    Os { op: &'static str, tid: Tid, errno: Errno },
}
