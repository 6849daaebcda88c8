//! The fast way out: paths that can touch nothing virtual.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{HostPlace, Mounts, Place, Root};

impl Mounts {
    /// True if the kernel, resolving `path` from `start`, provably arrives where the view's walk would, for a caller
    /// with this root. An absolute path starts at the root.
    ///
    /// Lexically outside every mountpoint, and no symlink on the way that could lead into one (openat2(2)).
    pub fn quick_native(&self, start: &Place, root: &Place, path: &[u8]) -> bool {
        if !start.is_transparent() || path.first() == Some(&b'/') && !root.is_host_root() {
            return false;
        }
        let Some(joined) = self.quick_join(start, root, path) else {
            return false;
        };
        if !self.has_visible() && root.is_host_root() {
            // Only fittings, which are files with names of their own.
            return !joined.above && !self.is_fitting(joined.path.file_name());
        }
        !joined.above && self.is_straight(start, &joined)
    }

    /// Is the kernel's /proc/self/fd what a caller with this root sees there?
    pub fn shows_proc(&self, root: &Place) -> bool {
        root.is_host_root() && !self.is_covered(root.mount().id(), Path::new("/proc/self/fd"))
    }

    /// Where the host has a file, if that can be said without a walk.
    pub fn quick_host(&self, start: &Place, root: &Place, path: &[u8]) -> Option<HostPlace> {
        let joined = self.quick_join(start, root, path)?;
        let slash = path.last() == Some(&b'/');
        (!slash && self.is_straight(start, &joined)).then(|| HostPlace {
            mount: start.mount().clone(),
            path: joined.path,
        })
    }

    /// The mount that a path leads into, and the way from its root, if that can be said without looking at each
    /// directory outside.
    pub(super) fn quick_mounted(&self, start: &Place, root: &Place, path: &[u8]) -> Option<(Place, Vec<u8>)> {
        let joined = self.quick_join(start, root, path)?;
        let Place::Host(start) = start else { return None };
        let whole = joined.path.as_os_str().as_bytes();
        let len = self.points.borrow().get(&start.mount.id())?.highest(&joined.path)?;
        let (point, rest) = (Path::new(OsStr::from_bytes(&whole[..len])), &whole[len..]);
        let below = point != start.path && point.starts_with(&start.path);
        // A path whose end means more than its last name, or whose middle more than names, is for the walk.
        let named = !rest.is_empty() && !path.ends_with(b"/") && !path.ends_with(b"/.");
        let onward = !path.split(|&b| b == b'/').any(|name| name == b"..");
        (below && named && onward && reach(point.parent()?) == Errno::ISDIR).then(|| {
            let point = HostPlace {
                mount: start.mount.clone(),
                path: point.to_owned(),
            };
            (self.cross_down(Place::Host(point)), rest.to_vec())
        })
    }

    fn quick_join(&self, start: &Place, root: &Place, path: &[u8]) -> Option<Joined> {
        let (Place::Host(start), Root::Host(shown)) = (start, start.mount().root()) else {
            return None;
        };
        if path.is_empty() || path.len() > 4095 {
            return None;
        }
        let floor = match root {
            Place::Host(root) if Rc::ptr_eq(&root.mount, &start.mount) && start.path.starts_with(&root.path) => {
                &root.path
            }
            // Above what this mount shows, the walk goes on in another one.
            _ => shown,
        };
        let joined = lexical(&start.path, floor, path);
        let leaves = joined.above && !(root.is_host_root() && start.mount.is_base());
        let at_root = matches!(root, Place::Host(root) if root.path == *floor && Rc::ptr_eq(&root.mount, &start.mount));
        if is_magic(&joined.path) || leaves && !at_root {
            return None;
        }
        Some(Joined {
            above: leaves,
            ..joined
        })
    }

    fn is_straight(&self, start: &Place, joined: &Joined) -> bool {
        let straight = |path: &Path| !self.is_covered(start.mount().id(), path) && no_symlinks(path);
        straight(&joined.path) && joined.left.iter().all(|directory| straight(directory))
    }
}

struct Joined {
    path: PathBuf,
    /// A ".." was taken at the floor, where it leads nowhere.
    above: bool,
    /// Where it goes to and leaves by "..": only if there is no symlink on the way is that the way back.
    left: Vec<PathBuf>,
}

