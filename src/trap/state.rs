//! What a thread is doing, and the ways from one state to the next. Each way sets the registers and lets the thread go.

use fsmodules::api::Errno;

use super::filter::REWRITTEN;
use super::notify::Notification;
use super::{Reply, Tid, sys};
use crate::abi::{RawCall, Regs};
use crate::table;

const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const BLOCK_ALL: u64 = u64::MAX;

/// What a thread is about to do at its next catch or stop.
#[derive(Clone, Copy)]
pub enum Next {
    Reply(Reply),
    Run(RawCall),
    Park,
}

/// A caught call in progress.
pub struct Frame {
    /// As they were at its entry.
    pub regs: Regs,
    /// The signal mask, while all signals are blocked.
    pub mask: Option<u64>,
    /// A signal whose delivery was put off; it is delivered with the reply.
    pub signal: i32,
    /// Another program has been executed: the old registers mean nothing.
    pub executed: bool,
    /// The host does not let the kernel make this call, and gives this error.
    pub refused: Option<Errno>,
}

impl Frame {
    pub fn new(regs: Regs) -> Frame {
        Frame {
            regs,
            mask: None,
            signal: 0,
            executed: false,
            refused: None,
        }
    }
}

pub enum State {
    /// Created, but its first stop or its parent's report of it is still to come.
    New {
        stopped: bool,
        announced: bool,
    },
    Running,
    /// At the entry of a caught call.
    Entry(Frame),
    /// Likewise, in a notification.
    Notified(Notification),
    /// Its notification has been answered so that it comes to a stop.
    Surfacing(Next),
    /// In the kernel, with a call of [`super::Tracer::run`]. With `reply` its result is the caught call's.
    InCall {
        frame: Frame,
        reply: bool,
    },
    /// At the exit of such a call.
    Exit(Frame),
    /// On the way to the entry of another call.
    Rewinding {
        frame: Frame,
        next: Next,
    },
    Parked(Frame),
    /// Asked to leave its parking place.
    Leaving {
        frame: Frame,
        next: Next,
    },
    /// Parked, and stopped at the delivery of a signal.
    Held {
        frame: Frame,
        signal: i32,
    },
    Exiting,
}

impl State {
    /// The guest's own signal mask, while all signals are blocked.
    pub fn mask(&self) -> Option<u64> {
        match self {
            State::InCall { frame, .. }
            | State::Exit(frame)
            | State::Rewinding { frame, .. }
            | State::Leaving { frame, .. }
            | State::Held { frame, .. } => frame.mask,
            _ => None,
        }
    }

    /// The host's error, if its call is a refused one.
    pub fn refused(&self) -> Option<Errno> {
        match self {
            State::Exit(frame) | State::Parked(frame) | State::Held { frame, .. } | State::Rewinding { frame, .. } => {
                frame.refused
            }
            _ => None,
        }
    }
}

/// From the entry of a caught call into another call, which the kernel makes.
pub fn enter(tid: Tid, frame: Frame, call: RawCall, reply: bool) -> State {
    let mut regs = frame.regs;
    regs.set_call(call);
    regs.set_origin(REWRITTEN.into());
    let _ = sys::set_regs(tid, &regs);
    let _ = sys::cont_to_exit(tid);
    State::InCall { frame, reply }
}

/// Lets signals in again, as the next call may wait.
pub fn unblocked(tid: Tid, mut frame: Frame) -> Frame {
    if let Some(mask) = frame.mask.take() {
        let _ = sys::swap_signal_mask(tid, mask);
    }
    frame
}

/// From the entry of a call into the parking place: ppoll(NULL, 0, NULL, NULL).
pub fn enter_parking(tid: Tid, frame: Frame) -> State {
    let frame = unblocked(tid, frame);
    let mut regs = frame.regs;
    regs.set_call(RawCall {
        nr: libc::SYS_ppoll as u32,
        args: [0; 6],
    });
    let _ = sys::set_regs(tid, &regs);
    let _ = sys::cont(tid, 0);
    State::Parked(frame)
}

/// What is parked, or on the way to its parking place, gets something else to do. Any other state stays.
pub fn unpark(tid: Tid, state: State, next: Next) -> State {
    match state {
        State::Parked(frame) => {
            let _ = sys::interrupt(tid);
            State::Leaving { frame, next }
        }
        State::Rewinding {
            frame,
            next: Next::Park,
        } => State::Rewinding { frame, next },
        State::Surfacing(Next::Park) => State::Surfacing(next),
        other => other,
    }
}

/// From the exit of a call back to its instruction, to enter another one.
pub fn rewind(tid: Tid, mut frame: Frame, next: Next) -> State {
    if frame.mask.is_none() {
        frame.mask = sys::swap_signal_mask(tid, BLOCK_ALL).ok();
    }
    let mut regs = frame.regs;
    regs.rewind(table::AGAIN_CALL, table::AGAIN_MARK);
    let _ = sys::set_regs(tid, &regs);
    let _ = sys::cont(tid, 0);
    State::Rewinding { frame, next }
}

pub fn reply_at_entry(tid: Tid, frame: Frame, reply: Reply) -> State {
    let mut regs = frame.regs;
    match reply {
        Reply::Return(result) => regs.set_result(result),
        Reply::Error(errno) => regs.set_result(-i64::from(errno.raw())),
        // Only a parked thread can have been interrupted; a handler that says so without waiting means EINTR.
        Reply::Restart => regs.set_result(-i64::from(libc::EINTR)),
        Reply::Passthrough => {
            let _ = sys::cont(tid, 0);
            return State::Running;
        }
    }
    let _ = sys::set_regs(tid, &regs);
    let _ = sys::cont(tid, 0);
    State::Running
}

pub fn reply_at_exit(tid: Tid, frame: Frame, reply: Reply) -> State {
    if reply == Reply::Passthrough {
        return rewind(tid, frame, Next::Reply(reply));
    }
    let frame = unblocked(tid, frame);
    set_final(tid, &frame, reply);
    let _ = sys::cont(tid, frame.signal);
    State::Running
}

/// The reply to a call that was parked, with the signal that took it out (or 0).
pub fn reply_interrupted(tid: Tid, frame: Frame, reply: Reply, signal: i32) -> State {
    if reply == Reply::Passthrough {
        // The handler runs first; then the call is made again, whatever the handler's flags.
        let mut regs = frame.regs;
        regs.set_interrupted(ERESTARTNOINTR);
        if signal != 0 {
            let _ = sys::set_regs(tid, &regs);
            let _ = sys::cont(tid, signal);
            return State::Running;
        }
        return rewind(tid, frame, Next::Reply(reply));
    }
    let frame = unblocked(tid, frame);
    set_final(tid, &frame, reply);
    let _ = sys::cont(tid, signal);
    State::Running
}

/// Puts the result where the guest finds it, with all other registers as they were.
pub fn set_final(tid: Tid, frame: &Frame, reply: Reply) {
    if frame.executed {
        return;
    }
    let mut regs = frame.regs;
    match reply {
        Reply::Return(result) => regs.set_result(result),
        Reply::Error(errno) => regs.set_result(-i64::from(errno.raw())),
        Reply::Restart => regs.set_interrupted(ERESTARTSYS),
        Reply::Passthrough => return,
    }
    let _ = sys::set_regs(tid, &regs);
}
