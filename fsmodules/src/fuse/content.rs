//! The page cache of a file: a memory file that guests can map, and what of it is valid.
//!
//! Invariants: the memory file is as long as the file is known to be; a valid range holds what the server has, or will
//! have as soon as it is written back; bytes outside of it mean nothing.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use async_lock::Mutex;
use bytes::{Bytes, BytesMut};
use fuse_compat::kernel::{Client, Handle};
use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom, fallocate, ftruncate, memfd_create, seek};
use rustix::io::{pread, pwrite};

use super::background::Background;
use super::failure::Failure;
use super::node::Node;
use super::rangeset::RangeSet;
use crate::api::{Errno, errno};

pub const PAGE: u64 = 4096;
/// How much content may be cached for files that are open, and for a single one of them that is not mapped.
const MAX_PER_FILE: u64 = 64 << 20;

/// A READ on its way.
struct Load {
    range: Range<u64>,
    /// What it brings is outdated.
    stale: Cell<bool>,
}

/// What guests may change behind our back, and what it was when that was last looked at.
pub(super) struct Shared {
    pub copy: OwnedFd,
    pub ranges: RangeSet,
}

pub struct Content {
    memory: OwnedFd,
    pub(super) len: Cell<u64>,
    pub(super) valid: RefCell<RangeSet>,
    loads: RefCell<Vec<Rc<Load>>>,
    waiting: RefCell<Vec<Waker>>,
    /// It is mapped, or has been: pages may not be taken away.
    pub(super) mapped: Cell<bool>,
    pub(super) shared: RefCell<Option<Shared>>,
    /// Whole pages that are newer here than at the server. They are valid.
    pub(super) dirty: RefCell<RangeSet>,
    /// Pages that are on their way to the server, or about to be. They are valid, too.
    pub(super) sending: RefCell<RangeSet>,
    /// Open files through which to write back: any that is left will do.
    pub(super) writers: RefCell<Vec<Weak<Handle>>>,
    /// Who has changed it last, or may change what is mapped.
    pub(super) changed_by: Cell<Background>,
    /// Somebody waits for it to be old enough to be written back.
    pub(super) expires: Cell<bool>,
    /// Held by who writes back.
    pub(super) writing_back: Mutex<()>,
    pub failure: Failure,
}

pub(super) fn pages(range: Range<u64>) -> Range<u64> {
    range.start / PAGE * PAGE..range.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

pub(super) fn write_all(fd: BorrowedFd<'_>, mut data: &[u8], mut at: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        let n = pwrite(fd, data, at).map_err(errno)?;
        data = &data[n..];
        at += n as u64;
    }
    Ok(())
}

fn punch(fd: BorrowedFd<'_>, range: Range<u64>) -> Result<(), Errno> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(fd, flags, range.start, range.end - range.start).map_err(errno)
}

/// Bytes that are there; fewer at the end of the file.
pub(super) fn read_all(fd: BorrowedFd<'_>, at: u64, len: usize) -> Result<Bytes, Errno> {
    let mut data = BytesMut::zeroed(len);
    let mut done = 0;
    while done < len {
        match pread(fd, &mut data[done..], at + done as u64).map_err(errno)? {
            0 => break,
            n => done += n,
        }
    }
    data.truncate(done);
    Ok(data.freeze())
}

/// The first page from there on that the file has in memory.
pub(super) fn next_page(fd: BorrowedFd<'_>, from: u64) -> Option<u64> {
    let found = seek(fd, SeekFrom::Data(from)).ok()?;
    Some((found / PAGE * PAGE).max(from))
}

impl Content {
    pub fn new(len: u64) -> Result<Content, Errno> {
        let memory = memfd_create("fuse", MemfdFlags::CLOEXEC).map_err(errno)?;
        ftruncate(&memory, len).map_err(errno)?;
        Ok(Content {
            memory,
            len: Cell::new(len),
            valid: RefCell::default(),
            loads: RefCell::default(),
            waiting: RefCell::default(),
            mapped: Cell::new(false),
            shared: RefCell::default(),
            dirty: RefCell::default(),
            sending: RefCell::default(),
            writers: RefCell::default(),
            changed_by: Cell::new(Background::NOBODY),
            expires: Cell::new(false),
            writing_back: Mutex::new(()),
            failure: Failure::default(),
        })
    }

    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// The file has another size now.
    pub fn resize(&self, len: u64) {
        let old = self.len.replace(len);
        if old == len {
            return;
        }
        // A failure (no memory for the page table of a huge file) only makes reads beyond short.
        let _ = ftruncate(&self.memory, len);
        if let Some(shared) = &*self.shared.borrow() {
            let _ = ftruncate(&shared.copy, len);
        }
        let edge = old.min(len);
        self.spoil_loads(edge..u64::MAX);
        if len < old {
            // What is left of the last page is as valid as it was.
            let gone = len.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
            self.valid.borrow_mut().remove(gone..u64::MAX);
            self.dirty.borrow_mut().remove(gone..u64::MAX);
        }
    }

