//! Descriptors that a parent leaves to us by number.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Takes over an inherited descriptor. Call it once for a number.
pub fn take(fd: i32) -> Option<OwnedFd> {
    let open = std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
    // SAFETY: the descriptor is open, and nothing else in this process owns it: it came with exec, for this use.
    (fd > 2 && open).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes whatever else was inherited. Nothing but `kept` and the standard streams may be in use.
pub fn close_all_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd() as libc::c_uint;
    // SAFETY: by the caller's promise nobody owns what is closed here. A kernel without the call leaves it open.
    unsafe {
        if kept > 3 {
            libc::close_range(3, kept - 1, 0);
        }
        libc::close_range(kept + 1, libc::c_uint::MAX, 0);
    }
}
