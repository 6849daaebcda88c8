//! A connection (`struct fuse_conn`): between the calls of a mount and the devices that serve it.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::init::{self, Negotiated};
use super::owned::{self, Lookup};
use super::queue::{Call, Progress, Queue};
use super::{Calls, Client};
use crate::Errno;
use crate::wire::abi::{ForgetIn, InHeader, NotifyRetrieveIn, Opcode};
use crate::wire::{Expect, Notification, Request};

/// Answers to NOTIFY_RETRIEVE that may wait to be read.
const MAX_RETRIEVED: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// INIT is on its way; everything else waits for its reply.
    Starting,
    Live,
    /// The server's INIT reply was an error or nonsense.
    Refused,
    /// Unmounted: what is queued is still read, then it is gone.
    Closing,
    /// The server or the mount is gone.
    Gone,
}

/// Who acts on the notifications of a server.
pub trait Listener {
    fn notified(&self, notification: Notification) -> Result<(), Errno>;
}

pub struct Connection {
    state: Cell<State>,
    negotiated: OnceCell<Negotiated>,
    /// `max_read` of the mount options, in bytes.
    max_read: u32,
    /// One bit for each opcode that the server has answered with ENOSYS once.
    lacking: Cell<u64>,
    next_unique: Cell<u64>,
    pub(super) queue: RefCell<Queue>,
    /// Requests that were read, by unique, with the id of the device that has read them.
    pub(super) in_flight: RefCell<HashMap<u64, (u64, Rc<Call>)>>,
    devices: Cell<u64>,
    last_device: Cell<u64>,
    readers: RefCell<Vec<Waker>>,
    /// Those who want to know whether there is something to read.
    pollers: RefCell<Vec<Waker>>,
    /// Those who wait for the reply to INIT, or for the end.
    watchers: RefCell<Vec<Waker>>,
    listener: RefCell<Option<Weak<dyn Listener>>>,
}

fn wake_all(wakers: &RefCell<Vec<Waker>>) {
    for waker in wakers.take() {
        waker.wake();
    }
}

