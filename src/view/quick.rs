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
        !joined.above && self.is_straight(start, &joined.path)
    }

    /// Is the kernel's /proc/self/fd what a caller with this root sees there?
    pub fn shows_proc(&self, root: &Place) -> bool {
        root.is_host_root() && !self.is_covered(root.mount().id(), Path::new("/proc/self/fd"))
    }

    /// Where the host has a file, if that can be said without a walk.
    pub fn quick_host(&self, start: &Place, root: &Place, path: &[u8]) -> Option<HostPlace> {
        let joined = self.quick_join(start, root, path)?;
        let slash = path.last() == Some(&b'/');
        (!slash && self.is_straight(start, &joined.path)).then(|| HostPlace {
            mount: start.mount().clone(),
            path: joined.path,
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

    fn is_straight(&self, start: &Place, path: &Path) -> bool {
        !self.is_covered(start.mount().id(), path) && no_symlinks(path)
    }
}

struct Joined {
    path: PathBuf,
    /// A ".." was taken at the floor, where it leads nowhere.
    above: bool,
}

/// Joins and normalises without looking at the file system, never above the floor.
fn lexical(start: &Path, floor: &Path, path: &[u8]) -> Joined {
    let absolute = path[0] == b'/';
    let mut joined = Joined {
        path: if absolute { floor } else { start }.to_owned(),
        above: false,
    };
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => joined.path.push(name),
            Component::ParentDir if joined.path == floor => joined.above = true,
            Component::ParentDir => {
                joined.path.pop();
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
    let opens = |path: &Path| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map(drop)
    };
    match opens(path) {
        Ok(()) => true,
        // What is not there can be made there: its directory decides.
        Err(Errno::NOENT) => path
            .parent()
            .is_some_and(|parent| matches!(opens(parent), Ok(()) | Err(Errno::NOENT))),
        // A host without openat2(2), or a symlink.
        Err(Errno::NOSYS | Errno::LOOP | Errno::AGAIN) => false,
        // The kernel will say the same to the caller.
        Err(_) => true,
    }
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
}
