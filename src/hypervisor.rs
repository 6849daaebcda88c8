//! What all handlers share: the tracer, the tasks, the view and its modules.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use async_executor::LocalExecutor;
use fsmodules::api::{Host, Module, Vnode};
use fsmodules::hostfs::HostFs;
use fsmodules::ids::{Creds, IdMap, Owners};
use fuse_compat::kernel::Clock;

use crate::abi::RawCall;
use crate::dispatch::dnotify::Notified;
use crate::dispatch::fifo::Fifos;
use crate::dispatch::inotify::Instances;
use crate::dispatch::protected::Protected;
use crate::dispatch::socket::Travelling;
use crate::dispatch::{Agents, Copies};
use crate::door::Door;
use crate::rt::Timers;
use crate::task::Task;
use crate::trace::Trace;
use crate::trap::{Tid, Tracer};
use crate::view::Mounts;

/// The state of a session. One thread, no locks: whoever borrows a cell gives it back before the next `.await`.
pub struct Hypervisor {
    pub tracer: RefCell<Tracer>,
    pub tasks: RefCell<HashMap<Tid, Rc<Task>>>,
    pub mounts: Mounts,
    pub modules: Vec<ModuleEntry>,
    pub host: Rc<dyn Host>,
    pub executor: LocalExecutor<'static>,
    pub timers: Rc<Timers>,
    pub trace: Trace,
    pub agents: Agents,
    /// The view's name, for `umvu exec` and `umvu ps`.
    pub name: RefCell<String>,
    /// Where others knock who want to enter the view or to know of it.
    pub door: RefCell<Option<Door>>,
    /// Virtual descriptors that were sent and not yet received.
    pub travelling: RefCell<Vec<Travelling>>,
    /// Somebody looks from time to time what is still in use.
    pub looked_after: Cell<bool>,
    /// Sockets that were bound on virtual file systems.
    pub bound: RefCell<Vec<Bound>>,
    /// FIFOs of virtual file systems that are open.
    pub fifos: RefCell<Fifos>,
    pub inotify: Instances,
    pub dnotify: Notified,
    pub protected: Protected,
    /// Copies of programs whose interpreter is elsewhere in the view.
    pub programs: RefCell<Copies>,
    /// Who those are who enter the view, if not who they are outside.
    pub user: RefCell<Option<Creds>>,
    /// Has somebody become another user in a view whose own user is the real one? What they give away, the programs
    /// that are executed from then on see too.
    pub mixed_ids: Cell<bool>,
    /// What the view shows of the host's files to those whose ids are virtual.
    pub owners: Rc<RefCell<Owners>>,
    /// The host's files, for file systems that are built on them.
    pub host_files: Rc<HostFs>,
    /// An empty directory that has been removed: where the kernel believes a task with a virtual cwd to be.
    nowhere: OwnedFd,
    /// umvu's own process id, for paths to its descriptors.
    pub pid: u32,
    /// Is umvu root's, so that programs of the view can be other users than it?
    pub is_privileged: bool,
    clock: Instant,
}

pub struct ModuleEntry {
    pub module: Rc<dyn Module>,
    pub enabled: Cell<bool>,
}

impl Hypervisor {
    pub fn new(
        tracer: Tracer,
        mounts: Mounts,
        modules: Vec<Rc<dyn Module>>,
        name: String,
        door: Option<Door>,
        trace: Trace,
    ) -> std::io::Result<Rc<Hypervisor>> {
        let nowhere = empty_directory()?;
        let clock = Instant::now();
        let owners = Rc::new(RefCell::new(Owners::new(IdMap::identity(), IdMap::identity())));
        Ok(Rc::new_cyclic(|this: &Weak<Hypervisor>| Hypervisor {
            tracer: RefCell::new(tracer),
            tasks: RefCell::default(),
            mounts,
            modules: modules
                .into_iter()
                .map(|module| ModuleEntry {
                    module,
                    enabled: Cell::new(true),
                })
                .collect(),
            host: Rc::new(HostHandle {
                hv: this.clone(),
                clock,
            }),
            executor: LocalExecutor::new(),
            timers: Rc::default(),
            trace,
            agents: Agents::default(),
            name: RefCell::new(name),
            door: RefCell::new(door),
            travelling: RefCell::default(),
            looked_after: Cell::default(),
            bound: RefCell::default(),
            fifos: RefCell::default(),
            inotify: Instances::default(),
            dnotify: Notified::default(),
            protected: Protected::of_host(),
            programs: RefCell::default(),
            user: RefCell::default(),
            mixed_ids: Cell::new(false),
            host_files: HostFs::new(owners.clone()),
            owners,
            nowhere,
            pid: std::process::id(),
            is_privileged: rustix::process::geteuid().is_root(),
            clock,
        }))
    }

