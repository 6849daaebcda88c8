//! A session: one view from its first program to its end. The loop that owns everything.
//!
//! Only this loop blocks. Each caught call is one future; a call that waits for longer than
//! [`crate::trap::Tracer::patience`] has its thread parked, so that signals reach it. When the command ends, what is
//! mounted is written back and unmounted, and the servers have a grace period to end.

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use fsmodules::api::Errno;

use crate::control::{Request, Response};
use crate::dispatch::{self, Ctx};
use crate::door::Door;
use crate::hypervisor::Hypervisor;
use crate::task::{Fs, Task, clone};
use crate::trap::{self, EndSignal, Event, Reply, Tid, WaitStatus};

/// A thread whose call the kernel is running for us is looked at again after this.
const PARK_AGAIN: Duration = Duration::from_millis(10);
/// What is left when the command has ended, and serves nothing, is asked to end after this.
const MOMENT: Duration = Duration::from_millis(200);
/// Between asking the last processes to end and ending them.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub struct Session {
    hv: Rc<Hypervisor>,
    main: Tid,
    /// How the command ended.
    status: Option<WaitStatus>,
    /// Calls in progress, by when to look whether their thread must be parked.
    parking: VecDeque<(Duration, Weak<Task>, u64)>,
    closing: Closing,
    grace: Duration,
}

/// The stages of a session's end.
enum Closing {
    No,
    /// File systems are written back and unmounted; their servers end by themselves until then, and whoever else is
    /// about to end, in a moment.
    Grace {
        moment: Duration,
        until: Duration,
    },
    /// Everybody has been asked to end.
    Terminated(Duration),
}

impl Session {
    /// The command has been started as `main`.
    pub fn new(hv: Rc<Hypervisor>, main: Tid, grace: Duration) -> Session {
        let mut session = Session {
            hv,
            main,
            status: None,
            parking: VecDeque::new(),
            closing: Closing::No,
            grace,
        };
        session.enter(main);
        session
    }

    /// A process that is not a child of another enters the view.
    fn enter(&mut self, tid: Tid) {
        let cwd = std::fs::read_link(format!("/proc/{tid}/cwd")).unwrap_or_else(|_| "/".into());
        let root = self.hv.mounts.root_place();
        let fs = Fs::new(self.hv.mounts.host_place(&cwd, &root, None), root, umask_of(tid));
        self.hv.tasks.borrow_mut().insert(tid, Task::first(tid, fs));
    }

    /// Runs to the end; how the command ended.
    pub fn run(mut self) -> WaitStatus {
        loop {
            self.take_events();
            self.tick();
            self.hv.timers.fire(self.hv.now());
            self.tick();
            self.park_waiting();
            if self.is_over() {
                return self.status.unwrap_or(WaitStatus::Exited(0));
            }
            self.wait();
        }
    }

    fn tick(&self) {
        while self.hv.executor.try_tick() {}
    }

    fn take_events(&mut self) {
        loop {
            let event = self.hv.tracer.borrow_mut().next_event();
            match event {
                Some(event) => self.handle(event),
                None => return,
            }
            self.tick();
        }
    }

    /// Blocks until a tracee stops, somebody knocks, a file of the host changes that is watched, or a deadline passes.
    fn wait(&mut self) {
        let mut deadline = self.hv.timers.next_deadline();
        let mut sooner = |time: Duration| deadline = Some(deadline.map_or(time, |d| d.min(time)));
        if let Some((time, ..)) = self.parking.front() {
            sooner(*time);
        }
        match self.closing {
            Closing::Grace { moment, .. } if self.hv.now() < moment => sooner(moment),
            Closing::Grace { until, .. } | Closing::Terminated(until) => sooner(until),
            Closing::No => {}
        }
        let timeout = deadline.map(|deadline| deadline.saturating_sub(self.hv.now()));
        let door = self.hv.door.borrow();
        let doors = usize::from(door.is_some());
        let fds: Vec<BorrowedFd<'_>> = door
            .iter()
            .map(|door| door.as_fd())
            .chain(self.hv.inotify.kernel())
            .collect();
        let ready = self.hv.tracer.borrow_mut().wait(&fds, timeout);
        drop(door);
        for n in ready {
            if n < doors {
                self.answer_door();
            } else {
                self.hv.inotify.take_events();
            }
        }
        let asked = self.hv.tracer.borrow_mut().asked_to_end();
        if let Some(request) = asked {
            self.pass_on(request);
        }
    }

