//! An open directory (`fs/fuse/readdir.c`).

use std::any::Any;
use std::rc::Rc;

use fuse_compat::kernel::{Handle, Listed};
use fuse_compat::wire::abi::InitFlags;

use super::node::Node;
use crate::api::{Cx, DirEntry, Errno, File, IoctlCall, IoctlReply, Name, Op, OpenFlags, Vnode};

const MIN_READ: usize = 4096;

pub struct DirFile {
    node: Rc<Node>,
    vnode: Rc<dyn Vnode>,
    handle: Handle,
}

impl DirFile {
    pub fn new(node: Rc<Node>, handle: Handle) -> DirFile {
        handle.keep(node.clone());
        DirFile {
            vnode: node.clone(),
            node,
            handle,
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
        let _alone = match fs.negotiated(InitFlags::PARALLEL_DIROPS) {
            true => None,
            false => Some(self.node.names_lock.lock().await),
        };
        let size = room.max(MIN_READ).min(fs.connection.max_read() as usize) as u32;
        let version = fs.attr_version();
        let listed = self
            .node
            .calls(cx)
            .readdir(&self.handle, from, size, self.plus(from))
            .await?;
        let entries: Vec<DirEntry> = listed.into_iter().map(|listed| self.entry(listed, version)).collect();
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

    fn fsync<'a>(&'a self, cx: Cx<'a>, data_only: bool) -> Op<'a, ()> {
        Box::pin(async move { self.node.calls(cx).fsync(&self.handle, data_only).await })
    }

    fn ioctl<'a>(&'a self, cx: Cx<'a>, call: IoctlCall) -> Op<'a, IoctlReply> {
        Box::pin(async move {
            let calls = self.node.calls(cx);
            let (result, output) = calls
                .ioctl(&self.handle, call.cmd, call.arg, call.input, call.output_len as u32)
                .await?;
            Ok(IoctlReply { result, output })
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
