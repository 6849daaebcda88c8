//! The fast way out: paths that can touch nothing virtual.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Mounts, Place};

impl Mounts {
    /// True if the kernel, resolving `path` from `start`, provably arrives where the view's walk would.
    ///
    /// Lexically outside every mountpoint, and no symlink on the way that could lead into one (openat2(2)).
    pub fn quick_native(&self, start: &Place, path: &[u8]) -> bool {
        let Place::Host(start) = start else { return false };
        if !start.mount.is_base() || path.is_empty() || path.len() > 4095 {
            return false;
        }
        let joined = lexical(&start.path, path);
        if is_magic(&joined) {
            return false;
        }
        let points = self.points.borrow();
        if !self.has_visible() {
            // Only fittings, which are files with names of their own.
            return !points.iter().any(|point| point.file_name() == joined.file_name());
        }
        if joined.ancestors().any(|ancestor| points.contains(ancestor)) {
            return false;
        }
        drop(points);
        no_symlinks(&joined)
    }
}

/// Joins and normalises without looking at the file system.
fn lexical(start: &Path, path: &[u8]) -> PathBuf {
    let mut joined = if path[0] == b'/' {
        PathBuf::from("/")
    } else {
        start.to_owned()
    };
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => joined.push(name),
            Component::ParentDir => {
                joined.pop();
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
        let join = |path: &str| lexical(Path::new("/a/b"), path.as_bytes()).to_str().unwrap().to_owned();
        assert_eq!(join("c"), "/a/b/c");
        assert_eq!(join("../c/./d//e/"), "/a/c/d/e");
        assert_eq!(join("/x/../../y"), "/y");
        assert_eq!(join("."), "/a/b");
    }

    #[test]
    fn magic_is_never_quick() {
        let mounts = Mounts::new();
        let root = mounts.root_place();
        for path in ["/proc/self/mounts", "/proc/1/cwd/x", "/dev/fd/3", "/dev/stdin"] {
            assert!(!mounts.quick_native(&root, path.as_bytes()), "{path}");
        }
        assert!(mounts.quick_native(&root, b"/proc/cpuinfo"));
        assert!(mounts.quick_native(&root, b"/etc/passwd"));
    }
}
