//! Open file descriptions of virtual files.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use fsmodules::api::{Backing, DirEntry, Errno, File, FileKind, OpenFlags};

use crate::rt::Flag;
use crate::trap::FileOwner;
use crate::view::{Events, MountUse, OpenCount, VirtualPlace};

/// What open(2) makes: shared by all descriptors that dup(2), fork(2) or SCM_RIGHTS copied from it.
pub struct OpenFile {
    /// Unique in the session: the owner of its flock(2) locks.
    pub id: u64,
    /// `None` for `O_PATH`, and where the kernel serves the data.
    pub file: Option<Rc<dyn File>>,
    /// Where it was opened.
    pub place: VirtualPlace,
    /// The file offset; held during a read or write that moves it, as the kernel's `f_pos_lock`.
    pub pos: async_lock::Mutex<u64>,
    /// `O_APPEND`, `O_NONBLOCK` and the like, as fcntl(2) changes them.
    pub flags: Cell<OpenFlags>,
    /// This open made the file (`F_CREATED_QUERY`).
    pub created: Cell<bool>,
    /// Entries that were read ahead of what getdents(2) had room for, with the cookie they follow.
    pub entries: RefCell<(u64, Vec<DirEntry>)>,
    /// The placeholders' sockets, where guests poll it, and what tells the driver of each that it is over.
    pub streams: RefCell<Vec<StreamEnd>>,
    /// The descriptor in the guest is the file itself, not a placeholder: what keeps it in being.
    native: Option<Rc<dyn std::any::Any>>,
    /// Whom signals go to, once somebody has asked for any.
    owner: OnceCell<Rc<FileOwner>>,
    /// As long as it is open, if it is a regular file.
    pub count: Option<OpenCount>,
    _use: MountUse,
}

/// A stream placeholder belongs to dispatch; the description only keeps it alive.
pub type StreamEnd = (Rc<dyn std::any::Any>, Rc<Flag>);

impl Drop for OpenFile {
    fn drop(&mut self) {
        for (_, gone) in self.streams.take() {
            gone.raise();
        }
        let flags = self.flags.get();
        if !flags.contains(OpenFlags::PATH) {
            let written = if flags.writable() {
                Events::CLOSE_WRITE
            } else {
                Events::CLOSE_NOWRITE
            };
            self.place.happened(written);
        }
    }
}

impl OpenFile {
    pub fn new(file: Option<Rc<dyn File>>, place: VirtualPlace, flags: OpenFlags) -> Rc<OpenFile> {
        Rc::new(OpenFile::made(file, place, flags, None))
    }

    /// A file whose data the kernel serves.
    pub fn native(keep: Rc<dyn std::any::Any>, place: VirtualPlace, flags: OpenFlags) -> Rc<OpenFile> {
        Rc::new(OpenFile::made(None, place, flags, Some(keep)))
    }

    pub fn is_native(&self) -> bool {
        self.native.is_some()
    }

    fn made(
        file: Option<Rc<dyn File>>,
        place: VirtualPlace,
        flags: OpenFlags,
        native: Option<Rc<dyn std::any::Any>>,
    ) -> OpenFile {
        thread_local!(static NEXT: Cell<u64> = const { Cell::new(1) });
        let id = NEXT.with(|next| next.replace(next.get() + 1));
        let _use = place.mount.use_it();
        OpenFile {
            count: place.count_open(flags),
            id,
            file,
            place,
            pos: async_lock::Mutex::new(0),
            flags: Cell::new(flags),
            created: Cell::new(false),
            entries: RefCell::new((0, Vec::new())),
            streams: RefCell::default(),
            native,
            owner: OnceCell::new(),
            _use,
        }
    }

    pub fn owner(&self) -> Result<Rc<FileOwner>, Errno> {
        if self.owner.get().is_none() {
            // Nobody else has set it in between.
            let _ = self.owner.set(Rc::new(FileOwner::new()?));
        }
        self.owner.get().cloned().ok_or(Errno::ENOMEM)
    }

    /// A module's device, by which a program serves something.
    pub fn is_device(&self) -> bool {
        let stream = |file: &Rc<dyn File>| matches!(file.backing(), Backing::Stream);
        self.place.node().kind() == FileKind::CharDevice && self.file.as_ref().is_some_and(stream)
    }

    /// The flags that programs see. A lease is told of by signals, like `O_ASYNC`.
    pub fn shown_flags(&self) -> OpenFlags {
        let leased = self.count.as_ref().is_some_and(OpenCount::has_lease);
        let asynchronous = if leased { OpenFlags::ASYNC } else { OpenFlags::empty() };
        self.flags.get() | asynchronous
    }

    /// `F_SETFL`: changes the flags that can be changed.
    pub fn set_flags(&self, flags: OpenFlags) {
        let changeable =
            OpenFlags::APPEND | OpenFlags::NONBLOCK | OpenFlags::ASYNC | OpenFlags::DIRECT | OpenFlags::NOATIME;
        self.flags.set((self.flags.get() - changeable) | (flags & changeable));
        if let Some(file) = &self.file {
            file.set_flags(self.flags.get());
        }
    }
}
