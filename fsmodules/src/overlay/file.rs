//! Open files of the merged tree.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use bytes::Bytes;

use super::mounter::Mounter;
use super::node::OverlayNode;
use crate::api::{
    Backing, Chunks, Cx, Errno, File, IoctlCall, IoctlReply, Lock, LockOwner, MapRequest, Op, OpenFlags, Vnode, done,
};

pub struct OverlayFile {
    node: Rc<OverlayNode>,
    vnode: Rc<dyn Vnode>,
    /// As it was opened. Of a lower layer, it is for reading, and only until the file is copied up.
    opened: Rc<dyn File>,
    of_lower: bool,
    risen: OnceCell<Rc<dyn File>>,
    /// The open file description that holds locks of its own.
    description: Cell<Option<u64>>,
}

impl OverlayFile {
    pub fn new(node: Rc<OverlayNode>, opened: Rc<dyn File>) -> OverlayFile {
        OverlayFile {
            of_lower: node.upper().is_none(),
            vnode: node.clone(),
            node,
            opened,
            risen: OnceCell::new(),
            description: Cell::new(None),
        }
    }

    /// The file where it is now.
    pub async fn current(&self, cx: Cx<'_>) -> Result<&Rc<dyn File>, Errno> {
        if let Some(risen) = self.risen.get() {
            return Ok(risen);
        }
        match self.node.upper() {
            Some(upper) if self.of_lower => {
                let file = upper.open(Mounter::of(cx).cx(), OpenFlags::empty()).await?;
                Ok(self.risen.get_or_init(|| file))
            }
            _ => Ok(&self.opened),
        }
    }
}

impl Drop for OverlayFile {
    fn drop(&mut self) {
        if let Some(id) = self.description.get() {
            self.node.locks.release(LockOwner::Description(id));
        }
    }
}

impl File for OverlayFile {
    fn vnode(&self) -> Option<&Rc<dyn Vnode>> {
        Some(&self.vnode)
    }
    /// Mappings stay what they were when the file is copied up, as on the kernel's overlayfs.
    fn backing(&self) -> Backing<'_> {
        self.opened.backing()
    }
    fn set_flags(&self, flags: OpenFlags) {
        self.opened.set_flags(flags);
    }
    fn read<'a>(&'a self, cx: Cx<'a>, at: u64, len: usize) -> Op<'a, Chunks> {
        Box::pin(async move { self.current(cx).await?.read(cx, at, len).await })
    }
    fn write<'a>(&'a self, cx: Cx<'a>, at: u64, append: bool, data: Bytes) -> Op<'a, (usize, u64)> {
        self.opened.write(cx, at, append, data)
    }
    fn end<'a>(&'a self, cx: Cx<'a>) -> Op<'a, u64> {
        Box::pin(async move { self.current(cx).await?.end(cx).await })
    }
    fn seek_data<'a>(&'a self, cx: Cx<'a>, from: u64, hole: bool) -> Op<'a, u64> {
        Box::pin(async move { self.current(cx).await?.seek_data(cx, from, hole).await })
    }
    fn flush<'a>(&'a self, cx: Cx<'a>) -> Op<'a, ()> {
        self.node.locks.release(LockOwner::Files(cx.caller.files_id()));
        self.opened.flush(cx)
    }
    fn fsync<'a>(&'a self, cx: Cx<'a>, data_only: bool) -> Op<'a, ()> {
        if self.node.fs.setup.volatile {
            return done(());
        }
        Box::pin(async move { self.current(cx).await?.fsync(cx, data_only).await })
    }
    fn write_back<'a>(&'a self, cx: Cx<'a>) -> Op<'a, ()> {
        self.opened.write_back(cx)
    }
    fn fallocate<'a>(&'a self, cx: Cx<'a>, mode: u32, offset: u64, len: u64) -> Op<'a, ()> {
        self.opened.fallocate(cx, mode, offset, len)
    }
    fn ioctl<'a>(&'a self, cx: Cx<'a>, call: IoctlCall) -> Op<'a, IoctlReply> {
        Box::pin(async move { self.current(cx).await?.ioctl(cx, call).await })
    }
    fn test_lock<'a>(&'a self, _cx: Cx<'a>, lock: Lock) -> Op<'a, Option<Lock>> {
        done(self.node.locks.test(&lock))
    }
    fn set_lock<'a>(&'a self, cx: Cx<'a>, lock: Lock, wait: bool) -> Op<'a, ()> {
        if let LockOwner::Description(id) = lock.owner {
            self.description.set(Some(id));
        }
        Box::pin(self.node.locks.set(cx.caller, lock, wait))
    }
    fn map<'a>(&'a self, cx: Cx<'a>, request: MapRequest) -> Op<'a, ()> {
        self.opened.map(cx, request)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
