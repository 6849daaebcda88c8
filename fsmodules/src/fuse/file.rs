//! An open regular file (`fs/fuse/file.c`).

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::task::Waker;

use bytes::Bytes;
use fuse_compat::kernel::{Calls, Handle, LockCall};
use fuse_compat::wire::abi::{FileLock, FopenFlags, InitFlags, Opcode};

use super::background::Background;
use super::content::{Content, PAGE};
use super::node::{DATA, Node};
use super::poll::Poller;
use super::setattr::lock_owner;
use crate::api::{
    AttrMask, Backing, Chunks, Cx, Errno, File, IoctlCall, IoctlReply, Lock, LockKind, LockOwner, LockRange,
    MapRequest, Op, OpenFlags, Readiness, Vnode,
};

pub const SEEK_DATA: u32 = 3;
pub const SEEK_HOLE: u32 = 4;
/// The first window of readahead; it doubles up to what INIT agreed on.
const FIRST_WINDOW: u64 = 16 * 1024;
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 16;

pub struct FuseFile {
    pub(super) me: Weak<FuseFile>,
    pub(super) node: Rc<Node>,
    vnode: Rc<dyn Vnode>,
    pub(super) handle: Rc<Handle>,
    flags: Cell<OpenFlags>,
    content: OnceCell<Rc<Content>>,
    /// Where a sequential reader would go on, and how far has been read ahead for it.
    next: Cell<u64>,
    ahead: Cell<u64>,
    window: Cell<u64>,
    /// The position of a file that has none for `lseek(2)`, but counts nevertheless (`FOPEN_NONSEEKABLE`).
    pub(super) position: Cell<u64>,
    /// Which failures of write-back it has heard of.
    failures: Cell<u64>,
    /// The open file description that holds locks of its own.
    description: Cell<Option<u64>>,
    pub(super) poller: Poller,
}

impl FuseFile {
    /// A file as OPEN or CREATE has answered for it.
    pub fn new(node: Rc<Node>, handle: Handle, flags: OpenFlags) -> Result<Rc<FuseFile>, Errno> {
        let keep = handle.open_flags.contains(FopenFlags::KEEP_CACHE);
        handle.keep(node.clone());
        if handle.open_flags.contains(FopenFlags::PASSTHROUGH) {
            // The server cannot have got a backing file.
            return Err(Errno::EIO);
        }
        let file = Rc::new_cyclic(|me| FuseFile {
            me: me.clone(),
            vnode: node.clone(),
            handle: Rc::new(handle),
            flags: Cell::new(flags),
            content: OnceCell::new(),
            next: Cell::new(0),
            ahead: Cell::new(0),
            window: Cell::new(FIRST_WINDOW),
            position: Cell::new(0),
            failures: Cell::new(0),
            description: Cell::new(None),
            poller: Poller::default(),
            node,
        });
        file.node.opened.set(file.node.opened.get() + 1);
        if !file.is_stream() {
            let content = file.node.make_content()?;
            if !keep && !file.is_direct() {
                content.invalidate(0..u64::MAX);
            }
            if file.node.owns_size() && flags.writable() {
                content.add_writer(&file.handle);
            }
            file.failures.set(content.failure.sample());
            let _ = file.content.set(content);
        }
        Ok(file)
    }

    pub fn fh(&self) -> u64 {
        self.handle.fh
    }

    pub(super) fn has(&self, flag: FopenFlags) -> bool {
        self.handle.open_flags.contains(flag)
    }

    pub(super) fn is_stream(&self) -> bool {
        self.has(FopenFlags::NONSEEKABLE) || self.has(FopenFlags::STREAM)
    }

    /// No page cache: the server has said so, or the caller with `O_DIRECT`.
    pub(super) fn is_direct(&self) -> bool {
        self.has(FopenFlags::DIRECT_IO) || self.flags.get().contains(OpenFlags::DIRECT)
    }

    /// The page cache; only files without a position have none.
    pub(super) fn pages(&self) -> Result<&Rc<Content>, Errno> {
        self.content.get().ok_or(Errno::ENODEV)
    }

