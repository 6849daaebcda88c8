//! Who is calling: threads, and what they share.
//!
//! Sharing follows clone(2): [`Files`] is the descriptor table (`CLONE_FILES`), [`Fs`] the working directory, root and
//! umask (`CLONE_FS`), [`Mm`] the address space (`CLONE_VM`), [`Process`] the thread group (`CLONE_THREAD`).

mod files;
mod ids;
mod mm;
mod openfile;

pub use files::{FdEntry, Files};
pub use ids::read_ids;
pub use mm::{AREA_LEN, Agent, Mapped, Mm, SLOT_LEN, Slot as ScratchSlot};
pub use openfile::OpenFile;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use fsmodules::api::Ids;
use fsmodules::ids::Creds;

use crate::abi::RawCall;
use crate::rt::{Flag, Slot};
use crate::table::FdLevel;
use crate::trap::Tid;
use crate::view::{MountUse, Place};

/// What `CLONE_FS` shares.
pub struct Fs {
    /// The working directory.
    pub cwd: RefCell<Place>,
    /// Keeps the working directory's mount busy.
    pub cwd_use: RefCell<Option<MountUse>>,
    pub root: RefCell<Place>,
    pub umask: Cell<u32>,
    /// The working directory has been changed by somebody else; the kernel has yet to be told, at the next call.
    pub moved: Cell<bool>,
}

impl Fs {
    pub fn new(cwd: Place, root: Place, umask: u32) -> Rc<Fs> {
        let fs = Fs {
            cwd: RefCell::new(root.clone()),
            cwd_use: RefCell::new(None),
            root: RefCell::new(root),
            umask: Cell::new(umask),
            moved: Cell::new(false),
        };
        fs.set_cwd(cwd);
        Rc::new(fs)
    }

    pub fn set_cwd(&self, place: Place) {
        self.cwd_use.replace(Some(place.mount().use_it()));
        self.cwd.replace(place);
    }

    fn copy(&self) -> Rc<Fs> {
        let copy = Fs::new(self.cwd.borrow().clone(), self.root.borrow().clone(), self.umask.get());
        copy.moved.set(self.moved.get());
        copy
    }
}

/// A thread group.
pub struct Process {
    pub tgid: Cell<Tid>,
    /// What it executes, where the kernel does not know it: the truth behind `/proc/PID/exe`.
    pub exe: RefCell<Option<Place>>,
    /// That file, if it is virtual, kept open as long as it runs.
    pub running: RefCell<Option<Rc<OpenFile>>>,
    /// The root directory that it goes back to once it is loaded, if it is one of umvu's own commands.
    pub home: RefCell<Option<Place>>,
    /// How many descriptors its filters catch.
    pub level: Cell<FdLevel>,
    /// Its filters catch calls on ids and owners, as needed where ids are virtual.
    pub ids_caught: Cell<bool>,
    /// Its filters catch calls that tell the address of another socket, as needed once it serves one on a mount.
    pub peers_caught: Cell<bool>,
    /// It has given up some of its own rights, to filters or to Landlock.
    pub confined: Cell<bool>,
}

/// An exec in progress.
pub struct Executing {
    pub place: Place,
    pub open: Option<Rc<OpenFile>>,
    /// Who it will be.
    pub creds: Option<Creds>,
    /// The root directory to go back to ([`Process::home`]).
    pub home: Option<Place>,
}

/// A traced thread.
pub struct Task {
    /// Changes when a thread other than the leader executes a program.
    pub tid: Cell<Tid>,
    pub process: RefCell<Rc<Process>>,
    pub files: RefCell<Rc<Files>>,
    pub fs: RefCell<Rc<Fs>>,
    pub mm: RefCell<Rc<Mm>>,
    ids: RefCell<Option<Rc<Ids>>>,
    /// Who it is in the view, if not who the kernel takes it for.
    creds: RefCell<Option<Rc<Creds>>>,
    /// A signal waits for this thread, whose call is parked.
    pub signal: Flag,
    /// The result of a call that the kernel ran on our behalf.
    pub ran: Slot<i64>,
    /// The future that serves its present call; dropping it cancels the call.
    pub job: RefCell<Option<async_executor::Task<()>>>,
    /// Counts its calls; odd while one is being served.
    serial: Cell<u64>,
    call: Cell<RawCall>,
    /// The program that it is about to execute, if not just what the kernel finds.
    pub executing: RefCell<Option<Executing>>,
    /// The name it must still be given, since its program was executed under another one.
    pub comm: RefCell<Option<Vec<u8>>>,
    /// Its descriptors have been closed: it exits.
    pub swept: Cell<bool>,
}

/// Flags of clone(2) that decide what is shared.
pub mod clone {
    pub const VM: u64 = 0x100;
    pub const FS: u64 = 0x200;
    pub const FILES: u64 = 0x400;
    pub const THREAD: u64 = 0x10000;
}