fn add(wakers: &RefCell<Vec<Waker>>, waker: &Waker) {
    let mut wakers = wakers.borrow_mut();
    if !wakers.iter().any(|other| other.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

impl Connection {
    /// A connection whose first request, INIT, already waits to be read.
    pub fn new(max_read: Option<u32>) -> Rc<Connection> {
        let connection = Rc::new(Connection {
            state: Cell::new(State::Starting),
            negotiated: OnceCell::new(),
            max_read: max_read.unwrap_or(u32::MAX).max(4096),
            lacking: Cell::new(0),
            next_unique: Cell::new(2),
            queue: RefCell::default(),
            in_flight: RefCell::default(),
            devices: Cell::new(0),
            last_device: Cell::new(0),
            readers: RefCell::default(),
            pollers: RefCell::default(),
            watchers: RefCell::default(),
            listener: RefCell::new(None),
        });
        connection.enqueue(None, 0, init::request()).abandoned.set(true);
        connection
    }

    pub fn listen(&self, listener: Weak<dyn Listener>) {
        self.listener.replace(Some(listener));
    }

    /// What INIT agreed on; `None` before its reply.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.get()
    }

    /// The most bytes that one READ may ask for.
    pub fn max_read(&self) -> u32 {
        self.negotiated
            .get()
            .map_or(4096, |n| n.max_transfer.min(self.max_read))
    }

    /// The most bytes that one WRITE may carry.
    pub fn max_write(&self) -> u32 {
        self.negotiated.get().map_or(4096, |n| n.max_write.min(n.max_transfer))
    }

    /// Can it still answer, or will it once INIT is answered?
    pub fn is_alive(&self) -> bool {
        matches!(self.state.get(), State::Starting | State::Live)
    }

    /// The typed requests, on behalf of a client.
    pub fn by<'a>(self: &'a Rc<Self>, client: &'a dyn Client) -> Calls<'a> {
        Calls {
            connection: self,
            client,
        }
    }

    /// Has the server answered this opcode with ENOSYS?
    pub fn lacks(&self, opcode: Opcode) -> bool {
        self.lacking.get() & 1 << opcode as u32 != 0
    }

    pub(super) fn learn_lack(&self, opcode: Opcode) {
        self.lacking.set(self.lacking.get() | 1 << opcode as u32);
    }

    fn unique(&self) -> u64 {
        let unique = self.next_unique.get();
        self.next_unique.set(unique + 2);
        unique
    }

    fn enqueue(&self, client: Option<&dyn Client>, nodeid: u64, request: Request) -> Rc<Call> {
        let header = InHeader {
            unique: self.unique(),
            nodeid,
            uid: client.map_or(0, |c| c.uid()),
            gid: client.map_or(0, |c| c.gid()),
            pid: client.map_or(0, |c| c.pid()),
            ..InHeader::default()
        };
        let call = Call::new(header, request);
        self.queue.borrow_mut().push(call.clone());
        self.wake_readers();
        call
    }

    /// Readers first: what they take the others need not see.
    fn wake_readers(&self) {
        wake_all(&self.readers);
        self.wake_pollers();
    }

    pub(super) fn wake_pollers(&self) {
        wake_all(&self.pollers);
    }

    pub(super) fn add_reader(&self, waker: &Waker) {
        add(&self.readers, waker);
    }

    pub(super) fn add_poller(&self, waker: &Waker) {
        add(&self.pollers, waker);
    }

    /// Waits for the reply to INIT. An error if the connection cannot be used.
    pub async fn ready(&self) -> Result<&Negotiated, Errno> {
        poll_fn(|cx| match self.state.get() {
            State::Starting => {
                self.watchers.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
            State::Live => Poll::Ready(self.negotiated.get().ok_or(Errno::EIO)),
            State::Refused => Poll::Ready(Err(Errno::ECONNREFUSED)),
            State::Closing | State::Gone => Poll::Ready(Err(Errno::ENOTCONN)),
        })
        .await
    }

    /// Asks the server, and waits for its reply's payload.
    pub async fn call(self: &Rc<Self>, client: &dyn Client, nodeid: u64, request: Request) -> Result<Bytes, Errno> {
        self.ready().await?;
        client.sent(request.opcode.name());
        let call = self.enqueue(Some(client), nodeid, request);
        Answer {
            connection: self,
            call,
            client,
        }
        .await
    }

    /// Tells the server something whose reply interests nobody (RELEASE). `keeps` lives until it has come.
    pub(super) fn post(&self, nodeid: u64, request: Request, keeps: Option<Rc<dyn Any>>) {
        if self.state.get() == State::Live {
            let call = self.enqueue(None, nodeid, request);
            call.abandoned.set(true);
            call.keeps.replace(keeps);
        }
    }

    /// Gives lookups of a node back.
    pub(super) fn forget(&self, nodeid: u64, count: u64) {
        if self.state.get() == State::Live && count > 0 {
            self.queue.borrow_mut().push_forget((nodeid, count));
            self.wake_readers();
        }
    }

    pub(super) fn forget_message(&self, nodeid: u64, nlookup: u64) -> (InHeader, Request) {
        let header = InHeader {
            unique: self.unique(),
            nodeid,
            ..InHeader::default()
        };
        (
            header,
            Request::new(Opcode::FORGET)
                .arg(&ForgetIn { nlookup })
                .expect(Expect::Nothing),
        )
    }

    pub(super) fn batch_header(&self) -> InHeader {
        InHeader {
            unique: self.unique(),
            ..InHeader::default()
        }
    }

    /// Answers NOTIFY_RETRIEVE with what is cached, possibly nothing. `ENOMEM` if the server asks on and on without
    /// reading the answers.
    pub fn retrieved(&self, unique: u64, nodeid: u64, offset: u64, data: Bytes) -> Result<(), Errno> {
        if self.queue.borrow().count(Opcode::NOTIFY_REPLY) >= MAX_RETRIEVED {
            return Err(Errno::ENOMEM);
        }
        let arg = NotifyRetrieveIn {
            offset,
            size: data.len() as u32,
            ..NotifyRetrieveIn::default()
        };
        let request = Request::new(Opcode::NOTIFY_REPLY)
            .arg(&arg)
            .data(data)
            .expect(Expect::Nothing);
        let header = InHeader {
            unique,
            nodeid,
            ..InHeader::default()
        };
        self.queue.borrow_mut().push(Call::new(header, request));
        self.wake_readers();
        Ok(())
    }

    pub(super) fn notified(&self, notification: Notification) -> Result<(), Errno> {
        let listener = self.listener.borrow().as_ref().and_then(Weak::upgrade);
        listener.map_or(Ok(()), |listener| listener.notified(notification))
    }

    /// A signal has come for the caller of a request.
    fn interrupt(&self, call: &Call) {
        call.interrupted.set(true);
        if call.progress.get() == Progress::Sent {
            self.send_interrupt(call.header.unique);
        }
    }

    pub(super) fn send_interrupt(&self, unique: u64) {
        if self.state.get() == State::Live && !self.lacks(Opcode::INTERRUPT) {
            self.queue.borrow_mut().push_interrupt(unique);
            self.wake_readers();
        }
    }

    /// The caller of a request is gone.
    fn abandon(self: &Rc<Self>, call: &Rc<Call>) {
        match call.progress.get() {
            Progress::Queued => self.queue.borrow_mut().withdraw(call),
            Progress::Sent => {
                call.abandoned.set(true);
                if !call.interrupted.get() {
                    self.interrupt(call);
                }
            }
            Progress::Done => {
                if let Some(Ok(payload)) = call.take_result() {
                    call.abandoned.set(true);
                    self.give_back(call, &payload);
                }
            }
        }
    }

    /// A reply has come.
    pub(super) fn complete(self: &Rc<Self>, call: &Rc<Call>, result: Result<Bytes, Errno>) {
        self.queue.borrow_mut().drop_interrupt(call.header.unique);
        if call.request.opcode == Opcode::INIT {
            call.progress.set(Progress::Done);
            self.started(result);
            return;
        }
        if call.abandoned.get() {
            call.progress.set(Progress::Done);
            if let Ok(payload) = result {
                self.give_back(call, &payload);
            }
        } else {
            call.finish(result);
        }
        self.end_if_idle();
    }

    /// Lookups and handles that an unwanted reply carries.
    fn give_back(self: &Rc<Self>, call: &Call, payload: &[u8]) {
        let granted = owned::granted(call.request.opcode, payload);
        let lookups: Vec<_> = granted
            .lookups
            .into_iter()
            .map(|nodeid| Lookup::granted(self, nodeid))
            .collect();
        if let Some((nodeid, fh)) = granted.handle {
            let nodeid = nodeid.unwrap_or(call.header.nodeid);
            let request = owned::release(call.request.opcode == Opcode::OPENDIR, fh, 0, None);
            self.post(nodeid, request, Some(Rc::new(lookups)));
        }
    }

    fn started(&self, result: Result<Bytes, Errno>) {
        if self.state.get() != State::Starting {
            return;
        }
        match result.and_then(|payload| init::accept(&payload)) {
            Ok(negotiated) => {
                let _ = self.negotiated.set(negotiated);
                self.state.set(State::Live);
            }
            Err(_) => self.state.set(State::Refused),
        }
        wake_all(&self.watchers);
    }

    /// The mount is gone. What has been said is still delivered; nothing new is asked.
    pub fn close(&self) {
        match self.state.get() {
            State::Live => self.state.set(State::Closing),
            _ => return self.abort(),
        }
        self.end_if_idle();
        wake_all(&self.watchers);
    }

    pub(super) fn end_if_idle(&self) {
        if self.state.get() == State::Closing && self.queue.borrow().is_empty() && self.in_flight.borrow().is_empty() {
            self.abort();
        }
    }

    /// Fails everything that waits, with `ECONNABORTED`; whatever comes later, with `ENOTCONN`.
    pub fn abort(&self) {
        if self.state.replace(State::Gone) == State::Gone {
            return;
        }
        let queued = self.queue.borrow_mut().clear();
        let in_flight = self.in_flight.take();
        for call in queued.into_iter().chain(in_flight.into_values().map(|(_, call)| call)) {
            call.finish(Err(Errno::ECONNABORTED));
        }
        self.wake_readers();
        wake_all(&self.watchers);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state.get() == State::Gone
    }

    /// A device joins; its id.
    pub(super) fn attach(&self) -> u64 {
        self.devices.set(self.devices.get() + 1);
        self.last_device.set(self.last_device.get() + 1);
        self.last_device.get()
    }

    /// A device is closed: its requests fail, and with the last one all do.
    pub(super) fn detach(&self, device: u64) {
        self.devices.set(self.devices.get() - 1);
        if self.devices.get() == 0 {
            return self.abort();
        }
        let lost: Vec<Rc<Call>> = self
            .in_flight
            .borrow_mut()
            .extract_if(|_, (id, _)| *id == device)
            .map(|(_, (_, call))| call)
            .collect();
        for call in lost {
            call.finish(Err(Errno::ECONNABORTED));
        }
    }
}

/// Waits for a reply. Dropped before, it leaves a tombstone for the late reply.
struct Answer<'a> {
    connection: &'a Rc<Connection>,
    call: Rc<Call>,
    client: &'a dyn Client,
}

impl Future for Answer<'_> {
    type Output = Result<Bytes, Errno>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.call.take_result() {
            return Poll::Ready(result);
        }
        self.call.wake_with(cx.waker());
        if !self.call.interrupted.get() && self.client.poll_signal(cx).is_ready() {
            self.connection.interrupt(&self.call);
        }
        Poll::Pending
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        self.connection.abandon(&self.call);
    }
}
