//! What the agent is told.

use bitflags::bitflags;

bitflags! {
    /// What it may decide; without a bit, less.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Knows: u32 {
        /// Paths from the root, which is the host's.
        const ABSOLUTE = 1;
        /// Paths from the working directory, which is the host's.
        const RELATIVE = 2;
        /// Descriptors that are no placeholders: all others are the host's, and opened through no mount of the view.
        const DESCRIPTORS = 4;
        /// Paths with symlinks too, as these lead to no mount: there is none.
        const SYMLINKS = 8;
    }
}

pub const NAMES_LEN: usize = 1024;
/// FNV-1a, of which the upper bits are used.
pub const BASIS: u32 = 0x811c_9dc5;
pub const PRIME: u32 = 0x0100_0193;
/// Likewise, for paths below a descriptor, which may be one of a directory in /proc.
pub const BELOW_BASIS: u32 = 0x9747_b28c;
pub const HASH_SHIFT: u32 = 32 - (NAMES_LEN as u32 * 8).ilog2();

/// The files below /proc that the view writes itself, and what leads to one; those with numbers for names are besides.
pub const PROC_FILES: [&[u8]; 7] = [
    b"mounts",
    b"mountinfo",
    b"mountstats",
    b"mtab",
    b"filesystems",
    b"maps",
    b"status",
];
/// The links there that may lead to something virtual, besides those with numbers for names.
pub const PROC_LINKS: [&[u8]; 3] = [b"cwd", b"exe", b"root"];

/// The names by which a path may enter something virtual: a set of hashes (a Bloom filter with one hash function).
#[derive(Clone, PartialEq, Eq)]
pub struct Names([u8; NAMES_LEN]);

impl Default for Names {
    /// What is served below /proc and /dev.
    fn default() -> Names {
        const FROM_ANYWHERE: [&[u8]; 2] = [b"proc", b"dev"];
        const ON_THE_WAY: [&[u8]; 7] = [b"self", b"thread-self", b"task", b"fd", b"stdin", b"stdout", b"stderr"];
        let mut names = Names([0; NAMES_LEN]);
        FROM_ANYWHERE.iter().for_each(|name| names.insert(name));
        let in_there = ON_THE_WAY.iter().chain(&PROC_FILES).chain(&PROC_LINKS);
        in_there.for_each(|name| names.set(hash(BELOW_BASIS, name)));
        names
    }
}

impl Names {
    /// The last name of a mountpoint.
    pub fn insert(&mut self, name: &[u8]) {
        self.set(hash(BASIS, name));
        self.set(hash(BELOW_BASIS, name));
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn set(&mut self, hash: u32) {
        self.0[hash as usize / 8] |= 1 << (hash % 8);
    }
}

fn hash(basis: u32, name: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(PRIME);
    name.iter().fold(basis, step) >> HASH_SHIFT
}

/// All that an agent knows.
#[derive(Clone, Default)]
pub struct Facts {
    pub knows: Knows,
    /// Changes with the names.
    pub generation: u32,
    pub names: Names,
}
