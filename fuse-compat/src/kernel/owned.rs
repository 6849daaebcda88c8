//! What a server grants: lookups and handles. Each is given back when its owner is dropped.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Connection;
use crate::wire::abi::{CreateOut, EntryOut, FopenFlags, Opcode, OpenOut, RELEASE_FLOCK_UNLOCK, ReleaseIn};
use crate::wire::{Request, reply};

/// Lookups of a node, which the server counts: dropping them is FORGET.
pub struct Lookup {
    connection: Rc<Connection>,
    nodeid: u64,
    count: Cell<u64>,
}

impl Lookup {
    /// One lookup that a reply has granted. The root's are not counted: `nodeid` 1 gives one that is worth nothing.
    pub(super) fn granted(connection: &Rc<Connection>, nodeid: u64) -> Lookup {
        Lookup {
            connection: connection.clone(),
            nodeid,
            count: Cell::new(1),
        }
    }

    /// The root of a file system, which is known without a lookup.
    pub fn root(connection: &Rc<Connection>) -> Lookup {
        Lookup {
            connection: connection.clone(),
            nodeid: crate::wire::abi::ROOT_ID,
            count: Cell::new(0),
        }
    }

    pub fn nodeid(&self) -> u64 {
        self.nodeid
    }

    /// Adds lookups of the same node.
    pub fn absorb(&self, other: Lookup) {
        debug_assert_eq!(self.nodeid, other.nodeid);
        self.count.set(self.count.get().saturating_add(other.count.take()));
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.connection.forget(self.nodeid, self.count.get());
    }
}

/// A file that a reply speaks of.
pub struct Entry {
    pub lookup: Lookup,
    pub out: EntryOut,
}

/// An open file of the server: dropping it is RELEASE.
pub struct Handle {
    connection: Rc<Connection>,
    nodeid: u64,
    pub fh: u64,
    pub open_flags: FopenFlags,
    /// Flags of the open file, as fcntl(2) changes them.
    pub flags: Cell<u32>,
    /// The owner of flock(2) locks that the server may hold for it.
    pub flock_owner: Cell<Option<u64>>,
    /// What must outlive RELEASE: the file, lest FORGET overtakes it.
    keeps: RefCell<Option<Rc<dyn Any>>>,
    directory: bool,
    /// `false`: the server keeps no state for open files (ENOSYS).
    stateful: bool,
}

impl Handle {
    pub(super) fn opened(
        connection: &Rc<Connection>,
        nodeid: u64,
        flags: u32,
        directory: bool,
        out: Option<OpenOut>,
    ) -> Handle {
        Handle {
            connection: connection.clone(),
            nodeid,
            fh: out.map_or(0, |out| out.fh),
            open_flags: match out {
                Some(out) => FopenFlags::from_bits_retain(out.open_flags),
                None => FopenFlags::KEEP_CACHE | FopenFlags::CACHE_DIR,
            },
            flags: Cell::new(flags),
            flock_owner: Cell::new(None),
            keeps: RefCell::default(),
            directory,
            stateful: out.is_some(),
        }
    }

    pub fn nodeid(&self) -> u64 {
        self.nodeid
    }

    /// Keeps the file alive until the server has answered RELEASE.
    pub fn keep(&self, file: Rc<dyn Any>) {
        self.keeps.replace(Some(file));
    }

    pub fn is_directory(&self) -> bool {
        self.directory
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.stateful {
            let request = release(self.directory, self.fh, self.flags.get(), self.flock_owner.get());
            self.connection.post(self.nodeid, request, self.keeps.take());
        }
    }
}

pub fn release(directory: bool, fh: u64, flags: u32, flock_owner: Option<u64>) -> Request {
    let arg = ReleaseIn {
        fh,
        flags,
        release_flags: if flock_owner.is_some() { RELEASE_FLOCK_UNLOCK } else { 0 },
        lock_owner: flock_owner.unwrap_or(0),
    };
    Request::new(if directory { Opcode::RELEASEDIR } else { Opcode::RELEASE }).arg(&arg)
}

/// What an unwanted reply has granted.
#[derive(Default)]
pub struct Granted {
    pub lookups: Vec<u64>,
    /// The handle, with its node if that is not the one which the request was about.
    pub handle: Option<(Option<u64>, u64)>,
}

pub fn granted(opcode: Opcode, payload: &[u8]) -> Granted {
    let mut granted = Granted::default();
    match opcode {
        Opcode::LOOKUP | Opcode::MKNOD | Opcode::MKDIR | Opcode::SYMLINK | Opcode::LINK => {
            granted
                .lookups
                .extend(reply::parse::<EntryOut>(payload).map(|out| out.nodeid));
        }
        Opcode::CREATE | Opcode::TMPFILE => {
            if let Ok(out) = reply::parse::<CreateOut>(payload) {
                granted.lookups.push(out.entry.nodeid);
                granted.handle = Some((Some(out.entry.nodeid), out.open.fh));
            }
        }
        Opcode::OPEN | Opcode::OPENDIR => {
            granted.handle = reply::parse::<OpenOut>(payload).ok().map(|out| (None, out.fh));
        }
        Opcode::READDIRPLUS => {
            let entries = reply::dirents(payload, true).unwrap_or_default();
            granted.lookups.extend(
                entries
                    .iter()
                    .filter(|e| e.name != b"." && e.name != b"..")
                    .filter_map(|e| Some(e.entry?.nodeid)),
            );
        }
        _ => {}
    }
    granted.lookups.retain(|&nodeid| nodeid > crate::wire::abi::ROOT_ID);
    granted
}
