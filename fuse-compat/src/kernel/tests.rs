//! A connection and a device without a server process: the test plays the server.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::*;
use crate::Errno;
use crate::wire::abi::*;

#[derive(Default)]
struct Thread {
    signal: Cell<bool>,
}

impl Client for Thread {
    fn uid(&self) -> u32 {
        1000
    }
    fn gid(&self) -> u32 {
        100
    }
    fn pid(&self) -> u32 {
        42
    }
    fn poll_signal(&self, _: &mut Context<'_>) -> Poll<()> {
        if self.signal.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn read(device: &Device) -> Option<(InHeader, Vec<u8>)> {
    let message = device.read(1 << 20).unwrap()?.concat();
    let (header, body) = InHeader::read_from_prefix(&message).unwrap();
    assert_eq!(header.len as usize, message.len());
    Some((header, body.to_vec()))
}

fn reply(unique: u64, error: i32, payload: &(impl IntoBytes + Immutable + ?Sized)) -> Bytes {
    let payload = payload.as_bytes();
    let header = OutHeader {
        len: (16 + payload.len()) as u32,
        error,
        unique,
    };
    [header.as_bytes(), payload].concat().into()
}

fn started(minor: u32) -> (Rc<Connection>, Device) {
    let (connection, device) = (Connection::new(None), Device::default());
    assert_eq!(device.read(1 << 20).unwrap_err(), Errno::EPERM);
    device.bind(&connection).unwrap();
    let (init, body) = read(&device).unwrap();
    assert_eq!((init.opcode, init.unique, init.nodeid, body.len()), (26, 2, 0, 64));
    let out = InitOut {
        major: 7,
        minor,
        max_write: 1 << 16,
        flags: 1 << 5,
        ..InitOut::default()
    };
    device.write(&reply(2, 0, &out)).unwrap();
    (connection, device)
}

fn entry(nodeid: u64) -> EntryOut {
    EntryOut {
        nodeid,
        attr: Attr {
            mode: 0o100644,
            ..Attr::default()
        },
        ..EntryOut::default()
    }
}

#[test]
fn nothing_is_asked_before_init_is_answered() {
    let (connection, device) = (Connection::new(None), Device::default());
    device.bind(&connection).unwrap();
    let thread = Thread::default();
    let calls = connection.by(&thread);
    let mut call = pin!(calls.getattr(1, None));
    assert!(poll(call.as_mut()).is_pending());
    assert_eq!(read(&device).unwrap().0.opcode, Opcode::INIT as u32);
    assert!(read(&device).is_none());
    device.write(&reply(2, -71, &[0u8; 0])).unwrap();
    assert_eq!(poll(call), Poll::Ready(Err(Errno::ECONNREFUSED)));
}

/// A waker that remembers.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn who_polls_learns_of_requests_that_come_and_go() {
    let (connection, device) = started(40);
    let thread = Thread::default();
    let calls = connection.by(&thread);
    let woken = std::sync::Arc::new(Woken::default());
    let state = || device.state(Some(&woken.clone().into()));
    assert_eq!(state(), DeviceState::Idle);
    let mut one = pin!(calls.getattr(1, None));
    assert!(poll(one.as_mut()).is_pending());
    assert!(woken.take());
    assert_eq!(state(), DeviceState::Readable);
    read(&device).unwrap();
    assert!(woken.take());
    assert_eq!(state(), DeviceState::Idle);
}

#[test]
fn who_watches_an_unbound_device_learns_of_the_mount() {
    let woken = std::sync::Arc::new(Woken::default());
    let (connection, device) = (Connection::new(None), Device::default());
    assert_eq!(device.state(Some(&woken.clone().into())), DeviceState::Unbound);
    device.bind(&connection).unwrap();
    assert!(woken.take());
    assert_ne!(device.state(None), DeviceState::Unbound);
}

#[test]
fn lookups_are_given_back() {
    let (connection, device) = started(40);
    let thread = Thread::default();
    let calls = connection.by(&thread);
    let mut call = pin!(calls.lookup(1, b"name"));
    assert!(poll(call.as_mut()).is_pending());
    let (header, body) = read(&device).unwrap();
    assert_eq!(
        (header.uid, header.gid, header.pid, &body[..]),
        (1000, 100, 42, &b"name\0"[..])
    );
    device.write(&reply(header.unique, 0, &entry(7))).unwrap();
    assert_eq!(device.write(&reply(header.unique, 0, &entry(7))), Err(Errno::ENOENT));
    let Poll::Ready(Ok(Ok(found))) = poll(call) else {
        panic!("no entry")
    };
    assert_eq!(found.lookup.nodeid(), 7);
    assert!(read(&device).is_none());
    drop(found);
    let (forget, body) = read(&device).unwrap();
    assert_eq!((forget.opcode, forget.nodeid, &body[..]), (2, 7, 1u64.as_bytes()));
}

#[test]
fn an_abandoned_lookup_is_forgotten_and_an_abandoned_open_released() {
    let (connection, device) = started(40);
    let thread = Thread::default();
    {
        let calls = connection.by(&thread);
        let (mut found, mut opened) = (pin!(calls.lookup(1, b"a")), pin!(calls.open(7, 0, false)));
        assert!(poll(found.as_mut()).is_pending() && poll(opened.as_mut()).is_pending());
        read(&device).unwrap();
        read(&device).unwrap();
    }
    // Locals are dropped in reverse order, so the OPEN is interrupted first.
    assert_eq!(
        [read(&device).unwrap().0.unique, read(&device).unwrap().0.unique],
        [7, 5]
    );
    device.write(&reply(4, 0, &entry(9))).unwrap();
    device
        .write(&reply(
            6,
            0,
            &OpenOut {
                fh: 33,
                ..OpenOut::default()
            },
        ))
        .unwrap();
    let opcodes = [read(&device).unwrap(), read(&device).unwrap()].map(|(h, _)| (h.opcode, h.nodeid));
    assert!(opcodes.contains(&(2, 9)) && opcodes.contains(&(18, 7)), "{opcodes:?}");
}

#[test]
fn a_signal_interrupts_once_and_the_reply_decides() {
    let (connection, device) = started(40);
    let thread = Thread::default();
    let calls = connection.by(&thread);
    let mut call = pin!(calls.getattr(1, None));
    assert!(poll(call.as_mut()).is_pending());
    let (header, _) = read(&device).unwrap();
    thread.signal.set(true);
    assert!(poll(call.as_mut()).is_pending() && poll(call.as_mut()).is_pending());
    let (interrupt, body) = read(&device).unwrap();
    assert_eq!(
        (interrupt.opcode, interrupt.unique, &body[..]),
        (36, header.unique | 1, header.unique.as_bytes())
    );
    assert!(read(&device).is_none());
    // EAGAIN: once more.
    device.write(&reply(interrupt.unique, -11, &[0u8; 0])).unwrap();
    assert_eq!(read(&device).unwrap().0.opcode, 36);
    device.write(&reply(header.unique, -4, &[0u8; 0])).unwrap();
    assert_eq!(poll(call), Poll::Ready(Err(Errno::EINTR)));
}

#[test]
fn malformed_replies_cost_only_their_own_call() {
    let (connection, device) = started(40);
    let thread = Thread::default();
    let calls = connection.by(&thread);
    for (bytes, expected) in [
        (reply(0, 0, &[0u8; 0]), Errno::EINVAL),
        (reply(4, 5, &[0u8; 0]), Errno::EINVAL),
        (reply(4, -512, &[0u8; 0]), Errno::EINVAL),
        (reply(40, 0, &[0u8; 0]), Errno::ENOENT),
        (Bytes::from_static(&[0; 15]), Errno::EINVAL),
        (Bytes::from_static(&[0xff; 32]), Errno::EINVAL),
    ] {
        assert_eq!(device.write(&bytes), Err(expected));
    }
    for (error, len) in [(0, 8), (0, 105), (-2, 4)] {
        let mut call = pin!(calls.getattr(1, None));
        assert!(poll(call.as_mut()).is_pending());
        let (header, _) = read(&device).unwrap();
        assert_eq!(
            device.write(&reply(header.unique, error, &vec![0u8; len][..])),
            Err(Errno::EINVAL)
        );
        assert_eq!(poll(call), Poll::Ready(Err(Errno::EIO)));
    }
}

#[test]
fn enosys_is_remembered() {
    let (connection, device) = started(40);
    let thread = Thread::default();
    let calls = connection.by(&thread);
    for round in 0..2 {
        let mut call = pin!(calls.access(1, 4));
        let first = poll(call.as_mut());
        if round == 0 {
            assert!(first.is_pending());
            let (header, _) = read(&device).unwrap();
            device.write(&reply(header.unique, -38, &[0u8; 0])).unwrap();
            assert_eq!(poll(call), Poll::Ready(Ok(())));
        } else {
            assert_eq!(first, Poll::Ready(Ok(())));
        }
    }
}

#[test]
fn the_last_close_ends_everything() {
    let (connection, device) = started(40);
    let clone = Device::default();
    clone.bind(&connection).unwrap();
    assert_eq!(clone.bind(&connection), Err(Errno::EINVAL));
    let thread = Thread::default();
    let calls = connection.by(&thread);
    let (mut one, mut two) = (pin!(calls.getattr(1, None)), pin!(calls.getattr(2, None)));
    assert!(poll(one.as_mut()).is_pending() && poll(two.as_mut()).is_pending());
    let (first, _) = read(&clone).unwrap();
    assert_eq!(device.write(&reply(first.unique, -5, &[0u8; 0])), Err(Errno::ENOENT));
    drop(clone);
    assert_eq!(poll(one), Poll::Ready(Err(Errno::ECONNABORTED)));
    assert_eq!(device.state(None), DeviceState::Readable);
    drop(device);
    assert_eq!(poll(two), Poll::Ready(Err(Errno::ECONNABORTED)));
    assert_eq!(poll(pin!(calls.getattr(3, None))), Poll::Ready(Err(Errno::ENOTCONN)));
}

#[test]
fn a_closed_connection_still_delivers_what_was_said() {
    let (connection, device) = started(40);
    let thread = Thread::default();
    let calls = connection.by(&thread);
    let handle = {
        let mut call = pin!(calls.open(5, 0, false));
        assert!(poll(call.as_mut()).is_pending());
        let (header, _) = read(&device).unwrap();
        device
            .write(&reply(
                header.unique,
                0,
                &OpenOut {
                    fh: 3,
                    ..OpenOut::default()
                },
            ))
            .unwrap();
        let Poll::Ready(Ok(handle)) = poll(call) else {
            panic!("no handle")
        };
        handle
    };
    drop(handle);
    connection.close();
    let (release, _) = read(&device).unwrap();
    assert_eq!((release.opcode, release.pid), (18, 0));
    device.write(&reply(release.unique, 0, &[0u8; 0])).unwrap();
    assert_eq!(device.read(1 << 20).unwrap_err(), Errno::ENODEV);
    assert_eq!(device.state(None), DeviceState::Gone);
}

#[test]
fn what_is_retrieved_does_not_pile_up() {
    let (connection, device) = started(40);
    let retrieved = |n| connection.retrieved(n, 5, 0, Bytes::from_static(b"cached"));
    assert_eq!((0..64).map(retrieved).find(Result::is_err), None);
    assert_eq!(retrieved(64), Err(Errno::ENOMEM));
    assert_eq!(read(&device).unwrap().0.opcode, Opcode::NOTIFY_REPLY as u32);
    assert_eq!(retrieved(65), Ok(()));
}

/// Whatever a server writes: an errno or success, and everybody else is served on.
#[test]
fn noise_is_harmless() {
    let (connection, device) = started(40);
    let thread = Thread::default();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..20_000 {
        let calls = connection.by(&thread);
        let mut call = pin!(calls.lookup(1, b"x"));
        assert!(poll(call.as_mut()).is_pending());
        let mut unique = 0;
        while let Some((header, _)) = read(&device) {
            unique = if header.opcode == Opcode::LOOKUP as u32 {
                header.unique
            } else {
                unique
            };
        }
        let mut payload: Vec<u8> = (0..random() % 160).map(|_| random() as u8 & random() as u8).collect();
        if random() % 2 == 0 {
            payload.resize(128, 0);
        }
        let error = if random() % 4 == 0 { random() as i32 } else { 0 };
        let unique_sent = if random() % 8 == 0 { random() % 64 } else { unique };
        let _ = device.write(&reply(unique_sent, error, &payload[..]));
        let _ = device.write(&reply(unique, -2, &[0u8; 0]));
        assert!(poll(call).is_ready());
    }
}
