//! What differs per machine: registers, legacy forms of calls, the layout of structures. One file a machine, all with
//! the same names.

pub mod layout;
mod x86_64;

pub use layout::{
    Cmsghdr, Flock, Iocb, Iovec, Mmsghdr, Msghdr, Stat, Statfs, Statx, StatxTimestamp, Timespec, Timeval, Utimbuf,
    put_dirent, put_dirent64,
};
pub use x86_64::{Regs, SYSCALL_LEN, fold};

/// Has a signal interrupted the call with this result, which the kernel makes again or ends (`-ERESTARTSYS` and its like)?
pub fn is_restart(result: i64) -> bool {
    (-516..=-512).contains(&result)
}

/// A system call: its number and six arguments, before any interpretation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawCall {
    pub nr: u32,
    pub args: [u64; 6],
}
