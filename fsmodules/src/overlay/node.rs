//! A file of the merged tree.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::OverlayFs;
use super::dir::OverlayDir;
use super::file::OverlayFile;
use crate::api::{
    Access, Attr, AttrQuery, Created, Cx, Errno, File, FileKind, Name, Op, OpenFlags, RenameFlags, SetAttr, StatFs,
    Vnode, XattrFlags,
};
use crate::fuse::locks::LockTable;

/// Attributes of overlayfs' own.
pub const PRIVATE: &[u8] = b"user.overlay.";
pub const ESCAPED: &[u8] = b"user.overlay.overlay.";
const OPAQUE: &[u8] = b"user.overlay.opaque";
/// What fuse-overlayfs writes for the same, besides a file that only says so to others.
const ITS_OPAQUE: &[u8] = b"user.fuseoverlayfs.opaque";
const ITS_MARKER: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b"user.overlay.whiteout";
/// Files in this directory may show other inode numbers than the layer has.
const IMPURE: &[u8] = b"user.overlay.impure";
/// The inode number that a file had before it was copied up, in decimal: it goes on having it. (The kernel finds it by
/// a file handle, which takes privileges.)
const NUMBER: &[u8] = b"user.overlay.umvu.ino";
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

/// By what a live node is found again.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The layer and the id of the topmost file there.
    File(usize, u64),
    /// A file of a lower layer that has other names there too: copied up, it is another file than these. The id of the
    /// directory.
    Name(u64, Name),
}

