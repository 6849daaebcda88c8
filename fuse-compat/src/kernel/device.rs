//! The server's end: an open `/dev/fuse` (`fs/fuse/dev.c`).

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use zerocopy::IntoBytes;

use super::Connection;
use super::queue::{Forget, Next, Progress};
use crate::Errno;
use crate::wire::abi::{BatchForgetIn, ForgetOne, InHeader, InterruptIn, Opcode, OutHeader};
use crate::wire::{Expect, Message, Notification, Request, reply};

/// The least room that a read must offer.
const MIN_READ_BUFFER: usize = 8192;
/// Header and arguments of a WRITE.
const WRITE_OVERHEAD: usize = 80;

/// What poll(2) shows of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Not mounted yet.
    Unbound,
    /// Not mounted any more.
    Gone,
    Idle,
    /// A read would return something.
    Readable,
}

/// An open device. Not yet mounted, it can do nothing; dropping it is the close.
#[derive(Default)]
pub struct Device {
    bound: OnceCell<(Rc<Connection>, u64)>,
    /// Who asked for the state of the unbound device.
    watcher: RefCell<Option<Waker>>,
}

impl Device {
    pub fn connection(&self) -> Option<&Rc<Connection>> {
        self.bound.get().map(|(connection, _)| connection)
    }

    /// Makes it serve a connection: mount(2), or `FUSE_DEV_IOC_CLONE`. `EINVAL` if it already serves one.
    pub fn bind(&self, connection: &Rc<Connection>) -> Result<(), Errno> {
        if self.bound.get().is_some() {
            return Err(Errno::EINVAL);
        }
        let id = connection.attach();
        let _ = self.bound.set((connection.clone(), id));
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
        Ok(())
    }

    /// What can be done now; the waker is woken when that may have changed.
    pub fn state(&self, waker: Option<&Waker>) -> DeviceState {
        let Some((connection, _)) = self.bound.get() else {
            if let Some(waker) = waker {
                self.watcher.replace(Some(waker.clone()));
            }
            return DeviceState::Unbound;
        };
        if connection.is_gone() {
            return DeviceState::Gone;
        }
        if let Some(waker) = waker {
            connection.add_poller(waker);
        }
        if connection.queue.borrow().is_empty() {
            DeviceState::Idle
        } else {
            DeviceState::Readable
        }
    }

    /// Wakes a reader when there may be a request for it.
    pub fn wait(&self, waker: &Waker) {
        if let Some((connection, _)) = self.bound.get() {
            connection.add_reader(waker);
        }
    }

    /// read(2) with room for `capacity` bytes: the next request; `None` if there is none yet.
    pub fn read(&self, capacity: usize) -> Result<Option<Message>, Errno> {
        let (connection, id) = self.bound.get().ok_or(Errno::EPERM)?;
        let max_write = connection.negotiated().map_or(0, |n| n.max_write as usize);
        if capacity < MIN_READ_BUFFER.max(WRITE_OVERHEAD + max_write) {
            return Err(Errno::EINVAL);
        }
        loop {
            if connection.is_gone() {
                return Err(Errno::ENODEV);
            }
            let batches = connection.negotiated().is_some_and(|n| n.minor >= 16);
            let room = capacity - size_of::<InHeader>() - size_of::<BatchForgetIn>();
            let most_forgets = if batches { room / size_of::<ForgetOne>() } else { 1 };
            let next = connection.queue.borrow_mut().next(most_forgets);
            let message = match next {
                None => return Ok(None),
                Some(Next::Interrupt(unique)) => interrupt(unique),
                Some(Next::Forgets(forgets)) => forget(connection, &forgets),
                Some(Next::Call(call)) if call.request.message_len() > capacity => {
                    let too_big = if call.request.opcode == Opcode::SETXATTR {
                        Errno::E2BIG
                    } else {
                        Errno::EIO
                    };
                    call.finish(Err(too_big));
                    continue;
                }
                Some(Next::Call(call)) => {
                    let message = call.request.message(call.header);
                    if call.request.expect != Expect::Nothing {
                        call.progress.set(Progress::Sent);
                        let unique = call.header.unique;
                        let interrupted = call.interrupted.get();
                        connection.in_flight.borrow_mut().insert(unique, (*id, call));
                        if interrupted {
                            connection.send_interrupt(unique);
                        }
                    }
                    message
                }
            };
            if connection.queue.borrow().is_empty() {
                connection.wake_pollers();
            }
            connection.end_if_idle();
            return Ok(Some(message));
        }
    }

