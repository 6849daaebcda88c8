//! The mount table of a view.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};

use fsmodules::api::{Description, Errno, FileSystem, MountFlags, Vnode};

use super::{Dentry, HostPlace, Place, VirtualPlace};

/// What is at a mount's root.
#[derive(Clone)]
pub enum Root {
    /// A file or directory of the host.
    Host(PathBuf),
    Virtual(Rc<Dentry>),
}

/// One entry of the mount table. It outlives its place there while somebody uses it (lazy unmount).
pub struct Mount {
    id: u32,
    /// What it is mounted on; `None` for the base mount.
    at: RefCell<Option<Place>>,
    root: Root,
    flags: Cell<MountFlags>,
    fs: Option<Rc<dyn FileSystem>>,
    /// Of the device number that its files show: (0, minor).
    minor: u32,
    /// One of umvu's own fittings: not listed, and it may stand where the host has nothing.
    hidden: bool,
    /// Open files and working directories on it.
    users: Cell<usize>,
    attached: Cell<bool>,
    /// Marked by `MNT_EXPIRE`, and not used since.
    expiring: Cell<bool>,
}

/// Minor numbers of anonymous devices that the host's own are unlikely to reach.
const FIRST_MINOR: u32 = 0x1000;
/// Mount ids that the host's own are unlikely to reach.
const FIRST_ID: u32 = 100_000;

impl Mount {
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn is_base(&self) -> bool {
        self.at.borrow().is_none()
    }

    pub fn hidden(&self) -> bool {
        self.hidden
    }

    pub fn flags(&self) -> MountFlags {
        self.flags.get()
    }

    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.set(flags);
    }

    pub fn fs(&self) -> Option<Rc<dyn FileSystem>> {
        self.fs.clone()
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    /// `st_dev`
    pub fn dev(&self) -> u64 {
        libc::makedev(0, self.minor)
    }

    pub fn same_mount(&self, other: &Mount) -> bool {
        self.id == other.id
    }

    pub fn same_file_system(&self, other: &Mount) -> bool {
        self.minor == other.minor
    }

    /// How it shows itself in the mount table.
    pub fn describe(&self) -> Description {
        match (&self.fs, &self.root) {
            (Some(fs), _) => fs.describe(),
            (None, Root::Host(path)) => Description {
                fstype: "none".into(),
                source: path.to_string_lossy().into_owned(),
                options: "bind".into(),
            },
            (None, Root::Virtual(_)) => Description::default(),
        }
    }

    /// For people: what it is mounted on.
    pub fn label(&self) -> String {
        match &*self.at.borrow() {
            Some(place) => String::from_utf8_lossy(&full_path(place)).into_owned(),
            None => "/".into(),
        }
    }

    /// Keeps it busy.
    pub fn use_it(self: &Rc<Self>) -> MountUse {
        self.users.set(self.users.get() + 1);
        self.expiring.set(false);
        MountUse(self.clone())
    }

    /// `MNT_EXPIRE`: true if it was marked already and has not been used since.
    pub fn expire(&self) -> bool {
        self.expiring.replace(true)
    }

    fn root_place(self: &Rc<Self>) -> Place {
        match &self.root {
            Root::Host(path) => Place::Host(HostPlace {
                mount: self.clone(),
                path: path.clone(),
            }),
            Root::Virtual(dentry) => Place::Virtual(VirtualPlace {
                mount: self.clone(),
                dentry: dentry.clone(),
            }),
        }
    }

    fn end_if_unused(&self) {
        if !self.attached.get()
            && self.users.get() == 0
            && let Some(fs) = &self.fs
        {
            fs.shutdown();
        }
    }
}

/// Somebody uses a mount: an open file, a working directory.
pub struct MountUse(Rc<Mount>);

impl Drop for MountUse {
    fn drop(&mut self) {
        self.0.users.set(self.0.users.get() - 1);
        self.0.end_if_unused();
    }
}

