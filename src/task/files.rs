//! The descriptor table: which numbers are virtual files.
//!
//! The kernel has a placeholder at each of these numbers and keeps numbering, `fork` and close-on-exec right; this
//! table says what the number really means. Numbers that are not in it are the kernel's alone.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::OpenFile;
use crate::table::{is_placeholder, placeholder_from};
use crate::view::Mount;

#[derive(Clone)]
pub struct FdEntry {
    pub file: Rc<OpenFile>,
    pub cloexec: bool,
}

pub struct Files {
    /// Unique in the session: the owner of its POSIX locks.
    pub id: u64,
    entries: RefCell<BTreeMap<i32, FdEntry>>,
    /// Through which mount a directory of the host was opened, if not through the base mount. Close does not tell of
    /// such descriptors, so this may be out of date: it counts only while the mount shows the directory.
    through: RefCell<HashMap<i32, Rc<Mount>>>,
    /// All placeholders' numbers below this one are taken.
    taken_below: Cell<i32>,
    /// It had a device at some time, by which its processes serve something.
    serves: Cell<bool>,
    /// The standard descriptors are known to be open, so that no other file opens there.
    pub standard_open: Cell<bool>,
    /// Threads that share it.
    users: Cell<usize>,
    /// How many of them the kernel is giving a number just now ([`Files::numbering`]).
    numbering: Cell<usize>,
}

/// While it lives, the kernel chooses a placeholder's number.
pub struct Numbering(Rc<Files>);

impl Drop for Numbering {
    fn drop(&mut self) {
        self.0.numbering.set(self.0.numbering.get() - 1);
    }
}

impl Files {
    pub fn new() -> Rc<Files> {
        Files::with(BTreeMap::new(), HashMap::new())
    }

    fn with(entries: BTreeMap<i32, FdEntry>, through: HashMap<i32, Rc<Mount>>) -> Rc<Files> {
        thread_local!(static NEXT: Cell<u64> = const { Cell::new(1) });
        let id = NEXT.with(|next| next.replace(next.get() + 1));
        Rc::new(Files {
            id,
            entries: RefCell::new(entries),
            through: RefCell::new(through),
            taken_below: Cell::new(placeholder_from(0)),
            serves: Cell::new(false),
            standard_open: Cell::new(false),
            users: Cell::new(1),
            numbering: Cell::new(0),
        })
    }

    pub fn share(self: &Rc<Self>) -> Rc<Files> {
        self.users.set(self.users.get() + 1);
        self.clone()
    }

    pub fn copy(&self) -> Rc<Files> {
        let copy = Files::with(self.entries.borrow().clone(), self.through.borrow().clone());
        copy.serves.set(self.serves.get());
        copy.standard_open.set(self.standard_open.get());
        copy
    }

    pub fn serves(&self) -> bool {
        self.serves.get()
    }

    /// The lowest number from `min` on, a placeholder's, that no virtual file has.
    pub fn free_from(&self, min: i32) -> i32 {
        let entries = self.entries.borrow();
        let mut free = placeholder_from(min.max(self.taken_below.get()));
        while entries.contains_key(&free) {
            free = placeholder_from(free + 1);
        }
        if min <= self.taken_below.get() {
            self.taken_below.set(free);
        }
        free
    }

    /// The kernel is about to choose or fill a number: until that is done, nobody else may choose one.
    pub fn numbering(self: &Rc<Self>) -> Numbering {
        self.numbering.set(self.numbering.get() + 1);
        Numbering(self.clone())
    }

    pub fn is_numbering(&self) -> bool {
        self.numbering.get() > 0
    }

    /// A thread stops using it; true if that was the last one.
    pub fn leave(&self) -> bool {
        self.users.set(self.users.get().saturating_sub(1));
        self.users.get() == 0
    }

    pub fn shared(&self) -> bool {
        self.users.get() > 1
    }

    pub fn get(&self, fd: i32) -> Option<Rc<OpenFile>> {
        self.entries.borrow().get(&fd).map(|entry| entry.file.clone())
    }

    pub fn entry(&self, fd: i32) -> Option<FdEntry> {
        self.entries.borrow().get(&fd).cloned()
    }

    /// Gives what the number meant before.
    pub fn insert(&self, fd: i32, file: Rc<OpenFile>, cloexec: bool) -> Option<FdEntry> {
        if file.is_device() {
            self.serves.set(true);
        }
        self.entries.borrow_mut().insert(fd, FdEntry { file, cloexec })
    }

    pub fn remove(&self, fd: i32) -> Option<FdEntry> {
        self.freed(fd);
        self.entries.borrow_mut().remove(&fd)
    }

    /// A descriptor of the host was opened through this mount.
    pub fn opened_through(&self, fd: i32, mount: &Rc<Mount>) {
        if mount.is_base() {
            self.through.borrow_mut().remove(&fd);
        } else {
            self.through.borrow_mut().insert(fd, mount.clone());
        }
    }

    pub fn through(&self, fd: i32) -> Option<Rc<Mount>> {
        self.through.borrow().get(&fd).cloned()
    }

    pub fn set_cloexec(&self, fd: i32, cloexec: bool) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(&fd) {
            entry.cloexec = cloexec;
        }
    }

    /// Takes out the entries with numbers in the range.
    pub fn take_range(&self, first: i32, last: i32) -> Vec<FdEntry> {
        self.take_if(|fd, _| (first..=last).contains(&fd))
    }

    /// Takes out what execve(2) closes.
    pub fn take_cloexec(&self) -> Vec<FdEntry> {
        self.take_if(|_, entry| entry.cloexec)
    }

    pub fn take_all(&self) -> Vec<FdEntry> {
        std::mem::take(&mut *self.entries.borrow_mut()).into_values().collect()
    }

    fn freed(&self, fd: i32) {
        if is_placeholder(fd) {
            self.taken_below.set(self.taken_below.get().min(fd));
        }
    }

    fn take_if(&self, wanted: impl Fn(i32, &FdEntry) -> bool) -> Vec<FdEntry> {
        let mut entries = self.entries.borrow_mut();
        let fds: Vec<i32> = entries
            .iter()
            .filter(|(fd, entry)| wanted(**fd, entry))
            .map(|(fd, _)| *fd)
            .collect();
        fds.iter().for_each(|fd| self.freed(*fd));
        fds.into_iter().filter_map(|fd| entries.remove(&fd)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// The numbers with what they mean, in order.
    pub fn list(&self) -> Vec<(i32, FdEntry)> {
        self.entries
            .borrow()
            .iter()
            .map(|(fd, entry)| (*fd, entry.clone()))
            .collect()
    }
}
