//! Who wants to hear of what happens to virtual files: the events of inotify(7), and of dnotify.
//!
//! An event concerns a file and, with its name, the directory that it is in, as in the kernel's `fsnotify` (fs/notify).
//! What programs of the view do is told; what a server does by itself is not, as on a mount of the kernel.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use fsmodules::api::{FileKind, Name, Vnode};

use super::VirtualPlace;

bitflags::bitflags! {
    /// `IN_*` of inotify(7).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Events: u32 {
        const ACCESS = 0x1;
        const MODIFY = 0x2;
        const ATTRIB = 0x4;
        const CLOSE_WRITE = 0x8;
        const CLOSE_NOWRITE = 0x10;
        const OPEN = 0x20;
        const MOVED_FROM = 0x40;
        const MOVED_TO = 0x80;
        const CREATE = 0x100;
        const DELETE = 0x200;
        const DELETE_SELF = 0x400;
        const MOVE_SELF = 0x800;
        const UNMOUNT = 0x2000;
        const Q_OVERFLOW = 0x4000;
        const IGNORED = 0x8000;
        /// Moved within its directory: of fs/notify, but not of inotify(7).
        const RENAME = 0x1000_0000;
        const ISDIR = 0x4000_0000;
    }
}

/// Hears of the events of its watches.
pub trait Listener {
    fn hear(&self, watch: &Watch, events: Events, cookie: u32, name: Option<&Name>);
    /// There will be no more of this watch.
    fn ended(&self, watch: &Watch);
}

/// A file's device and inode, as long as something holds the inode.
type Key = (u64, u64);

fn key(dev: u64, node: &Rc<dyn Vnode>) -> Key {
    (dev, node.id())
}

/// One listener's wish for one file.
pub struct Watch {
    /// The listener's own number for it.
    pub id: i32,
    wanted: Cell<Events>,
    /// `IN_ONESHOT`: it ends with its first event.
    once: Cell<bool>,
    /// `IN_EXCL_UNLINK`: nothing of files that have no name in the directory any more.
    only_named: Cell<bool>,
    all: Weak<Watches>,
    dev: u64,
    node: Rc<dyn Vnode>,
    listener: Weak<dyn Listener>,
}

impl Watch {
    /// A watch for nothing yet.
    pub fn new(id: i32, place: &VirtualPlace, listener: Weak<dyn Listener>) -> Rc<Watch> {
        let all = place.mount.watches();
        let watch = Rc::new(Watch {
            id,
            wanted: Cell::default(),
            once: Cell::default(),
            only_named: Cell::default(),
            all: Rc::downgrade(all),
            dev: place.mount.dev(),
            node: place.node().clone(),
            listener,
        });
        all.of.borrow_mut().entry(watch.key()).or_default().push(watch.clone());
        watch
    }

    /// `st_dev` of the file.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    pub fn node(&self) -> &Rc<dyn Vnode> {
        &self.node
    }

    pub fn is_once(&self) -> bool {
        self.once.get()
    }

    pub fn is_only_named(&self) -> bool {
        self.only_named.get()
    }

    pub fn wanted(&self) -> Events {
        self.wanted.get()
    }

    /// It is for these events, only for the first (`IN_ONESHOT`), only of files with a name (`IN_EXCL_UNLINK`).
    pub fn set(&self, wanted: Events, once: bool, only_named: bool) {
        self.wanted.set(wanted | Events::UNMOUNT);
        self.once.set(once);
        self.only_named.set(only_named);
    }

    /// Ends it; its listener is not told.
    pub fn remove(&self) {
        let Some(all) = self.all.upgrade() else { return };
        let mut of = all.of.borrow_mut();
        let Some(watches) = of.get_mut(&self.key()) else { return };
        watches.retain(|other| !std::ptr::eq(&**other, self));
        if watches.is_empty() {
            of.remove(&self.key());
        }
    }

    /// Is it of this file?
    pub fn is_of(&self, place: &VirtualPlace) -> bool {
        self.key() == key(place.mount.dev(), place.node())
    }

    fn key(&self) -> Key {
        key(self.dev, &self.node)
    }

    fn end(&self) {
        if let Some(listener) = self.listener.upgrade() {
            listener.ended(self);
        }
    }
}

/// All watches of a view's virtual files.
#[derive(Default)]
pub struct Watches {
    of: RefCell<HashMap<Key, Vec<Rc<Watch>>>>,
    cookie: Cell<u32>,
}

