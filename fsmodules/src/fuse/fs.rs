//! A mounted FUSE file system (`struct super_block` and `fuse_conn`).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use fuse_compat::kernel::{Connection, Entry, Listener, Lookup, expiry};
use fuse_compat::wire::abi::{Attr, InitFlags, ROOT_ID};

use super::file::FuseFile;
use super::node::Node;
use super::options::Options;
use crate::api::{Cx, Description, Errno, FileKind, FileSystem, Host, MountRequest, Name, Op, Vnode};

/// How many names are remembered before the least used ones are forgotten.
const MAX_ENTRIES: usize = 65_536;
/// How many closed files may keep their cached content.
const MAX_CLOSED: usize = 256;

pub struct FuseFs {
    me: Weak<FuseFs>,
    pub connection: Rc<Connection>,
    pub options: Options,
    pub host: Rc<dyn Host>,
    description: Description,
    /// `MS_SYNCHRONOUS`: every write is followed by FSYNC.
    pub synchronous: bool,
    pub read_only: bool,
    nodes: RefCell<HashMap<u64, Weak<Node>>>,
    /// Counts changes of attributes, so that replies which were overtaken by one are recognised.
    attr_version: Cell<u64>,
    /// Names that were looked up in an earlier epoch are looked up again.
    pub epoch: Cell<u64>,
    remembered: RefCell<VecDeque<(Weak<Node>, Name)>>,
    /// Closed files whose content is kept, the oldest first.
    closed: RefCell<VecDeque<Rc<Node>>>,
    last_poll_handle: Cell<u64>,
    pub(super) polled: RefCell<HashMap<u64, Weak<FuseFile>>>,
}

impl FuseFs {
    pub fn new(cx: Cx<'_>, options: Options, request: &MountRequest<'_>) -> Rc<FuseFs> {
        let connection = Connection::new(options.max_read);
        let fstype = match &options.subtype {
            Some(subtype) if !request.fstype.contains('.') => format!("{}.{subtype}", request.fstype),
            _ => request.fstype.to_owned(),
        };
        let source = options.source.as_deref().unwrap_or(request.source).to_owned();
        let description = Description {
            fstype,
            source,
            options: options.show(),
        };
        let fs = Rc::new_cyclic(|me| FuseFs {
            me: me.clone(),
            connection: connection.clone(),
            options,
            host: cx.host.clone(),
            description,
            synchronous: request.flags.contains(crate::api::MountFlags::SYNCHRONOUS),
            read_only: request.flags.contains(crate::api::MountFlags::RDONLY),
            nodes: RefCell::default(),
            attr_version: Cell::new(1),
            epoch: Cell::new(0),
            remembered: RefCell::default(),
            closed: RefCell::default(),
            last_poll_handle: Cell::new(0),
            polled: RefCell::default(),
        });
        let listener: Weak<dyn Listener> = fs.me.clone();
        connection.listen(listener);
        fs
    }

    fn this(&self) -> Rc<FuseFs> {
        self.me
            .upgrade()
            .unwrap_or_else(|| unreachable!("borrowed, hence alive"))
    }

    pub fn now(&self) -> Duration {
        self.host.now()
    }

    pub fn negotiated(&self, flag: InitFlags) -> bool {
        self.connection.negotiated().is_some_and(|n| n.has(flag))
    }

    /// To be noted before a request whose reply has attributes.
    pub fn attr_version(&self) -> u64 {
        self.attr_version.get()
    }

    pub fn next_attr_version(&self) -> u64 {
        self.attr_version.set(self.attr_version.get() + 1);
        self.attr_version.get()
    }

    /// A number by which the server can say that a file's readiness has changed.
    pub fn next_poll_handle(&self) -> u64 {
        self.last_poll_handle.set(self.last_poll_handle.get() + 1);
        self.last_poll_handle.get()
    }

    pub fn node(&self, nodeid: u64) -> Option<Rc<Node>> {
        self.nodes.borrow().get(&nodeid).and_then(Weak::upgrade)
    }

    pub fn nodes(&self) -> Vec<Rc<Node>> {
        self.nodes.borrow().values().filter_map(Weak::upgrade).collect()
    }

    fn root_node(&self) -> Rc<Node> {
        self.node(ROOT_ID).unwrap_or_else(|| {
            let mode = self.options.root_mode;
            let kind = FileKind::from_mode(mode).unwrap_or(FileKind::Directory);
            let attr = Attr {
                ino: ROOT_ID,
                mode,
                nlink: 1,
                ..Attr::default()
            };
            let root = Node::new(self.this(), Lookup::root(&self.connection), 0, kind, attr);
            self.nodes.borrow_mut().insert(ROOT_ID, Rc::downgrade(&root));
            root
        })
    }

