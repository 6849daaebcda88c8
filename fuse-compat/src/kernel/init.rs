//! INIT: what both sides can do (reference: `fs/fuse/inode.c`, `fuse_send_init` and `process_init_reply`).

use zerocopy::{FromZeros, IntoBytes};

use crate::Errno;
use crate::wire::abi::{InitFlags, InitIn, InitOut, MAJOR, MINOR, Opcode};
use crate::wire::{Expect, Request};

/// The oldest minor version that is served. Older ones have other structures.
const OLDEST_MINOR: u32 = 12;
const PAGE: u32 = 4096;
const MAX_READAHEAD: u32 = 128 * 1024;
/// Pages in one READ or WRITE: at most, and when the server does not say.
const MAX_PAGES: u16 = 256;
const DEFAULT_PAGES: u16 = 32;

/// Everything that is acted on when the server accepts it, or that is a plain statement of fact.
/// Passthrough is refused later, as the kernel does for servers without `CAP_SYS_ADMIN`, which may choose by the offer.
/// Not offered: ACLs, DAX, security contexts, id mappings, io_uring, time limits, RESEND.
const OFFERED: InitFlags = InitFlags::ASYNC_READ
    .union(InitFlags::POSIX_LOCKS)
    .union(InitFlags::ATOMIC_O_TRUNC)
    .union(InitFlags::EXPORT_SUPPORT)
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::SPLICE_WRITE)
    .union(InitFlags::SPLICE_MOVE)
    .union(InitFlags::SPLICE_READ)
    .union(InitFlags::FLOCK_LOCKS)
    .union(InitFlags::HAS_IOCTL_DIR)
    .union(InitFlags::AUTO_INVAL_DATA)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::READDIRPLUS_AUTO)
    .union(InitFlags::ASYNC_DIO)
    .union(InitFlags::WRITEBACK_CACHE)
    .union(InitFlags::NO_OPEN_SUPPORT)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::HANDLE_KILLPRIV)
    .union(InitFlags::ABORT_ERROR)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::CACHE_SYMLINKS)
    .union(InitFlags::NO_OPENDIR_SUPPORT)
    .union(InitFlags::EXPLICIT_INVAL_DATA)
    .union(InitFlags::HANDLE_KILLPRIV_V2)
    .union(InitFlags::SETXATTR_EXT)
    .union(InitFlags::INIT_EXT)
    .union(InitFlags::HAS_EXPIRE_ONLY)
    .union(InitFlags::DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::PASSTHROUGH)
    .union(InitFlags::NO_EXPORT_SUPPORT);

/// What INIT agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub minor: u32,
    pub flags: InitFlags,
    /// Bytes, as also `max_write`.
    pub max_readahead: u32,
    pub max_write: u32,
    /// Bytes that one READ may ask for, as far as INIT limits it.
    pub max_transfer: u32,
}

impl Negotiated {
    pub fn has(&self, flag: InitFlags) -> bool {
        self.flags.contains(flag)
    }

    /// Are flock(2) locks the server's business?
    pub fn flock(&self) -> bool {
        self.has(if self.minor < 17 {
            InitFlags::POSIX_LOCKS
        } else {
            InitFlags::FLOCK_LOCKS
        })
    }
}

pub fn request() -> Request {
    let offered = OFFERED.bits();
    let init = InitIn {
        major: MAJOR,
        minor: MINOR,
        max_readahead: MAX_READAHEAD,
        flags: offered as u32,
        flags2: (offered >> 32) as u32,
        unused: [0; 11],
    };
    Request::new(Opcode::INIT)
        .arg(&init)
        .expect(Expect::UpTo(size_of::<InitOut>()))
}

/// Digests the reply; short ones are those of old versions, and zero where they end.
pub fn accept(payload: &[u8]) -> Result<Negotiated, Errno> {
    let mut reply = InitOut::new_zeroed();
    let len = payload.len().min(size_of::<InitOut>());
    reply.as_mut_bytes()[..len].copy_from_slice(&payload[..len]);
    if reply.major != MAJOR || reply.minor < OLDEST_MINOR {
        return Err(Errno::ECONNREFUSED);
    }
    let mut flags = u64::from(reply.flags);
    if reply.flags & InitFlags::INIT_EXT.bits() as u32 != 0 {
        flags |= u64::from(reply.flags2) << 32;
    }
    let flags = InitFlags::from_bits_retain(flags) & OFFERED;
    let pages = match flags.contains(InitFlags::MAX_PAGES) {
        true => reply.max_pages.clamp(1, MAX_PAGES),
        false => DEFAULT_PAGES,
    };
    let max_transfer = u32::from(pages) * PAGE;
    let max_write = reply.max_write.max(PAGE);
    Ok(Negotiated {
        minor: reply.minor,
        flags,
        max_readahead: reply.max_readahead.min(MAX_READAHEAD),
        max_write: if flags.contains(InitFlags::BIG_WRITES) {
            max_write
        } else {
            PAGE
        },
        max_transfer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_all_ages() {
        // libfuse 2.9: 24 bytes.
        let old = InitOut {
            major: 7,
            minor: 19,
            flags: 0x31,
            max_write: 131072,
            ..Default::default()
        };
        let agreed = accept(&old.as_bytes()[..24]).unwrap();
        assert_eq!(
            (agreed.minor, agreed.max_write, agreed.max_transfer),
            (19, 131072, 131072)
        );
        assert!(agreed.flock() == agreed.has(InitFlags::FLOCK_LOCKS));
        // flags2 counts only with INIT_EXT.
        let new = InitOut {
            major: 7,
            minor: 40,
            flags: 1 << 22,
            flags2: 1 << 4,
            max_pages: 9999,
            ..Default::default()
        };
        let agreed = accept(new.as_bytes()).unwrap();
        assert!(!agreed.has(InitFlags::DIRECT_IO_ALLOW_MMAP));
        assert_eq!(agreed.max_transfer, 256 * 4096);
        assert_eq!(agreed.max_write, 4096);
    }

    #[test]
    fn nonsense_is_refused() {
        for (major, minor) in [(8, 0), (6, 99), (7, 11), (0, 0)] {
            let reply = InitOut {
                major,
                minor,
                ..Default::default()
            };
            assert_eq!(accept(reply.as_bytes()), Err(Errno::ECONNREFUSED), "{major}.{minor}");
        }
        assert_eq!(accept(&[]), Err(Errno::ECONNREFUSED));
    }

    #[test]
    fn nothing_is_accepted_that_was_not_offered() {
        let all = InitOut {
            major: 7,
            minor: 45,
            flags: u32::MAX,
            flags2: u32::MAX,
            ..Default::default()
        };
        assert_eq!(accept(all.as_bytes()).unwrap().flags, OFFERED);
    }
}
