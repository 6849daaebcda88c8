//! With the write-back cache, a file's size and times of change are known here before its server knows
//! (`fs/fuse/inode.c`, `fuse_get_cache_mask`; `fs/fuse/dir.c`, `fuse_flush_times`).

use fuse_compat::kernel::Client;
use fuse_compat::wire::abi::{Attr, InitFlags, SetattrIn, SetattrValid};
use rustix::time::{ClockId, clock_gettime};

use super::node::Node;
use crate::api::{AttrMask, Errno, FileKind};

/// Since 1970, in seconds and nanoseconds. As fine as the kernel's times of files: they are those of the last tick.
fn now() -> (u64, u32) {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec as u64, now.tv_nsec as u32)
}

impl Node {
    /// What is known here before the server knows (`fuse_get_cache_mask`).
    pub fn own(&self) -> AttrMask {
        match self.owns_size() {
            true => AttrMask::SIZE | AttrMask::MTIME | AttrMask::CTIME,
            false => AttrMask::empty(),
        }
    }

    /// Are size and times ours, whatever the server says of them?
    pub fn owns_size(&self) -> bool {
        self.kind == FileKind::Regular && self.fs.negotiated(InitFlags::WRITEBACK_CACHE)
    }

    /// What the server has said, but for what it cannot know.
    pub fn corrected(&self, attr: Attr) -> Attr {
        if !self.owns_size() {
            return attr;
        }
        let own = self.known();
        Attr {
            size: own.size,
            mtime: own.mtime,
            mtimensec: own.mtimensec,
            ctime: own.ctime,
            ctimensec: own.ctimensec,
            ..attr
        }
    }

    /// It has been written to (`file_update_time`).
    pub fn touch(&self) {
        if !self.owns_size() {
            return;
        }
        let (mut attr, (sec, nsec)) = (self.known(), now());
        if (attr.mtime, attr.mtimensec, attr.ctime, attr.ctimensec) == (sec, nsec, sec, nsec) {
            return;
        }
        (attr.mtime, attr.mtimensec, attr.ctime, attr.ctimensec) = (sec, nsec, sec, nsec);
        self.set_known(attr);
        self.times_dirty.set(true);
    }

    /// What is known about it has been changed, but not its data: the server hears of that at once.
    pub async fn touch_ctime(&self, client: &dyn Client) {
        self.invalidate(AttrMask::CTIME);
        if !self.owns_size() {
            return;
        }
        let mut attr = self.known();
        (attr.ctime, attr.ctimensec) = now();
        self.set_known(attr);
        self.times_dirty.set(true);
        self.flush_times(client).await;
    }

    /// Tells the server the times now (`fuse_flush_time_update`); errors are told later.
    pub async fn flush_times(&self, client: &dyn Client) {
        if let (Err(errno), Some(content)) = (self.write_times(client).await, self.content()) {
            content.failure.set(errno);
        }
    }

    /// Completes a SETATTR with the times that it sets.
    pub fn stamp(&self, set: &mut SetattrIn, times: SetattrValid) -> SetattrValid {
        if !self.owns_size() {
            return SetattrValid::empty();
        }
        let (sec, nsec) = now();
        if times.contains(SetattrValid::MTIME) {
            (set.mtime, set.mtimensec) = (sec, nsec);
        }
        if times.contains(SetattrValid::CTIME) {
            (set.ctime, set.ctimensec) = (sec, nsec);
        }
        times
    }

    /// Tells the server the times, if it does not know them.
    pub async fn write_times(&self, client: &dyn Client) -> Result<(), Errno> {
        if !self.times_dirty.replace(false) {
            return Ok(());
        }
        let attr = self.known();
        let mut set = SetattrIn {
            mtime: attr.mtime,
            mtimensec: attr.mtimensec,
            ..SetattrIn::default()
        };
        let mut valid = SetattrValid::MTIME;
        if self.speaks(23) {
            valid |= SetattrValid::CTIME;
            (set.ctime, set.ctimensec) = (attr.ctime, attr.ctimensec);
        }
        if let Some(writer) = self.content().and_then(|content| content.writer()) {
            valid |= SetattrValid::FH;
            set.fh = writer.fh;
        }
        set.valid = valid.bits();
        let calls = self.fs.connection.by(client);
        calls.setattr(self.nodeid(), set).await.map(drop)
    }
}
