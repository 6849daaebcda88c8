//! Everything that a server may say, in any order: nothing panics, every request ends, and what was granted is given
//! back exactly once.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use arbtest::arbitrary::{Result, Unstructured};
use bytes::Bytes;
use fuse_compat::Errno;
use fuse_compat::kernel::{Calls, Client, Connection, Device, Entry, Handle, Listed, NewMode};
use fuse_compat::wire::abi::*;
use fuse_compat::wire::reply;
use zerocopy::{FromBytes, IntoBytes};

#[derive(Default)]
struct Thread {
    signal: Cell<bool>,
}

impl Client for Thread {
    fn uid(&self) -> u32 {
        1
    }
    fn gid(&self) -> u32 {
        2
    }
    fn pid(&self) -> u32 {
        3
    }
    fn poll_signal(&self, _: &mut Context<'_>) -> Poll<()> {
        if self.signal.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// What a call has brought, kept as a file system would.
#[allow(dead_code, reason = "kept until it is dropped")]
enum Kept {
    Entry(Entry),
    Open(Handle),
    Made(Entry, Handle),
    Listed(Vec<Listed>),
    Nothing,
}

type Answer = std::result::Result<Kept, Errno>;
type Running = Pin<Box<dyn Future<Output = Answer>>>;

const NEW: NewMode = NewMode {
    mode: 0o100644,
    umask: 0o22,
};

async fn ask(calls: Calls<'_>, kind: u8, node: u64, handle: Option<Rc<Handle>>) -> Answer {
    let nothing = |_| Kept::Nothing;
    match (kind % 18, handle) {
        (0, _) => Ok(calls.lookup(node, b"name").await?.map_or(Kept::Nothing, Kept::Entry)),
        (1, _) => calls.getattr(node, None).await.map(|_| Kept::Nothing),
        (2, _) => calls.open(node, 0, false).await.map(Kept::Open),
        (3, _) => calls.opendir(node, 0).await.map(Kept::Open),
        (4, _) => calls
            .create(node, b"new", NEW, 2)
            .await
            .map(|(entry, handle)| Kept::Made(entry, handle)),
        (5, _) => calls.mkdir(node, b"dir", NEW).await.map(Kept::Entry),
        (6, _) => calls
            .mknod(node, b"fifo", NewMode { mode: 0o010644, ..NEW }, 0)
            .await
            .map(Kept::Entry),
        (7, _) => calls.symlink(node, b"link", b"target").await.map(Kept::Entry),
        (8, _) => calls.link(node, 1, b"hard").await.map(Kept::Entry),
        (9, _) => calls.readlink(node).await.map(|_| Kept::Nothing),
        (10, _) => calls.statx(node, 0x7ff).await.map(|_| Kept::Nothing),
        (11, _) => calls.getxattr(node, b"user.a").await.map(|_| Kept::Nothing),
        (12, _) => calls.listxattr(node).await.map(|_| Kept::Nothing),
        (13, _) => calls
            .tmpfile(node, NEW, 2)
            .await
            .map(|(entry, handle)| Kept::Made(entry, handle)),
        (14, Some(handle)) => calls.read(&handle, 0, 4096, None).await.map(|_| Kept::Nothing),
        (15, Some(handle)) => calls
            .write(&handle, 0, Bytes::from_static(b"data"), 0, None)
            .await
            .map(|_| Kept::Nothing),
        (16, Some(handle)) => calls.readdir(&handle, 0, 4096, true).await.map(Kept::Listed),
        (17, Some(handle)) => calls.lseek(&handle, 0, 3).await.map(|_| Kept::Nothing),
        _ => calls.access(node, 4).await.map(nothing),
    }
}

/// What the server has granted, and what has come back of it.
#[derive(Default)]
struct Books {
    lookups: HashMap<u64, (u64, u64)>,
    opened: u64,
    released: u64,
}

impl Books {
    /// An answer has been accepted.
    fn grant(&mut self, opcode: u32, payload: &[u8]) {
        let is = |list: &[Opcode]| list.iter().any(|&o| o as u32 == opcode);
        let mut nodes = Vec::new();
        if is(&[
            Opcode::LOOKUP,
            Opcode::MKDIR,
            Opcode::MKNOD,
            Opcode::SYMLINK,
            Opcode::LINK,
        ]) {
            nodes.extend(reply::parse::<EntryOut>(payload).map(|out| out.nodeid));
        } else if is(&[Opcode::CREATE, Opcode::TMPFILE]) {
            nodes.extend(reply::parse::<CreateOut>(payload).map(|out| out.entry.nodeid));
            self.opened += 1;
        } else if is(&[Opcode::OPEN, Opcode::OPENDIR]) {
            self.opened += 1;
        } else if is(&[Opcode::READDIRPLUS]) {
            let entries = reply::dirents(payload, true).unwrap_or_default();
            let real = entries.iter().filter(|e| e.name != b"." && e.name != b"..");
            nodes.extend(real.filter_map(|e| e.entry.map(|out| out.nodeid)));
        }
        for node in nodes.into_iter().filter(|&node| node > ROOT_ID) {
            self.lookups.entry(node).or_default().0 += 1;
        }
    }

    fn forgotten(&mut self, node: u64, count: u64) {
        let (granted, given_back) = self.lookups.entry(node).or_default();
        *given_back += count;
        assert!(
            given_back <= granted,
            "node {node}: {given_back} of {granted} lookups given back"
        );
    }
}

struct Fuzz {
    connection: Rc<Connection>,
    devices: Vec<Device>,
    thread: Rc<Thread>,
    running: Vec<Running>,
    kept: Vec<Kept>,
    handles: Vec<Rc<Handle>>,
    /// Read and not answered: the device's place, unique and opcode.
    asked: Vec<(usize, u64, u32)>,
    books: Books,
}

impl Fuzz {
    fn start(&mut self, kind: u8, node: u64) {
        let (connection, thread) = (self.connection.clone(), self.thread.clone());
        let handle = self.handles.last().cloned();
        self.running.push(Box::pin(async move {
            let client: &dyn Client = &*thread;
            ask(connection.by(client), kind, node, handle).await
        }));
    }

    fn poll(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let (kept, handles) = (&mut self.kept, &mut self.handles);
        self.running.retain_mut(|call| match call.as_mut().poll(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(answer) => {
                match answer {
                    Ok(Kept::Open(handle)) => handles.push(Rc::new(handle)),
                    Ok(brought) => kept.push(brought),
                    Err(_) => {}
                }
                false
            }
        });
    }

    fn read(&mut self, place: usize) {
        let Ok(Some(message)) = self.devices[place].read(1 << 17) else {
            return;
        };
        let message = message.concat();
        let (header, mut body) = InHeader::read_from_prefix(&message).unwrap();
        assert_eq!(header.len as usize, message.len());
        match header.opcode {
            op if op == Opcode::FORGET as u32 => {
                let one = ForgetIn::read_from_bytes(body).unwrap();
                self.books.forgotten(header.nodeid, one.nlookup);
            }
            op if op == Opcode::BATCH_FORGET as u32 => {
                let (list, rest) = BatchForgetIn::read_from_prefix(body).unwrap();
                body = rest;
                assert_eq!(body.len(), list.count as usize * size_of::<ForgetOne>());
                for one in body.chunks(size_of::<ForgetOne>()) {
                    let one = ForgetOne::read_from_bytes(one).unwrap();
                    self.books.forgotten(one.nodeid, one.nlookup);
                }
            }
            op if op == Opcode::INTERRUPT as u32 || op == Opcode::NOTIFY_REPLY as u32 => {}
            op => {
                if op == Opcode::RELEASE as u32 || op == Opcode::RELEASEDIR as u32 {
                    self.books.released += 1;
                    assert!(self.books.released <= self.books.opened);
                }
                self.asked.push((place, header.unique, op));
            }
        }
    }

    /// Answers a request in some way.
    fn answer(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.asked.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(self.asked.len())?;
        let (place, unique, opcode) = self.asked[at];
        let right = right_length(opcode);
        let len = match u.int_in_range(0..=3)? {
            0 => u.int_in_range(0..=600)?,
            _ => right,
        };
        let mut payload = vec![0; len];
        u.fill_buffer(&mut payload)?;
        if u.ratio(3, 4)? {
            soften(opcode, &mut payload, u)?;
        }
        let error = match u.int_in_range(0..=5)? {
            0 => u.arbitrary()?,
            1 => -u.int_in_range(1..=511)?,
            _ => 0,
        };
        if error != 0 && u.ratio(3, 4)? {
            payload.clear();
        }
        let place = if u.ratio(1, 8)? {
            u.choose_index(self.devices.len())?
        } else {
            place
        };
        let written = self.devices[place].write(&message(unique, error, &payload));
        match written {
            Err(Errno::ENOENT) => {}
            // A header that cannot be one leaves the request where it is.
            Err(_) if error > 0 || error <= -512 => {}
            other => {
                self.asked.swap_remove(at);
                if other.is_ok() && error == 0 {
                    self.books.grant(opcode, &payload);
                }
            }
        }
        Ok(())
    }

    /// Writes something that answers nothing, or is a notification.
    fn noise(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let len = u.int_in_range(0..=200)?;
        let mut payload = vec![0; len];
        u.fill_buffer(&mut payload)?;
        let place = u.choose_index(self.devices.len())?;
        let bytes = match u.int_in_range(0..=3)? {
            0 => payload.into(),
            1 => message(u.int_in_range(0..=200)? | 1, -u.int_in_range(0..=40)?, &[]),
            _ => message(0, u.int_in_range(0..=12)?, &payload),
        };
        let _ = self.devices[place].write(&bytes);
        Ok(())
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=15)? {
            0..=3 => self.start(u.arbitrary()?, u.int_in_range(1..=9)?),
            4..=6 => self.read(u.choose_index(self.devices.len())?),
            7..=10 => self.answer(u)?,
            11 => self.noise(u)?,
            12 => self.thread.signal.set(u.arbitrary()?),
            13 if !self.running.is_empty() => drop(self.running.swap_remove(u.choose_index(self.running.len())?)),
            14 if !self.kept.is_empty() => drop(self.kept.swap_remove(u.choose_index(self.kept.len())?)),
            15 => drop(self.handles.pop()),
            _ => {}
        }
        self.poll();
        Ok(())
    }

    /// Nobody wants anything any more, and the server answers what is left: the books are balanced.
    fn settle(&mut self) {
        self.running.clear();
        self.kept.clear();
        self.handles.clear();
        loop {
            let before = self.asked.len();
            for place in 0..self.devices.len() {
                self.read(place);
            }
            for (place, unique, _) in std::mem::take(&mut self.asked) {
                let _ = self.devices[place].write(&message(unique, -Errno::ENOSYS.raw(), &[]));
            }
            let idle = |device: &Device| device.state(None) != fuse_compat::kernel::DeviceState::Readable;
            if before == 0 && self.devices.iter().all(idle) {
                break;
            }
        }
        if self.connection.is_alive() {
            for (node, (granted, given_back)) in &self.books.lookups {
                assert_eq!(granted, given_back, "lookups of node {node}");
            }
            assert_eq!(self.books.opened, self.books.released);
        }
    }
}

fn message(unique: u64, error: i32, payload: &[u8]) -> Bytes {
    let len = (size_of::<OutHeader>() + payload.len()) as u32;
    [OutHeader { len, error, unique }.as_bytes(), payload].concat().into()
}

fn right_length(opcode: u32) -> usize {
    const ENTRIES: [Opcode; 5] = [
        Opcode::LOOKUP,
        Opcode::MKDIR,
        Opcode::MKNOD,
        Opcode::SYMLINK,
        Opcode::LINK,
    ];
    let is = |list: &[Opcode]| list.iter().any(|&o| o as u32 == opcode);
    match () {
        () if is(&ENTRIES) => size_of::<EntryOut>(),
        () if is(&[Opcode::CREATE, Opcode::TMPFILE]) => size_of::<CreateOut>(),
        () if is(&[Opcode::OPEN, Opcode::OPENDIR]) => size_of::<OpenOut>(),
        () if is(&[Opcode::GETATTR, Opcode::SETATTR]) => size_of::<AttrOut>(),
        () if is(&[Opcode::STATX]) => size_of::<StatxOut>(),
        () if is(&[Opcode::WRITE, Opcode::LSEEK]) => size_of::<WriteOut>(),
        () if is(&[Opcode::READDIRPLUS]) => 480,
        () if is(&[Opcode::READ, Opcode::READLINK, Opcode::GETXATTR, Opcode::LISTXATTR]) => 40,
        () => 0,
    }
}

/// Makes the answer one that is nearly right.
fn soften(opcode: u32, payload: &mut [u8], u: &mut Unstructured<'_>) -> Result<()> {
    if opcode == Opcode::READDIRPLUS as u32 {
        for record in payload.chunks_mut(160) {
            if let Ok((entry, rest)) = EntryOut::mut_from_prefix(record)
                && let Ok((dirent, name)) = DirentHeader::mut_from_prefix(rest)
            {
                entry.nodeid = u.int_in_range(0..=9)?;
                dirent.namelen = 8.min(name.len() as u32);
                name.fill(b'n');
            }
        }
    } else if let Ok((entry, _)) = EntryOut::mut_from_prefix(payload) {
        entry.nodeid = u.int_in_range(0..=9)?;
        entry.attr.mode = *u.choose(&[0o100644, 0o040755, 0o120777, 0o010644])?;
        entry.attr.size = u.int_in_range(0..=1 << 40)?;
    }
    Ok(())
}

fn started(u: &mut Unstructured<'_>) -> Result<Fuzz> {
    let connection = Connection::new(None);
    let mut devices = Vec::new();
    for _ in 0..u.int_in_range(1..=3)? {
        let device = Device::default();
        device.bind(&connection).unwrap();
        devices.push(device);
    }
    let out = InitOut {
        major: 7,
        minor: u.int_in_range(12..=45)?,
        flags: u.arbitrary()?,
        flags2: u.arbitrary()?,
        max_write: u.int_in_range(0..=1 << 16)?,
        ..InitOut::default()
    };
    assert!(devices[0].read(1 << 17).unwrap().is_some());
    devices[0].write(&message(2, 0, out.as_bytes())).unwrap();
    Ok(Fuzz {
        connection,
        devices,
        thread: Rc::default(),
        running: Vec::new(),
        kept: Vec::new(),
        handles: Vec::new(),
        asked: Vec::new(),
        books: Books::default(),
    })
}

#[test]
fn whatever_a_server_says() {
    arbtest::arbtest(|u| {
        // First, since at the end nothing is left to choose by.
        let end = u.int_in_range(0..=3)?;
        let mut fuzz = started(u)?;
        while !u.is_empty() {
            fuzz.step(u)?;
        }
        match end {
            0 => {
                fuzz.connection.abort();
                fuzz.poll();
                assert!(fuzz.running.is_empty(), "a request did not end with its connection");
            }
            1 => {
                fuzz.devices.clear();
                fuzz.poll();
                assert!(fuzz.running.is_empty(), "a request did not end with its server");
            }
            2 => {
                fuzz.connection.close();
                fuzz.settle();
            }
            _ => fuzz.settle(),
        }
        Ok(())
    })
    .budget_ms(4_000)
    .size_max(20_000);
}

/// INIT itself is answered by anything.
#[test]
fn whatever_init_is_answered_with() {
    arbtest::arbtest(|u| {
        let (connection, device) = (Connection::new(None), Device::default());
        device.bind(&connection).unwrap();
        let thread: Rc<Thread> = Rc::default();
        let mut call: Running = {
            let (connection, thread) = (connection.clone(), thread.clone());
            Box::pin(async move { ask(connection.by(&*thread), 0, 1, None).await })
        };
        let mut cx = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut cx).is_pending());
        assert!(device.read(1 << 17).unwrap().is_some());
        let len = u.int_in_range(0..=80)?;
        let mut payload = vec![0; len];
        u.fill_buffer(&mut payload)?;
        if u.ratio(3, 4)?
            && let Ok((out, _)) = InitOut::mut_from_prefix(&mut payload)
        {
            out.major = 7;
        }
        let error = if u.ratio(1, 4)? { u.arbitrary()? } else { 0 };
        let _ = device.write(&message(2, error, &payload));
        let ended = call.as_mut().poll(&mut cx).is_ready();
        // However that went, a request is asked or ends.
        if let Some(message) = device.read(usize::MAX / 2).ok().flatten() {
            assert_eq!(message[0][4..8], 1u32.to_ne_bytes(), "LOOKUP");
        }
        connection.abort();
        assert!(ended || call.as_mut().poll(&mut cx).is_ready());
        Ok(())
    })
    .budget_ms(1_000);
}
