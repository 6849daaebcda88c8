//! What the kernel lets umvu see of its tracees (ptrace(2), "Ptrace access mode checking").
//!
//! They are of umvu's own user, unless that is root: then they can become others. Without `CAP_SYS_PTRACE`, which root
//! does not have in a container, their memory and their files below /proc are then out of reach for root, but not for
//! the user that they have become.

use std::io::{ErrorKind, Result};
use std::sync::OnceLock;

use super::{Tid, status_field, sys};

/// Looks at something below `/proc/TID`, as the thread's own user if need be.
pub fn reaching<T>(tid: Tid, look: impl Fn() -> Result<T>) -> Result<T> {
    match look() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && others_are_out_of_reach() => match owner_of(tid) {
            Some((uid, gid)) => sys::as_user(uid, gid, look),
            None => Err(error),
        },
        seen => seen,
    }
}

/// Is umvu root without `CAP_SYS_PTRACE`?
pub fn others_are_out_of_reach() -> bool {
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let own = Tid::from_raw(std::process::id() as i32);
        let capabilities = status_field(own, "CapEff:").and_then(|field| u64::from_str_radix(&field, 16).ok());
        rustix::process::geteuid().is_root() && capabilities.is_some_and(|all| all & CAP_SYS_PTRACE == 0)
    })
}

/// A thread's effective user and group.
fn owner_of(tid: Tid) -> Option<(u32, u32)> {
    let effective = |name| status_field(tid, name)?.split_whitespace().nth(1)?.parse().ok();
    Some((effective("Uid:")?, effective("Gid:")?))
}
