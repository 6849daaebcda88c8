//! The host's own files as vnodes: what composed file systems are built on.
//!
//! A node holds the file by an `O_PATH` descriptor, so it stays the same file however it is renamed. The kernel checks
//! the real user's permissions; for callers whose ids are virtual, owners are what the view remembers of them.

mod file;
mod node;

pub use node::HostNode;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::{Rc, Weak};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use crate::api::{Errno, FileKind, errno};
use crate::ids::Owners;

/// All of the host that is used as layers.
pub struct HostFs {
    owners: Rc<RefCell<Owners>>,
    nodes: RefCell<HashMap<(u64, u64), Weak<HostNode>>>,
    last_id: Cell<u64>,
}

const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl HostFs {
    pub fn new(owners: Rc<RefCell<Owners>>) -> Rc<HostFs> {
        Rc::new(HostFs {
            owners,
            nodes: RefCell::default(),
            last_id: Cell::new(0),
        })
    }

    /// The file at a path of the host.
    pub fn at(self: &Rc<Self>, path: &Path) -> Result<Rc<HostNode>, Errno> {
        self.adopt(openat(CWD, path, HANDLE, Mode::empty()).map_err(errno)?)
    }

    /// The node of a file: the live one if there is one.
    fn adopt(self: &Rc<Self>, fd: OwnedFd) -> Result<Rc<HostNode>, Errno> {
        let stat = fstat(&fd).map_err(errno)?;
        let key = (stat.st_dev, stat.st_ino);
        let known = self.nodes.borrow().get(&key).and_then(Weak::upgrade);
        if let Some(node) = known {
            return Ok(node);
        }
        // A device node of the view is an empty file on disk.
        let known = self.owners.borrow().known(key, stat.st_mode);
        let kind = FileKind::from_mode(known.map_or(stat.st_mode, |owner| owner.mode)).ok_or(Errno::EIO)?;
        self.last_id.set(self.last_id.get() + 1);
        let node = HostNode::new(self.clone(), fd, kind, key, self.last_id.get());
        self.nodes.borrow_mut().insert(key, Rc::downgrade(&node));
        Ok(node)
    }

    /// Nothing need be remembered of a file any more.
    fn forget(&self, key: Option<(u64, u64)>) {
        if let Some(key) = key {
            self.owners.borrow_mut().forget(key);
        }
    }

    /// A node has died.
    fn gone(&self, key: (u64, u64)) {
        let mut nodes = self.nodes.borrow_mut();
        if nodes.get(&key).is_some_and(|node| node.strong_count() == 0) {
            nodes.remove(&key);
        }
    }
}
