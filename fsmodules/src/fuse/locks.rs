//! Advisory locks that the server leaves to us: POSIX record locks and flock(2) (`fs/locks.c`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::api::{Caller, Errno, Lock, LockKind, LockOwner, LockRange};

#[derive(Default)]
pub struct LockTable {
    held: RefCell<Vec<Lock>>,
    /// Who waits, and for which lock.
    waiting: RefCell<Vec<(Lock, Waker)>>,
}

fn overlap(a: LockRange, b: LockRange) -> bool {
    a.start <= b.end && b.start <= a.end
}

/// With the bytes on either side.
fn widened(range: LockRange) -> LockRange {
    LockRange {
        start: range.start.saturating_sub(1),
        end: range.end.saturating_add(1),
    }
}

fn conflict(held: &Lock, wanted: &Lock) -> bool {
    held.flock == wanted.flock
        && held.owner != wanted.owner
        && (held.kind == LockKind::Write || wanted.kind == LockKind::Write)
        && overlap(held.range, wanted.range)
}

impl LockTable {
    /// The first lock that stands in the way.
    pub fn test(&self, wanted: &Lock) -> Option<Lock> {
        let held = self.held.borrow();
        let conflicts = held.iter().filter(|held| conflict(held, wanted));
        conflicts.min_by_key(|held| held.range.start).copied()
    }

    /// Sets, changes or removes a lock; waits for it if asked to, until a signal comes.
    pub async fn set(&self, caller: &dyn Caller, wanted: Lock, wait: bool) -> Result<(), Errno> {
        if wanted.kind != LockKind::Unlock {
            poll_fn(|cx| {
                self.waiting.borrow_mut().retain(|(lock, _)| *lock != wanted);
                let Some(holder) = self.test(&wanted) else {
                    return Poll::Ready(Ok(()));
                };
                if !wait {
                    return Poll::Ready(Err(Errno::EAGAIN));
                }
                if !wanted.flock && self.waits_for(holder.owner, wanted.owner, 16) {
                    return Poll::Ready(Err(Errno::EDEADLK));
                }
                if caller.poll_signal(cx).is_ready() {
                    return Poll::Ready(Err(Errno::ERESTARTSYS));
                }
                self.waiting.borrow_mut().push((wanted, cx.waker().clone()));
                Poll::Pending
            })
            .await?;
        }
        self.replace(wanted);
        Ok(())
    }

    /// Does `owner` wait, perhaps through others, for something that `other` holds?
    fn waits_for(&self, owner: LockOwner, other: LockOwner, depth: u32) -> bool {
        let waiting = self.waiting.borrow();
        depth > 0
            && waiting.iter().filter(|(lock, _)| lock.owner == owner).any(|(lock, _)| {
                let holder = self.test(lock);
                holder.is_some_and(|h| h.owner == other || self.waits_for(h.owner, other, depth - 1))
            })
    }

    /// The owner's locks in the range become the wanted one, and those of its kind that touch it a part of it.
    fn replace(&self, mut wanted: Lock) {
        let mut held = self.held.borrow_mut();
        let mut rest = Vec::with_capacity(held.len() + 2);
        for lock in held.drain(..) {
            let touching = overlap(lock.range, widened(wanted.range));
            if lock.owner != wanted.owner || lock.flock != wanted.flock || !touching {
                rest.push(lock);
                continue;
            }
            if lock.kind == wanted.kind {
                wanted.range.start = wanted.range.start.min(lock.range.start);
                wanted.range.end = wanted.range.end.max(lock.range.end);
                continue;
            }
            if !overlap(lock.range, wanted.range) {
                rest.push(lock);
                continue;
            }
            if lock.range.start < wanted.range.start {
                rest.push(Lock {
                    range: LockRange {
                        start: lock.range.start,
                        end: wanted.range.start - 1,
                    },
                    ..lock
                });
            }
            if lock.range.end > wanted.range.end {
                rest.push(Lock {
                    range: LockRange {
                        start: wanted.range.end + 1,
                        end: lock.range.end,
                    },
                    ..lock
                });
            }
        }
        if wanted.kind != LockKind::Unlock {
            rest.push(wanted);
        }
        *held = rest;
        drop(held);
        self.wake();
    }

    fn wake(&self) {
        for (_, waker) in self.waiting.take() {
            waker.wake();
        }
    }

    /// An owner is gone: a descriptor table closed the file, or an open file description ended.
    pub fn release(&self, owner: LockOwner) {
        let before = self.held.borrow().len();
        self.held.borrow_mut().retain(|lock| lock.owner != owner);
        if self.held.borrow().len() != before {
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(owner: u64, kind: LockKind, start: u64, end: u64) -> Lock {
        let range = LockRange { start, end };
        Lock {
            kind,
            range,
            owner: LockOwner::Files(owner),
            pid: owner as u32,
            flock: false,
        }
    }

    #[test]
    fn a_hole_splits_a_lock() {
        let table = LockTable::default();
        table.replace(lock(1, LockKind::Write, 0, 99));
        table.replace(lock(1, LockKind::Unlock, 40, 59));
        assert!(table.test(&lock(2, LockKind::Read, 40, 59)).is_none());
        assert!(table.test(&lock(2, LockKind::Read, 59, 60)).is_some());
        assert!(table.test(&lock(1, LockKind::Write, 0, 99)).is_none());
        table.release(LockOwner::Files(1));
        assert!(table.test(&lock(2, LockKind::Write, 0, u64::MAX)).is_none());
    }

    #[test]
    fn neighbours_become_one_lock() {
        let table = LockTable::default();
        for (start, end) in [(10, 14), (20, 24), (15, 19)] {
            table.replace(lock(1, LockKind::Write, start, end));
        }
        let found = table.test(&lock(2, LockKind::Read, 0, 99)).unwrap();
        assert_eq!(found.range, LockRange { start: 10, end: 24 });
        table.replace(lock(1, LockKind::Read, 0, 12));
        let found = table.test(&lock(2, LockKind::Write, 0, 99)).unwrap();
        assert_eq!(
            (found.kind, found.range),
            (LockKind::Read, LockRange { start: 0, end: 12 })
        );
    }

    #[test]
    fn readers_share() {
        let table = LockTable::default();
        table.replace(lock(1, LockKind::Read, 0, 9));
        assert!(table.test(&lock(2, LockKind::Read, 0, 9)).is_none());
        assert!(table.test(&lock(2, LockKind::Write, 9, 9)).is_some());
        let other_kind = Lock {
            flock: true,
            ..lock(2, LockKind::Write, 0, 9)
        };
        assert!(table.test(&other_kind).is_none());
    }
}
