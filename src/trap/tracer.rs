//! One state machine a thread ([`super::state`]).
//!
//! A caught call stands at its entry: in a seccomp stop, or in a notification ([`super::notify`]); or just behind it if
//! the host refuses it: in the delivery stop of a SIGSYS ([`super::host`]). From there the thread has one of these
//! journeys:
//!
//! - *reply*: the result is put into the registers and the call skipped; or it passes.
//! - *run*: the call is rewritten into another one, which the kernel makes; the thread then stands at that call's exit.
//!   For a second run it goes back to the `syscall` instruction with a number that the filter always catches, and is
//!   rewritten there. Signals are blocked meanwhile.
//! - *park*: the call is rewritten into an endless ppoll(2). PTRACE_INTERRUPT takes the thread out; a signal that
//!   matters is held in its delivery stop until the reply is there.
//!
//! A notification is answered directly. To run or park its call the thread must come to a ptrace stop first: the call is
//! answered with -ERESTARTSYS while PTRACE_INTERRUPT is pending, and then goes the way of a second run.
//!
//! A thread may vanish at any moment (SIGKILL): then ptrace gives ESRCH, which is ignored here, because its exit is
//! reported by `waitpid` in any case.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use fsmodules::api::Errno;

use super::filter::TRAP_MARK;
use super::host::Refusals;
use super::notify::{Listener, Notification};
use super::placement::SameCore;
use super::state::{
    Frame, Next, State, enter, enter_parking, reply_at_entry, reply_at_exit, reply_interrupted, rewind, set_final,
    unblocked, unpark,
};
use super::{
    EndSignal, Engine, Error, Event, Memory, Reply, SpawnError, SpawnSpec, Tid, WaitStatus, restart, spawn, sys,
};
use crate::abi::{RawCall, fold, is_restart};

const PATIENCE_STOPPED: Duration = Duration::from_millis(1);
const PATIENCE_NOTIFIED: Duration = Duration::from_millis(20);

/// All tracees of a session. It must be used by one thread only, the one that made it.
pub struct Tracer {
    threads: HashMap<Tid, State>,
    ready: VecDeque<Event>,
    refusals: Refusals,
    signals: OwnedFd,
    news: sys::News,
    listener: Option<Listener>,
    /// A notification is there to be received.
    notified: bool,
    /// Signals that go to another thread than the kernel had chosen: to whom, which one, and what it says.
    redirected: Vec<(Tid, i32, sys::SignalInfo)>,
}

impl Tracer {
    pub fn new() -> Result<Tracer, Error> {
        let forbidden = |errno| Error::Forbidden {
            what: "signalfd",
            errno,
        };
        Ok(Tracer {
            threads: HashMap::new(),
            ready: VecDeque::new(),
            refusals: Refusals::of_host(),
            signals: sys::signals().map_err(forbidden)?,
            news: sys::News::default(),
            listener: None,
            notified: false,
            redirected: Vec::new(),
        })
    }

    /// Starts a command; it runs as soon as events are taken.
    pub fn spawn(&mut self, spec: &SpawnSpec, engine: Engine) -> Result<Tid, SpawnError> {
        let (tid, listener) = spawn::start(spec, engine, &self.refusals, self.signals.as_fd(), &mut self.news)?;
        self.listener = listener;
        // What has been seen of its start may hide what has come since.
        self.news.children = true;
        self.threads.insert(tid, State::Running);
        Memory::keep(tid);
        Ok(tid)
    }

    /// Traces a process that waits for it ([`super::be_traced`]).
    pub fn adopt(&mut self, tid: Tid) -> Result<(), Error> {
        sys::seize(tid).map_err(|errno| Error::Os {
            op: "tracing",
            tid,
            errno,
        })?;
        self.threads.insert(tid, State::Running);
        Memory::keep(tid);
        Ok(())
    }

    pub fn memory(&self, tid: Tid) -> Memory {
        Memory::new(tid)
    }

    /// Where a caught call returns to, unless it has been left for another one.
    pub fn call_end(&self, tid: Tid) -> Option<u64> {
        match self.threads.get(&tid)? {
            State::Notified(notification) => Some(notification.call_end),
            State::Entry(frame) => Some(frame.regs.call_end()),
            _ => None,
        }
    }

    /// Does the host let guests make this call?
    pub fn allows(&self, nr: i64) -> bool {
        self.refusals.error(nr as u32).is_none()
    }

    /// As long as this a waiting thread is best left where it is: parking it costs several switches, and until then
    /// only SIGKILL reaches it.
    pub fn patience(&self) -> Duration {
        if self.listener.is_some() {
            PATIENCE_NOTIFIED
        } else {
            PATIENCE_STOPPED
        }
    }

