//! An open directory (`fs/fuse/readdir.c`).

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;

use fuse_compat::kernel::{Handle, Listed};
use fuse_compat::wire::abi::InitFlags;

use super::file::ioctl;
use super::node::Node;
use crate::api::{Cx, DirEntry, Errno, File, IoctlCall, IoctlReply, Lock, LockOwner, Name, Op, OpenFlags, Vnode};

const MIN_READ: usize = 4096;

pub struct DirFile {
    node: Rc<Node>,
    vnode: Rc<dyn Vnode>,
    handle: Handle,
    /// The open file description that holds locks of its own.
    description: Cell<Option<u64>>,
}

impl Drop for DirFile {
    fn drop(&mut self) {
        if let Some(id) = self.description.get() {
            self.node.locks.release(LockOwner::Description(id));
        }
    }
}

impl DirFile {
    pub fn new(node: Rc<Node>, handle: Handle) -> DirFile {
        handle.keep(node.clone());
        DirFile {
            vnode: node.clone(),
            node,
            handle,
            description: Cell::new(None),
        }
    }

    /// Should the entries come with attributes (`fuse_use_readdirplus`)?
    fn plus(&self, from: u64) -> bool {
        let fs = &self.node.fs;
        let useful = self.node.plus_useful.take();
        fs.negotiated(InitFlags::DO_READDIRPLUS) && (!fs.negotiated(InitFlags::READDIRPLUS_AUTO) || from == 0 || useful)
    }

    async fn list(&self, cx: Cx<'_>, from: u64, room: usize) -> Result<Vec<DirEntry>, Errno> {
        self.node.check()?;
        let fs = &self.node.fs;
        let _unchanged = self.node.reading_names().await;
        let size = room.max(MIN_READ).min(fs.connection.max_read() as usize) as u32;
        let version = fs.attr_version();
        let listed = self
            .node
            .calls(cx)
            .readdir(&self.handle, from, size, self.plus(from))
            .await;
        self.node.accessed();
        let entries: Vec<DirEntry> = listed?.into_iter().map(|listed| self.entry(listed, version)).collect();
        Ok(entries)
    }

    fn entry(&self, listed: Listed, version: u64) -> DirEntry {
        if let Some(entry) = listed.entry
            && let Ok(name) = Name::new(&listed.name)
        {
            // A file that contradicts what is known is looked up again when it is used.
            let _ = self.node.adopt_child(&name, entry, version);
        }
        DirEntry {
            ino: listed.ino,
            off: listed.off,
            kind: listed.kind as u8,
            name: listed.name[..].into(),
        }
    }
}

impl File for DirFile {
    fn vnode(&self) -> Option<&Rc<dyn Vnode>> {
        Some(&self.vnode)
    }

    fn set_flags(&self, flags: OpenFlags) {
        self.handle.flags.set(flags.bits());
    }

    fn readdir<'a>(&'a self, cx: Cx<'a>, from: u64, room: usize) -> Op<'a, Vec<DirEntry>> {
        Box::pin(self.list(cx, from, room))
    }

    /// A directory's size says nothing of its entries, but the kernel lets lseek(2) treat it as a file's.
    fn end<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, u64> {
        crate::api::done(self.node.known().size)
    }

    fn seek_data<'a>(&'a self, _cx: Cx<'a>, from: u64, hole: bool) -> Op<'a, u64> {
        let size = self.node.known().size;
        if from >= size {
            return crate::api::fail(Errno::ENXIO);
        }
        crate::api::done(if hole { size } else { from })
    }

    fn fsync<'a>(&'a self, cx: Cx<'a>, data_only: bool) -> Op<'a, ()> {
        Box::pin(async move { self.node.calls(cx).fsync(&self.handle, data_only).await })
    }

    fn ioctl<'a>(&'a self, cx: Cx<'a>, call: IoctlCall) -> Op<'a, IoctlReply> {
        Box::pin(ioctl(self.node.calls(cx), &self.handle, call))
    }

    /// Locks on directories never concern the server.
    fn test_lock<'a>(&'a self, _cx: Cx<'a>, lock: Lock) -> Op<'a, Option<Lock>> {
        crate::api::done(self.node.locks.test(&lock))
    }

    fn set_lock<'a>(&'a self, cx: Cx<'a>, lock: Lock, wait: bool) -> Op<'a, ()> {
        if let LockOwner::Description(id) = lock.owner {
            self.description.set(Some(id));
        }
        Box::pin(self.node.locks.set(cx.caller, lock, wait))
    }

    fn flush<'a>(&'a self, cx: Cx<'a>) -> Op<'a, ()> {
        self.node.locks.release(LockOwner::Files(cx.caller.files_id()));
        crate::api::done(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
