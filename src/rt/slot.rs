//! Values and events that one future leaves for another.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A place for one value: somebody puts, one future takes.
pub struct Slot<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot {
            value: RefCell::new(None),
            waker: RefCell::new(None),
        }
    }
}

impl<T> Slot<T> {
    pub fn put(&self, value: T) {
        self.value.replace(Some(value));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for the value.
    pub async fn take(&self) -> T {
        poll_fn(|cx| match self.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                self.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// Something that is so or not, with futures that wait until it is.
#[derive(Default)]
pub struct Flag {
    set: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Flag {
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    pub fn raise(&self) {
        self.set.set(true);
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// It is not so any more, and who waited for it before does so no longer.
    pub fn lower(&self) {
        self.set.set(false);
        self.wakers.borrow_mut().clear();
    }

    pub fn poll_raised(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.set.get() {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|w| w.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub async fn raised(&self) {
        poll_fn(|cx| self.poll_raised(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn slot_hands_over() {
        let ex = async_executor::LocalExecutor::new();
        let slot = Rc::new(Slot::default());
        let waiting = ex.spawn({
            let slot = slot.clone();
            async move { slot.take().await }
        });
        while ex.try_tick() {}
        assert!(!waiting.is_finished());
        slot.put(7);
        while ex.try_tick() {}
        assert!(waiting.is_finished());
    }

    #[test]
    fn flag_wakes_everybody() {
        let ex = async_executor::LocalExecutor::new();
        let flag = Rc::new(Flag::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let flag = flag.clone();
                ex.spawn(async move { flag.raised().await })
            })
            .collect();
        while ex.try_tick() {}
        assert!(waiting.iter().all(|w| !w.is_finished()));
        flag.raise();
        while ex.try_tick() {}
        assert!(waiting.iter().all(|w| w.is_finished()));
    }

    #[test]
    fn a_lowered_flag_keeps_nothing_of_those_who_waited() {
        let ex = async_executor::LocalExecutor::new();
        let flag = Rc::new(Flag::default());
        for _ in 0..3 {
            let waiting = ex.spawn({
                let flag = flag.clone();
                async move { flag.raised().await }
            });
            while ex.try_tick() {}
            drop(waiting);
        }
        flag.lower();
        assert!(flag.wakers.borrow().is_empty());
    }
}