    fn spoil_loads(&self, range: Range<u64>) {
        for load in self.loads.borrow().iter() {
            if load.range.start < range.end && range.start < load.range.end {
                load.stale.set(true);
            }
        }
    }

    /// What is cached there may be wrong.
    pub fn invalidate(&self, range: Range<u64>) {
        self.spoil_loads(range.clone());
        let mut valid = self.valid.borrow_mut();
        valid.remove(pages(range));
        // What the server has yet to get, and what guests may have changed in memory, is newer than what it has.
        self.newer().iter().for_each(|range| valid.insert(range));
        if let Some(shared) = &*self.shared.borrow() {
            let end = pages(0..self.len.get()).end;
            shared
                .ranges
                .iter()
                .for_each(|range| valid.insert(range.start..range.end.min(end).max(range.start)));
        }
    }

    /// The server has zeros there now, and so have those who map it.
    pub fn zeroed(&self, range: Range<u64>) -> Result<(), Errno> {
        self.spoil_loads(range.clone());
        let range = range.start..range.end.min(self.len.get());
        if range.is_empty() {
            return Ok(());
        }
        self.zero(range.clone())?;
        if let Some(shared) = &*self.shared.borrow() {
            punch(shared.copy.as_fd(), range)?;
        }
        Ok(())
    }

    /// The contiguous valid bytes at the start of a range.
    pub fn cached(&self, range: Range<u64>) -> Bytes {
        let end = self.valid.borrow().covered_until(range.start).min(range.end);
        let len = end.saturating_sub(range.start) as usize;
        read_all(self.memory(), range.start, len).unwrap_or_default()
    }

    /// Data that a server has sent: cached, and valid where it fills pages or the file ends with it. `size` is that of
    /// the file with it.
    pub fn store(&self, at: u64, data: &[u8], size: u64) -> Result<(), Errno> {
        self.put(at, data, size)?;
        let (start, end) = (at.next_multiple_of(PAGE), at + data.len() as u64);
        if end >= size && start < end {
            self.valid.borrow_mut().insert(start..pages(start..end).end);
        }
        Ok(())
    }

    /// Data that was written: cached, and valid where it fills pages. The server may show the rest of a page otherwise
    /// than it was written.
    pub fn put(&self, at: u64, data: &[u8], size: u64) -> Result<(), Errno> {
        let end = at + data.len() as u64;
        self.spoil_loads(at..end);
        if size != self.len.get() {
            self.resize(size);
        }
        write_all(self.memory(), data, at)?;
        if let Some(shared) = &*self.shared.borrow() {
            write_all(shared.copy.as_fd(), data, at)?;
        }
        let whole_end = end / PAGE * PAGE;
        let start = at.next_multiple_of(PAGE);
        self.valid.borrow_mut().insert(start..whole_end.max(start));
        self.trim(at);
        Ok(())
    }

    pub fn read(&self, at: u64, len: usize) -> Result<Bytes, Errno> {
        read_all(self.memory(), at, len)
    }

    /// How far from here everything is valid.
    pub fn valid_until(&self, from: u64) -> u64 {
        self.valid.borrow().covered_until(from)
    }

    /// Makes a range valid for who reads it, by READs of whole pages; clipped to the file's size.
    pub async fn read_in(
        &self,
        node: &Node,
        client: &dyn Client,
        handle: &Handle,
        wanted: Range<u64>,
    ) -> Result<(), Errno> {
        while let Some(gap) = self.gap(wanted.clone()).await {
            let loaded = self.load(node, client, handle, gap).await;
            node.accessed();
            loaded?;
        }
        Ok(())
    }

    /// The first part of a range that is not valid, and that nobody is loading; clipped to the file's size.
    pub(super) async fn gap(&self, wanted: Range<u64>) -> Option<Range<u64>> {
        loop {
            let range = pages(wanted.start..wanted.end.min(self.len.get()));
            let gap = self.valid.borrow().first_gap(range)?;
            if !self.loading(gap.start) {
                return Some(gap);
            }
            self.wait_for_load(gap.start).await;
        }
    }

