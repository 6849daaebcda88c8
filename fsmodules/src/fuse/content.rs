//! The page cache of a file: a memory file that guests can map, and what of it is valid.
//!
//! Invariants: the memory file is as long as the file is known to be; a valid range holds what the server has, or will
//! have as soon as shared mappings are written back; bytes outside of it mean nothing.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use async_lock::Mutex;
use bytes::{Bytes, BytesMut};
use fuse_compat::kernel::{Client, Handle};
use fuse_compat::wire::abi::WRITE_CACHE;
use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom, fallocate, ftruncate, memfd_create, seek};
use rustix::io::{pread, pwrite};

use super::background::Background;
use super::node::Node;
use super::rangeset::RangeSet;
use crate::api::Errno;

pub const PAGE: u64 = 4096;
/// How much content may be cached for files that are open, and for a single one of them that is not mapped.
const MAX_PER_FILE: u64 = 64 << 20;

/// A READ on its way.
struct Load {
    range: Range<u64>,
    /// What it brings is outdated.
    stale: Cell<bool>,
}

/// What guests may change behind our back, and what it was when it was last written back.
struct Shared {
    copy: OwnedFd,
    ranges: RangeSet,
    /// Open files through which to write back: any that is left will do.
    writers: Vec<Weak<Handle>>,
    client: Background,
}

