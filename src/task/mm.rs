//! Address spaces: scratch memory in the guest, and what is mapped from virtual files.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use super::OpenFile;
use crate::agent::Knows;

/// Room for two paths.
pub const SLOT_LEN: u64 = 8192;
const SLOTS: u64 = 8;

/// The length of a scratch mapping.
pub const AREA_LEN: u64 = SLOT_LEN * SLOTS;

pub struct Mm {
    /// Free scratch slots, by address. Guests never see them used: a slot belongs to one caught call at a time.
    free: RefCell<Vec<u64>>,
    /// Files with a mapping here; they stay open as long as it may exist.
    pub mapped: RefCell<Vec<Mapped>>,
    /// What `PR_SET_DUMPABLE` has set.
    pub dumpable: Cell<bool>,
    pub agent: RefCell<Option<Agent>>,
    /// Calls on paths that the agent might have spared.
    pub path_calls: Cell<u32>,
    /// Where such calls return to that have been looked at.
    pub sites: RefCell<HashSet<u64>>,
}

#[derive(Clone)]
pub struct Mapped {
    pub open: Rc<OpenFile>,
    /// Some mapping of it is shared: msync(2) concerns it.
    pub shared: bool,
}

/// The agent in an address space.
#[derive(Clone)]
pub struct Agent {
    pub address: u64,
    /// How many of its slots are taken.
    pub used: usize,
    /// What it has been told.
    pub knows: Knows,
    pub generation: u32,
}

impl Mm {
    pub fn new() -> Rc<Mm> {
        Rc::new(Mm {
            free: RefCell::new(Vec::new()),
            mapped: RefCell::new(Vec::new()),
            dumpable: Cell::new(true),
            agent: RefCell::new(None),
            path_calls: Cell::new(0),
            sites: RefCell::default(),
        })
    }

    /// After fork(2): the same mappings at the same addresses.
    pub fn copy(&self) -> Rc<Mm> {
        let mapped = self.mapped.borrow().clone();
        // The parent's call in progress may hold a slot, which in the child nobody will give back: it is lost there.
        Rc::new(Mm {
            free: RefCell::new(self.free.borrow().clone()),
            mapped: RefCell::new(mapped),
            dumpable: Cell::new(self.dumpable.get()),
            agent: RefCell::new(self.agent.borrow().clone()),
            path_calls: Cell::new(self.path_calls.get()),
            sites: RefCell::new(self.sites.borrow().clone()),
        })
    }

    /// A free slot, if there is one; else the caller maps an area and [`Mm::add_area`]s it.
    pub fn slot(self: &Rc<Self>) -> Option<Slot> {
        self.free.borrow_mut().pop().map(|address| Slot {
            mm: self.clone(),
            address,
        })
    }

    pub fn add_area(&self, address: u64) {
        self.free
            .borrow_mut()
            .extend((0..SLOTS).map(|n| address + n * SLOT_LEN));
    }
}

/// [`SLOT_LEN`] bytes of guest memory for the arguments of a call that we make the guest run.
pub struct Slot {
    mm: Rc<Mm>,
    pub address: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.mm.free.borrow_mut().push(self.address);
    }
}
