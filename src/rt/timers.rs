//! Deadlines, over a clock that the caller reads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// All sleeping futures, by deadline. Time is the time since a fixed moment.
#[derive(Default)]
pub struct Timers {
    sleeping: RefCell<BTreeMap<(Duration, u64), Waker>>,
    next: Cell<u64>,
}

impl Timers {
    /// Wakes everybody whose deadline has passed.
    pub fn fire(&self, now: Duration) {
        loop {
            let mut sleeping = self.sleeping.borrow_mut();
            match sleeping.first_entry() {
                Some(entry) if entry.key().0 <= now => {
                    let waker = entry.remove();
                    drop(sleeping);
                    waker.wake();
                }
                _ => return,
            }
        }
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.sleeping.borrow().keys().next().map(|key| key.0)
    }

    /// Ready once [`Timers::fire`] is called with a time of `deadline` or later.
    pub fn until(self: &Rc<Self>, deadline: Duration) -> Sleep {
        let id = self.next.replace(self.next.get() + 1);
        Sleep {
            timers: self.clone(),
            key: (deadline, id),
            armed: false,
        }
    }
}

pub struct Sleep {
    timers: Rc<Timers>,
    key: (Duration, u64),
    armed: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleeping = self.timers.sleeping.borrow_mut();
        if self.armed && !sleeping.contains_key(&self.key) {
            return Poll::Ready(());
        }
        sleeping.insert(self.key, cx.waker().clone());
        drop(sleeping);
        self.armed = true;
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.timers.sleeping.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_wake_in_order_and_leave_no_trace() {
        let ex = async_executor::LocalExecutor::new();
        let timers = Rc::new(Timers::default());
        let late = ex.spawn(timers.until(Duration::from_secs(2)));
        let early = ex.spawn(timers.until(Duration::from_secs(1)));
        while ex.try_tick() {}
        assert_eq!(timers.next_deadline(), Some(Duration::from_secs(1)));
        timers.fire(Duration::from_millis(1500));
        while ex.try_tick() {}
        assert!(early.is_finished() && !late.is_finished());
        drop(late);
        while ex.try_tick() {}
        assert_eq!(timers.next_deadline(), None);
    }
}