    /// Somebody wants umvu to end: so does the command, in its own way. Once it has, nobody is waited for.
    fn pass_on(&mut self, request: EndSignal) {
        match self.closing {
            Closing::No if request.from_terminal => {}
            Closing::No => send(self.main, request.signal),
            Closing::Grace { moment, .. } => {
                let until = self.hv.now();
                self.closing = Closing::Grace { moment, until };
            }
            Closing::Terminated(_) => self.closing = Closing::Terminated(self.hv.now()),
        }
    }

    fn answer_door(&mut self) {
        let visitor = self.hv.door.borrow().as_ref().and_then(Door::accept);
        let Some(mut visitor) = visitor else { return };
        let response = match visitor.question() {
            Ok(Request::Enter { pid }) => self.admit(Tid::from_raw(pid)),
            Ok(request) => dispatch::control::simple(&self.hv, request),
            Err(error) => Response::Failed(format!("unreadable request: {error}")),
        };
        visitor.answer(&response);
    }

    /// A process from outside wants to enter the view.
    fn admit(&mut self, tid: Tid) -> Response {
        let adopted = self.hv.tracer.borrow_mut().adopt(tid);
        match adopted {
            Ok(()) => {
                self.enter(tid);
                Response::Done
            }
            Err(error) => Response::Failed(error.to_string()),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Syscall { tid, call } => self.serve(tid, call),
            Event::Ran { tid, result } => self.with(tid, |task| task.ran.put(result)),
            Event::Signal { tid } => self.with(tid, |task| task.signal.raise()),
            Event::Created { parent, child, flags } => {
                if let Some(parent) = self.hv.task(parent) {
                    if flags & clone::THREAD != 0 {
                        dispatch::before_threads(&self.hv, &parent);
                    }
                    let task = parent.cloned(child, flags);
                    dispatch::forked(&self.hv, &task);
                    self.hv.tasks.borrow_mut().insert(child, task);
                }
            }
            Event::Exec { tid, former } => self.executed(tid, former),
            Event::Exiting { tid } => self.exiting(tid),
            Event::Exited { tid, status } => self.exited(tid, status),
        }
    }

    fn with(&self, tid: Tid, act: impl FnOnce(&Task)) {
        if let Some(task) = self.hv.task(tid) {
            act(&task);
        }
    }

    fn serve(&mut self, tid: Tid, call: crate::abi::RawCall) {
        let Some(task) = self.hv.task(tid) else {
            // A thread that umvu does not know cannot be answered for; let the kernel.
            self.hv.tracer.borrow_mut().reply(tid, Reply::Passthrough);
            return;
        };
        let cx = Ctx::new(self.hv.clone(), task.clone(), call);
        let serial = task.begin_call(call);
        let mut job: Pin<Box<dyn Future<Output = ()>>> = Box::pin(serve(cx));
        // Most calls are answered at once. The executor asks the others again.
        if job.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        task.job.replace(Some(self.hv.executor.spawn(job)));
        self.tick();
        if task.in_call(serial) {
            let patience = self.hv.tracer.borrow().patience();
            self.parking
                .push_back((self.hv.now() + patience, Rc::downgrade(&task), serial));
        }
    }

    fn park_waiting(&mut self) {
        let now = self.hv.now();
        while let Some((when, task, serial)) = self.parking.front() {
            let (when, serial) = (*when, *serial);
            let task = task.upgrade().filter(|task| task.in_call(serial));
            if task.is_some() && when > now {
                return;
            }
            self.parking.pop_front();
            let Some(task) = task else { continue };
            if !self.hv.tracer.borrow_mut().park(task.tid.get()) {
                self.parking.push_back((now + PARK_AGAIN, Rc::downgrade(&task), serial));
            }
        }
    }

    fn executed(&mut self, tid: Tid, former: Tid) {
        let Some(task) = self.hv.tasks.borrow_mut().remove(&former) else {
            return;
        };
        if tid != former {
            // The other threads are gone, the leader without a word.
            if let Some(leader) = self.hv.tasks.borrow_mut().remove(&tid) {
                leader.files().leave();
            }
            task.tid.set(tid);
        }
        task.process().tgid.set(tid);
        self.hv.tasks.borrow_mut().insert(tid, task.clone());
        dispatch::executed(&task);
        let cx = Ctx::new(self.hv.clone(), task, crate::abi::RawCall::default());
        self.hv
            .executor
            .spawn(async move { dispatch::close_on_exec(&cx).await })
            .detach();
    }