    /// Its size, asked for if need be.
    async fn size(&self, cx: Cx<'_>) -> Result<u64, Errno> {
        let attr = self.node.valid(cx.caller, Some(self.fh()), AttrMask::SIZE).await?;
        Ok(attr.size)
    }

    // Reading.

    async fn read_direct(&self, cx: Cx<'_>, at: u64, len: usize) -> Result<Chunks, Errno> {
        self.node.settle(cx.caller).await?;
        let (mut chunks, mut done) = (Chunks::new(), 0);
        let owner = Some(lock_owner(cx.caller.files_id()));
        while done < len {
            let size = (len - done).min(self.node.fs.connection.max_read() as usize);
            let asked = self
                .node
                .calls(cx)
                .read(&self.handle, at + done as u64, size as u32, owner)
                .await;
            self.node.accessed();
            let data = match asked {
                Err(_) if done > 0 => break,
                data => data?,
            };
            let got = data.len();
            if got > 0 {
                chunks.push(data);
            }
            done += got;
            if got < size {
                break;
            }
        }
        Ok(chunks)
    }

    async fn read_cached(&self, cx: Cx<'_>, at: u64, len: usize) -> Result<Chunks, Errno> {
        let wanted_end = at.saturating_add(len as u64);
        let always = self.node.fs.negotiated(InitFlags::AUTO_INVAL_DATA);
        if always || wanted_end > self.node.known().size {
            self.size(cx).await?;
        }
        let pages = self.pages()?;
        let mut end = wanted_end.min(self.node.known().size);
        if at >= end {
            return Ok(Chunks::new());
        }
        let ahead = self.read_ahead_target(at, end);
        if pages.valid_until(at) < end {
            pages
                .read_in(&self.node, cx.caller, &self.handle, at..end.max(ahead))
                .await?;
            self.ahead.set(end.max(ahead));
        } else if ahead > self.ahead.get() {
            self.ahead.set(ahead);
            self.spawn_read_ahead(cx, end..ahead);
        }
        self.next.set(end);
        end = end.min(self.node.known().size);
        if at >= end {
            return Ok(Chunks::new());
        }
        Ok(Chunks::from_elem(pages.read(at, (end - at) as usize)?, 1))
    }

    /// How far a reader of this range will probably go. Sequential readers get a window that grows.
    fn read_ahead_target(&self, at: u64, end: u64) -> u64 {
        let most = self.most_ahead();
        if at != self.next.get() {
            self.window.set(FIRST_WINDOW);
            return end;
        }
        let window = self.window.get().min(most);
        if self.ahead.get().saturating_sub(end) > window / 2 {
            return end;
        }
        self.window.set((window * 2).clamp(PAGE, most.max(PAGE)));
        (end + window).div_ceil(PAGE) * PAGE
    }

    fn most_ahead(&self) -> u64 {
        let negotiated = self.node.fs.connection.negotiated();
        negotiated.map_or(0, |n| n.max_readahead.into())
    }

    fn spawn_read_ahead(&self, cx: Cx<'_>, range: Range<u64>) {
        let (node, handle) = (self.node.clone(), self.handle.clone());
        let (Ok(content), client) = (self.pages().cloned(), Background::of(cx.caller)) else {
            return;
        };
        cx.host.spawn(Box::pin(async move {
            // Whoever wants the data will ask again, and see the error.
            let _ = content.read_in(&node, &client, &handle, range).await;
        }));
    }

    async fn advised(&self, cx: Cx<'_>, range: Range<u64>, wanted: bool) -> Result<(), Errno> {
        let Ok(pages) = self.pages() else {
            return Ok(());
        };
        if wanted {
            let end = range.end.min(range.start.saturating_add(self.most_ahead()));
            self.spawn_read_ahead(cx, range.start..end);
            return Ok(());
        }
        // Errors are told later.
        let _ = self.node.write_back_data().await;
        // Only whole pages, and the last one of the file.
        let start = range.start.next_multiple_of(PAGE);
        let end = match range.end < self.node.known().size {
            true => range.end / PAGE * PAGE,
            false => u64::MAX,
        };
        if start < end {
            pages.invalidate(start..end);
        }
        Ok(())
    }

