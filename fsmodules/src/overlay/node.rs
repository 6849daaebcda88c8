//! A file of the merged tree.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::OverlayFs;
use super::dir::OverlayDir;
use crate::api::{
    Access, Attr, AttrQuery, Created, Cx, Errno, File, FileKind, Name, Op, OpenFlags, RenameFlags, SetAttr, StatFs,
    Vnode, XattrFlags,
};

/// Attributes of overlayfs' own.
pub const PRIVATE: &[u8] = b"user.overlay.";
const OPAQUE: &[u8] = b"user.overlay.opaque";
const WHITEOUT: &[u8] = b"user.overlay.whiteout";
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// Where a file is in the layers: for a directory everywhere that it is merged from.
#[derive(Clone)]
pub struct Parts {
    pub upper: Option<Rc<dyn Vnode>>,
    /// With the number of their layer, from 1 on, the topmost first.
    pub lower: Vec<(usize, Rc<dyn Vnode>)>,
}

impl Parts {
    /// The topmost one, which decides.
    pub fn top(&self) -> Option<(usize, &Rc<dyn Vnode>)> {
        match &self.upper {
            Some(upper) => Some((0, upper)),
            None => self.lower.first().map(|(layer, node)| (*layer, node)),
        }
    }
}

pub struct OverlayNode {
    pub me: Weak<OverlayNode>,
    pub fs: Rc<OverlayFs>,
    id: u64,
    kind: FileKind,
    /// It stays when the file is copied up.
    pub ino: u64,
    pub parts: RefCell<Parts>,
    /// Where it is to be copied up to.
    pub place: RefCell<Option<(Rc<OverlayNode>, Name)>>,
    /// Held while it is copied up.
    pub copying: async_lock::Mutex<()>,
    keys: RefCell<Vec<(usize, u64)>>,
    pub removed: Cell<bool>,
}

impl Drop for OverlayNode {
    fn drop(&mut self) {
        let mut nodes = self.fs.nodes.borrow_mut();
        for key in self.keys.borrow().iter() {
            if nodes.get(key).is_some_and(|node| node.strong_count() == 0) {
                nodes.remove(key);
            }
        }
    }
}

impl OverlayFs {
    /// The node of a file: the live one if there is one.
    pub async fn node(
        &self,
        cx: Cx<'_>,
        parts: Parts,
        place: Option<(Rc<OverlayNode>, Name)>,
    ) -> Result<Rc<OverlayNode>, Errno> {
        let (layer, top) = parts.top().ok_or(Errno::ENOENT)?;
        let key = (layer, top.id());
        let ino = top.attr(cx, AttrQuery::default()).await?.ino;
        let known = self.nodes.borrow().get(&key).and_then(Weak::upgrade);
        if let Some(node) = known {
            if place.is_some() {
                node.place.replace(place);
                node.removed.set(false);
            }
            // What a rename or removal elsewhere has left of it.
            if node.kind == FileKind::Directory {
                node.parts.replace(parts);
            }
            return Ok(node);
        }
        self.last_id.set(self.last_id.get() + 1);
        let node = Rc::new_cyclic(|me| OverlayNode {
            me: me.clone(),
            fs: self.this(),
            id: self.last_id.get(),
            kind: top.kind(),
            ino: self.ino(layer, ino),
            parts: RefCell::new(parts.clone()),
            place: RefCell::new(place),
            copying: async_lock::Mutex::new(()),
            keys: RefCell::new(vec![key]),
            removed: Cell::new(false),
        });
        self.nodes.borrow_mut().insert(key, Rc::downgrade(&node));
        Ok(node)
    }
}

/// Does it say that there is nothing of this name?
pub async fn is_whiteout(cx: Cx<'_>, node: &Rc<dyn Vnode>) -> Result<bool, Errno> {
    match node.kind() {
        FileKind::CharDevice => Ok(node.attr(cx, AttrQuery::default()).await?.rdev == 0),
        FileKind::Regular => Ok(node.attr(cx, AttrQuery::default()).await?.size == 0
            && node.getxattr(cx, &Name::attribute(WHITEOUT)?).await.is_ok()),
        _ => Ok(false),
    }
}

/// Does it hide the directories below it?
pub async fn is_opaque(cx: Cx<'_>, node: &Rc<dyn Vnode>) -> Result<bool, Errno> {
    let value = node.getxattr(cx, &Name::attribute(OPAQUE)?).await;
    Ok(value.is_ok_and(|value| value.as_ref() == b"y"))
}

pub async fn make_opaque(cx: Cx<'_>, node: &Rc<dyn Vnode>) -> Result<(), Errno> {
    let value = Bytes::from_static(b"y");
    node.setxattr(cx, &Name::attribute(OPAQUE)?, value, XattrFlags::empty())
        .await
}

