//! x86-64.

use super::{RawCall, is_restart};

/// The registers of a stopped tracee (`PTRACE_GETREGS`).
#[derive(Clone, Copy)]
pub struct Regs(pub libc::user_regs_struct);

/// The length of the `syscall` instruction: going back by this makes a call again.
pub const SYSCALL_LEN: u64 = 2;

impl Regs {
    /// The call that the tracee is entering or has made.
    pub fn call(&self) -> RawCall {
        let r = &self.0;
        RawCall {
            nr: r.orig_rax as u32,
            args: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9],
        }
    }

    /// At the entry of a call: make it this one.
    pub fn set_call(&mut self, call: RawCall) {
        let r = &mut self.0;
        r.orig_rax = call.nr.into();
        r.rax = call.nr.into();
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = call.args;
    }

    /// At the entry of a call: where its instruction seems to be. At its exit the truth must be restored.
    pub fn set_origin(&mut self, address: u64) {
        self.0.rip = address;
    }

    /// At the entry of a call: where it returns to.
    pub fn call_end(&self) -> u64 {
        self.0.rip
    }

    /// The result of a call that has been made.
    pub fn result(&self) -> i64 {
        self.0.rax as i64
    }

    /// The call has this result, and is not to be made or restarted.
    pub fn set_result(&mut self, result: i64) {
        self.0.orig_rax = u64::MAX;
        self.0.rax = result as u64;
    }

    /// The call was interrupted in this way (`-ERESTARTSYS` and its like): the kernel's signal code decides what
    /// becomes of it.
    pub fn set_interrupted(&mut self, how: i64) {
        self.0.rax = how as u64;
        // Left as a mark: every call changes this register.
        self.0.rcx = 0;
    }

    /// Has a signal interrupted a call, which the kernel's signal code makes again or ends (`-ERESTARTSYS` and its like)?
    pub fn is_interrupted(&self) -> bool {
        self.0.orig_rax as i64 >= 0 && is_restart(self.result())
    }

    /// Is it [`Regs::set_interrupted`] that has set the result, and not the kernel?
    pub fn is_set_interrupted(&self) -> bool {
        self.0.rcx == 0
    }

    /// After a call: back to its instruction, to make another call.
    pub fn rewind(&mut self, nr: u32, argument: u32) {
        self.0.rip -= SYSCALL_LEN;
        self.0.rax = nr.into();
        self.0.rdi = argument.into();
        self.0.orig_rax = u64::MAX;
    }
}

/// Turns a legacy form into the modern call that means the same with the same structures.
pub fn fold(call: RawCall) -> RawCall {
    let RawCall {
        nr,
        args: [a, b, c, d, ..],
    } = call;
    const CWD: u64 = libc::AT_FDCWD as u64;
    const NOFOLLOW: u64 = libc::AT_SYMLINK_NOFOLLOW as u64;
    let (nr, args) = match i64::from(nr) {
        libc::SYS_open => (libc::SYS_openat, [CWD, a, b, c, 0, 0]),
        libc::SYS_creat => (
            libc::SYS_openat,
            [CWD, a, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64, b, 0, 0],
        ),
        libc::SYS_stat => (libc::SYS_newfstatat, [CWD, a, b, 0, 0, 0]),
        libc::SYS_lstat => (libc::SYS_newfstatat, [CWD, a, b, NOFOLLOW, 0, 0]),
        libc::SYS_access => (libc::SYS_faccessat, [CWD, a, b, 0, 0, 0]),
        libc::SYS_chmod => (libc::SYS_fchmodat, [CWD, a, b, 0, 0, 0]),
        libc::SYS_chown => (libc::SYS_fchownat, [CWD, a, b, c, 0, 0]),
        libc::SYS_lchown => (libc::SYS_fchownat, [CWD, a, b, c, NOFOLLOW, 0]),
        libc::SYS_mkdir => (libc::SYS_mkdirat, [CWD, a, b, 0, 0, 0]),
        libc::SYS_unlink => (libc::SYS_unlinkat, [CWD, a, 0, 0, 0, 0]),
        libc::SYS_rmdir => (libc::SYS_unlinkat, [CWD, a, libc::AT_REMOVEDIR as u64, 0, 0, 0]),
        libc::SYS_rename => (libc::SYS_renameat2, [CWD, a, CWD, b, 0, 0]),
        libc::SYS_renameat => (libc::SYS_renameat2, [a, b, c, d, 0, 0]),
        libc::SYS_link => (libc::SYS_linkat, [CWD, a, CWD, b, 0, 0]),
        libc::SYS_symlink => (libc::SYS_symlinkat, [a, CWD, b, 0, 0, 0]),
        libc::SYS_readlink => (libc::SYS_readlinkat, [CWD, a, b, c, 0, 0]),
        libc::SYS_mknod => (libc::SYS_mknodat, [CWD, a, b, c, 0, 0]),
        _ => return call,
    };
    RawCall { nr: nr as u32, args }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_keep_their_meaning() {
        let call = |nr: i64, args| RawCall { nr: nr as u32, args };
        let cwd = libc::AT_FDCWD as u64;
        assert_eq!(
            fold(call(libc::SYS_open, [1, 2, 3, 9, 9, 9])),
            call(libc::SYS_openat, [cwd, 1, 2, 3, 0, 0])
        );
        assert_eq!(
            fold(call(libc::SYS_link, [1, 2, 0, 0, 0, 0])),
            call(libc::SYS_linkat, [cwd, 1, cwd, 2, 0, 0])
        );
        assert_eq!(
            fold(call(libc::SYS_read, [1, 2, 3, 4, 5, 6])),
            call(libc::SYS_read, [1, 2, 3, 4, 5, 6])
        );
    }
}