    /// Time since the session began.
    pub fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    pub fn task(&self, tid: Tid) -> Option<Rc<Task>> {
        self.tasks.borrow().get(&tid).cloned()
    }

    /// A thread of the process with this id, whichever.
    pub fn process(&self, tgid: Tid) -> Option<Rc<Task>> {
        if let Some(task) = self.task(tgid) {
            return Some(task);
        }
        self.tasks.borrow().values().find(|task| task.tgid() == tgid).cloned()
    }

    /// The module that serves a file-system type.
    pub fn module_for(&self, fstype: &str) -> Option<Rc<dyn Module>> {
        self.modules
            .iter()
            .find(|m| m.enabled.get() && m.module.serves(fstype))
            .map(|m| m.module.clone())
    }

    /// Lets the kernel run a call in the tracee, at its present stop.
    pub async fn run(&self, task: &Task, call: RawCall) -> i64 {
        self.tracer.borrow_mut().run(task.tid.get(), call);
        task.ran.take().await
    }

    /// The empty directory.
    pub fn nowhere(&self) -> BorrowedFd<'_> {
        self.nowhere.as_fd()
    }
}

/// A unix socket whose name is a virtual file: the kernel knows it by an abstract address (unix(7)).
pub struct Bound {
    pub dev: u64,
    pub node: Rc<dyn Vnode>,
    /// The path as it was given to bind(2), which getsockname(2) shows.
    pub path: Vec<u8>,
    /// `SOCK_STREAM` and so on.
    pub kind: i32,
    name: String,
}

impl Bound {
    pub fn new(hv: &Hypervisor, dev: u64, node: Rc<dyn Vnode>, path: &[u8], kind: i32) -> Bound {
        thread_local!(static NEXT: Cell<u64> = const { Cell::new(1) });
        let name = format!("umvu-{}-socket-{}", hv.pid, NEXT.replace(NEXT.get() + 1));
        let path = path.to_vec();
        Bound {
            dev,
            node,
            path,
            kind,
            name,
        }
    }

    /// The abstract name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `struct sockaddr_un`.
    pub fn address(&self) -> Vec<u8> {
        let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        address.push(0);
        address.extend_from_slice(self.name.as_bytes());
        address
    }
}

struct HostHandle {
    hv: Weak<Hypervisor>,
    clock: Instant,
}

impl Clock for HostHandle {
    fn now(&self) -> Duration {
        self.clock.elapsed()
    }
}

impl Host for HostHandle {
    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()>>>) {
        if let Some(hv) = self.hv.upgrade() {
            hv.executor.spawn(work).detach();
        }
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        match self.hv.upgrade() {
            Some(hv) => Box::pin(hv.timers.until(self.clock.elapsed() + time)),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// Where something can be made that gets no name, or loses it at once; not all of them need exist.
pub fn temporary_directories() -> impl Iterator<Item = PathBuf> {
    let candidates = [
        std::env::var_os("XDG_RUNTIME_DIR"),
        std::env::var_os("TMPDIR"),
        Some("/tmp".into()),
        Some("/dev/shm".into()),
    ];
    candidates.into_iter().flatten().map(PathBuf::from)
}

/// Makes and removes a directory, and keeps it open: nothing can be found or made in it, and nothing stays behind.
/// Without a writable directory anywhere, the root does: relative paths never reach the kernel there.
fn empty_directory() -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for base in temporary_directories() {
        let path = base.join(format!("umvu-{}-nowhere", std::process::id()));
        if std::fs::create_dir(&path).is_ok() {
            let fd = open(&path, flags, Mode::empty());
            std::fs::remove_dir(&path)?;
            if let Ok(fd) = fd {
                return Ok(fd);
            }
        }
    }
    Ok(open("/", flags, Mode::empty())?)
}