    /// write(2) of one whole message: a reply, or something that the server says unasked.
    pub fn write(&self, message: &Bytes) -> Result<(), Errno> {
        let (connection, id) = self.bound.get().ok_or(Errno::EPERM)?;
        let header: OutHeader = reply::parse(message).map_err(|_| Errno::EINVAL)?;
        if header.len as usize != message.len() {
            return Err(Errno::EINVAL);
        }
        let payload = message.slice(size_of::<OutHeader>()..);
        if header.unique == 0 {
            return connection.notified(Notification::parse(header.error, &payload)?);
        }
        if header.error > 0 || header.error <= -512 {
            return Err(Errno::EINVAL);
        }
        if header.unique & 1 != 0 {
            return self.interrupt_answered(connection, *id, &header, &payload);
        }
        let call = {
            let mut in_flight = connection.in_flight.borrow_mut();
            match in_flight.get(&header.unique) {
                Some((device, _)) if device == id => in_flight.remove(&header.unique).map(|(_, call)| call),
                _ => None,
            }
        };
        let call = call.ok_or(Errno::ENOENT)?;
        let fits = match (header.error, call.request.expect) {
            (0, Expect::Exactly(len)) => payload.len() == len,
            (0, Expect::UpTo(len)) => payload.len() <= len,
            (0, Expect::Nothing) => false,
            _ => payload.is_empty(),
        };
        let result = match header.error {
            _ if !fits => Err(Errno::EIO),
            0 => Ok(payload),
            error => Err(Errno::from_raw(-error)),
        };
        connection.complete(&call, result);
        if fits { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn interrupt_answered(
        &self,
        connection: &Connection,
        id: u64,
        header: &OutHeader,
        payload: &[u8],
    ) -> Result<(), Errno> {
        let unique = header.unique & !1;
        match connection.in_flight.borrow().get(&unique) {
            Some((device, _)) if *device == id => {}
            _ => return Err(Errno::ENOENT),
        }
        if !payload.is_empty() {
            return Err(Errno::EINVAL);
        }
        match Errno::from_raw(-header.error) {
            Errno::ENOSYS => connection.learn_lack(Opcode::INTERRUPT),
            Errno::EAGAIN => connection.send_interrupt(unique),
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some((connection, id)) = self.bound.get() {
            connection.detach(*id);
        }
    }
}

fn interrupt(unique: u64) -> Message {
    let header = InHeader {
        unique: unique | 1,
        ..InHeader::default()
    };
    Request::new(Opcode::INTERRUPT)
        .arg(&InterruptIn { unique })
        .message(header)
}

fn forget(connection: &Connection, forgets: &[Forget]) -> Message {
    if let [(nodeid, nlookup)] = forgets {
        let (header, request) = connection.forget_message(*nodeid, *nlookup);
        return request.message(header);
    }
    let mut list = Vec::with_capacity(forgets.len() * size_of::<ForgetOne>());
    for &(nodeid, nlookup) in forgets {
        list.extend_from_slice(ForgetOne { nodeid, nlookup }.as_bytes());
    }
    Request::new(Opcode::BATCH_FORGET)
        .arg(&BatchForgetIn {
            count: forgets.len() as u32,
            dummy: 0,
        })
        .data(list.into())
        .message(connection.batch_header())
}
