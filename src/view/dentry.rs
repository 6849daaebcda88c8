//! Names of virtual files: the tree that ".." and getcwd(2) need.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use fsmodules::api::{Name, Vnode};

/// A virtual file under one of its names. Only live ones exist: whoever stands in a directory or has it open holds
/// it, and it holds its parents; children are found again through weak references, so that a rename reaches them all.
pub struct Dentry {
    node: Rc<dyn Vnode>,
    parent: RefCell<Option<(Rc<Dentry>, Name)>>,
    children: RefCell<HashMap<Name, Weak<Dentry>>>,
    deleted: Cell<bool>,
    /// What is to be done when nobody has it any more.
    last_act: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Drop for Dentry {
    fn drop(&mut self) {
        if let Some(act) = self.last_act.take() {
            act();
        }
    }
}

impl Dentry {
    fn new(node: Rc<dyn Vnode>, parent: Option<(Rc<Dentry>, Name)>) -> Rc<Dentry> {
        Rc::new(Dentry {
            node,
            parent: RefCell::new(parent),
            children: RefCell::default(),
            deleted: Cell::new(false),
            last_act: RefCell::default(),
        })
    }

    /// The root of a file system.
    pub fn root(node: Rc<dyn Vnode>) -> Rc<Dentry> {
        Dentry::new(node, None)
    }

    /// A file without a name (`O_TMPFILE`), which counts as below this directory.
    pub fn unnamed(self: &Rc<Self>, node: Rc<dyn Vnode>) -> Rc<Dentry> {
        let dentry = match Name::new(format!("#{}", node.id()).as_bytes()) {
            Ok(name) => Dentry::new(node, Some((self.clone(), name))),
            Err(_) => Dentry::new(node, None),
        };
        dentry.deleted.set(true);
        dentry
    }

    pub fn node(&self) -> &Rc<dyn Vnode> {
        &self.node
    }

    /// Its child of that name and node: the live one if there is one.
    pub fn child(self: &Rc<Self>, name: &Name, node: Rc<dyn Vnode>) -> Rc<Dentry> {
        let mut children = self.children.borrow_mut();
        if let Some(child) = children.get(name).and_then(Weak::upgrade)
            && child.node.id() == node.id()
        {
            return child;
        }
        let child = Dentry::new(node, Some((self.clone(), name.clone())));
        if children.len() >= 64 && children.len().is_power_of_two() {
            children.retain(|_, child| child.strong_count() > 0);
        }
        children.insert(name.clone(), Rc::downgrade(&child));
        child
    }

    pub fn parent(&self) -> Option<Rc<Dentry>> {
        self.parent.borrow().as_ref().map(|(parent, _)| parent.clone())
    }

    /// The directory that it is in, or was in last, and its name there.
    pub fn named(&self) -> Option<(Rc<Dentry>, Name)> {
        self.parent.borrow().clone()
    }

    pub fn is_root(&self) -> bool {
        self.parent.borrow().is_none()
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.get()
    }

    /// Does that when nobody has it any more.
    pub fn when_dropped(&self, act: impl FnOnce() + 'static) {
        self.last_act.replace(Some(Box::new(act)));
    }

    /// Is it `ancestor`, or below it?
    pub fn is_within(self: &Rc<Self>, ancestor: &Rc<Dentry>) -> bool {
        let mut at = Some(self.clone());
        while let Some(dentry) = at {
            if Rc::ptr_eq(&dentry, ancestor) || dentry.node.id() == ancestor.node.id() {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    /// The name has been removed; who still has the file knows it as deleted.
    pub fn forget(&self, name: &Name) {
        if let Some(child) = self.take(name) {
            child.deleted.set(true);
        }
    }

    fn take(&self, name: &Name) -> Option<Rc<Dentry>> {
        self.children.borrow_mut().remove(name)?.upgrade()
    }

    fn put(self: &Rc<Self>, name: &Name, child: &Rc<Dentry>) {
        child.parent.replace(Some((self.clone(), name.clone())));
        self.children.borrow_mut().insert(name.clone(), Rc::downgrade(child));
    }

    /// `name` has become `new_name` of `new_parent`, where it replaced whatever there was.
    pub fn rename(self: &Rc<Self>, name: &Name, new_parent: &Rc<Dentry>, new_name: &Name) {
        let moved = self.take(name);
        new_parent.forget(new_name);
        if let Some(moved) = moved {
            new_parent.put(new_name, &moved);
        }
    }

    /// Two names have changed places.
    pub fn exchange(self: &Rc<Self>, name: &Name, other_parent: &Rc<Dentry>, other_name: &Name) {
        let (one, other) = (self.take(name), other_parent.take(other_name));
        if let Some(one) = one {
            other_parent.put(other_name, &one);
        }
        if let Some(other) = other {
            self.put(name, &other);
        }
    }

    /// Its path from the root of its file system; empty for the root itself, else with a leading slash.
    pub fn path(&self) -> Vec<u8> {
        let mut names: Vec<Name> = Vec::new();
        let mut at = self.parent.borrow().clone();
        while let Some((parent, name)) = at {
            names.push(name);
            at = parent.parent.borrow().clone();
        }
        names
            .iter()
            .rev()
            .flat_map(|name| [b"/", name.as_bytes()].concat())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsmodules::api::{Attr, AttrQuery, Cx, Errno, FileKind, Op, fail};

    struct Node(u64);

    impl Vnode for Node {
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
        fn kind(&self) -> FileKind {
            FileKind::Directory
        }
        fn id(&self) -> u64 {
            self.0
        }
        fn attr<'a>(&'a self, _cx: Cx<'a>, _query: AttrQuery) -> Op<'a, Attr> {
            fail(Errno::EIO)
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn path(dentry: &Dentry) -> String {
        String::from_utf8(dentry.path()).unwrap()
    }

    #[test]
    fn a_rename_reaches_those_who_stand_below() {
        let root = Dentry::root(Rc::new(Node(1)));
        let a = root.child(&name("a"), Rc::new(Node(2)));
        let deep = a.child(&name("deep"), Rc::new(Node(3)));
        let b = root.child(&name("b"), Rc::new(Node(4)));
        assert_eq!(path(&deep), "/a/deep");
        assert!(Rc::ptr_eq(&root.child(&name("a"), Rc::new(Node(2))), &a));
        root.rename(&name("a"), &b, &name("c"));
        assert_eq!(path(&deep), "/b/c/deep");
        assert!(deep.is_within(&b) && !b.is_within(&deep));
        root.exchange(&name("b"), &root, &name("nothing"));
        assert_eq!(path(&b), "/nothing");
    }

    #[test]
    fn what_is_replaced_or_removed_is_deleted() {
        let root = Dentry::root(Rc::new(Node(1)));
        let old = root.child(&name("f"), Rc::new(Node(2)));
        let new = root.child(&name("g"), Rc::new(Node(3)));
        root.rename(&name("g"), &root, &name("f"));
        assert!(old.is_deleted() && !new.is_deleted());
        assert_eq!(path(&new), "/f");
        root.forget(&name("f"));
        assert!(new.is_deleted());
        let another = root.child(&name("f"), Rc::new(Node(4)));
        assert!(!another.is_deleted());
    }
}