impl Watches {
    /// Does nobody watch anything? Asked before every event.
    fn is_idle(&self) -> bool {
        self.of.borrow().is_empty()
    }

    fn tell(&self, key: Key, events: Events, cookie: u32, name: Option<&Name>, named: bool) {
        let watches = self.of.borrow().get(&key).cloned().unwrap_or_default();
        for watch in watches {
            if !watch.wanted.get().intersects(events) || watch.only_named.get() && !named {
                continue;
            }
            let Some(listener) = watch.listener.upgrade() else {
                continue;
            };
            listener.hear(&watch, events, cookie, name);
            if watch.once.get() {
                watch.remove();
                watch.end();
            }
        }
    }

    /// The file is gone: that is the last event of all its watches.
    fn gone(&self, key: Key, events: Events) {
        self.tell(key, events, 0, None, true);
        let ended = self.of.borrow_mut().remove(&key);
        for watch in ended.unwrap_or_default() {
            watch.end();
        }
    }

    /// A file system has been unmounted.
    pub fn unmounted(&self, dev: u64) {
        let of = self.of.borrow();
        let kind = |watches: &Vec<Rc<Watch>>| watches.first().map(|watch| watch.node.kind());
        let here = of.iter().filter(|(key, _)| key.0 == dev);
        let files: Vec<_> = here.filter_map(|(key, watches)| Some((*key, kind(watches)?))).collect();
        drop(of);
        for (key, kind) in files {
            self.gone(key, Events::UNMOUNT | directory_bit(kind));
        }
    }
}

fn directory_bit(kind: FileKind) -> Events {
    match kind {
        FileKind::Directory => Events::ISDIR,
        _ => Events::empty(),
    }
}

impl VirtualPlace {
    /// Does anybody watch this file?
    pub fn is_watched(&self) -> bool {
        let key = key(self.mount.dev(), self.node());
        self.mount.watches().of.borrow().contains_key(&key)
    }

    /// Something happened to the file. Its directory's watches are told before its own.
    pub fn happened(&self, events: Events) {
        let watches = self.mount.watches();
        if watches.is_idle() {
            return;
        }
        let events = events | directory_bit(self.node().kind());
        if let Some((parent, name)) = self.dentry.named() {
            let key = key(self.mount.dev(), parent.node());
            watches.tell(key, events, 0, Some(&name), !self.dentry.is_deleted());
        }
        watches.tell(key(self.mount.dev(), self.node()), events, 0, None, true);
    }

    /// Something happened to the file that does not concern those who watch its directory.
    pub fn happened_itself(&self, events: Events) {
        let watches = self.mount.watches();
        if !watches.is_idle() {
            let events = events | directory_bit(self.node().kind());
            watches.tell(key(self.mount.dev(), self.node()), events, 0, None, true);
        }
    }

    /// Something happened to a name in this directory, which is or was a file of that kind.
    pub fn name_happened(&self, name: &Name, kind: FileKind, events: Events) {
        self.tell_of_name(name, kind, events, 0);
    }

    /// In `to` is now what was `name` here.
    pub fn name_moved(&self, name: &Name, kind: FileKind, to: &VirtualPlace, new_name: &Name) {
        let watches = self.mount.watches();
        if watches.is_idle() {
            return;
        }
        let cookie = watches.cookie.get().wrapping_add(1);
        watches.cookie.set(cookie);
        if self.node().id() == to.node().id() {
            self.tell_of_name(name, kind, Events::RENAME, 0);
        }
        self.tell_of_name(name, kind, Events::MOVED_FROM, cookie);
        to.tell_of_name(new_name, kind, Events::MOVED_TO, cookie);
    }

    fn tell_of_name(&self, name: &Name, kind: FileKind, events: Events, cookie: u32) {
        let watches = self.mount.watches();
        if watches.is_idle() {
            return;
        }
        let key = key(self.mount.dev(), self.node());
        watches.tell(key, events | directory_bit(kind), cookie, Some(name), true);
    }

    /// The last name of the file is gone: so is the file, as soon as nobody has it open.
    pub fn name_was_last(self) {
        if self.is_watched() {
            let watches = self.mount.watches().clone();
            let key = key(self.mount.dev(), self.node());
            self.dentry.when_dropped(move || watches.gone(key, Events::DELETE_SELF));
        }
    }
}
