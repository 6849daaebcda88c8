//! Every system call of the kernel, in one declarative table: served, passed through or refused. The filter, the
//! trace and the support list come from it.

mod rows;

pub use rows::TABLE;

use std::ops::Range;

use fsmodules::api::Errno;

/// The numbers of placeholders, descriptors that stand for virtual files; all others are the kernel's own, unless a
/// process has been raised to another [`FdLevel`]. Up to the usual limit of 1,024 files, and then where a program that
/// has thousands of real files seldom comes: calls on these are not caught either.
pub const PLACEHOLDERS: [Range<u32>; 2] = [768..1024, 16384..1 << 31];

/// Does the filter see this number in every process?
pub fn is_placeholder(fd: i32) -> bool {
    PLACEHOLDERS.iter().any(|range| range.contains(&(fd as u32)))
}

/// The lowest placeholder's number from `fd` on, which is not negative.
pub fn placeholder_from(fd: i32) -> i32 {
    let fd = fd as u32;
    let range = PLACEHOLDERS.iter().find(|range| fd < range.end);
    range.map_or(i32::MAX, |range| range.start.max(fd) as i32)
}

/// umvu's own option of prctl(2), for requests from inside a view: (option, request, its length, answer, its capacity).
/// Outside a view it is `EINVAL`. A call number of our own would not do: containers' filters refuse what they do not know.
pub const CONTROL_OPTION: i32 = 0x756d_7675;

/// A getpid(2) with this first argument, which it ignores, is how the tracer makes a thread come back to the entry of a
/// call: no filter of a host or a guest refuses that one.
pub const AGAIN_CALL: u32 = libc::SYS_getpid as u32;
pub const AGAIN_MARK: u32 = 0x756d_7676;

/// The highest number in the table.
pub const LAST: u32 = TABLE[TABLE.len() - 1].nr;

/// What an argument is: for the trace, and for calls that are served by their arguments alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A descriptor.
    Fd,
    /// Where the path that follows starts, if it is relative.
    DirFd,
    Path,
    /// A string that is no path.
    Str,
    /// Memory for data.
    Buf,
    /// Memory for anything else.
    Ptr,
    Size,
    Int,
    Flags,
    Mode,
}

/// When a served call is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catch {
    Always,
    /// If this argument may be a virtual descriptor.
    Fd(usize),
    /// If one of these may be.
    Fds(usize, usize),
    /// Likewise, or if it is a standard descriptor (0 to 2): whether these are open decides where virtual files open.
    FdOrStandard(usize),
    /// If the caller's ids are virtual.
    Ids,
    /// If the caller's ids are virtual, or this argument may be a virtual descriptor.
    FdOrIds(usize),
    /// If this argument, a pointer, is not null.
    Given(usize),
    /// Likewise, once the caller's process has bound a socket to a virtual path.
    Peer(usize),
}

impl Catch {
    /// Is it caught whatever its arguments, once the caller's ids are virtual?
    pub fn concerns_ids(self) -> bool {
        matches!(self, Catch::Ids | Catch::FdOrIds(_))
    }

    /// The descriptors to look at.
    pub fn args(self) -> Vec<u8> {
        match self {
            Catch::Always | Catch::Ids | Catch::Given(_) | Catch::Peer(_) => Vec::new(),
            Catch::Fd(n) | Catch::FdOrStandard(n) | Catch::FdOrIds(n) => vec![n as u8],
            Catch::Fds(m, n) => vec![m as u8, n as u8],
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treat {
    /// A handler answers it where it touches something virtual.
    Serve(Catch),
    /// It cannot touch a view, for this reason; it is never caught.
    Pass(&'static str),
    /// It fails with this error, for this reason.
    Refuse(Errno, &'static str),
}

pub struct Entry {
    pub nr: u32,
    pub name: &'static str,
    pub args: &'static [Arg],
    pub treat: Treat,
}

/// The row of a call number.
pub fn entry(nr: u32) -> Option<&'static Entry> {
    TABLE
        .binary_search_by_key(&nr, |entry| entry.nr)
        .ok()
        .map(|n| &TABLE[n])
}

/// How many low descriptors of a process may be virtual. A process is only ever raised, and so are its children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FdLevel {
    /// Only [`PLACEHOLDERS`].
    #[default]
    High,
    /// Standard input, output and error as well.
    Standard,
    /// The first 16, which shells use for redirections.
    Low,
    All,
}

impl FdLevel {
    /// The level at which calls on this descriptor are caught.
    pub fn for_fd(fd: i32) -> FdLevel {
        match fd {
            0..=2 => FdLevel::Standard,
            3..16 => FdLevel::Low,
            fd if is_placeholder(fd) => FdLevel::High,
            _ => FdLevel::All,
        }
    }

    /// Descriptors below this one are caught.
    pub fn bound(self) -> u32 {
        match self {
            FdLevel::High => 0,
            FdLevel::Standard => 3,
            FdLevel::Low => 16,
            FdLevel::All => PLACEHOLDERS[1].start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_complete() {
        assert!(TABLE.windows(2).all(|pair| pair[0].nr < pair[1].nr));
        // Unused on x86-64: between the end of the old range and the numbers common to all machines.
        let missing: Vec<u32> = (0..=LAST).filter(|nr| entry(*nr).is_none()).collect();
        assert_eq!(missing, (336..424).collect::<Vec<_>>());
        const { assert!(LAST >= 469) };
    }

    #[test]
    fn placeholders_have_numbers_of_their_own() {
        for (fd, next) in [(0, 768), (768, 768), (1023, 1023), (1024, 16384), (70_000, 70_000)] {
            assert_eq!(placeholder_from(fd), next);
            assert!(is_placeholder(next));
        }
        for (fd, level) in [
            (0, FdLevel::Standard),
            (9, FdLevel::Low),
            (500, FdLevel::All),
            (5000, FdLevel::All),
        ] {
            assert!(!is_placeholder(fd));
            assert_eq!(FdLevel::for_fd(fd), level);
            assert!((fd as u32) < level.bound());
        }
        assert!(!is_placeholder(-1));
        assert_eq!(FdLevel::for_fd(1000), FdLevel::High);
    }

    #[test]
    fn numbers_are_the_c_librarys() {
        let known = [
            (libc::SYS_read, "read"),
            (libc::SYS_execve, "execve"),
            (libc::SYS_openat, "openat"),
            (libc::SYS_statx, "statx"),
            (libc::SYS_close_range, "close_range"),
            (libc::SYS_fchmodat2, "fchmodat2"),
        ];
        for (nr, name) in known {
            assert_eq!(entry(nr as u32).map(|entry| entry.name), Some(name));
        }
    }

    #[test]
    fn served_descriptors_are_arguments() {
        for entry in TABLE {
            if let Treat::Serve(catch) = entry.treat {
                assert!(
                    matches!(catch, Catch::Always | Catch::Ids) || !entry.args.is_empty(),
                    "{} has no arguments",
                    entry.name
                );
                for n in catch.args() {
                    assert_eq!(entry.args[usize::from(n)], Arg::Fd, "{}", entry.name);
                }
            }
        }
    }
}
