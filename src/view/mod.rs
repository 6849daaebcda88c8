//! What the programs of a view see: its mounts, and the walk from a path to a file.

mod dentry;
mod lease;
mod mounts;
mod paths;
mod pathset;
pub mod proctext;
mod quick;
mod walk;
mod watch;

pub use dentry::Dentry;
pub use lease::{Holder, LeaseKind, Leases, OpenCount};
pub use mounts::{Mount, MountUse, Mounts, Root};
pub use walk::{Found, HostRights, Last, ProcLink, ProcLinks, WalkFlags, Walker};
pub use watch::{Events, Listener, Watch, Watches};

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use fsmodules::api::{MountFlags, Name, Vnode};

/// Where a path leads in a view.
#[derive(Clone)]
pub enum Place {
    /// A file of the host, reached through a mount whose root is on the host (the base mount, a bind mount).
    Host(HostPlace),
    /// A file that a module serves.
    Virtual(VirtualPlace),
}

#[derive(Clone)]
pub struct HostPlace {
    pub mount: Rc<Mount>,
    /// Absolute, without symlinks, "." or "..": where the *host* has the file. In the base mount it is also the path
    /// that the view shows.
    pub path: PathBuf,
}

#[derive(Clone)]
pub struct VirtualPlace {
    pub mount: Rc<Mount>,
    pub dentry: Rc<Dentry>,
}

impl VirtualPlace {
    pub fn node(&self) -> &Rc<dyn Vnode> {
        self.dentry.node()
    }
}

impl HostPlace {
    pub fn bytes(&self) -> Vec<u8> {
        self.path.as_os_str().as_bytes().to_vec()
    }

    /// The path of a name in this directory.
    pub fn join(&self, name: &Name) -> Vec<u8> {
        let mut path = self.bytes();
        if path != b"/" {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        path
    }
}

impl Place {
    pub fn mount(&self) -> &Rc<Mount> {
        match self {
            Place::Host(place) => &place.mount,
            Place::Virtual(place) => &place.mount,
        }
    }

    /// Is it the host's, where the host has it?
    pub fn is_plain(&self) -> bool {
        matches!(self, Place::Host(place) if place.mount.is_base())
    }

    /// Is it where the kernel itself begins absolute paths?
    pub fn is_host_root(&self) -> bool {
        matches!(self, Place::Host(place) if place.mount.is_base() && place.path.as_os_str() == "/")
    }

    /// May the kernel do there whatever the caller asks of it? Not where a mount of the view allows less.
    pub fn is_transparent(&self) -> bool {
        let less = MountFlags::RDONLY | MountFlags::NOEXEC;
        matches!(self, Place::Host(place) if !place.mount.flags().intersects(less))
    }

    pub fn same(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Host(a), Place::Host(b)) => Rc::ptr_eq(&a.mount, &b.mount) && a.path == b.path,
            (Place::Virtual(a), Place::Virtual(b)) => {
                Rc::ptr_eq(&a.mount, &b.mount) && Rc::ptr_eq(&a.dentry, &b.dentry)
            }
            _ => false,
        }
    }
}
