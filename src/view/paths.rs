//! Between places and the paths by which a caller knows them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use super::{HostPlace, Mount, Mounts, Place, Root};

impl Mounts {
    /// The path by which a caller with this root knows a place; if none leads there, as d_path(9) says so.
    pub fn view_path(&self, place: &Place, root: &Place) -> Vec<u8> {
        path_from(place, root).unwrap_or_else(|| [b"(unreachable)", full_path(place).as_slice()].concat())
    }

    /// As [`Mounts::view_path`], for what the caller can reach only.
    pub fn reachable_path(&self, place: &Place, root: &Place) -> Option<Vec<u8>> {
        path_from(place, root)
    }

    /// The place of a host file that was reached in an unknown way: through `through` if that shows it, else as a
    /// caller with this root would find it, through the mount that shows least besides.
    pub fn host_place(&self, path: &Path, root: &Place, through: Option<&Rc<Mount>>) -> Place {
        let shows = |mount: &Mount| matches!(mount.root(), Root::Host(shown) if path.starts_with(shown));
        let place = |mount: Rc<Mount>| {
            Place::Host(HostPlace {
                mount,
                path: path.to_owned(),
            })
        };
        if let Some(mount) = through.filter(|mount| shows(mount)) {
            return place(mount.clone());
        }
        if root.is_host_root() {
            return place(self.base());
        }
        let shown_length = |mount: &Rc<Mount>| match mount.root() {
            Root::Host(shown) => shown.as_os_str().len(),
            Root::Virtual(_) => 0,
        };
        let candidates = self.visible().into_iter().filter(|mount| shows(mount));
        candidates
            .map(|mount| (shown_length(&mount), place(mount)))
            .filter(|(_, place)| path_from(place, root).is_some())
            .max_by_key(|(length, _)| *length)
            .map_or_else(|| place(self.base()), |(_, place)| place)
    }
}

/// The path from `root` down to a place, across mounts; `None` if the place is not below it.
fn path_from(place: &Place, root: &Place) -> Option<Vec<u8>> {
    let mut path = Vec::new();
    let mut place = place.clone();
    loop {
        if Rc::ptr_eq(place.mount(), root.mount())
            && let Some(rest) = below(&place, root)
        {
            path.splice(0..0, rest);
            return Some(if path.is_empty() { b"/".to_vec() } else { path });
        }
        let mount = place.mount().clone();
        path.splice(0..0, below(&place, &mount.root_place())?);
        place = mount.mountpoint()?;
    }
}

/// The path from the root of all mounts.
pub(super) fn full_path(place: &Place) -> Vec<u8> {
    let mount = place.mount();
    let rest = below(place, &mount.root_place()).unwrap_or_default();
    let mut path = mount.mountpoint().map_or_else(Vec::new, |at| full_path(&at));
    if path == b"/" && !rest.is_empty() {
        path.clear();
    }
    path.extend_from_slice(&rest);
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// The names from one place down to another of the same mount, each after a slash.
fn below(place: &Place, top: &Place) -> Option<Vec<u8>> {
    match (place, top) {
        (Place::Host(place), Place::Host(top)) => {
            let rest = place.path.strip_prefix(&top.path).ok()?;
            Some(if rest.as_os_str().is_empty() {
                Vec::new()
            } else {
                [b"/", rest.as_os_str().as_bytes()].concat()
            })
        }
        (Place::Virtual(place), Place::Virtual(top)) => {
            let (path, prefix) = (place.dentry.path(), top.dentry.path());
            let rest = path.strip_prefix(prefix.as_slice())?;
            (rest.is_empty() || rest[0] == b'/').then(|| rest.to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mount: &Rc<Mount>, path: &str) -> Place {
        Place::Host(HostPlace {
            mount: mount.clone(),
            path: path.into(),
        })
    }

    #[test]
    fn paths_through_binds_and_roots() {
        let mounts = Mounts::new();
        let base = mounts.base();
        let path = |place: &Place, root: &Place| String::from_utf8(mounts.view_path(place, root)).unwrap();
        let outside = mounts.root_place();
        mounts.bind(&host(&base, "/srv/tree"), &outside, false);
        let tree = mounts.cross_down(outside.clone());
        mounts.bind(&host(&base, "/proc"), &host(tree.mount(), "/srv/tree/proc"), false);
        let proc = mounts.cross_down(host(tree.mount(), "/srv/tree/proc"));
        assert_eq!(path(&host(tree.mount(), "/srv/tree/etc"), &tree), "/etc");
        assert_eq!(path(&tree, &tree), "/");
        assert_eq!(path(&host(proc.mount(), "/proc/1"), &tree), "/proc/1");
        assert_eq!(path(&host(&base, "/srv/tree"), &tree), "(unreachable)/srv/tree");
        assert_eq!(
            path(&host(tree.mount(), "/srv/treetop"), &host(tree.mount(), "/srv/tree")),
            "(unreachable)/"
        );
        let found = mounts.host_place(Path::new("/srv/tree/usr"), &tree, None);
        assert_eq!(path(&found, &tree), "/usr");
        let found = mounts.host_place(Path::new("/proc/1"), &tree, None);
        assert!(found.same(&host(proc.mount(), "/proc/1")));
    }
}
