//! What a file's server has yet to be told: changes through shared mappings, and, if the server has asked for the
//! write-back cache, what was written (`fs/fuse/file.c`, `fuse_writepages`).

use std::cell::Cell;
use std::ops::Range;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use async_lock::{MutexGuard, Semaphore};
use fuse_compat::kernel::Handle;
use fuse_compat::wire::abi::WRITE_CACHE;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::background::Background;
use super::content::{Content, PAGE, Shared, next_page, pages, read_all, write_all};
use super::node::{MODIFIED, Node};
use super::rangeset::RangeSet;
use crate::api::{Errno, errno};

/// How much is compared at once, in bytes.
const STEP: u64 = 256 * 1024;
/// How many WRITEs of a file may be on their way.
const IN_FLIGHT: usize = 8;
/// From how many dirty bytes on a file is written back, and from how many on who writes more waits for that.
const BEGIN: u64 = 8 << 20;
const WAIT: u64 = 32 << 20;
/// When the rest is written back (`vm.dirty_expire_centisecs`).
const EXPIRE: Duration = Duration::from_secs(30);

/// As long as this lives, nothing of the content is on its way to the server (`fuse_set_nowrite`).
pub async fn pause(content: &Option<Rc<Content>>) -> Option<MutexGuard<'_, ()>> {
    match content {
        Some(content) => Some(content.writing_back.lock().await),
        None => None,
    }
}

impl Content {
    /// Through this file changes may be written back.
    pub fn add_writer(&self, writer: &Rc<Handle>) {
        let mut writers = self.writers.borrow_mut();
        writers.retain(|other| other.strong_count() > 0);
        if !writers.iter().any(|other| other.as_ptr() == Rc::as_ptr(writer)) {
            writers.push(Rc::downgrade(writer));
        }
    }

    /// The one that was opened last, as on Linux.
    pub fn writer(&self) -> Option<Rc<Handle>> {
        self.writers.borrow().iter().rev().find_map(Weak::upgrade)
    }

    /// The next page that a write would change in part only, and that is neither known nor beyond the end.
    pub fn missing_edge(&self, range: Range<u64>) -> Option<Range<u64>> {
        let edges = [range.start, range.end]
            .into_iter()
            .filter(|at| !at.is_multiple_of(PAGE));
        let mut edges = edges
            .map(|at| pages(at..at + 1))
            .filter(|page| page.start < self.len.get());
        edges.find(|page| self.valid_until(page.start) <= page.start)
    }

    /// Data that the server is told later. Every page that it touches is valid, or has been beyond the end.
    pub fn write_later(&self, at: u64, data: &[u8], size: u64) -> Result<(), Errno> {
        self.put(at, data, size)?;
        let touched = pages(at..at + data.len() as u64);
        self.valid.borrow_mut().insert(touched.clone());
        self.dirty.borrow_mut().insert(touched);
        Ok(())
    }

