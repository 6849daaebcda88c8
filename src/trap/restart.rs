//! Calls that a signal interrupts before umvu has taken note of them, or where it does not.
//!
//! Until its notification is received a caller waits interruptibly, whatever its call is (seccomp_unotify(2)). Most
//! calls never fail with `EINTR`, and nobody expects them to: these are made again behind the signal's handler.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{GuestMemory, Memory, Tid, sys};
use crate::abi::{RawCall, Regs, fold};
use crate::agent;
use crate::table::{self, Treat};

const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;

/// At the delivery of a signal: a thread that the agent makes a call for is put back to its own call, which the signal
/// then interrupts; and where calls are notified of (`notified`), those that never fail are made again behind it. True if
/// the signal has come from the agent's reading of a bad pointer, which is the call's error.
pub fn before_delivery(tid: Tid, signal: i32, notified: bool) -> bool {
    let Ok(mut regs) = sys::regs(tid) else { return false };
    let fault =
        matches!(signal, libc::SIGSEGV | libc::SIGBUS) && sys::signal_info(tid).is_some_and(|info| info.is_fault());
    let read = |address, buffer: &mut [u8]| Memory::new(tid).read(address, buffer).ok();
    let left = agent::rollback(&mut regs, fault, read).is_some();
    let spared = notified && !(left && fault) && spare(tid, &mut regs);
    if left || spared {
        let _ = sys::set_regs(tid, &regs);
    }
    left && fault
}

/// A thread that has made a call: it is made again behind the signal's handler, if nobody expects it to be interrupted.
fn spare(tid: Tid, regs: &mut Regs) -> bool {
    let call = regs.call();
    let served = table::entry(call.nr).is_some_and(|entry| matches!(entry.treat, Treat::Serve(_)));
    let by_kernel = regs.result() == ERESTARTSYS && !regs.is_set_interrupted();
    let spared = by_kernel && served && !may_wait(tid, fold(call));
    if spared {
        regs.set_interrupted(ERESTARTNOINTR);
    }
    spared
}

/// Is it a call that may wait for others, which a signal ends?
fn may_wait(tid: Tid, call: RawCall) -> bool {
    match i64::from(call.nr) {
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_preadv
        | libc::SYS_preadv2
        | libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_pwrite64
        | libc::SYS_pwritev
        | libc::SYS_pwritev2 => !is_regular(tid, call.args[0] as i32),
        libc::SYS_openat | libc::SYS_openat2 => is_special(tid, call.args[0] as i32, call.args[1]),
        libc::SYS_fcntl => matches!(call.args[1] as i32, libc::F_SETLKW | libc::F_OFD_SETLKW),
        libc::SYS_flock
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_recvfrom
        | libc::SYS_connect
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_sendfile
        | libc::SYS_splice
        | libc::SYS_tee
        | libc::SYS_vmsplice
        | libc::SYS_copy_file_range
        | libc::SYS_ioctl => true,
        _ => false,
    }
}

/// The placeholder of a regular file is a regular file too.
fn is_regular(tid: Tid, fd: i32) -> bool {
    std::fs::metadata(format!("/proc/{tid}/fd/{fd}")).is_ok_and(|meta| meta.is_file())
}

/// Is the path that of a FIFO or device of the host? (Of those of mounts nobody can tell here: the signal then comes
/// before the call, as it may on the kernel.)
fn is_special(tid: Tid, dirfd: i32, path: u64) -> bool {
    use std::os::unix::ffi::OsStringExt;
    let Ok(path) = Memory::new(tid).read_cstr(path, libc::PATH_MAX as usize) else {
        return false;
    };
    let base = match dirfd {
        libc::AT_FDCWD => format!("/proc/{tid}/cwd"),
        dirfd => format!("/proc/{tid}/fd/{dirfd}"),
    };
    let path = PathBuf::from(base).join(OsString::from_vec(path));
    std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}
