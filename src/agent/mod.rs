//! The agent: code that umvu puts into a guest, where calls on paths that can touch nothing virtual then need no catch.
//!
//! A process that makes many such calls gets the [`image()`] mapped, and the places in its libraries where it makes them
//! ([`Site`]) lead there. The agent decides by a few facts that umvu keeps current in the image ([`Facts`]); its own
//! calls carry [`PASS`], by which the filter knows them. What it cannot decide is caught as ever, so a process without an
//! agent, or with its facts cleared, differs in speed alone.
//!
//! It is no boundary: who runs in a view could imitate it, and would see the host's files as they are, to which they have
//! all rights anyway.

mod facts;
mod image;
mod library;
mod rollback;
mod site;

pub use facts::{Facts, Knows, Names, PROC_FILES, PROC_LINKS};
pub use image::{FACTS, LEN, image, is_agent};
pub use library::CLibrary;
pub use rollback::rollback;
pub use site::{Site, Slots};

/// The sixth argument of the agent's calls, which none of these calls has.
pub const PASS: u64 = 0x756d_7675_9d3b_a06f;

/// The calls that the agent makes.
pub const CALLS: [i64; 11] = [
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
];