/// Joins and normalises without looking at the file system, never above the floor.
fn lexical(start: &Path, floor: &Path, path: &[u8]) -> Joined {
    let absolute = path[0] == b'/';
    let mut joined = Joined {
        path: if absolute { floor } else { start }.to_owned(),
        above: false,
        left: Vec::new(),
    };
    let mut deeper = false;
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => {
                joined.path.push(name);
                deeper = true;
            }
            Component::ParentDir if joined.path == floor => joined.above = true,
            Component::ParentDir => {
                if deeper {
                    joined.left.push(joined.path.clone());
                }
                joined.path.pop();
                deeper = false;
            }
            _ => {}
        }
    }
    joined
}

/// Links that lead elsewhere for each process: below a process in /proc, and descriptors by number.
fn is_magic(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    if let Some(rest) = bytes.strip_prefix(b"/proc/") {
        return rest[0].is_ascii_digit() || rest.starts_with(b"self") || rest.starts_with(b"thread-self");
    }
    bytes.starts_with(b"/dev/fd/") || bytes.starts_with(b"/dev/std")
}

fn no_symlinks(path: &Path) -> bool {
    match reach(path) {
        Errno::ISDIR | Errno::NOTDIR => true,
        // What is not there can be made there: its directory decides.
        Errno::NOENT => path
            .parent()
            .is_some_and(|parent| matches!(reach(parent), Errno::ISDIR | Errno::NOENT)),
        // A host without openat2(2), or a symlink.
        Errno::NOSYS | Errno::LOOP | Errno::AGAIN => false,
        // The kernel will say the same to the caller.
        _ => true,
    }
}

/// How the kernel fails to write to a path as a directory, without following symlinks: with `EISDIR` if it is one, and
/// with `ENOTDIR` if it is something else. Nothing is opened, so that nothing must be closed.
fn reach(path: &Path) -> Errno {
    let flags = OFlags::WRONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    opened.err().unwrap_or(Errno::ISDIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexical_paths() {
        let join = |path: &str| {
            let joined = lexical(Path::new("/a/b"), Path::new("/"), path.as_bytes());
            joined.path.to_str().unwrap().to_owned()
        };
        assert_eq!(join("c"), "/a/b/c");
        assert_eq!(join("../c/./d//e/"), "/a/c/d/e");
        assert_eq!(join("/x/../../y"), "/y");
        assert_eq!(join("."), "/a/b");
        let left = |path: &str| lexical(Path::new("/a/b"), Path::new("/"), path.as_bytes()).left;
        assert_eq!(left("../../c/d"), [] as [PathBuf; 0]);
        assert_eq!(left("c/d/../../e/../f"), [Path::new("/a/b/c/d"), Path::new("/a/b/e")]);
    }

    #[test]
    fn never_above_the_floor() {
        let joined = lexical(Path::new("/srv/tree/etc"), Path::new("/srv/tree"), b"../../../usr");
        assert_eq!(joined.path, Path::new("/srv/tree/usr"));
        assert!(joined.above);
        assert_eq!(
            lexical(Path::new("/srv/tree"), Path::new("/srv/tree"), b"/usr/..").path,
            Path::new("/srv/tree")
        );
    }

    #[test]
    fn magic_is_never_quick() {
        let mounts = Mounts::new();
        let root = mounts.root_place();
        for path in ["/proc/self/mounts", "/proc/1/cwd/x", "/dev/fd/3", "/dev/stdin"] {
            assert!(!mounts.quick_native(&root, &root, path.as_bytes()), "{path}");
        }
        assert!(mounts.quick_native(&root, &root, b"/proc/cpuinfo"));
        assert!(mounts.quick_native(&root, &root, b"/etc/passwd"));
    }

    #[test]
    fn into_a_mount_without_looking_at_each_directory() {
        let mounts = Mounts::new();
        let root = mounts.root_place();
        let at = |path: &str| {
            Place::Host(HostPlace {
                mount: mounts.base(),
                path: path.into(),
            })
        };
        mounts.bind(&at("/usr"), &at("/tmp"), false);
        let enter = |start: &Place, path: &str| mounts.quick_mounted(start, &root, path.as_bytes());
        let (place, rest) = enter(&root, "/tmp/./lib//x").unwrap();
        assert!(place.same(&mounts.cross_down(at("/tmp"))) && !place.same(&at("/tmp")));
        assert_eq!(rest, b"/lib/x");
        for path in [
            "/tmp",
            "/tmp/",
            "/tmp/lib/.",
            "/tmp/lib/..",
            "/tmp/../tmp/lib",
            "/usr/lib",
        ] {
            assert!(enter(&root, path).is_none(), "{path}");
        }
        // Who stands below a mountpoint since before does not come by the mount.
        assert!(enter(&at("/tmp/lib"), "x").is_none());
    }
}
