//! Leases of virtual files (fcntl(2), `F_SETLEASE`): who wants to hear before others open a file, and the opens that
//! stand in the way of that. As in the kernel (fs/locks.c), which has them for every file system. A program that runs
//! stands in the way of all who would write to it, and they in its way (`deny_write_access`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use fsmodules::api::{Errno, FileKind, OpenFlags};

use super::VirtualPlace;
use crate::rt::Flag;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    Read,
    Write,
}

/// Who has a lease.
pub trait Holder {
    /// It is being broken; by this descriptor it was taken.
    fn broken(&self, descriptor: i32);
    /// It has been given up, or taken away.
    fn lost(&self);
}

struct Lease {
    /// [`OpenCount::id`]
    open: u64,
    kind: LeaseKind,
    descriptor: i32,
    holder: Rc<dyn Holder>,
    /// While it is being broken: when it becomes one for reading, or ends.
    downgraded: Option<Duration>,
    ended: Option<Duration>,
}

impl Lease {
    fn stands_against(&self, writes: bool) -> bool {
        writes || self.kind == LeaseKind::Write
    }

    /// What it is, or is to become.
    fn target(&self) -> Option<LeaseKind> {
        match (self.ended, self.downgraded) {
            (Some(_), _) => None,
            (None, Some(_)) => Some(LeaseKind::Read),
            (None, None) => Some(self.kind),
        }
    }

    fn set(&mut self, kind: LeaseKind, descriptor: i32) {
        (self.kind, self.descriptor) = (kind, descriptor);
        if kind == LeaseKind::Read {
            self.downgraded = None;
        }
    }

    /// Who has it is told, once.
    fn break_for(&mut self, writes: bool, until: Duration) {
        if self.ended.is_some() || !writes && self.downgraded.is_some() {
            return;
        }
        *(if writes { &mut self.ended } else { &mut self.downgraded }) = Some(until);
        self.holder.broken(self.descriptor);
    }
}

/// What a file is open for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Read,
    Write,
    Execute,
}

impl Purpose {
    fn of(flags: OpenFlags) -> Purpose {
        match () {
            () if flags.contains(OpenFlags::EXEC) => Purpose::Execute,
            () if flags.writable() => Purpose::Write,
            () => Purpose::Read,
        }
    }
}

/// A file that is open: how often, and the leases.
#[derive(Default)]
struct Opened {
    readers: usize,
    writers: usize,
    executions: usize,
    leases: Vec<Lease>,
    /// Raised when one of them goes or becomes less.
    changed: Rc<Flag>,
}

impl Opened {
    fn count(&mut self, purpose: Purpose) -> &mut usize {
        match purpose {
            Purpose::Read => &mut self.readers,
            Purpose::Write => &mut self.writers,
            Purpose::Execute => &mut self.executions,
        }
    }

    fn is_open(&self) -> bool {
        self.readers + self.writers + self.executions > 0
    }

    /// True if there were such leases.
    fn end(&mut self, which: impl Fn(&Lease) -> bool) -> bool {
        let before = self.leases.len();
        for lease in self.leases.extract_if(.., |lease| which(lease)) {
            lease.holder.lost();
        }
        let ended = self.leases.len() < before;
        if ended {
            self.change();
        }
        ended
    }

    fn change(&mut self) {
        std::mem::take(&mut self.changed).raise();
    }

    /// Takes away what nobody has given up in time.
    fn expire(&mut self, now: Duration) {
        let past = |time: Option<Duration>| time.is_some_and(|time| time <= now);
        self.end(|lease| past(lease.ended));
        for lease in &mut self.leases {
            if past(lease.downgraded) {
                lease.set(LeaseKind::Read, lease.descriptor);
            }
        }
    }

    /// `check_conflicting_open`: who may have such a lease is alone with the file, or all of them only read.
    fn allows(&self, kind: LeaseKind, writes: bool) -> bool {
        match kind {
            LeaseKind::Read => self.writers == 0,
            LeaseKind::Write => {
                let reading = self.readers + self.executions;
                (reading, self.writers) == (usize::from(!writes), usize::from(writes))
            }
        }
    }
}

