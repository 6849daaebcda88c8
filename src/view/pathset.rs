//! A set of absolute paths that is asked on every call with a path: it compares bytes, not components.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Absolute paths without "..", "." or needless slashes.
#[derive(Default)]
pub struct PathSet {
    paths: HashSet<Box<[u8]>>,
    /// How long they are: few of the beginnings of a path that is looked for are.
    lengths: BTreeSet<usize>,
}

impl PathSet {
    pub fn insert(&mut self, path: &Path) {
        self.paths.insert(bytes(path).into());
        self.lengths.insert(bytes(path).len());
    }

    pub fn clear(&mut self) {
        self.paths.clear();
        self.lengths.clear();
    }

    pub fn contains(&self, path: &Path) -> bool {
        self.paths.contains(bytes(path))
    }

    /// Is this path in the set, or one above it?
    pub fn covers(&self, path: &Path) -> bool {
        self.highest(path).is_some()
    }

    /// The length of the highest path in the set that is this one or above it.
    pub fn highest(&self, path: &Path) -> Option<usize> {
        let path = bytes(path);
        let ends_component = |n: usize| n == 1 || n == path.len() || path[n] == b'/';
        let mut lengths = self.lengths.iter().copied().take_while(|&n| n <= path.len());
        lengths.find(|&n| ends_component(n) && self.paths.contains(&path[..n]))
    }

    pub fn each_name(&self, see: &mut impl FnMut(&[u8])) {
        self.paths
            .iter()
            .filter_map(|path| Path::new(OsStr::from_bytes(path)).file_name())
            .for_each(|name| see(name.as_bytes()));
    }

    /// Is there a path with this last component?
    pub fn has_name(&self, name: Option<&OsStr>) -> bool {
        self.paths
            .iter()
            .any(|path| Path::new(OsStr::from_bytes(path)).file_name() == name)
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_what_is_at_or_below_a_path() {
        let mut set = PathSet::default();
        let covers = |set: &PathSet, path: &str| set.covers(Path::new(path));
        assert!(!covers(&set, "/a"));
        set.insert(Path::new("/a/b"));
        assert!(covers(&set, "/a/b") && covers(&set, "/a/b/c/d"));
        assert!(!covers(&set, "/a") && !covers(&set, "/a/bc") && !covers(&set, "/"));
        assert!(set.contains(Path::new("/a/b")) && !set.contains(Path::new("/a/b/c")));
        assert_eq!(set.highest(Path::new("/a/b/c")), Some(4));
        assert!(set.has_name(Some(OsStr::new("b"))) && !set.has_name(None));
        set.insert(Path::new("/"));
        assert!(covers(&set, "/") && covers(&set, "/x/y"));
        set.clear();
        assert!(!covers(&set, "/a/b"));
    }
}