impl OverlayNode {
    pub fn this(&self) -> Rc<OverlayNode> {
        self.me
            .upgrade()
            .unwrap_or_else(|| unreachable!("borrowed, hence alive"))
    }

    pub fn of(node: &Rc<dyn Vnode>) -> Result<Rc<OverlayNode>, Errno> {
        node.as_any()
            .downcast_ref::<OverlayNode>()
            .map(OverlayNode::this)
            .ok_or(Errno::EXDEV)
    }

    pub fn top(&self) -> Result<Rc<dyn Vnode>, Errno> {
        let parts = self.parts.borrow();
        parts.top().map(|(_, node)| node.clone()).ok_or(Errno::ENOENT)
    }

    pub fn upper(&self) -> Option<Rc<dyn Vnode>> {
        self.parts.borrow().upper.clone()
    }

    /// Is it merged from several layers, or from lower ones only?
    pub fn has_lower(&self) -> bool {
        !self.parts.borrow().lower.is_empty()
    }

    /// It has come to be in the upper layer.
    pub fn risen(&self, upper: Rc<dyn Vnode>) {
        let key = (0, upper.id());
        self.fs.nodes.borrow_mut().insert(key, self.me.clone());
        self.keys.borrow_mut().push(key);
        let mut parts = self.parts.borrow_mut();
        parts.upper = Some(upper);
        if self.kind != FileKind::Directory {
            parts.lower.clear();
        }
    }