/// A file's device and inode, as long as something holds the inode.
type Key = (u64, u64);

/// The view's regular files that are open.
#[derive(Default)]
pub struct Leases {
    of: RefCell<HashMap<Key, Opened>>,
    last: Cell<u64>,
}

/// An open of a regular file, which counts until it is dropped. Leases belong to it.
pub struct OpenCount {
    leases: Rc<Leases>,
    key: Key,
    id: u64,
    purpose: Purpose,
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.with(|opened| {
            opened.end(|lease| lease.open == self.id);
            *opened.count(self.purpose) -= 1;
        });
        let mut of = self.leases.of.borrow_mut();
        if of.get(&self.key).is_some_and(|opened| !opened.is_open()) {
            of.remove(&self.key);
        }
    }
}

impl OpenCount {
    fn with<T>(&self, act: impl FnOnce(&mut Opened) -> T) -> T {
        act(self.leases.of.borrow_mut().entry(self.key).or_default())
    }

    pub fn has_lease(&self) -> bool {
        self.with(|opened| opened.leases.iter().any(|lease| lease.open == self.id))
    }

    /// `F_GETLEASE`
    pub fn lease(&self, now: Duration) -> Option<LeaseKind> {
        self.with(|opened| {
            opened.expire(now);
            let own = opened.leases.iter().find(|lease| lease.open == self.id);
            own.and_then(Lease::target)
        })
    }

    /// `F_SETLEASE`
    pub fn set_lease(
        &self,
        kind: LeaseKind,
        descriptor: i32,
        holder: Rc<dyn Holder>,
        now: Duration,
    ) -> Result<(), Errno> {
        self.with(|opened| {
            opened.expire(now);
            let others = opened.leases.iter().filter(|lease| lease.open != self.id);
            let mut in_the_way = others.filter(|other| kind == LeaseKind::Write || other.ended.is_some());
            if !opened.allows(kind, self.purpose == Purpose::Write) || in_the_way.next().is_some() {
                return Err(Errno::EAGAIN);
            }
            match opened.leases.iter_mut().find(|lease| lease.open == self.id) {
                Some(lease) => {
                    lease.set(kind, descriptor);
                    opened.change();
                }
                None => opened.leases.push(Lease {
                    open: self.id,
                    kind,
                    descriptor,
                    holder,
                    downgraded: None,
                    ended: None,
                }),
            }
            Ok(())
        })
    }

    /// `F_UNLCK`
    pub fn end_lease(&self, now: Duration) -> Result<(), Errno> {
        let ended = self.with(|opened| {
            opened.expire(now);
            opened.end(|lease| lease.open == self.id)
        });
        if ended { Ok(()) } else { Err(Errno::EAGAIN) }
    }
}

impl Leases {
    fn count(self: &Rc<Self>, key: Key, purpose: Purpose) -> OpenCount {
        let id = self.last.get() + 1;
        self.last.set(id);
        let leases = self.clone();
        let count = OpenCount {
            leases,
            key,
            id,
            purpose,
        };
        count.with(|opened| *opened.count(purpose) += 1);
        count
    }

    fn break_for(&self, key: Key, writes: bool, now: Duration, until: Duration) -> Option<(Rc<Flag>, Duration)> {
        let mut of = self.of.borrow_mut();
        let opened = of.get_mut(&key).filter(|opened| !opened.leases.is_empty())?;
        opened.expire(now);
        let mut ends = None;
        for lease in opened.leases.iter_mut().filter(|lease| lease.stands_against(writes)) {
            lease.break_for(writes, until);
            ends = ends.into_iter().chain(lease.ended.or(lease.downgraded)).min();
        }
        Some((opened.changed.clone(), ends?))
    }
}

impl VirtualPlace {
    fn key(&self) -> Key {
        (self.mount.dev(), self.node().id())
    }

    /// From now on the file counts as open, if it is a regular one and opened for more than its name.
    pub fn count_open(&self, flags: OpenFlags) -> Option<OpenCount> {
        let counts = self.node().kind() == FileKind::Regular && !flags.contains(OpenFlags::PATH);
        counts.then(|| self.mount.leases().count(self.key(), Purpose::of(flags)))
    }