impl Task {
    /// The first thread of a program that enters the view.
    pub fn first(tid: Tid, fs: Rc<Fs>) -> Rc<Task> {
        let process = Process {
            tgid: Cell::new(tid),
            exe: RefCell::new(None),
            running: RefCell::new(None),
            level: Cell::new(FdLevel::default()),
            ids_caught: Cell::new(false),
            peers_caught: Cell::new(false),
            confined: Cell::new(false),
            home: RefCell::new(None),
        };
        Rc::new(Task {
            tid: Cell::new(tid),
            process: RefCell::new(Rc::new(process)),
            files: RefCell::new(Files::new()),
            fs: RefCell::new(fs),
            mm: RefCell::new(Mm::new()),
            ids: RefCell::new(None),
            creds: RefCell::new(None),
            signal: Flag::default(),
            ran: Slot::default(),
            job: RefCell::new(None),
            serial: Cell::new(0),
            call: Cell::new(RawCall::default()),
            executing: RefCell::new(None),
            comm: RefCell::new(None),
            swept: Cell::new(false),
        })
    }

    /// The thread that clone(2), fork(2) or vfork(2) makes.
    pub fn cloned(&self, tid: Tid, flags: u64) -> Rc<Task> {
        let has = |bit| flags & bit != 0;
        let process = self.process.borrow();
        let process = if has(clone::THREAD) {
            process.clone()
        } else {
            Rc::new(Process {
                tgid: Cell::new(tid),
                exe: RefCell::new(process.exe.borrow().clone()),
                running: RefCell::new(process.running.borrow().clone()),
                level: Cell::new(process.level.get()),
                ids_caught: Cell::new(process.ids_caught.get()),
                peers_caught: Cell::new(process.peers_caught.get()),
                confined: Cell::new(process.confined.get()),
                home: RefCell::new(None),
            })
        };
        let files = self.files.borrow();
        let files = if has(clone::FILES) { files.share() } else { files.copy() };
        let fs = self.fs.borrow();
        let mm = self.mm.borrow();
        Rc::new(Task {
            tid: Cell::new(tid),
            process: RefCell::new(process),
            files: RefCell::new(files),
            fs: RefCell::new(if has(clone::FS) { fs.clone() } else { fs.copy() }),
            mm: RefCell::new(if has(clone::VM) { mm.clone() } else { mm.copy() }),
            ids: RefCell::new(self.ids.borrow().clone()),
            creds: RefCell::new(self.creds.borrow().clone()),
            signal: Flag::default(),
            ran: Slot::default(),
            job: RefCell::new(None),
            serial: Cell::new(0),
            call: Cell::new(RawCall::default()),
            executing: RefCell::new(None),
            comm: RefCell::new(None),
            swept: Cell::new(false),
        })
    }

    pub fn files(&self) -> Rc<Files> {
        self.files.borrow().clone()
    }

    pub fn fs(&self) -> Rc<Fs> {
        self.fs.borrow().clone()
    }

    pub fn mm(&self) -> Rc<Mm> {
        self.mm.borrow().clone()
    }

    pub fn process(&self) -> Rc<Process> {
        self.process.borrow().clone()
    }

    /// Looks at something below `/proc/TID`.
    pub fn look<T>(&self, name: &str, how: impl Fn(PathBuf) -> std::io::Result<T>) -> std::io::Result<T> {
        let tid = self.tid.get();
        crate::trap::reaching(tid, || how(format!("/proc/{tid}/{name}").into()))
    }

    /// Looks at the link to an open file.
    pub fn look_at_fd<T>(&self, fd: i32, how: impl Fn(PathBuf) -> std::io::Result<T>) -> std::io::Result<T> {
        crate::trap::reaching(self.tid.get(), || how(self.fd_link(fd)))
    }

    /// The link to what one of its descriptors stands for (proc(5)).
    pub fn fd_link(&self, fd: i32) -> PathBuf {
        format!("/proc/{}/fd/{fd}", self.tid.get()).into()
    }

    pub fn tgid(&self) -> Tid {
        self.process.borrow().tgid.get()
    }

    /// unshare(2).
    pub fn unshare(&self, flags: u64) {
        let files = self.files();
        if flags & clone::FILES != 0 && files.shared() {
            files.leave();
            self.files.replace(files.copy());
        }
        if flags & clone::FS != 0 {
            let fs = self.fs();
            self.fs.replace(fs.copy());
        }
    }

    /// A call of its is being served from now on; the call's serial number.
    pub fn begin_call(&self, call: RawCall) -> u64 {
        self.signal.lower();
        self.call.set(call);
        self.serial.set((self.serial.get() + 1) | 1);
        self.serial.get()
    }

    /// Is that call still being served?
    pub fn in_call(&self, serial: u64) -> bool {
        self.serial.get() == serial
    }

    pub fn end_call(&self) {
        self.serial.set((self.serial.get() + 1) & !1);
    }

    /// The call that is being served.
    pub fn current_call(&self) -> Option<RawCall> {
        (self.serial.get() & 1 == 1).then(|| self.call.get())
    }

    /// Its credentials, read when they are first needed.
    pub fn ids(&self) -> Rc<Ids> {
        self.ids
            .borrow_mut()
            .get_or_insert_with(|| Rc::new(read_ids(self.tid.get())))
            .clone()
    }

    /// The kernel's credentials have changed.
    pub fn forget_ids(&self) {
        if self.creds.borrow().is_none() {
            self.ids.replace(None);
        }
    }

    /// Its virtual credentials.
    pub fn creds(&self) -> Option<Rc<Creds>> {
        self.creds.borrow().clone()
    }

    pub fn set_creds(&self, creds: Creds) {
        self.ids.replace(Some(Rc::new(creds.ids.clone())));
        self.creds.replace(Some(Rc::new(creds)));
    }
}
