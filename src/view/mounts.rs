//! The mount table of a view.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::future::poll_fn;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};

use fsmodules::api::{Description, Errno, FileSystem, MountFlags, Name, Vnode};

use super::paths::full_path;
use super::pathset::PathSet;
use super::{Dentry, HostPlace, Leases, Place, VirtualPlace, Watches};

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
    /// What it is mounted on; `None` for the topmost mount, which is the base mount unless another was pivoted there.
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
    /// Of the whole view.
    watches: Rc<Watches>,
    leases: Rc<Leases>,
}

/// Minor numbers of anonymous devices that the host's own are unlikely to reach.
const FIRST_MINOR: u32 = 0x1000;
/// Mount ids that the host's own are unlikely to reach.
const FIRST_ID: u32 = 100_000;
const BASE_ID: u32 = 0;

impl Mount {
    pub fn id(&self) -> u32 {
        self.id
    }

    /// An id that no later mount will have, numbered apart from the others as the kernel's are.
    pub fn unique_id(&self) -> u64 {
        (1 << 32) + u64::from(self.id())
    }

    /// The host itself, where it has it.
    pub fn is_base(&self) -> bool {
        self.id == BASE_ID
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

    pub fn watches(&self) -> &Rc<Watches> {
        &self.watches
    }

    pub fn leases(&self) -> &Rc<Leases> {
        &self.leases
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

    /// What it is mounted on; `None` for the topmost mount.
    pub fn mountpoint(&self) -> Option<Place> {
        self.at.borrow().clone()
    }

    /// The host's own file that one of umvu's fittings stands in place of.
    pub fn replaced(&self) -> Option<PathBuf> {
        match &*self.at.borrow() {
            Some(Place::Host(host)) if self.hidden && host.path.exists() => Some(host.path.clone()),
            _ => None,
        }
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

    pub fn root_place(self: &Rc<Self>) -> Place {
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
            self.watches.unmounted(self.dev());
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

/// Where something can be mounted.
#[derive(PartialEq, Eq, Hash)]
enum Point {
    /// In the mount with this id.
    Host(u32, PathBuf),
    Virtual(u32, *const Dentry),
    /// In all mounts that show this path of the host.
    Fitting(PathBuf),
}

impl Point {
    fn of(place: &Place) -> Point {
        match place {
            Place::Host(place) => Point::Host(place.mount.id, place.path.clone()),
            Place::Virtual(place) => Point::Virtual(place.mount.id, Rc::as_ptr(&place.dentry)),
        }
    }
}

/// The mounts of a view, in the order in which they were made.
pub struct Mounts {
    base: Rc<Mount>,
    watches: Rc<Watches>,
    leases: Rc<Leases>,
    all: RefCell<Vec<Rc<Mount>>>,
    /// The topmost mount on each place that has one.
    on: RefCell<HashMap<Point, Rc<Mount>>>,
    /// Where the view's root is: the host's, until a `pivot_root(2)`.
    root: RefCell<Place>,
    /// Host paths of the mountpoints, by the mount that they are in.
    pub(super) points: RefCell<HashMap<u32, PathSet>>,
    /// Host paths of umvu's own fittings, which stand there in every mount.
    fittings: RefCell<PathSet>,
    /// Those in directories of virtual trees.
    commands: RefCell<Vec<(Place, Name, Place)>>,
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
        let watches = Rc::new(Watches::default());
        let leases = Rc::new(Leases::default());
        let base = Rc::new(Mount {
            id: BASE_ID,
            at: RefCell::new(None),
            root: Root::Host("/".into()),
            flags: Cell::default(),
            fs: None,
            minor: 0,
            hidden: false,
            users: Cell::new(0),
            attached: Cell::new(true),
            expiring: Cell::new(false),
            watches: watches.clone(),
            leases: leases.clone(),
        });
        Mounts {
            root: RefCell::new(base.root_place()),
            base,
            watches,
            leases,
            all: RefCell::default(),
            on: RefCell::default(),
            points: RefCell::default(),
            fittings: RefCell::default(),
            commands: RefCell::default(),
            visible: Cell::new(0),
            next: Cell::new(0),
            changes: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    pub fn base(&self) -> Rc<Mount> {
        self.base.clone()
    }

    /// The root of the view.
    pub fn root_place(&self) -> Place {
        self.root.borrow().clone()
    }

    /// Whoever enters the view from now on has this root.
    pub fn set_root(&self, root: Place) {
        self.root.replace(root);
    }

    /// `pivot_root(2)`: a mount takes the place of the one whose root is `old`, which goes to `put_old`.
    pub fn pivot(&self, new: &Rc<Mount>, old: &Place, put_old: &Place) -> Result<(), Errno> {
        let top = old.mount();
        if !top.root_place().same(old) || Rc::ptr_eq(top, new) {
            return Err(Errno::EINVAL);
        }
        new.at.replace(top.at.replace(Some(put_old.clone())));
        let mut all = self.all.borrow_mut();
        if !all.iter().any(|mount| Rc::ptr_eq(mount, top)) {
            all.push(top.clone());
        }
        drop(all);
        if self.root.borrow().same(old) {
            self.root.replace(new.root_place());
        }
        self.changed_now();
        Ok(())
    }

    /// Is something mounted on this path of the host, seen through the mount with this id, or on one above it?
    pub(super) fn is_covered(&self, mount: u32, path: &Path) -> bool {
        let (points, fittings) = (self.points.borrow(), self.fittings.borrow());
        fittings.covers(path) || points.get(&mount).is_some_and(|points| points.covers(path))
    }

    /// The last names of all host paths where something stands, umvu's own fittings among it.
    pub fn each_name(&self, mut see: impl FnMut(&[u8])) {
        let (points, fittings) = (self.points.borrow(), self.fittings.borrow());
        points
            .values()
            .chain([&*fittings])
            .for_each(|set| set.each_name(&mut see));
    }

    /// Is something mounted on the host's root?
    pub fn covers_root(&self) -> bool {
        self.points
            .borrow()
            .get(&BASE_ID)
            .is_some_and(|points| points.contains(Path::new("/")))
    }

    /// Is something of the host shown at another place?
    pub fn shows_host(&self) -> bool {
        let host = |mount: &Rc<Mount>| matches!(mount.root, Root::Host(_)) && !mount.hidden && !mount.is_base();
        self.all.borrow().iter().any(host)
    }

    /// A read-only mount that shows this file of the host.
    pub fn read_only(&self, path: &Path) -> Option<Rc<Mount>> {
        self.find_read_only(|root| path.starts_with(root))
    }

    /// Is anything of the host shown read-only?
    pub fn shows_read_only(&self) -> bool {
        self.find_read_only(|_| true).is_some()
    }

    fn find_read_only(&self, wanted: impl Fn(&Path) -> bool) -> Option<Rc<Mount>> {
        let shows = |mount: &&Rc<Mount>| {
            mount.flags().contains(MountFlags::RDONLY) && matches!(&mount.root, Root::Host(root) if wanted(root))
        };
        self.all.borrow().iter().rev().find(shows).cloned()
    }

    /// Could the name of a file be that of one of umvu's fittings?
    pub(super) fn is_fitting(&self, name: Option<&OsStr>) -> bool {
        self.fittings.borrow().has_name(name)
    }

    /// Is anything mounted, besides umvu's own fittings?
    pub fn has_visible(&self) -> bool {
        self.visible.get() > 0
    }

    pub fn visible(&self) -> Vec<Rc<Mount>> {
        self.all
            .borrow()
            .iter()
            .filter(|mount| !mount.hidden && !mount.is_base())
            .cloned()
            .collect()
    }

    fn add(&self, at: Place, root: Root, fs: Option<Rc<dyn FileSystem>>, flags: MountFlags, hidden: bool) -> Rc<Mount> {
        let mount = self.make(Some(at), root, fs, flags, hidden);
        self.all.borrow_mut().push(mount.clone());
        self.changed_now();
        mount
    }

    fn make(
        &self,
        at: Option<Place>,
        root: Root,
        fs: Option<Rc<dyn FileSystem>>,
        flags: MountFlags,
        hidden: bool,
    ) -> Rc<Mount> {
        let n = self.next.replace(self.next.get() + 1);
        let same = |mount: &&Rc<Mount>| matches!((&mount.fs, &fs), (Some(a), Some(b)) if Rc::ptr_eq(a, b));
        let minor = self
            .all
            .borrow()
            .iter()
            .find(same)
            .map_or(FIRST_MINOR + n, |mount| mount.minor);
        Rc::new(Mount {
            id: FIRST_ID + n,
            at: RefCell::new(at),
            root,
            flags: Cell::new(flags),
            fs,
            minor,
            hidden,
            users: Cell::new(0),
            attached: Cell::new(true),
            expiring: Cell::new(false),
            watches: self.watches.clone(),
            leases: self.leases.clone(),
        })
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
    pub fn bind(&self, source: &Place, at: &Place, recursive: bool) {
        let before = self.next.get();
        let bound = self.add_bind(source, at.clone());
        if recursive {
            self.bind_inner(source, &bound, FIRST_ID + before);
        }
    }

    /// Repeats in `bound`, which shows `source`, what was mounted below `source` before there were mounts from the id
    /// `limit` on.
    fn bind_inner(&self, source: &Place, bound: &Rc<Mount>, limit: u32) {
        for mount in self.below(source).into_iter().filter(|mount| mount.id < limit) {
            if let Some(at) = moved(&mount, bound) {
                let root = mount.root_place();
                let copy = self.add_bind(&root, at);
                self.bind_inner(&root, &copy, limit);
            }
        }
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

    /// A file that is in no directory, as the kernel's `anon_inode`s.
    pub fn place_nowhere(&self, node: Rc<dyn Vnode>) -> VirtualPlace {
        let dentry = Dentry::root(node);
        let mount = self.make(None, Root::Virtual(dentry.clone()), None, MountFlags::empty(), true);
        VirtualPlace { mount, dentry }
    }

    /// A command of umvu's own in a directory that has nothing of this name.
    pub fn fit_command(&self, directory: &Place, name: &Name, program: &Path) {
        let root = Root::Host(program.into());
        match directory {
            Place::Host(host) => {
                let at = Place::Host(HostPlace {
                    mount: host.mount.clone(),
                    path: host.path.join(OsStr::from_bytes(name.as_bytes())),
                });
                self.add(at, root, None, MountFlags::RDONLY, true);
            }
            Place::Virtual(_) => {
                let command = self.make(None, root, None, MountFlags::RDONLY, true).root_place();
                self.commands
                    .borrow_mut()
                    .push((directory.clone(), name.clone(), command));
            }
        }
    }

    /// The command that stands in a virtual directory under a name that the directory itself does not have.
    pub fn command(&self, directory: &VirtualPlace, name: &Name) -> Option<Place> {
        let commands = self.commands.borrow();
        let here = |place: &Place| match place {
            Place::Virtual(place) => {
                Rc::ptr_eq(&place.mount, &directory.mount) && Rc::ptr_eq(&place.dentry, &directory.dentry)
            }
            Place::Host(_) => false,
        };
        let found = commands.iter().find(|(place, known, _)| known == name && here(place));
        found.map(|(.., command)| command.clone())
    }

    /// The mount whose root this place is.
    pub fn mount_at(&self, place: &Place) -> Option<Rc<Mount>> {
        let mount = place.mount();
        let mounted = mount.at.borrow().is_some() && !mount.hidden;
        (mounted && mount.root_place().same(place)).then(|| mount.clone())
    }

    /// What is mounted on a place, if anything: the topmost mount's root.
    pub fn cross_down(&self, place: Place) -> Place {
        let mut place = place;
        while let Some(mount) = self.mounted_on(&place) {
            place = mount.root_place();
        }
        place
    }

    fn mounted_on(&self, place: &Place) -> Option<Rc<Mount>> {
        let on = self.on.borrow();
        match place {
            Place::Host(host) if !self.is_point(host) => None,
            Place::Host(host) => on
                .get(&Point::of(place))
                .or_else(|| on.get(&Point::Fitting(host.path.clone()))),
            Place::Virtual(_) => on.get(&Point::of(place)),
        }
        .cloned()
    }

    fn is_point(&self, place: &HostPlace) -> bool {
        let points = self.points.borrow();
        points
            .get(&place.mount.id)
            .is_some_and(|points| points.contains(&place.path))
            || self.fittings.borrow().contains(&place.path)
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
        self.mounted_on(&Place::Virtual(place.clone())).is_some()
    }

    /// Is it used, or is something mounted on it?
    pub fn is_busy(&self, mount: &Rc<Mount>) -> bool {
        mount.users.get() > 0 || self.children(mount).next().is_some()
    }

    fn children(&self, mount: &Rc<Mount>) -> impl Iterator<Item = Rc<Mount>> {
        let id = mount.id;
        let on =
            move |child: &&Rc<Mount>| !child.hidden && child.at.borrow().as_ref().is_some_and(|at| at.mount().id == id);
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
        if mount.is_base() {
            mount.at.replace(None);
        }
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
        self.visible
            .set(all.iter().filter(|mount| !mount.hidden && !mount.is_base()).count());
        let mut points = self.points.borrow_mut();
        let mut fittings = self.fittings.borrow_mut();
        let mut on = self.on.borrow_mut();
        points.clear();
        fittings.clear();
        on.clear();
        for mount in all.iter() {
            let at = mount.at.borrow();
            let Some(at) = at.as_ref() else { continue };
            match at {
                Place::Host(at) if mount.hidden => {
                    fittings.insert(&at.path);
                    on.insert(Point::Fitting(at.path.clone()), mount.clone());
                    continue;
                }
                Place::Host(at) => points.entry(at.mount.id).or_default().insert(&at.path),
                Place::Virtual(_) => {}
            }
            on.insert(Point::of(at), mount.clone());
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

    pub fn mountpoint_path(&self, mount: &Mount) -> Vec<u8> {
        mount.mountpoint().map_or_else(|| b"/".to_vec(), |at| full_path(&at))
    }
}

/// Where a mount has its mountpoint in `bound`, which shows the place that the mount is below of.
fn moved(mount: &Mount, bound: &Rc<Mount>) -> Option<Place> {
    Some(match (mount.at.borrow().as_ref()?, &bound.root) {
        (Place::Host(at), Root::Host(_)) => Place::Host(HostPlace {
            mount: bound.clone(),
            path: at.path.clone(),
        }),
        (Place::Virtual(at), Root::Virtual(_)) => Place::Virtual(VirtualPlace {
            mount: bound.clone(),
            dentry: at.dentry.clone(),
        }),
        _ => return None,
    })
}

fn is_below(at: &Place, source: &Place) -> bool {
    match (at, source) {
        (Place::Host(at), Place::Host(source)) => {
            Rc::ptr_eq(&at.mount, &source.mount) && at.path.starts_with(&source.path)
        }
        (Place::Virtual(at), Place::Virtual(source)) => {
            Rc::ptr_eq(&at.mount, &source.mount) && at.dentry.is_within(&source.dentry)
        }
        _ => false,
    }
}