    async fn read_stream(&self, cx: Cx<'_>, len: usize) -> Result<Chunks, Errno> {
        let at = if self.has(FopenFlags::STREAM) {
            0
        } else {
            self.position.get()
        };
        let chunks = self.read_direct(cx, at, len).await?;
        self.position
            .set(at + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>());
        self.readiness_changed();
        Ok(chunks)
    }

    // Everything else.

    /// fsync(2) and what amounts to it.
    pub(super) async fn sync(&self, cx: Cx<'_>, data_only: bool) -> Result<(), Errno> {
        self.node.check()?;
        // What fails is among what the file hears of now.
        let _ = self.node.write_back_data().await;
        if let Some(content) = self.content.get() {
            content.failure.since(&self.failures)?;
        }
        self.node.write_times(cx.caller).await?;
        self.node.calls(cx).fsync(&self.handle, data_only).await
    }

    async fn seek(&self, cx: Cx<'_>, from: u64, hole: bool) -> Result<u64, Errno> {
        // What the server has not been told of looks like a hole to it.
        self.node.write_back_data().await?;
        match self
            .node
            .calls(cx)
            .lseek(&self.handle, from, if hole { SEEK_HOLE } else { SEEK_DATA })
            .await
        {
            Err(Errno::ENOSYS) => {
                let size = self.size(cx).await?;
                if from >= size {
                    return Err(Errno::ENXIO);
                }
                Ok(if hole { size } else { from })
            }
            found => found,
        }
    }

    async fn allocate(&self, cx: Cx<'_>, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        if mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let _alone = self.node.write_lock.lock().await;
        let end = offset.saturating_add(len);
        if mode & KEEP_SIZE == 0 {
            self.node.may_grow_to(cx, end)?;
        }
        if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
            self.node.settle(cx.caller).await?;
        }
        self.node.before_write(cx).await?;
        self.node.touch();
        let allocated = self.node.calls(cx).fallocate(&self.handle, offset, len, mode).await;
        self.node.flush_times(cx.caller).await;
        allocated?;
        if mode & KEEP_SIZE == 0 {
            self.node.grown_to(end);
        }
        if mode & (PUNCH_HOLE | ZERO_RANGE) != 0
            && let Some(content) = self.node.content()
        {
            content.zeroed(offset..end)?;
        }
        self.node.invalidate(DATA);
        Ok(())
    }

    async fn copy_to(&self, cx: Cx<'_>, at: u64, to: &FuseFile, to_at: u64, len: u64) -> Result<u64, Errno> {
        if !Rc::ptr_eq(&self.node.fs, &to.node.fs) {
            return Err(Errno::EXDEV);
        }
        if self.node.fs.connection.lacks(Opcode::COPY_FILE_RANGE) {
            return Err(Errno::EOPNOTSUPP);
        }
        // Who maps the target must see the change at once: it goes through the page cache.
        if to.node.content().is_some_and(|content| content.is_mapped()) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.node.settle(cx.caller).await?;
        let _alone = to.node.write_lock.lock().await;
        to.node.settle(cx.caller).await?;
        to.node.before_write(cx).await?;
        to.node.touch();
        let copied = self
            .node
            .calls(cx)
            .copy_file_range(&self.handle, at, &to.handle, to_at, len)
            .await;
        to.node.flush_times(cx.caller).await;
        let copied = copied?;
        to.node.grown_to(to_at + copied);
        if let Some(content) = to.node.content() {
            content.invalidate(to_at..to_at + copied);
        }
        Ok(copied)
    }

    async fn prepare_map(&self, cx: Cx<'_>, request: MapRequest) -> Result<(), Errno> {
        let writes = request.shared && request.writable;
        if self.has(FopenFlags::DIRECT_IO)
            && request.shared
            && !self.node.fs.negotiated(InitFlags::DIRECT_IO_ALLOW_MMAP)
        {
            return Err(Errno::ENODEV);
        }
        let pages = self.pages()?;
        if self.is_direct() {
            self.node.settle(cx.caller).await?;
            pages.invalidate(request.offset..request.offset.saturating_add(request.len));
        }
        pages.pin();
        let range = request.offset..request.offset.saturating_add(request.len);
        pages
            .load_to_map(&self.node, cx.caller, &self.handle, range.clone())
            .await?;
        if writes {
            pages.share(range, &self.handle, Background::of(cx.caller))?;
        }
        Ok(())
    }

    fn server_has(&self, lock: &Lock) -> bool {
        self.node.fs.connection.negotiated().is_some_and(|n| match lock.flock {
            true => n.flock(),
            false => n.has(InitFlags::POSIX_LOCKS),
        })
    }

    fn remember_description(&self, lock: &Lock) {
        if let LockOwner::Description(id) = lock.owner {
            self.description.set(Some(id));
            if lock.flock {
                self.handle.flock_owner.set(Some(lock_owner(id)));
            }
        }
    }

    async fn close_one(&self, cx: Cx<'_>) -> Result<(), Errno> {
        let cached = self.node.owns_size();
        let written = match self.flags.get().writable() || cached {
            true => self.node.settle(cx.caller).await,
            false => Ok(()),
        };
        let files = cx.caller.files_id();
        self.node.locks.release(LockOwner::Files(files));
        self.node.check()?;
        if self.has(FopenFlags::NOFLUSH) && !cached {
            return written;
        }
        written?;
        self.node.calls(cx).flush(&self.handle, lock_owner(files)).await?;
        if cached {
            self.node.invalidate(AttrMask::BLOCKS);
        }
        Ok(())
    }
}