pub struct Content {
    memory: OwnedFd,
    len: Cell<u64>,
    valid: RefCell<RangeSet>,
    loads: RefCell<Vec<Rc<Load>>>,
    waiting: RefCell<Vec<Waker>>,
    /// It is mapped, or has been: pages may not be taken away.
    mapped: Cell<bool>,
    shared: RefCell<Option<Shared>>,
    /// Held by who writes back: of two writes of one page the later must be the newer.
    writing_back: Mutex<()>,
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

fn pages(range: Range<u64>) -> Range<u64> {
    range.start / PAGE * PAGE..range.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

fn write_all(fd: BorrowedFd<'_>, mut data: &[u8], mut at: u64) -> Result<(), Errno> {
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
fn read_all(fd: BorrowedFd<'_>, at: u64, len: usize) -> Result<Bytes, Errno> {
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
fn next_page(fd: BorrowedFd<'_>, from: u64) -> Option<u64> {
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
            writing_back: Mutex::new(()),
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
        } else if !old.is_multiple_of(PAGE) && !self.is_shared() {
            // The rest of the last page was beyond the end; the memory file has zeros there, the server may not.
            self.valid.borrow_mut().remove(pages(old..old + 1));
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
        // What guests may have changed in memory is newer than anything that the server has.
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

    /// Makes a range valid, by READs of whole pages; clipped to the file's size.
    pub async fn load(
        &self,
        node: &Node,
        client: &dyn Client,
        handle: &Handle,
        wanted: Range<u64>,
    ) -> Result<(), Errno> {
        while let Some(gap) = self.gap(wanted.clone()).await {
            self.load_piece(node, client, handle, gap).await?;
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

    async fn load_piece(
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
        if got < end && got < self.len.get() {
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
        let keep = around.saturating_sub(MAX_PER_FILE / 4)..around.saturating_add(MAX_PER_FILE / 4);
        for range in [
            0..keep.start / PAGE * PAGE,
            keep.end.next_multiple_of(PAGE)..u64::MAX / 2,
        ] {
            valid.remove(range.clone());
            let end = range.end.min(self.len.get());
            if end > range.start {
                let _ = self.zero(range.start..end);
            }
        }
    }

    // Shared mappings.

    /// Somebody maps it: from now on the pages stay.
    pub fn pin(&self) {
        self.mapped.set(true);
    }

    /// Somebody maps a valid range so that changes reach the file.
    pub fn share(&self, range: Range<u64>, writer: &Rc<Handle>, client: Background) -> Result<(), Errno> {
        if self.shared.borrow().is_none() {
            let copy = memfd_create("fuse-copy", MemfdFlags::CLOEXEC).map_err(errno)?;
            ftruncate(&copy, self.len.get()).map_err(errno)?;
            let shared = Shared {
                copy,
                ranges: RangeSet::default(),
                writers: Vec::new(),
                client,
            };
            self.shared.replace(Some(shared));
        }
        let mut shared = self.shared.borrow_mut();
        let Some(shared) = shared.as_mut() else { return Ok(()) };
        shared.writers.retain(|other| other.strong_count() > 0);
        if !shared.writers.iter().any(|other| other.as_ptr() == Rc::as_ptr(writer)) {
            shared.writers.push(Rc::downgrade(writer));
        }
        let range = pages(range);
        while let Some(gap) = shared.ranges.first_gap(range.clone()) {
            let (mut at, end) = (gap.start, gap.end.min(self.len.get()));
            while let Some(start) = next_page(self.memory(), at).filter(|&start| start < end) {
                let data = read_all(self.memory(), start, (end - start).min(1 << 20) as usize)?;
                if data.is_empty() {
                    break;
                }
                write_all(shared.copy.as_fd(), &data, start)?;
                at = start + data.len() as u64;
            }
            shared.ranges.insert(gap);
        }
        Ok(())
    }

    /// Pages that were changed through a shared mapping, in runs, with the new bytes.
    fn changed(&self) -> Result<Vec<(u64, Bytes)>, Errno> {
        let shared = self.shared.borrow();
        let Some(shared) = shared.as_ref() else {
            return Ok(Vec::new());
        };
        let mut runs: Vec<(u64, BytesMut)> = Vec::new();
        for range in shared.ranges.iter() {
            let (mut at, end) = (range.start, range.end.min(self.len.get()));
            loop {
                let pages = [next_page(self.memory(), at), next_page(shared.copy.as_fd(), at)];
                let Some(start) = pages.into_iter().flatten().min().filter(|&start| start < end) else {
                    break;
                };
                at = start;
                let len = (end - at).min(256 * 1024) as usize;
                let (new, old) = (
                    read_all(self.memory(), at, len)?,
                    read_all(shared.copy.as_fd(), at, len)?,
                );
                for (n, page) in new.chunks(PAGE as usize).enumerate() {
                    let start = n * PAGE as usize;
                    if old.get(start..start + page.len()) == Some(page) {
                        continue;
                    }
                    let page_at = at + start as u64;
                    match runs.last_mut() {
                        Some((from, run)) if *from + run.len() as u64 == page_at => run.extend_from_slice(page),
                        _ => runs.push((page_at, BytesMut::from(page))),
                    }
                }
                if new.is_empty() {
                    break;
                }
                at += new.len() as u64;
            }
        }
        Ok(runs.into_iter().map(|(at, run)| (at, run.freeze())).collect())
    }

    /// The last shared mapping is gone, and what it changed is written.
    pub fn unshare(&self) {
        self.shared.replace(None);
        self.mapped.set(false);
    }

    pub fn is_mapped(&self) -> bool {
        self.mapped.get()
    }

    pub fn is_shared(&self) -> bool {
        self.shared.borrow().is_some()
    }

    /// Is there something to write back?
    pub fn is_changed(&self) -> bool {
        self.changed().is_ok_and(|runs| !runs.is_empty())
    }

    /// Sends what was changed through shared mappings.
    pub async fn write_back(&self, node: &Node) -> Result<(), Errno> {
        let (writer, client) = match &*self.shared.borrow() {
            Some(shared) => (shared.writers.iter().find_map(Weak::upgrade), shared.client),
            None => return Ok(()),
        };
        let _alone = self.writing_back.lock().await;
        let changed = self.changed()?;
        if changed.is_empty() {
            return Ok(());
        }
        let writer = writer.ok_or(Errno::EIO)?;
        let calls = node.fs.connection.by(&client);
        let most = node.fs.connection.max_write() as usize;
        for (at, run) in changed {
            let mut done = 0;
            while done < run.len() {
                let piece = run.slice(done..(done + most).min(run.len()));
                let offset = at + done as u64;
                let n = calls.write(&writer, offset, piece.clone(), WRITE_CACHE, None).await?;
                if n == 0 {
                    return Err(Errno::EIO);
                }
                if let Some(shared) = &*self.shared.borrow() {
                    write_all(shared.copy.as_fd(), &piece[..n], offset)?;
                }
                done += n;
            }
        }
        node.expire();
        Ok(())
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