    /// In bytes.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty.borrow().bytes()
    }

    /// What the server has yet to get.
    pub(super) fn newer(&self) -> RangeSet {
        let mut newer = self.dirty.borrow().clone();
        self.sending.borrow().iter().for_each(|range| newer.insert(range));
        newer
    }

    /// Is there something to write back, or on its way?
    pub fn is_changed(&self, node: &Node) -> bool {
        if self.take_changes() {
            node.touch();
        }
        self.dirty_bytes() > 0 || self.is_writing_back()
    }

    fn is_writing_back(&self) -> bool {
        self.writing_back.try_lock().is_none()
    }

    // Shared mappings.

    /// Somebody maps a valid range so that changes reach the file.
    pub fn share(&self, range: Range<u64>, writer: &Rc<Handle>, by: Background) -> Result<(), Errno> {
        self.add_writer(writer);
        self.changed_by.set(by);
        if self.shared.borrow().is_none() {
            let copy = memfd_create("fuse-copy", MemfdFlags::CLOEXEC).map_err(errno)?;
            ftruncate(&copy, self.len.get()).map_err(errno)?;
            let ranges = Default::default();
            self.shared.replace(Some(Shared { copy, ranges }));
        }
        let mut shared = self.shared.borrow_mut();
        let Some(shared) = shared.as_mut() else { return Ok(()) };
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

    /// The last shared mapping is gone, and what it changed is written.
    pub fn unshare(&self) {
        self.shared.replace(None);
        self.mapped.set(false);
    }

    /// Pages that were changed through shared mappings are dirty from now on. Were there any?
    fn take_changes(&self) -> bool {
        let shared = self.shared.borrow();
        let Some(shared) = shared.as_ref() else { return false };
        let mut found = false;
        for range in shared.ranges.iter() {
            let (mut at, end) = (range.start, range.end.min(self.len.get()));
            loop {
                let next = [next_page(self.memory(), at), next_page(shared.copy.as_fd(), at)];
                let Some(start) = next.into_iter().flatten().min().filter(|&start| start < end) else {
                    break;
                };
                let len = (end - start).min(STEP) as usize;
                let read = |fd| read_all(fd, start, len).unwrap_or_default();
                let (new, old) = (read(self.memory()), read(shared.copy.as_fd()));
                for (n, page) in new.chunks(PAGE as usize).enumerate() {
                    let offset = n * PAGE as usize;
                    let at = start + offset as u64;
                    if old.get(offset..offset + page.len()) != Some(page)
                        && write_all(shared.copy.as_fd(), page, at).is_ok()
                    {
                        self.dirty.borrow_mut().insert(pages(at..at + 1));
                        found = true;
                    }
                }
                if new.is_empty() {
                    break;
                }
                at = start + new.len() as u64;
            }
        }
        found
    }

    // Writing back.

    /// Sends what is dirty. It must not be cancelled: of two WRITEs of one page, the later must be the newer.
    pub async fn write_back(self: &Rc<Self>, node: &Rc<Node>) -> Result<(), Errno> {
        let _alone = self.writing_back.lock().await;
        let (end, mut at) = (self.dirty.borrow().end(), 0);
        let (free, result) = (Arc::new(Semaphore::new(IN_FLIGHT)), Rc::new(Cell::new(Ok(()))));
        while let Some(piece) = self.take_dirty(at..end, node.fs.connection.max_write()) {
            at = piece.end;
            let (content, node, result) = (self.clone(), node.clone(), result.clone());
            let place = free.acquire_arc().await;
            node.fs.host.clone().spawn(Box::pin(async move {
                let sent = content.send(&node, piece.clone()).await;
                content.sending.borrow_mut().remove(piece);
                result.set(result.get().and(sent));
                drop(place);
            }));
        }
        let mut landed = Vec::new();
        while landed.len() < IN_FLIGHT {
            landed.push(free.acquire().await);
        }
        if !node.owns_size() {
            node.invalidate(MODIFIED);
        }
        if let Err(errno) = result.get() {
            self.failure.set(errno);
        }
        result.get()
    }

    /// The next bytes to be sent.
    fn take_dirty(&self, within: Range<u64>, most: u32) -> Option<Range<u64>> {
        let mut dirty = self.dirty.borrow_mut();
        let first = dirty.first(within)?;
        let most = (u64::from(most) / PAGE * PAGE).max(PAGE);
        let piece = first.start..first.end.min(first.start + most);
        dirty.remove(piece.clone());
        self.sending.borrow_mut().insert(piece.clone());
        Some(piece)
    }

    async fn send(&self, node: &Node, piece: Range<u64>) -> Result<(), Errno> {
        let writer = self.writer().ok_or(Errno::EIO)?;
        let calls = node.fs.connection.by(&Background::NOBODY);
        let mut at = piece.start;
        let mut data = self.read(at, (piece.end - piece.start) as usize)?;
        while !data.is_empty() {
            let n = calls.write(&writer, at, data.clone(), WRITE_CACHE, None).await?;
            if n == 0 {
                return Err(Errno::EIO);
            }
            at += n as u64;
            data = data.slice(n..);
        }
        Ok(())
    }
}

impl Node {
    /// Data has been written that the server has yet to be told of: bounds how much and how old it becomes
    /// (`balance_dirty_pages`).
    pub async fn balance(&self, content: &Rc<Content>) {
        match content.dirty_bytes() {
            WAIT.. => drop(self.write_back_data().await),
            BEGIN.. if !content.is_writing_back() => {
                let node = self.this();
                self.fs.host.spawn(Box::pin(async move {
                    let _ = node.write_back_data().await;
                }));
            }
            _ if !content.expires.replace(true) => {
                let (content, node, late) = (Rc::downgrade(content), self.me.clone(), self.fs.host.sleep(EXPIRE));
                self.fs.host.spawn(Box::pin(async move {
                    late.await;
                    if let (Some(content), Some(node)) = (content.upgrade(), node.upgrade()) {
                        content.expires.set(false);
                        // Who asks next hears of errors.
                        let _ = node.write_back(&content.changed_by.get()).await;
                    }
                }));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_the_server_lacks_is_kept() {
        let content = Content::new(0).unwrap();
        content.write_later(0, &[7; 2 * PAGE as usize], 2 * PAGE).unwrap();
        assert_eq!(content.take_dirty(0..MIB, 4096), Some(0..PAGE));
        assert_eq!(content.dirty_bytes(), PAGE);
        content.invalidate(0..u64::MAX);
        assert_eq!(content.valid_until(0), 2 * PAGE);
        // Far more than is cached of one file.
        for n in 100..200 {
            content.put(n * MIB, &vec![1; MIB as usize], (n + 1) * MIB).unwrap();
        }
        assert_eq!(content.valid_until(0), 2 * PAGE);
        assert_eq!(content.valid_until(100 * MIB), 100 * MIB, "what it has may be dropped");
        assert_eq!(content.read(0, 2 * PAGE as usize).unwrap(), vec![7; 2 * PAGE as usize]);
        content.sending.borrow_mut().remove(0..PAGE);
        content.invalidate(0..u64::MAX);
        assert_eq!((content.valid_until(0), content.valid_until(PAGE)), (0, 2 * PAGE));
    }

    #[test]
    fn only_known_pages_are_changed_in_part() {
        let content = Content::new(3 * PAGE).unwrap();
        assert_eq!(content.missing_edge(10..PAGE), Some(0..PAGE));
        assert_eq!(content.missing_edge(0..PAGE + 1), Some(PAGE..2 * PAGE));
        assert_eq!(content.missing_edge(PAGE..2 * PAGE), None);
        assert_eq!(content.missing_edge(3 * PAGE + 5..3 * PAGE + 9), None, "beyond the end");
        content.write_later(PAGE, &[1; PAGE as usize], 3 * PAGE).unwrap();
        assert_eq!(content.missing_edge(PAGE + 1..PAGE + 2), None);
    }
}