    /// Blocks until there may be an event, one of the descriptors is readable (their indices), or the time is over.
    pub fn wait(&mut self, fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<usize> {
        if !self.ready.is_empty() || self.news.asked_to_end.is_some() {
            return Vec::new();
        }
        let own = self.listener.iter().map(|listener| listener.as_fd());
        let all: Vec<BorrowedFd<'_>> = own.chain([self.signals.as_fd()]).chain(fds.iter().copied()).collect();
        let mut shown = sys::poll(&all, timeout);
        if self.listener.is_some() {
            let listener = shown.remove(0);
            self.notified = listener & libc::POLLIN != 0;
            // The last process under its filter is gone.
            if listener & libc::POLLHUP != 0 {
                self.listener = None;
            }
        }
        if shown.remove(0) != 0 {
            self.news.add(sys::take_signals(self.signals.as_fd()));
        }
        (0..shown.len()).filter(|&n| shown[n] != 0).collect()
    }

    /// How umvu was asked to end, if that has happened since the last time.
    pub fn asked_to_end(&mut self) -> Option<EndSignal> {
        self.news.asked_to_end.take()
    }

    /// The next event, without waiting.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let Event::Created { child, .. } = event {
                    self.announce(child);
                }
                return Some(event);
            }
            if std::mem::take(&mut self.news.children) {
                while let Some((tid, status)) = sys::next_status() {
                    self.change(tid, status);
                }
            } else if std::mem::take(&mut self.notified) {
                self.receive();
            } else {
                return None;
            }
        }
    }

    fn receive(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Some((tid, notification, call)) = listener.receive() else {
            return;
        };
        match self.threads.get_mut(&tid) {
            Some(state @ State::Running) => {
                *state = State::Notified(notification);
                self.ready.push_back(Event::Syscall { tid, call: fold(call) });
            }
            // Nobody that umvu would have an answer for.
            _ => listener.answer(notification, Reply::Passthrough),
        }
    }

    /// Can its call be answered by [`Tracer::reply_with_fd`]?
    pub fn takes_fd(&self, tid: Tid) -> bool {
        matches!(self.threads.get(&tid), Some(State::Notified(_)))
    }

    /// Answers a caught call with a file that the thread shall have, at this number or else at the lowest free one, if
    /// that can be done from here; the number.
    pub fn reply_with_fd(&mut self, tid: Tid, file: BorrowedFd<'_>, at: Option<i32>, cloexec: bool) -> Option<i32> {
        let (state, listener) = (self.threads.get_mut(&tid)?, self.listener.as_ref()?);
        let State::Notified(notification) = *state else {
            return None;
        };
        // The caller takes the file itself while umvu waits: the kernel wakes both wherever a core is idle.
        let _same_core = SameCore::with(tid);
        // EBADF or EMFILE: the number is beyond the guest's RLIMIT_NOFILE.
        let number = listener.answer_with_fd(notification, file, at, cloexec).ok()?;
        *state = State::Running;
        Some(number)
    }

    /// Brings a thread from its notification to a stop.
    fn surface(&self, tid: Tid, notification: Notification, next: Next) -> State {
        let _ = sys::interrupt(tid);
        if let Some(listener) = &self.listener {
            listener.answer(notification, Reply::Restart);
        }
        State::Surfacing(next)
    }

    /// Answers a caught call.
    pub fn reply(&mut self, tid: Tid, reply: Reply) {
        if let (Some(state), Some(listener)) = (self.threads.get_mut(&tid), &self.listener)
            && let State::Notified(notification) = *state
        {
            *state = State::Running;
            return listener.answer(notification, reply);
        }
        let Some(state) = self.threads.remove(&tid) else { return };
        let reply = match (reply, state.refused()) {
            (Reply::Passthrough, Some(errno)) => Reply::Error(errno),
            _ => reply,
        };
        let next = match state {
            State::Entry(frame) => reply_at_entry(tid, frame, reply),
            State::Exit(frame) => reply_at_exit(tid, frame, reply),
            State::Held { frame, signal } => reply_interrupted(tid, frame, reply, signal),
            other => unpark(tid, other, Next::Reply(reply)),
        };
        self.threads.insert(tid, next);
    }

    /// Lets the kernel make a call in the thread, whose caught call goes on waiting for its reply.
    pub fn run(&mut self, tid: Tid, call: RawCall) {
        if let Some(errno) = self.refusals.error(call.nr) {
            let result = -i64::from(errno.raw());
            return self.ready.push_back(Event::Ran { tid, result });
        }
        let Some(state) = self.threads.remove(&tid) else { return };
        let next = match state {
            State::Entry(frame) => enter(tid, frame, call, false),
            State::Notified(notification) => self.surface(tid, notification, Next::Run(call)),
            State::Exit(frame) => rewind(tid, frame, Next::Run(call)),
            State::Held { mut frame, signal } => {
                frame.signal = signal;
                rewind(tid, frame, Next::Run(call))
            }
            other => unpark(tid, other, Next::Run(call)),
        };
        self.threads.insert(tid, next);
    }

    /// Puts a waiting thread where signals reach it. `false` if it is not in a state to be parked now.
    pub fn park(&mut self, tid: Tid) -> bool {
        let Some(state) = self.threads.remove(&tid) else {
            return true;
        };
        let (next, parked) = match state {
            State::Entry(frame) => (enter_parking(tid, frame), true),
            State::Notified(notification) => (self.surface(tid, notification, Next::Park), true),
            State::Exit(frame) if !frame.executed => (rewind(tid, frame, Next::Park), true),
            other @ (State::Parked(_) | State::Held { .. }) => (other, true),
            other => (other, false),
        };
        self.threads.insert(tid, next);
        parked
    }

    /// Lets a thread exit ([`Event::Exiting`]).
    pub fn resume(&mut self, tid: Tid) {
        if matches!(self.threads.get(&tid), Some(State::Exiting)) {
            let _ = sys::cont(tid, 0);
        }
    }

    /// The session has taken note of a new thread: it may run.
    fn announce(&mut self, child: Tid) {
        match self.threads.get_mut(&child) {
            Some(state @ State::New { stopped: true, .. }) => {
                *state = State::Running;
                let _ = sys::cont(child, 0);
            }
            Some(State::New { announced, .. }) => *announced = true,
            _ => {}
        }
    }

    /// Takes note of a change that `waitpid` has reported.
    fn change(&mut self, tid: Tid, status: i32) {
        if libc::WIFEXITED(status) {
            return self.gone(tid, WaitStatus::Exited(libc::WEXITSTATUS(status)));
        }
        if libc::WIFSIGNALED(status) {
            return self.gone(tid, WaitStatus::Signaled(libc::WTERMSIG(status)));
        }
        if !libc::WIFSTOPPED(status) {
            return;
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            libc::PTRACE_EVENT_SECCOMP => self.caught(tid),
            event @ (libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE) => {
                self.created(tid, event)
            }
            libc::PTRACE_EVENT_EXEC => self.executed(tid),
            libc::PTRACE_EVENT_EXIT => {
                self.threads.insert(tid, State::Exiting);
                self.ready.push_back(Event::Exiting { tid });
            }
            libc::PTRACE_EVENT_STOP => self.stopped(tid, signal),
            _ if signal == libc::SIGTRAP | 0x80 => self.call_done(tid),
            _ => self.signalled(tid, signal),
        }
    }

    fn gone(&mut self, tid: Tid, status: WaitStatus) {
        self.threads.remove(&tid);
        self.redirected.retain(|(to, ..)| *to != tid);
        Memory::forget(tid);
        self.ready.push_back(Event::Exited { tid, status });
    }

    /// A seccomp stop: a call that the filter catches, or the number with which we made a thread come back.
    fn caught(&mut self, tid: Tid) {
        let Ok(regs) = sys::regs(tid) else { return };
        match self.threads.remove(&tid) {
            Some(State::Rewinding { frame, next }) => {
                let original = frame.regs.call();
                let state = match next {
                    Next::Run(call) => enter(tid, unblocked(tid, frame), call, false),
                    Next::Park => enter_parking(tid, frame),
                    Next::Reply(Reply::Passthrough) => enter(tid, unblocked(tid, frame), original, true),
                    Next::Reply(reply) => reply_at_entry(tid, unblocked(tid, frame), reply),
                };
                self.threads.insert(tid, state);
            }
            // A rewritten call that the filter catches as well: it has been decided on already.
            Some(state @ State::InCall { .. }) => {
                let _ = sys::cont_to_exit(tid);
                self.threads.insert(tid, state);
            }
            _ => {
                self.threads.insert(tid, State::Entry(Frame::new(regs)));
                self.ready.push_back(Event::Syscall {
                    tid,
                    call: fold(regs.call()),
                });
            }
        }
    }

    fn created(&mut self, parent: Tid, event: i32) {
        if let (Some(child), Ok(regs)) = (sys::event_thread(parent, event), sys::regs(parent)) {
            let flags = clone_flags(parent, regs.call());
            let stopped = matches!(self.threads.get(&child), Some(State::New { stopped: true, .. }));
            self.threads.insert(
                child,
                State::New {
                    stopped,
                    announced: false,
                },
            );
            if flags & libc::CLONE_THREAD as u64 == 0 {
                Memory::keep(child);
            }
            self.ready.push_back(Event::Created { parent, child, flags });
        }
        self.go_on(parent);
    }

    fn executed(&mut self, tid: Tid) {
        let former = sys::event_thread(tid, libc::PTRACE_EVENT_EXEC).unwrap_or(tid);
        Memory::forget(former);
        Memory::forget(tid);
        Memory::keep(tid);
        if let Some(mut state) = self.threads.remove(&former) {
            if let State::InCall { frame, .. } = &mut state {
                frame.executed = true;
            }
            self.threads.insert(tid, state);
        }
        self.ready.push_back(Event::Exec { tid, former });
        self.go_on(tid);
    }

    /// Continues after an event that does not end what the thread is doing.
    fn go_on(&mut self, tid: Tid) {
        let _ = match self.threads.get(&tid) {
            Some(State::InCall { .. }) => sys::cont_to_exit(tid),
            _ => sys::cont(tid, 0),
        };
    }

    /// A call that we let the kernel make is done.
    fn call_done(&mut self, tid: Tid) {
        let Ok(regs) = sys::regs(tid) else { return };
        match self.threads.remove(&tid) {
            Some(State::InCall { frame, reply: false }) => {
                self.threads.insert(tid, State::Exit(frame));
                self.ready.push_back(Event::Ran {
                    tid,
                    result: regs.result(),
                });
            }
            Some(State::InCall { frame, reply: true }) => {
                let reply = if is_restart(regs.result()) {
                    Reply::Restart
                } else {
                    Reply::Return(regs.result())
                };
                let state = reply_at_exit(tid, frame, reply);
                self.threads.insert(tid, state);
            }
            other => {
                self.threads.extend(other.map(|state| (tid, state)));
                let _ = sys::cont(tid, 0);
            }
        }
    }

    /// PTRACE_EVENT_STOP: a new thread's first stop, the effect of PTRACE_INTERRUPT, the beginning of a group stop or
    /// the end of one.
    fn stopped(&mut self, tid: Tid, signal: i32) {
        let group_stop = matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        match self.threads.remove(&tid) {
            None | Some(State::New { announced: false, .. }) => {
                self.threads.insert(
                    tid,
                    State::New {
                        stopped: true,
                        announced: false,
                    },
                );
            }
            Some(State::New { announced: true, .. }) => {
                self.threads.insert(tid, State::Running);
                let _ = sys::cont(tid, 0);
            }
            Some(State::Leaving {
                frame,
                next: Next::Reply(reply),
            }) => {
                if group_stop && matches!(reply, Reply::Passthrough) {
                    let _ = sys::listen(tid);
                    self.threads.insert(
                        tid,
                        State::Leaving {
                            frame,
                            next: Next::Reply(reply),
                        },
                    );
                } else if group_stop {
                    set_final(tid, &frame, reply);
                    let _ = sys::listen(tid);
                    self.threads.insert(tid, State::Running);
                } else {
                    let state = reply_interrupted(tid, frame, reply, 0);
                    self.threads.insert(tid, state);
                }
            }
            Some(State::Leaving { frame, next }) if !group_stop => {
                let state = rewind(tid, frame, next);
                self.threads.insert(tid, state);
            }
            Some(State::Surfacing(next)) if !group_stop => {
                let Ok(regs) = sys::regs(tid) else { return };
                let frame = Frame::new(regs);
                let state = match next {
                    Next::Reply(reply) => reply_at_exit(tid, frame, reply),
                    Next::Run(_) | Next::Park => rewind(tid, frame, next),
                };
                self.threads.insert(tid, state);
            }
            Some(state) => {
                let _ = if group_stop {
                    sys::listen(tid)
                } else {
                    sys::cont(tid, 0)
                };
                self.threads.insert(tid, state);
            }
        }
    }

    /// The SIGSYS of a caught call that the host refuses. It is over as far as the kernel is concerned.
    fn trapped(&mut self, tid: Tid) {
        let Ok(regs) = sys::regs(tid) else { return };
        let mut frame = Frame::new(regs);
        // A process that has joined the view may be refused what the others are not.
        frame.refused = self.refusals.error(regs.call().nr).or(Some(Errno::EPERM));
        self.threads.insert(tid, State::Exit(frame));
        self.ready.push_back(Event::Syscall {
            tid,
            call: fold(regs.call()),
        });
    }

    /// A signal for a process goes to its leader, unless that blocks it; but not while the leader is stopped by us or on
    /// its way between stops, where it may block everything. So that a waiting leader does not miss what is to interrupt
    /// it, such a signal is taken from the thread that got it instead.
    fn redirect(&mut self, tid: Tid, signal: i32) -> bool {
        if let Some(n) = self.redirected.iter().position(|(to, n, _)| (*to, *n) == (tid, signal)) {
            let (.., info) = self.redirected.remove(n);
            let _ = sys::set_signal_info(tid, &info);
            return false;
        }
        let Some(info) = sys::signal_info(tid).filter(|info| info.is_for_a_process()) else {
            return false;
        };
        let Some(leader) = process_of(tid).filter(|leader| *leader != tid) else {
            return false;
        };
        let mask = match self.threads.get(&leader) {
            None | Some(State::New { .. } | State::Exiting) => return false,
            Some(state) => state.mask().or_else(|| signals(leader, "SigBlk:")).unwrap_or(u64::MAX),
        };
        if mask & 1 << (signal - 1) != 0 || !is_handled(tid, signal) {
            return false;
        }
        sys::signal_thread(leader, leader, signal);
        // Sent once more before it is delivered, it is still one signal.
        if !self.redirected.iter().any(|(to, n, _)| (*to, *n) == (leader, signal)) {
            self.redirected.push((leader, signal, info));
        }
        true
    }

    /// A signal is about to be delivered.
    fn signalled(&mut self, tid: Tid, signal: i32) {
        if signal == libc::SIGSYS && sys::is_trap(tid, TRAP_MARK) {
            return self.trapped(tid);
        }
        if matches!(self.threads.get(&tid), Some(State::Running))
            && restart::before_delivery(tid, signal, self.listener.is_some())
        {
            let _ = sys::cont(tid, 0);
            return;
        }
        if self.redirect(tid, signal) {
            let _ = sys::cont(tid, 0);
            return;
        }
        match self.threads.remove(&tid) {
            Some(State::Parked(frame)) if is_handled(tid, signal) => {
                self.threads.insert(tid, State::Held { frame, signal });
                self.ready.push_back(Event::Signal { tid });
            }
            Some(State::Leaving {
                frame,
                next: Next::Reply(reply),
            }) if is_handled(tid, signal) => {
                let state = reply_interrupted(tid, frame, reply, signal);
                self.threads.insert(tid, state);
            }
            Some(State::Leaving { mut frame, next }) if is_handled(tid, signal) => {
                frame.signal = signal;
                let state = rewind(tid, frame, next);
                self.threads.insert(tid, state);
            }
            // SIGSTOP waits for the end of this way. All other signals are blocked on it, but for those that the kernel
            // forces on a thread because it cannot go on, as when a program could not be loaded.
            Some(State::Rewinding { mut frame, next }) if signal == libc::SIGSTOP => {
                frame.signal = signal;
                let _ = sys::cont(tid, 0);
                self.threads.insert(tid, State::Rewinding { frame, next });
            }
            Some(state) => {
                let _ = sys::cont(tid, signal);
                self.threads.insert(tid, state);
            }
            None => {
                let _ = sys::cont(tid, signal);
            }
        }
    }
}