/// A server that does not implement ioctl(2), or this command, has no such command.
pub async fn ioctl(calls: Calls<'_>, handle: &Handle, call: IoctlCall) -> Result<IoctlReply, Errno> {
    let sent = calls
        .ioctl(handle, call.cmd, call.arg, call.input, call.output_len as u32)
        .await;
    match sent {
        Err(Errno::ENOSYS) => Err(Errno::ENOTTY),
        Ok((result, _)) if result == -Errno::ENOSYS.raw() => Err(Errno::ENOTTY),
        Ok((result, output)) => Ok(IoctlReply { result, output }),
        Err(errno) => Err(errno),
    }
}

fn wire_lock(lock: &Lock) -> LockCall {
    let (LockOwner::Files(id) | LockOwner::Description(id)) = lock.owner;
    let kind = match lock.kind {
        LockKind::Read => 0,
        LockKind::Write => 1,
        LockKind::Unlock => 2,
    };
    let pid = if lock.kind == LockKind::Unlock { 0 } else { lock.pid };
    let range = FileLock {
        start: lock.range.start,
        end: lock.range.end.min(i64::MAX as u64),
        kind,
        pid,
    };
    LockCall {
        owner: lock_owner(id),
        lock: range,
        flock: lock.flock,
    }
}

impl File for FuseFile {
    fn vnode(&self) -> Option<&Rc<dyn Vnode>> {
        Some(&self.vnode)
    }

