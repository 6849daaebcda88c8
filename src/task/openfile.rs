//! Open file descriptions of virtual files.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use fsmodules::api::{Backing, DirEntry, File, FileKind, OpenFlags};

use crate::rt::Flag;
use crate::view::{Events, MountUse, VirtualPlace};

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
            id,
            file,
            place,
            pos: async_lock::Mutex::new(0),
            flags: Cell::new(flags),
            created: Cell::new(false),
            entries: RefCell::new((0, Vec::new())),
            streams: RefCell::default(),
            native,
            _use,
        }
    }

    /// A module's device, by which a program serves something.
    pub fn is_device(&self) -> bool {
        let stream = |file: &Rc<dyn File>| matches!(file.backing(), Backing::Stream);
        self.place.node().kind() == FileKind::CharDevice && self.file.as_ref().is_some_and(stream)
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