/// The flags with which a thread is being made (clone(2), clone3(2), fork(2), vfork(2)).
fn clone_flags(parent: Tid, call: RawCall) -> u64 {
    use super::GuestMemory;
    const VFORK: u64 = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    match i64::from(call.nr) {
        libc::SYS_clone => call.args[0],
        libc::SYS_clone3 => {
            let mut flags = [0; 8];
            let read = Memory::new(parent).read(call.args[0], &mut flags);
            read.map_or(0, |()| u64::from_ne_bytes(flags))
        }
        libc::SYS_vfork => VFORK,
        _ => 0,
    }
}

/// Does a handler wait for this signal? Only then must the waiting call end first. A signal without one kills, stops or
/// does nothing, and the kernel may do so at once.
fn is_handled(tid: Tid, signal: i32) -> bool {
    signals(tid, "SigCgt:").is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}

/// A set of signals of a thread (proc(5)).
fn signals(tid: Tid, name: &str) -> Option<u64> {
    u64::from_str_radix(&status_field(tid, name)?, 16).ok()
}

/// The process of a thread: its leader's id.
pub(super) fn process_of(tid: Tid) -> Option<Tid> {
    status_field(tid, "Tgid:")?.parse().ok().map(Tid::from_raw)
}

/// A line of `/proc/TID/status` by its name, with the colon (proc(5)).
pub fn status_field(tid: Tid, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}