/// The mounts of a view, in the order in which they were made.
pub struct Mounts {
    base: Rc<Mount>,
    all: RefCell<Vec<Rc<Mount>>>,
    /// Host paths of the mountpoints in the base mount, and which of them are of visible mounts.
    pub(super) points: RefCell<HashSet<PathBuf>>,
    visible: Cell<usize>,
    next: Cell<u32>,
    changes: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Default for Mounts {
    fn default() -> Self {
        Mounts::new()
    }
}

impl Mounts {
    /// The host, and nothing else.
    pub fn new() -> Mounts {
        let base = Rc::new(Mount {
            id: 0,
            at: RefCell::new(None),
            root: Root::Host("/".into()),
            flags: Cell::default(),
            fs: None,
            minor: 0,
            hidden: false,
            users: Cell::new(0),
            attached: Cell::new(true),
            expiring: Cell::new(false),
        });
        Mounts {
            base,
            all: RefCell::default(),
            points: RefCell::default(),
            visible: Cell::new(0),
            next: Cell::new(0),
            changes: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    pub fn base(&self) -> Rc<Mount> {
        self.base.clone()
    }

    /// The root of the host.
    pub fn root_place(&self) -> Place {
        self.base.root_place()
    }

    /// Is anything mounted, besides umvu's own fittings?
    pub fn has_visible(&self) -> bool {
        self.visible.get() > 0
    }

    pub fn visible(&self) -> Vec<Rc<Mount>> {
        self.all
            .borrow()
            .iter()
            .filter(|mount| !mount.hidden)
            .cloned()
            .collect()
    }

    fn add(&self, at: Place, root: Root, fs: Option<Rc<dyn FileSystem>>, flags: MountFlags, hidden: bool) -> Rc<Mount> {
        let n = self.next.replace(self.next.get() + 1);
        let same = |mount: &&Rc<Mount>| matches!((&mount.fs, &fs), (Some(a), Some(b)) if Rc::ptr_eq(a, b));
        let minor = self
            .all
            .borrow()
            .iter()
            .find(same)
            .map_or(FIRST_MINOR + n, |mount| mount.minor);
        let mount = Rc::new(Mount {
            id: FIRST_ID + n,
            at: RefCell::new(Some(at)),
            root,
            flags: Cell::new(flags),
            fs,
            minor,
            hidden,
            users: Cell::new(0),
            attached: Cell::new(true),
            expiring: Cell::new(false),
        });
        self.all.borrow_mut().push(mount.clone());
        self.changed_now();
        mount
    }

    /// Mounts a file system. The same one twice on the same place is `EBUSY`.
    pub fn mount(&self, at: &Place, fs: Rc<dyn FileSystem>, flags: MountFlags) -> Result<Rc<Mount>, Errno> {
        let again = |mount: &Rc<Mount>| {
            mount.fs.as_ref().is_some_and(|other| Rc::ptr_eq(other, &fs))
                && (mount.at.borrow().as_ref().is_some_and(|place| place.same(at)) || mount.root_place().same(at))
        };
        if self.all.borrow().iter().any(again) {
            return Err(Errno::EBUSY);
        }
        let shared = self
            .all
            .borrow()
            .iter()
            .find_map(|mount| match (&mount.fs, &mount.root) {
                (Some(other), Root::Virtual(root)) if Rc::ptr_eq(other, &fs) => Some(root.clone()),
                _ => None,
            });
        let root = shared.unwrap_or_else(|| Dentry::root(fs.root()));
        Ok(self.add(at.clone(), Root::Virtual(root), Some(fs), flags, false))
    }

    /// Shows what is at one place at another as well.
    pub fn bind(&self, source: &Place, at: &Place, recursive: bool) -> Result<(), Errno> {
        let inner: Vec<Rc<Mount>> = if recursive { self.below(source) } else { Vec::new() };
        let bound = self.add_bind(source, at.clone());
        for mount in inner {
            if let (Some(place), Some(at)) = (Some(mount.root_place()), self.moved(&mount, source, &bound)) {
                self.add_bind(&place, at);
            }
        }
        Ok(())
    }

    fn add_bind(&self, source: &Place, at: Place) -> Rc<Mount> {
        let from = source.mount();
        let root = match source {
            Place::Host(place) => Root::Host(place.path.clone()),
            Place::Virtual(place) => Root::Virtual(place.dentry.clone()),
        };
        self.add(at, root, from.fs.clone(), from.flags.get(), false)
    }

    /// The mounts on places below this one, in the same mount.
    fn below(&self, source: &Place) -> Vec<Rc<Mount>> {
        let all = self.all.borrow();
        all.iter()
            .filter(|mount| !mount.hidden && mount.at.borrow().as_ref().is_some_and(|at| is_below(at, source)))
            .cloned()
            .collect()
    }

    /// Where a mount below `source` has its mountpoint in `bound`, which shows `source`.
    fn moved(&self, mount: &Mount, source: &Place, bound: &Rc<Mount>) -> Option<Place> {
        match (mount.at.borrow().as_ref()?, source) {
            (Place::Host(at), Place::Host(_)) => Some(Place::Host(HostPlace {
                mount: bound.clone(),
                path: at.path.clone(),
            })),
            (Place::Virtual(at), Place::Virtual(_)) => Some(Place::Virtual(VirtualPlace {
                mount: bound.clone(),
                dentry: at.dentry.clone(),
            })),
            _ => None,
        }
    }

    /// A device that a module shows.
    pub fn fit_device(&self, path: &Path, node: Rc<dyn Vnode>) {
        let at = Place::Host(HostPlace {
            mount: self.base.clone(),
            path: path.into(),
        });
        self.add(
            at,
            Root::Virtual(Dentry::root(node)),
            None,
            MountFlags::NOSUID | MountFlags::NOEXEC,
            true,
        );
    }

    /// A command of umvu's own, where the host may have nothing.
    pub fn fit_command(&self, path: &Path, program: &Path) {
        let at = Place::Host(HostPlace {
            mount: self.base.clone(),
            path: path.into(),
        });
        self.add(at, Root::Host(program.into()), None, MountFlags::RDONLY, true);
    }

    /// The mount whose root this place is.
    pub fn mount_at(&self, place: &Place) -> Option<Rc<Mount>> {
        let mount = place.mount();
        (!mount.is_base() && !mount.hidden && mount.root_place().same(place)).then(|| mount.clone())
    }

    /// What is mounted on a place, if anything: the topmost mount's root.
    pub fn cross_down(&self, place: Place) -> Place {
        let mut place = place;
        if let Place::Host(host) = &place
            && host.mount.is_base()
            && !self.points.borrow().contains(&host.path)
        {
            return place;
        }
        'again: loop {
            for mount in self.all.borrow().iter().rev() {
                if mount.at.borrow().as_ref().is_some_and(|at| at.same(&place)) {
                    place = mount.root_place();
                    continue 'again;
                }
            }
            return place;
        }
    }

    /// From the root of a mount to what it is mounted on; any other place stays.
    pub fn cross_up(&self, place: Place) -> Place {
        let mut place = place;
        loop {
            let mount = place.mount().clone();
            let Some(at) = mount.at.borrow().clone() else {
                return place;
            };
            if !mount.root_place().same(&place) {
                return place;
            }
            place = at;
        }
    }

    pub fn is_mountpoint(&self, place: &VirtualPlace) -> bool {
        let place = Place::Virtual(place.clone());
        self.all
            .borrow()
            .iter()
            .any(|mount| mount.at.borrow().as_ref().is_some_and(|at| at.same(&place)))
    }

    /// Is it used, or is something mounted on it?
    pub fn is_busy(&self, mount: &Rc<Mount>) -> bool {
        mount.users.get() > 0 || self.children(mount).next().is_some()
    }

    fn children(&self, mount: &Rc<Mount>) -> impl Iterator<Item = Rc<Mount>> {
        let id = mount.id;
        let on = move |child: &&Rc<Mount>| child.at.borrow().as_ref().is_some_and(|at| at.mount().id == id);
        self.all
            .borrow()
            .iter()
            .filter(on)
            .cloned()
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Takes it, with everything on it, out of the table. It ends when nobody uses it any more.
    pub fn detach(&self, mount: &Rc<Mount>) {
        for child in self.children(mount) {
            self.detach(&child);
        }
        self.all.borrow_mut().retain(|other| other.id != mount.id);
        mount.attached.set(false);
        self.changed_now();
        let shared = |other: &Rc<Mount>| other.minor == mount.minor;
        if !self.all.borrow().iter().any(shared) {
            mount.end_if_unused();
        }
    }

    pub fn detach_all(&self) {
        while let Some(mount) = self.visible().pop() {
            self.detach(&mount);
        }
    }

    /// `MS_MOVE`
    pub fn move_to(&self, mount: &Rc<Mount>, at: &Place) -> Result<(), Errno> {
        let mut up = Some(at.clone());
        while let Some(place) = up {
            if place.mount().id == mount.id {
                return Err(Errno::ELOOP);
            }
            up = place.mount().at.borrow().clone();
        }
        mount.at.replace(Some(at.clone()));
        self.changed_now();
        Ok(())
    }

    fn changed_now(&self) {
        let all = self.all.borrow();
        self.visible.set(all.iter().filter(|mount| !mount.hidden).count());
        let mut points = self.points.borrow_mut();
        points.clear();
        for mount in all.iter() {
            if let Some(Place::Host(at)) = &*mount.at.borrow()
                && at.mount.is_base()
            {
                points.insert(at.path.clone());
            }
        }
        self.changes.set(self.changes.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Counts changes of the table.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Waits until the count is another one.
    pub async fn changed(&self, seen: u64) {
        poll_fn(|cx| {
            if self.changes.get() != seen {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The path by which a caller with this root knows a place.
    pub fn view_path(&self, place: &Place, root: &Place) -> Vec<u8> {
        let path = full_path(place);
        let prefix = full_path(root);
        match path.strip_prefix(prefix.as_slice()) {
            Some(rest) if prefix.len() > 1 => {
                if rest.is_empty() {
                    b"/".to_vec()
                } else {
                    rest.to_vec()
                }
            }
            _ => path,
        }
    }

    pub fn mountpoint_path(&self, mount: &Mount) -> Vec<u8> {
        mount.at.borrow().as_ref().map_or_else(|| b"/".to_vec(), full_path)
    }

    /// What it is mounted on.
    pub fn mountpoint(&self, mount: &Mount) -> Option<Place> {
        mount.at.borrow().clone()
    }

    /// The mount that it is mounted in.
    pub fn parent_of(&self, mount: &Mount) -> Option<Rc<Mount>> {
        mount.at.borrow().as_ref().map(|at| at.mount().clone())
    }
}

fn is_below(at: &Place, source: &Place) -> bool {
    match (at, source) {
        (Place::Host(at), Place::Host(source)) => {
            Rc::ptr_eq(&at.mount, &source.mount) && at.path != source.path && at.path.starts_with(&source.path)
        }
        (Place::Virtual(at), Place::Virtual(source)) => {
            Rc::ptr_eq(&at.mount, &source.mount)
                && !Rc::ptr_eq(&at.dentry, &source.dentry)
                && at.dentry.is_within(&source.dentry)
        }
        _ => false,
    }
}

/// The path from the root of the view.
fn full_path(place: &Place) -> Vec<u8> {
    let mount = place.mount();
    let mut path = match &*mount.at.borrow() {
        Some(at) => full_path(at),
        None => Vec::new(),
    };
    let rest = match (place, &mount.root) {
        (Place::Host(place), Root::Host(root)) => {
            use std::os::unix::ffi::OsStrExt;
            let rest = place.path.strip_prefix(root).unwrap_or(&place.path);
            if rest.as_os_str().is_empty() {
                Vec::new()
            } else {
                [b"/", rest.as_os_str().as_bytes()].concat()
            }
        }
        (Place::Virtual(place), Root::Virtual(root)) => {
            let path = place.dentry.path();
            path.strip_prefix(root.path().as_slice())
                .map(<[u8]>::to_vec)
                .unwrap_or(path)
        }
        _ => Vec::new(),
    };
    if path == b"/" && !rest.is_empty() {
        path.clear();
    }
    path.extend_from_slice(&rest);
    if path.is_empty() { b"/".to_vec() } else { path }
}