pub struct OverlayNode {
    pub me: Weak<OverlayNode>,
    pub fs: Rc<OverlayFs>,
    id: u64,
    kind: FileKind,
    /// It stays when the file is copied up, unless lower layers have other names for the file: those remain.
    pub ino: Cell<u64>,
    pub parts: RefCell<Parts>,
    /// Where it is to be copied up to.
    pub place: RefCell<Option<(Rc<OverlayNode>, Name)>>,
    /// Held while it is copied up.
    pub copying: async_lock::Mutex<()>,
    keys: RefCell<Vec<Key>>,
    pub removed: Cell<bool>,
    pub locks: LockTable,
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
        let attr = top.attr(cx, AttrQuery::default()).await?;
        let directory = top.kind() == FileKind::Directory;
        let key = match &place {
            Some((parent, name)) if layer > 0 && !directory && attr.nlink > 1 => Key::Name(parent.id, name.clone()),
            _ => Key::File(layer, top.id()),
        };
        let known = self.nodes.borrow().get(&key).and_then(Weak::upgrade);
        // A lower layer in which names are changed may have another file there now.
        let known = known.filter(|node| layer == 0 || node.top().is_ok_and(|known| known.id() == top.id()));
        if let Some(node) = known {
            if place.is_some() {
                node.place.replace(place);
                node.removed.set(false);
            }
            // What a rename or removal elsewhere has left of it.
            if directory {
                node.parts.replace(parts);
            }
            return Ok(node);
        }
        let ino = match parts.lower.first() {
            Some((layer, lower)) if layer > &0 && directory && parts.upper.is_some() => {
                self.ino(*layer, lower.attr(cx, AttrQuery::default()).await?.ino)
            }
            _ => match kept_number(cx, top).await {
                Some(kept) if layer == 0 => kept,
                _ => self.ino(layer, attr.ino),
            },
        };
        // Somebody may have been faster.
        if let Some(node) = self.nodes.borrow().get(&key).and_then(Weak::upgrade) {
            return Ok(node);
        }
        self.last_id.set(self.last_id.get() + 1);
        let node = Rc::new_cyclic(|me| OverlayNode {
            me: me.clone(),
            fs: self.this(),
            id: self.last_id.get(),
            kind: top.kind(),
            ino: Cell::new(ino),
            parts: RefCell::new(parts.clone()),
            place: RefCell::new(place),
            copying: async_lock::Mutex::new(()),
            keys: RefCell::new(vec![key.clone()]),
            removed: Cell::new(false),
            locks: LockTable::default(),
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
    // Most directories have no attributes at all.
    let names = node.listxattr(cx).await.unwrap_or_default();
    for name in names
        .split(|&b| b == 0)
        .filter(|name| [OPAQUE, ITS_OPAQUE].contains(name))
    {
        let value = node.getxattr(cx, &Name::attribute(name)?).await;
        if value.is_ok_and(|value| value.as_ref() == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

pub async fn make_opaque(cx: Cx<'_>, node: &Rc<dyn Vnode>) -> Result<(), Errno> {
    let value = Bytes::from_static(b"y");
    node.setxattr(cx, &Name::attribute(OPAQUE)?, value, XattrFlags::empty())
        .await
}

/// What a layer calls an attribute: one that looks like overlayfs' own, of an overlay in an overlay, is escaped.
fn in_layer(name: &Name) -> Result<Name, Errno> {
    match name.as_bytes().strip_prefix(PRIVATE) {
        Some(rest) => Name::attribute(&[ESCAPED, rest].concat()),
        None => Ok(name.clone()),
    }
}

/// The inode number that a file of the upper layer was copied up with.
async fn kept_number(cx: Cx<'_>, node: &Rc<dyn Vnode>) -> Option<u64> {
    if node.kind() != FileKind::Regular {
        return None;
    }
    let value = node.getxattr(cx, &Name::attribute(NUMBER).ok()?).await.ok()?;
    std::str::from_utf8(&value).ok()?.parse().ok()
}

/// Without extended attributes the number changes when the file is next looked at, as on the kernel's overlayfs.
pub async fn keep_number(cx: Cx<'_>, node: &Rc<dyn Vnode>, ino: u64) -> Result<(), Errno> {
    let value = Bytes::from(ino.to_string());
    match node
        .setxattr(cx, &Name::attribute(NUMBER)?, value, XattrFlags::empty())
        .await
    {
        Err(Errno::EOPNOTSUPP | Errno::EPERM) => Ok(()),
        other => other,
    }
}

/// A directory of the upper layer gets a file that may have kept its number.
pub async fn mark_impure(cx: Cx<'_>, dir: &Rc<dyn Vnode>) {
    if let Ok(name) = Name::attribute(IMPURE) {
        // Listings are less exact without.
        let _ = dir
            .setxattr(cx, &name, Bytes::from_static(b"y"), XattrFlags::empty())
            .await;
    }
}

pub async fn is_impure(cx: Cx<'_>, dir: &Rc<dyn Vnode>) -> bool {
    match Name::attribute(IMPURE) {
        Ok(name) => dir.getxattr(cx, &name).await.is_ok(),
        Err(_) => false,
    }
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
    pub async fn risen(&self, cx: Cx<'_>, upper: Rc<dyn Vnode>) -> Result<(), Errno> {
        let number = upper.attr(cx, AttrQuery::default()).await?.ino;
        let key = Key::File(0, upper.id());
        self.fs.nodes.borrow_mut().insert(key.clone(), self.me.clone());
        let mut keys = self.keys.borrow_mut();
        if keys.iter().any(|key| matches!(key, Key::Name(..))) {
            self.ino.set(self.fs.ino(0, number));
        }
        keys.push(key);
        let mut parts = self.parts.borrow_mut();
        parts.upper = Some(upper);
        if self.kind != FileKind::Directory {
            parts.lower.clear();
        }
        Ok(())
    }

    /// Is it a name that the merged tree keeps for itself?
    pub fn shows_not(&self, name: &Name) -> bool {
        let is_root = self.place.borrow().is_none();
        name.as_bytes() == ITS_MARKER || is_root && self.fs.setup.private.as_ref() == Some(name)
    }

    /// What the layers have under a name.
    pub async fn find(&self, cx: Cx<'_>, name: &Name) -> Result<Parts, Errno> {
        if self.shows_not(name) {
            return Err(Errno::ENOENT);
        }
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
            attr.ino = self.ino.get();
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
            self.top()?.permission(cx, self.asked(cx, mask)).await
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
            let opened = if changes {
                let open = async |part: Rc<dyn Vnode>| part.open(cx, flags).await;
                self.change(cx, !flags.contains(OpenFlags::TRUNC), open).await?
            } else {
                self.top()?.open(cx, flags).await?
            };
            Ok(Rc::new(OverlayFile::new(self, opened)) as Rc<dyn File>)
        })
    }
    fn create<'a>(self: Rc<Self>, cx: Cx<'a>, name: &'a Name, mode: u32, flags: OpenFlags) -> Op<'a, Created> {
        Box::pin(async move { self.make_file(cx, name, mode, flags).await })
    }
    fn tmpfile<'a>(self: Rc<Self>, cx: Cx<'a>, mode: u32, flags: OpenFlags) -> Op<'a, Created> {
        Box::pin(async move { self.make_nameless(cx, mode, flags).await })
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
            if !self.is_anybodys(cx) {
                self.check_change(cx, &change).await?;
            }
            let open = change.file.and_then(|file| file.as_any().downcast_ref::<OverlayFile>());
            let make = async |part: Rc<dyn Vnode>| {
                let file = match open {
                    Some(open) => Some(&**open.current(cx).await?),
                    None => None,
                };
                part.setattr(cx, SetAttr { file, ..change }).await
            };
            self.change(cx, change.size != Some(0), make).await
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
        Box::pin(async move { self.top()?.getxattr(cx, &in_layer(name)?).await })
    }
    fn listxattr<'a>(&'a self, cx: Cx<'a>) -> Op<'a, Bytes> {
        Box::pin(async move {
            let all = self.top()?.listxattr(cx).await?;
            let mut shown = Vec::new();
            for name in all.split_inclusive(|&b| b == 0) {
                match (name.strip_prefix(ESCAPED), name.starts_with(PRIVATE)) {
                    (Some(rest), _) => shown.extend([PRIVATE, rest].concat()),
                    (None, false) => shown.extend_from_slice(name),
                    (None, true) => {}
                }
            }
            Ok(shown.into())
        })
    }
    fn setxattr<'a>(&'a self, cx: Cx<'a>, name: &'a Name, value: Bytes, flags: XattrFlags) -> Op<'a, ()> {
        Box::pin(async move {
            let name = in_layer(name)?;
            let make = async |part: Rc<dyn Vnode>| part.setxattr(cx, &name, value.clone(), flags).await;
            self.change(cx, true, make).await
        })
    }
    fn removexattr<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move {
            let name = in_layer(name)?;
            // An attribute that is not there is no reason to copy the file.
            self.top()?.getxattr(cx, &name).await?;
            let make = async |part: Rc<dyn Vnode>| part.removexattr(cx, &name).await;
            self.change(cx, true, make).await
        })
    }
}