    /// Begins to load a gap, as far as nobody else does.
    pub(super) fn begin_load(&self, gap: Range<u64>) -> Loading<'_> {
        let starts = self
            .loads
            .borrow()
            .iter()
            .map(|load| load.range.start)
            .collect::<Vec<_>>();
        let next = starts.into_iter().filter(|&start| start > gap.start).min();
        let load = Rc::new(Load {
            range: gap.start..gap.end.min(next.unwrap_or(u64::MAX)),
            stale: Cell::new(false),
        });
        self.loads.borrow_mut().push(load.clone());
        Loading { content: self, load }
    }

    fn loading(&self, at: u64) -> bool {
        self.loads.borrow().iter().any(|load| load.range.contains(&at))
    }

    async fn wait_for_load(&self, at: u64) {
        poll_fn(|cx| {
            if !self.loading(at) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Makes the beginning of a gap valid, unless that is in doubt again by then.
    pub(super) async fn load(
        &self,
        node: &Node,
        client: &dyn Client,
        handle: &Handle,
        gap: Range<u64>,
    ) -> Result<(), Errno> {
        let most = u64::from(node.fs.connection.max_read()) / PAGE * PAGE;
        let load = self.begin_load(gap.start..gap.end.min(gap.start + most.max(PAGE)));
        let end = load.range().end;
        let version = node.fs.attr_version();
        let calls = node.fs.connection.by(client);
        let size = (end - gap.start) as u32;
        let data = match calls.read(handle, gap.start, size, None).await {
            Ok(data) => data,
            Err(Errno::EINTR) => return Err(Errno::EINTR),
            // Linux has failed to read ahead then, and reads once more.
            Err(_) => calls.read(handle, gap.start, size, None).await?,
        };
        if load.is_stale() {
            return Ok(());
        }
        let got = gap.start + data.len() as u64;
        let room = end.min(self.len.get()).saturating_sub(gap.start) as usize;
        if data.len() < room {
            // Nothing follows: zeros behind it, unless the size has changed meanwhile.
            let mut data = BytesMut::from(data);
            data.resize(room, 0);
            self.fill(gap.start, &data)?;
        } else {
            self.fill(gap.start, &data[..room])?;
        }
        self.valid.borrow_mut().insert(gap.start..end);
        // Where we know better, there is a hole: what follows it has not been written back.
        if got < end && got < self.len.get() && !node.owns_size() {
            node.shrunk_to(got, version);
        }
        self.trim(gap.start);
        Ok(())
    }

    /// Takes what the server has, except for pages that guests have changed.
    fn fill(&self, at: u64, data: &[u8]) -> Result<(), Errno> {
        let shared = self.shared.borrow();
        let Some(shared) = shared.as_ref() else {
            return write_all(self.memory(), data, at);
        };
        for (n, page) in data.chunks(PAGE as usize).enumerate() {
            let at = at + n as u64 * PAGE;
            let (now, then) = (
                read_all(self.memory(), at, page.len())?,
                read_all(shared.copy.as_fd(), at, page.len())?,
            );
            if now == then || shared.ranges.covered_until(at) <= at {
                write_all(self.memory(), page, at)?;
                write_all(shared.copy.as_fd(), page, at)?;
            }
        }
        Ok(())
    }

    /// The server has nothing there.
    pub(super) fn fill_hole(&self, range: Range<u64>) -> Result<(), Errno> {
        self.zeroed(range.clone())?;
        self.valid.borrow_mut().insert(range);
        Ok(())
    }

    fn zero(&self, range: Range<u64>) -> Result<(), Errno> {
        punch(self.memory(), range)
    }

    /// Bounds what one file takes: content far behind goes first.
    fn trim(&self, around: u64) {
        let mut valid = self.valid.borrow_mut();
        if self.mapped.get() || valid.bytes() <= MAX_PER_FILE {
            return;
        }
        let newer = self.newer();
        let keep = around.saturating_sub(MAX_PER_FILE / 4)..around.saturating_add(MAX_PER_FILE / 4);
        for range in [
            0..keep.start / PAGE * PAGE,
            keep.end.next_multiple_of(PAGE)..u64::MAX / 2,
        ] {
            let mut at = range.start;
            let end = range.end.min(pages(0..self.len.get()).end);
            while let Some(clean) = newer.first_gap(at..end) {
                valid.remove(clean.clone());
                at = clean.end;
                let _ = self.zero(clean);
            }
        }
    }

    // Shared mappings.

    /// Somebody maps it: from now on the pages stay.
    pub fn pin(&self) {
        self.mapped.set(true);
    }

    pub fn is_mapped(&self) -> bool {
        self.mapped.get()
    }
}

/// A load on the list, until it ends in one way or another.
pub(super) struct Loading<'a> {
    content: &'a Content,
    load: Rc<Load>,
}

impl Loading<'_> {
    pub fn range(&self) -> Range<u64> {
        self.load.range.clone()
    }

    /// What has been asked for is outdated.
    pub fn is_stale(&self) -> bool {
        self.load.stale.get()
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.content
            .loads
            .borrow_mut()
            .retain(|load| !Rc::ptr_eq(load, &self.load));
        for waker in self.content.waiting.take() {
            waker.wake();
        }
    }
}