    /// What the layers have under a name.
    pub async fn find(&self, cx: Cx<'_>, name: &Name) -> Result<Parts, Errno> {
        let from = self.parts.borrow().clone();
        let mut found = Parts {
            upper: None,
            lower: Vec::new(),
        };
        if let Some(upper) = &from.upper {
            match upper.lookup(cx, name).await {
                Ok(node) if is_whiteout(cx, &node).await? => return Err(Errno::ENOENT),
                Ok(node) => {
                    let ends = node.kind() != FileKind::Directory || is_opaque(cx, &node).await?;
                    found.upper = Some(node);
                    if ends {
                        return Ok(found);
                    }
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        for (layer, lower) in &from.lower {
            let node = match lower.lookup(cx, name).await {
                Ok(node) => node,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            };
            if is_whiteout(cx, &node).await? {
                break;
            }
            let directory = node.kind() == FileKind::Directory;
            if !directory && found.top().is_some() {
                break;
            }
            let ends = !directory || is_opaque(cx, &node).await?;
            found.lower.push((*layer, node));
            if ends {
                break;
            }
        }
        if found.top().is_none() {
            Err(Errno::ENOENT)
        } else {
            Ok(found)
        }
    }

    /// Would a name appear again if the upper layer had nothing of it?
    pub async fn shows_through(&self, cx: Cx<'_>, name: &Name) -> Result<bool, Errno> {
        let lower = self.parts.borrow().lower.clone();
        for (_, lower) in lower {
            match lower.lookup(cx, name).await {
                Ok(node) => return Ok(!is_whiteout(cx, &node).await?),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(false)
    }

    pub async fn child(&self, cx: Cx<'_>, name: &Name) -> Result<Rc<OverlayNode>, Errno> {
        let parts = self.find(cx, name).await?;
        self.fs.node(cx, parts, Some((self.this(), name.clone()))).await
    }
}

impl Vnode for OverlayNode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn kind(&self) -> FileKind {
        self.kind
    }
    fn id(&self) -> u64 {
        self.id
    }
    fn attr<'a>(&'a self, cx: Cx<'a>, query: AttrQuery) -> Op<'a, Attr> {
        Box::pin(async move {
            let mut attr = self.top()?.attr(cx, query).await?;
            attr.ino = self.ino;
            let parts = self.parts.borrow();
            if self.kind == FileKind::Directory && parts.lower.len() + usize::from(parts.upper.is_some()) > 1 {
                // How many subdirectories there are, nobody has counted.
                attr.nlink = 1;
            }
            Ok(attr)
        })
    }
    fn permission<'a>(&'a self, cx: Cx<'a>, mask: Access) -> Op<'a, ()> {
        Box::pin(async move {
            let writable = matches!(self.kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink);
            if mask.contains(Access::WRITE) && writable {
                self.fs.check_writable()?;
            }
            self.top()?.permission(cx, mask).await
        })
    }
    fn lookup<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move { Ok(self.child(cx, name).await? as Rc<dyn Vnode>) })
    }
    fn readlink<'a>(&'a self, cx: Cx<'a>) -> Op<'a, Bytes> {
        Box::pin(async move { self.top()?.readlink(cx).await })
    }
    fn open<'a>(self: Rc<Self>, cx: Cx<'a>, flags: OpenFlags) -> Op<'a, Rc<dyn File>> {
        Box::pin(async move {
            let mut mask = Access::empty();
            mask.set(Access::READ, flags.readable() && !flags.contains(OpenFlags::EXEC));
            mask.set(Access::EXECUTE, flags.contains(OpenFlags::EXEC));
            let changes = flags.writable() || flags.contains(OpenFlags::TRUNC);
            mask.set(Access::WRITE, changes);
            self.permission(cx, mask).await?;
            if self.kind == FileKind::Directory {
                return Ok(Rc::new(OverlayDir::new(self)) as Rc<dyn File>);
            }
            if changes {
                self.copy_up(cx, !flags.contains(OpenFlags::TRUNC)).await?;
            }
            self.top()?.open(cx, flags).await
        })
    }
    fn create<'a>(self: Rc<Self>, cx: Cx<'a>, name: &'a Name, mode: u32, flags: OpenFlags) -> Op<'a, Created> {
        Box::pin(async move { self.make_file(cx, name, mode, flags).await })
    }
    fn mknod<'a>(&'a self, cx: Cx<'a>, name: &'a Name, mode: u32, rdev: u32) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move { self.make_node(cx, name, mode, rdev).await })
    }
    fn mkdir<'a>(&'a self, cx: Cx<'a>, name: &'a Name, mode: u32) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move { self.make_directory(cx, name, mode).await })
    }
    fn symlink<'a>(&'a self, cx: Cx<'a>, name: &'a Name, target: &'a [u8]) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move { self.make_symlink(cx, name, target).await })
    }
    fn link<'a>(&'a self, cx: Cx<'a>, target: &'a Rc<dyn Vnode>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move { self.make_link(cx, &OverlayNode::of(target)?, name).await })
    }
    fn unlink<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move { self.remove(cx, name, false).await })
    }
    fn rmdir<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move { self.remove(cx, name, true).await })
    }
    fn rename<'a>(
        &'a self,
        cx: Cx<'a>,
        name: &'a Name,
        new_dir: &'a Rc<dyn Vnode>,
        new_name: &'a Name,
        flags: RenameFlags,
    ) -> Op<'a, ()> {
        Box::pin(async move {
            self.move_name(cx, name, &OverlayNode::of(new_dir)?, new_name, flags)
                .await
        })
    }
    fn setattr<'a>(&'a self, cx: Cx<'a>, change: SetAttr<'a>) -> Op<'a, ()> {
        Box::pin(async move {
            self.copy_up(cx, change.size != Some(0)).await?;
            // The caller's open file may still be the lower one.
            let change = SetAttr { file: None, ..change };
            self.top()?.setattr(cx, change).await
        })
    }
    fn statfs<'a>(&'a self, cx: Cx<'a>) -> Op<'a, StatFs> {
        Box::pin(async move {
            let stat = self.top()?.statfs(cx).await?;
            Ok(StatFs {
                magic: OVERLAYFS_SUPER_MAGIC,
                ..stat
            })
        })
    }
    fn getxattr<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, Bytes> {
        Box::pin(async move {
            if name.as_bytes().starts_with(PRIVATE) {
                return Err(Errno::EOPNOTSUPP);
            }
            self.top()?.getxattr(cx, name).await
        })
    }
    fn listxattr<'a>(&'a self, cx: Cx<'a>) -> Op<'a, Bytes> {
        Box::pin(async move {
            let all = self.top()?.listxattr(cx).await?;
            let shown = all
                .split_inclusive(|&b| b == 0)
                .filter(|name| !name.starts_with(PRIVATE));
            Ok(shown.flatten().copied().collect())
        })
    }
    fn setxattr<'a>(&'a self, cx: Cx<'a>, name: &'a Name, value: Bytes, flags: XattrFlags) -> Op<'a, ()> {
        Box::pin(async move {
            if name.as_bytes().starts_with(PRIVATE) {
                return Err(Errno::EOPNOTSUPP);
            }
            self.copy_up(cx, true).await?;
            self.top()?.setxattr(cx, name, value, flags).await
        })
    }
    fn removexattr<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move {
            if name.as_bytes().starts_with(PRIVATE) {
                return Err(Errno::EOPNOTSUPP);
            }
            // An attribute that is not there is no reason to copy the file.
            self.top()?.getxattr(cx, name).await?;
            self.copy_up(cx, true).await?;
            self.top()?.removexattr(cx, name).await
        })
    }
}
