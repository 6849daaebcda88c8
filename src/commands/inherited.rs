//! Descriptors that a parent leaves to us by number.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

/// Takes over an inherited descriptor. Call it once for a number.
pub fn take(fd: i32) -> Option<OwnedFd> {
    let open = std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
    // SAFETY: the descriptor is open, and nothing else in this process owns it: it came with exec, for this use.
    (fd > 2 && open).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}