    /// The node that a reply speaks of, with the attributes that came along. A node id that comes back with another
    /// generation or type is another file; the old one is then dead.
    pub fn adopt(&self, entry: Entry, version: u64) -> Result<Rc<Node>, Errno> {
        let Entry { lookup, out } = entry;
        let kind = FileKind::from_mode(out.attr.mode).ok_or(Errno::EIO)?;
        let expires = expiry(self.now(), out.attr_valid, out.attr_valid_nsec);
        if let Some(node) = self.node(out.nodeid) {
            if node.check().is_ok() && node.generation == out.generation && node.kind == kind {
                node.absorb(lookup);
                node.learn(out.attr, expires, version);
                return Ok(node);
            }
            node.turn_bad();
        }
        let node = Node::new(self.this(), lookup, out.generation, kind, out.attr);
        node.learn(out.attr, expires, version);
        self.nodes.borrow_mut().insert(out.nodeid, Rc::downgrade(&node));
        Ok(node)
    }

    /// A node has died.
    pub fn gone(&self, nodeid: u64) {
        let mut nodes = self.nodes.borrow_mut();
        if nodes.get(&nodeid).is_some_and(|node| node.strong_count() == 0) {
            nodes.remove(&nodeid);
        }
    }

    /// Keeps the number of remembered names in bounds: second chance for those used since.
    pub fn name_remembered(&self, dir: &Node, name: &Name) {
        self.remembered.borrow_mut().push_back((dir.me.clone(), name.clone()));
        while self.remembered.borrow().len() > MAX_ENTRIES {
            let Some((weak, name)) = self.remembered.borrow_mut().pop_front() else {
                return;
            };
            if let Some(dir) = weak.upgrade()
                && dir.spare_used(&name)
            {
                self.remembered.borrow_mut().push_back((weak, name));
            }
        }
    }

    /// A file with cached content has been closed for the last time, for now.
    pub fn keep_closed(&self, node: Rc<Node>) {
        let mut closed = self.closed.borrow_mut();
        closed.retain(|other| !Rc::ptr_eq(other, &node));
        closed.push_back(node);
        let oldest = if closed.len() > MAX_CLOSED {
            closed.pop_front()
        } else {
            None
        };
        drop(closed);
        if let Some(node) = oldest {
            node.drop_content_if_closed();
        }
    }

    /// A file has lost its last name: nobody will open it again, and the server may use its number anew.
    pub fn keep_no_longer(&self, node: &Node) {
        drop(self.take_closed(|other| std::ptr::eq(other, node)));
    }

    /// What is taken is dropped by the caller, and not while the list is borrowed: a dying node sends FORGET.
    fn take_closed(&self, unwanted: impl Fn(&Node) -> bool) -> VecDeque<Rc<Node>> {
        let (taken, kept) = self.closed.take().into_iter().partition(|node| unwanted(node));
        self.closed.replace(kept);
        taken
    }

    /// NOTIFY_PRUNE: nothing that only waits to be used again keeps these files.
    pub fn prune(&self, nodeids: &[u64]) {
        let pruned = self.take_closed(|node| nodeids.contains(&node.nodeid()));
        pruned.iter().for_each(|node| node.drop_content_if_closed());
        self.nodes().iter().for_each(|dir| dir.prune(nodeids));
    }

    /// Is the caller the one who mounted it, or are all allowed (`fuse_allow_current_process`)?
    pub fn allows(&self, cx: Cx<'_>) -> bool {
        let (ids, uid, gid) = (cx.caller.ids(), self.options.user_id, self.options.group_id);
        self.options.allow_other
            || [ids.ruid, ids.euid, ids.suid] == [uid; 3] && [ids.rgid, ids.egid, ids.sgid] == [gid; 3]
    }
}

impl FileSystem for FuseFs {
    fn root(&self) -> Rc<dyn Vnode> {
        self.root_node()
    }

    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn permits(&self, cx: Cx<'_>) -> Result<(), Errno> {
        if self.allows(cx) { Ok(()) } else { Err(Errno::EACCES) }
    }

    fn exports(&self) -> bool {
        !self.negotiated(InitFlags::NO_EXPORT_SUPPORT)
    }

    fn ready(&self) -> Op<'_, ()> {
        Box::pin(async { self.connection.ready().await.map(drop) })
    }

    fn abort(&self) {
        self.connection.abort();
    }

    fn sync<'a>(&'a self, cx: Cx<'a>) -> Op<'a, ()> {
        Box::pin(async move {
            let mut result = Ok(());
            for node in self.nodes() {
                result = result.and(node.write_back(cx.caller).await);
            }
            result
        })
    }

    fn shutdown(&self) {
        // Nothing is forgotten at unmount: the server drops everything by itself.
        self.connection.close();
        self.closed.take();
        for node in self.nodes() {
            node.forget_names();
        }
    }
}
