//! What waits to be read by the server, in the order in which Linux serves it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use crate::Errno;
use crate::wire::Request;
use crate::wire::abi::{InHeader, Opcode};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Queued,
    /// The server has read it.
    Sent,
    Done,
}

/// A request on its way, and the reply when it is there.
pub struct Call {
    pub header: InHeader,
    pub request: Request,
    pub progress: Cell<Progress>,
    /// The caller has a signal: the server is to be told, once it has the request.
    pub interrupted: Cell<bool>,
    /// Nobody waits for the reply.
    pub abandoned: Cell<bool>,
    /// What must live until the reply: the file whose handle is released.
    pub keeps: RefCell<Option<Rc<dyn Any>>>,
    result: RefCell<Option<Result<Bytes, Errno>>>,
    waker: RefCell<Option<Waker>>,
}

impl Call {
    pub fn new(header: InHeader, request: Request) -> Rc<Call> {
        Rc::new(Call {
            header,
            request,
            progress: Cell::new(Progress::Queued),
            interrupted: Cell::new(false),
            abandoned: Cell::new(false),
            keeps: RefCell::default(),
            result: RefCell::default(),
            waker: RefCell::default(),
        })
    }

    pub fn finish(&self, result: Result<Bytes, Errno>) {
        self.progress.set(Progress::Done);
        self.result.replace(Some(result));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub fn take_result(&self) -> Option<Result<Bytes, Errno>> {
        self.result.take()
    }

    pub fn wake_with(&self, waker: &Waker) {
        self.waker.replace(Some(waker.clone()));
    }
}

/// A node and how many lookups of it are given back.
pub type Forget = (u64, u64);

/// The next thing for the server to read.
pub enum Next {
    /// Asks to interrupt the request with this unique.
    Interrupt(u64),
    /// At most as many as asked for, at least one.
    Forgets(Vec<Forget>),
    Call(Rc<Call>),
}

/// While both wait, 16 messages of forgets are followed by 8 requests.
const FORGETS_IN_TURN: i32 = 16;
const CALLS_IN_TURN: i32 = 8;

#[derive(Default)]
pub struct Queue {
    interrupts: VecDeque<u64>,
    forgets: VecDeque<Forget>,
    calls: VecDeque<Rc<Call>>,
    turn: i32,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.interrupts.is_empty() && self.forgets.is_empty() && self.calls.is_empty()
    }

    pub fn push(&mut self, call: Rc<Call>) {
        self.calls.push_back(call);
    }

    /// How many requests of this kind wait.
    pub fn count(&self, opcode: Opcode) -> usize {
        self.calls.iter().filter(|call| call.request.opcode == opcode).count()
    }

    pub fn push_forget(&mut self, forget: Forget) {
        self.forgets.push_back(forget);
    }

    pub fn push_interrupt(&mut self, unique: u64) {
        if !self.interrupts.contains(&unique) {
            self.interrupts.push_back(unique);
        }
    }

    /// Takes back a request that nobody has read.
    pub fn withdraw(&mut self, call: &Rc<Call>) {
        self.calls.retain(|other| !Rc::ptr_eq(other, call));
    }

    pub fn drop_interrupt(&mut self, unique: u64) {
        self.interrupts.retain(|&other| other != unique);
    }

    /// Empties it; the requests that were in it.
    pub fn clear(&mut self) -> VecDeque<Rc<Call>> {
        self.interrupts.clear();
        self.forgets.clear();
        std::mem::take(&mut self.calls)
    }

    pub fn next(&mut self, most_forgets: usize) -> Option<Next> {
        if let Some(unique) = self.interrupts.pop_front() {
            return Some(Next::Interrupt(unique));
        }
        if !self.forgets.is_empty() {
            let forgets_first = self.turn > 0;
            self.turn -= 1;
            if self.calls.is_empty() || forgets_first {
                let count = self.forgets.len().min(most_forgets.max(1));
                return Some(Next::Forgets(self.forgets.drain(..count).collect()));
            }
            if self.turn <= -CALLS_IN_TURN {
                self.turn = FORGETS_IN_TURN;
            }
        }
        self.calls.pop_front().map(Next::Call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(unique: u64) -> Rc<Call> {
        Call::new(
            InHeader {
                unique,
                ..Default::default()
            },
            Request::new(Opcode::GETATTR),
        )
    }

    #[test]
    fn interrupts_overtake_and_forgets_take_turns() {
        let mut queue = Queue::default();
        for n in 0..100 {
            queue.push(call(n));
            queue.push_forget((n, 1));
        }
        queue.push_interrupt(7);
        queue.push_interrupt(7);
        assert!(matches!(queue.next(1), Some(Next::Interrupt(7))));
        let mut kinds = String::new();
        while let Some(next) = queue.next(1) {
            kinds.push(match next {
                Next::Interrupt(_) => 'i',
                Next::Forgets(_) => 'f',
                Next::Call(_) => 'c',
            });
        }
        assert!(
            kinds.starts_with(&("c".repeat(8) + &"f".repeat(16) + &"c".repeat(8) + "f")),
            "{kinds}"
        );
        assert_eq!(kinds.len(), 200);
        assert!(queue.is_empty());
    }

    #[test]
    fn withdrawn_requests_are_never_read() {
        let mut queue = Queue::default();
        let (one, two) = (call(2), call(4));
        queue.push(one.clone());
        queue.push(two);
        queue.withdraw(&one);
        assert!(matches!(queue.next(9), Some(Next::Call(call)) if call.header.unique == 4));
        assert!(queue.next(9).is_none());
    }
}