    /// A thread is about to exit: its files are closed while its parent still waits for it.
    fn exiting(&mut self, tid: Tid) {
        let Some(task) = self.hv.task(tid) else {
            self.hv.tracer.borrow_mut().resume(tid);
            return;
        };
        task.job.take();
        let hv = self.hv.clone();
        let sweep = sweep(self.hv.clone(), task);
        self.hv
            .executor
            .spawn(async move {
                sweep.await;
                hv.tracer.borrow_mut().resume(tid);
            })
            .detach();
    }

    fn exited(&mut self, tid: Tid, status: WaitStatus) {
        let task = self.hv.tasks.borrow_mut().remove(&tid);
        if let Some(task) = task {
            task.job.take();
            let sweep = sweep(self.hv.clone(), task);
            self.hv.executor.spawn(sweep).detach();
        }
        if tid == self.main && self.status.is_none() {
            self.status = Some(status);
            self.close();
        }
    }

    /// The command has ended: unmount everything.
    fn close(&mut self) {
        let mounts = self.hv.mounts.visible();
        let now = self.hv.now();
        self.closing = Closing::Grace {
            moment: now + MOMENT,
            until: now + self.grace,
        };
        let hv = self.hv.clone();
        let quiet = Task::first(self.main, Fs::new(hv.mounts.root_place(), hv.mounts.root_place(), 0o22));
        let cx = Ctx::new(hv.clone(), quiet, crate::abi::RawCall::default());
        let limit = self.grace;
        self.hv
            .executor
            .spawn(async move {
                let work = async {
                    for fs in mounts.iter().filter_map(|mount| mount.fs()) {
                        // Nobody is left to be told; the server has logged it.
                        let _ = fs.sync(cx.cx()).await;
                    }
                };
                let late = hv.timers.until(hv.now() + limit / 2);
                futures_lite::future::or(work, late).await;
                hv.mounts.detach_all();
            })
            .detach();
    }

    fn is_over(&mut self) -> bool {
        let nobody = self.hv.tasks.borrow().is_empty();
        match self.closing {
            _ if nobody => true,
            Closing::No => false,
            Closing::Grace { moment, until }
                if self.hv.now() >= until || self.hv.now() >= moment && !self.somebody_serves() =>
            {
                for task in self.hv.tasks.borrow().values() {
                    send(task.tgid(), libc::SIGTERM);
                }
                self.closing = Closing::Terminated(self.hv.now() + LAST_WORDS);
                false
            }
            // Whoever is left ends with umvu, its tracer.
            Closing::Terminated(until) => self.hv.now() >= until,
            Closing::Grace { .. } => false,
        }
    }

    fn somebody_serves(&self) -> bool {
        self.hv.tasks.borrow().values().any(|task| task.files().serves())
    }
}

async fn serve(cx: Ctx) {
    let shown = cx.hv.trace.begin(&cx).map(|shown| (shown, cx.hv.now()));
    let reply = match dispatch::serve(&cx).await {
        Ok(reply) => reply,
        Err(Errno::ERESTARTSYS) => Reply::Restart,
        Err(errno) => Reply::Error(errno),
    };
    if let Some((shown, begun)) = shown {
        cx.hv.trace.end(&cx, shown, &reply, cx.hv.now() - begun);
    }
    dispatch::keep_up(&cx, reply).await;
    cx.task.end_call();
    cx.hv.tracer.borrow_mut().reply(cx.task.tid.get(), reply);
}

/// Closes what only this thread still had open.
async fn sweep(hv: Rc<Hypervisor>, task: Rc<Task>) {
    if task.swept.replace(true) {
        return;
    }
    let files = task.files();
    if files.leave() {
        let cx = Ctx::new(hv, task, crate::abi::RawCall::default());
        dispatch::close_all(&cx, &files).await;
    }
}

fn send(pid: Tid, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid.as_raw());
    if let (Some(pid), Some(signal)) = (pid, rustix::process::Signal::from_named_raw(signal)) {
        // It may be gone by now.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn umask_of(tid: Tid) -> u32 {
    let shown = trap::status_field(tid, "Umask:");
    shown
        .and_then(|text| u32::from_str_radix(&text, 8).ok())
        .unwrap_or(0o22)
}