    /// Does somebody execute what is to be written to or truncated, or write to what is to be executed?
    pub fn is_text_busy(&self, flags: OpenFlags) -> bool {
        let of = self.mount.leases().of.borrow();
        let writes = flags.writable() || flags.contains(OpenFlags::TRUNC);
        of.get(&self.key()).is_some_and(|opened| match Purpose::of(flags) {
            Purpose::Execute => opened.writers > 0,
            _ => writes && opened.executions > 0,
        })
    }

    pub fn is_leased(&self) -> bool {
        let of = self.mount.leases().of.borrow();
        of.get(&self.key()).is_some_and(|opened| !opened.leases.is_empty())
    }

    /// Breaks the leases that stand against an open (`break_lease`); their holders have until then. While there are
    /// such: what tells of a change, and when the first of them goes by itself.
    pub fn break_leases(&self, writes: bool, now: Duration, until: Duration) -> Option<(Rc<Flag>, Duration)> {
        self.mount.leases().break_for(self.key(), writes, now, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told {
        broken: Cell<i32>,
        lost: Cell<bool>,
    }

    impl Holder for Told {
        fn broken(&self, descriptor: i32) {
            self.broken.set(self.broken.get() + descriptor);
        }

        fn lost(&self) {
            self.lost.set(true);
        }
    }

    const FILE: Key = (1, 2);
    const NOW: Duration = Duration::from_secs(1);
    const LATER: Duration = Duration::from_secs(46);

    #[test]
    fn opens_stand_in_the_way() {
        let leases = Rc::<Leases>::default();
        let told = Rc::<Told>::default();
        let reader = leases.count(FILE, Purpose::Read);
        assert_eq!(reader.set_lease(LeaseKind::Write, 1, told.clone(), NOW), Ok(()));
        let other = leases.count(FILE, Purpose::Read);
        assert_eq!(
            reader.set_lease(LeaseKind::Write, 1, told.clone(), NOW),
            Err(Errno::EAGAIN)
        );
        assert_eq!(reader.set_lease(LeaseKind::Read, 1, told.clone(), NOW), Ok(()));
        assert_eq!(other.set_lease(LeaseKind::Read, 1, told.clone(), NOW), Ok(()));
        let writer = leases.count(FILE, Purpose::Write);
        assert_eq!(
            reader.set_lease(LeaseKind::Read, 1, told.clone(), NOW),
            Err(Errno::EAGAIN)
        );
        assert_eq!(reader.end_lease(NOW), Ok(()));
        assert_eq!(reader.end_lease(NOW), Err(Errno::EAGAIN));
        drop((reader, other));
        assert_eq!(writer.set_lease(LeaseKind::Write, 1, told.clone(), NOW), Ok(()));
        drop(writer);
        assert!(leases.of.borrow().is_empty() && told.lost.get() && told.broken.get() == 0);
    }

    #[test]
    fn a_lease_is_broken_once_and_goes_in_time() {
        let leases = Rc::<Leases>::default();
        let told = Rc::<Told>::default();
        let holder = leases.count(FILE, Purpose::Write);
        assert_eq!(holder.set_lease(LeaseKind::Write, 7, told.clone(), NOW), Ok(()));
        let ends = |writes, now| leases.break_for(FILE, writes, now, LATER).map(|(_, ends)| ends);
        assert_eq!((ends(false, NOW), ends(false, NOW)), (Some(LATER), Some(LATER)));
        assert_eq!((told.broken.get(), holder.lease(NOW)), (7, Some(LeaseKind::Read)));
        assert_eq!(ends(false, LATER), None);
        assert_eq!((ends(true, LATER), told.broken.get()), (Some(LATER), 14));
        assert_eq!((holder.lease(NOW), told.lost.get()), (None, false));
        let (changed, _) = leases.break_for(FILE, true, NOW, LATER).unwrap();
        assert_eq!(ends(true, LATER), None);
        assert!(changed.is_set() && told.lost.get());
    }
}