    fn backing(&self) -> Backing<'_> {
        match self.content.get() {
            Some(content) => Backing::Memory(content.memory()),
            None => Backing::Stream,
        }
    }

    fn seekable(&self) -> bool {
        !self.is_stream()
    }

    fn set_flags(&self, flags: OpenFlags) {
        self.flags.set(flags);
        self.handle.flags.set(flags.bits());
    }

    fn read<'a>(&'a self, cx: Cx<'a>, at: u64, len: usize) -> Op<'a, Chunks> {
        Box::pin(async move {
            self.node.check()?;
            match () {
                () if len == 0 => Ok(Chunks::new()),
                () if self.is_stream() => self.read_stream(cx, len).await,
                () if self.is_direct() => self.read_direct(cx, at, len).await,
                () => self.read_cached(cx, at, len).await,
            }
        })
    }

    fn write<'a>(&'a self, cx: Cx<'a>, at: u64, append: bool, data: Bytes) -> Op<'a, (usize, u64)> {
        Box::pin(self.write_at(cx, at, append, data))
    }

    fn end<'a>(&'a self, cx: Cx<'a>) -> Op<'a, u64> {
        Box::pin(self.size(cx))
    }

    fn seek_data<'a>(&'a self, cx: Cx<'a>, from: u64, hole: bool) -> Op<'a, u64> {
        Box::pin(self.seek(cx, from, hole))
    }

    fn flush<'a>(&'a self, cx: Cx<'a>) -> Op<'a, ()> {
        Box::pin(self.close_one(cx))
    }

    fn fsync<'a>(&'a self, cx: Cx<'a>, data_only: bool) -> Op<'a, ()> {
        Box::pin(self.sync(cx, data_only))
    }

    fn advise<'a>(&'a self, cx: Cx<'a>, range: Range<u64>, wanted: bool) -> Op<'a, ()> {
        Box::pin(self.advised(cx, range, wanted))
    }

    fn write_back<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, ()> {
        Box::pin(self.node.write_back_data())
    }

    fn fallocate<'a>(&'a self, cx: Cx<'a>, mode: u32, offset: u64, len: u64) -> Op<'a, ()> {
        Box::pin(self.allocate(cx, mode, offset, len))
    }

    fn copy_range<'a>(&'a self, cx: Cx<'a>, at: u64, to: &'a Rc<dyn File>, to_at: u64, len: u64) -> Op<'a, u64> {
        match to.as_any().downcast_ref::<FuseFile>() {
            Some(to) => Box::pin(self.copy_to(cx, at, to, to_at, len)),
            None => crate::api::fail(Errno::EXDEV),
        }
    }

    fn ioctl<'a>(&'a self, cx: Cx<'a>, call: IoctlCall) -> Op<'a, IoctlReply> {
        Box::pin(ioctl(self.node.calls(cx), &self.handle, call))
    }

    fn test_lock<'a>(&'a self, cx: Cx<'a>, lock: Lock) -> Op<'a, Option<Lock>> {
        Box::pin(async move {
            if !self.server_has(&lock) {
                return Ok(self.node.locks.test(&lock));
            }
            let found = self.node.calls(cx).getlk(&self.handle, wire_lock(&lock)).await?;
            let kind = match found.kind {
                0 => LockKind::Read,
                1 => LockKind::Write,
                2 => return Ok(None),
                _ => return Err(Errno::EIO),
            };
            if found.start > found.end {
                return Err(Errno::EIO);
            }
            let range = LockRange {
                start: found.start,
                end: found.end,
            };
            Ok(Some(Lock {
                kind,
                range,
                pid: found.pid,
                ..lock
            }))
        })
    }

    fn set_lock<'a>(&'a self, cx: Cx<'a>, lock: Lock, wait: bool) -> Op<'a, ()> {
        Box::pin(async move {
            self.remember_description(&lock);
            match self.server_has(&lock) {
                true => self.node.calls(cx).setlk(&self.handle, wire_lock(&lock), wait).await,
                false => self.node.locks.set(cx.caller, lock, wait).await,
            }
        })
    }

    fn map<'a>(&'a self, cx: Cx<'a>, request: MapRequest) -> Op<'a, ()> {
        Box::pin(self.prepare_map(cx, request))
    }

    fn ready(&self, waker: Option<&Waker>) -> Readiness {
        if self.is_stream() {
            self.poll_ready(waker)
        } else {
            Readiness::IN | Readiness::OUT
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        self.poller.forget(&self.node.fs);
        if let Some(id) = self.description.get() {
            self.node.locks.release(LockOwner::Description(id));
        }
        let (node, handle) = (self.node.clone(), self.handle.clone());
        let keep = self.has(FopenFlags::KEEP_CACHE);
        match self.content.get().cloned() {
            // Until its mapped changes are written, the file counts as open.
            Some(content) if content.is_changed(&node) => self.node.fs.host.spawn(Box::pin(async move {
                // Nobody is left who could be told.
                let _ = node.write_back(&content.changed_by.get()).await;
                node.closed(keep);
                drop(handle);
            })),
            _ => node.closed(keep),
        }
    }
}
