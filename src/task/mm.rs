//! Address spaces: scratch memory in the guest, and what is mapped from virtual files.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::OpenFile;

/// Room for two paths.
pub const SLOT_LEN: u64 = 8192;
const SLOTS: u64 = 8;

/// The length of a scratch mapping.
pub const AREA_LEN: u64 = SLOT_LEN * SLOTS;

pub struct Mm {
    /// Free scratch slots, by address. Guests never see them used: a slot belongs to one caught call at a time.
    free: RefCell<Vec<u64>>,
    /// Files with a shared writable mapping here; they stay open as long as it may exist.
    pub mapped: RefCell<Vec<Rc<OpenFile>>>,
    /// What `PR_SET_DUMPABLE` has set.
    pub dumpable: Cell<bool>,
}

impl Mm {
    pub fn new() -> Rc<Mm> {
        Rc::new(Mm {
            free: RefCell::new(Vec::new()),
            mapped: RefCell::new(Vec::new()),
            dumpable: Cell::new(true),
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
