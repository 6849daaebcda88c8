//! Open files.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use super::{Chunks, Cx, DirEntry, Errno, Op, OpenFlags, Vnode, done, fail};

/// What stands at the descriptor's number in the guest, so that the kernel keeps numbers, `dup` and `fork` right.
pub enum Backing<'a> {
    /// A memory file with the file's cached content, as long as the file is: `mmap` of it is native.
    Memory(BorrowedFd<'a>),
    /// A stream whose readiness ([`File::ready`]) the guest must see in `poll`, `select` and `epoll`.
    Stream,
    /// Nothing that could be mapped or polled: directories, `O_PATH`.
    Nothing,
}

bitflags::bitflags! {
    /// Readiness in terms of `poll(2)`, same values as `POLLIN` and so on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Readiness: u32 {
        const IN = 0x1;
        const OUT = 0x4;
        const ERR = 0x8;
        const HUP = 0x10;
    }
}

/// A mapping that is about to be made (`mmap(2)`).
#[derive(Clone, Copy, Debug)]
pub struct MapRequest {
    pub offset: u64,
    pub len: u64,
    pub shared: bool,
    /// The mapping can be written now or after `mprotect(2)`.
    pub writable: bool,
}

/// Whose lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// A POSIX lock of a descriptor table ([`super::Caller::files_id`]).
    Files(u64),
    /// An `flock(2)` or open file description lock.
    Description(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    Read,
    Write,
    Unlock,
}

/// A range of bytes; `end` is inclusive, `i64::MAX as u64` means to the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    pub start: u64,
    pub end: u64,
}

/// A lock to set, test or remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub kind: LockKind,
    pub range: LockRange,
    pub owner: LockOwner,
    /// Process id to report for it.
    pub pid: u32,
    /// It came by `flock(2)`.
    pub flock: bool,
}

/// `ioctl(2)` with a command whose size and direction are encoded in its number.
pub struct IoctlCall {
    pub cmd: u32,
    /// The third argument as it is: a pointer or a number.
    pub arg: u64,
    /// What the pointer points to, where the command's direction includes writing.
    pub input: Bytes,
    /// How much may come back, where the direction includes reading.
    pub output_len: usize,
}

pub struct IoctlReply {
    /// What `ioctl` returns.
    pub result: i32,
    pub output: Bytes,
}

/// An open file description. Dropping the last `Rc` is the last close (RELEASE).
pub trait File {
    /// The file behind it; `None` for a bare device.
    fn vnode(&self) -> Option<&Rc<dyn Vnode>> {
        None
    }
    fn backing(&self) -> Backing<'_> {
        Backing::Nothing
    }
    /// `false`: `lseek`, `pread` and `pwrite` give `ESPIPE`, and offsets passed to read and write mean nothing.
    fn seekable(&self) -> bool {
        true
    }
    /// `fcntl(F_SETFL)` changed `O_APPEND`, `O_NONBLOCK`, `O_DIRECT`, `O_NOATIME` or `O_ASYNC`.
    fn set_flags(&self, _flags: OpenFlags) {}

    /// At most `len` bytes; nothing at the end of the file.
    fn read<'a>(&'a self, _cx: Cx<'a>, _at: u64, _len: usize) -> Op<'a, Chunks> {
        fail(Errno::EINVAL)
    }
    /// Writes at `at`, or at the end with `append`. Gives how many bytes, and the offset behind the last.
    fn write<'a>(&'a self, _cx: Cx<'a>, _at: u64, _append: bool, _data: Bytes) -> Op<'a, (usize, u64)> {
        fail(Errno::EINVAL)
    }
    /// Where the file ends, for `lseek(SEEK_END)`.
    fn end<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, u64> {
        fail(Errno::EINVAL)
    }
    /// `lseek(SEEK_DATA)`, or with `hole` `SEEK_HOLE`.
    fn seek_data<'a>(&'a self, _cx: Cx<'a>, _from: u64, _hole: bool) -> Op<'a, u64> {
        fail(Errno::EINVAL)
    }
    /// Some entries after cookie `from`; none at the end. `room` is the size of the guest's buffer, a hint.
    fn readdir<'a>(&'a self, _cx: Cx<'a>, _from: u64, _room: usize) -> Op<'a, Vec<DirEntry>> {
        fail(Errno::ENOTDIR)
    }
    /// At every `close(2)` of a descriptor of this file; its error is what `close` returns.
    fn flush<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, ()> {
        done(())
    }
    fn fsync<'a>(&'a self, _cx: Cx<'a>, _data_only: bool) -> Op<'a, ()> {
        fail(Errno::EINVAL)
    }
    /// Sends what shared mappings have changed to the server; all else is there already.
    fn write_back<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, ()> {
        done(())
    }
    /// Of these bytes the cache is to be filled, or, if not `wanted`, emptied (`posix_fadvise(2)`).
    fn advise<'a>(&'a self, _cx: Cx<'a>, _range: Range<u64>, _wanted: bool) -> Op<'a, ()> {
        done(())
    }
    fn fallocate<'a>(&'a self, _cx: Cx<'a>, _mode: u32, _offset: u64, _len: u64) -> Op<'a, ()> {
        fail(Errno::EOPNOTSUPP)
    }
    /// To another file of the same file system; `EXDEV` or `EOPNOTSUPP` lets the hypervisor copy by itself.
    fn copy_range<'a>(&'a self, _cx: Cx<'a>, _at: u64, _to: &'a Rc<dyn File>, _to_at: u64, _len: u64) -> Op<'a, u64> {
        fail(Errno::EXDEV)
    }
    fn ioctl<'a>(&'a self, _cx: Cx<'a>, _call: IoctlCall) -> Op<'a, IoctlReply> {
        fail(Errno::ENOTTY)
    }
    /// The lock that would prevent this one, if any (`F_GETLK`).
    fn test_lock<'a>(&'a self, _cx: Cx<'a>, _lock: Lock) -> Op<'a, Option<Lock>> {
        fail(Errno::EINVAL)
    }
    /// `EAGAIN` if somebody else holds it and `wait` is not set.
    fn set_lock<'a>(&'a self, _cx: Cx<'a>, _lock: Lock, _wait: bool) -> Op<'a, ()> {
        fail(Errno::EINVAL)
    }
    /// Makes [`Backing::Memory`] hold the content of that range, before the kernel maps it.
    fn map<'a>(&'a self, _cx: Cx<'a>, _request: MapRequest) -> Op<'a, ()> {
        fail(Errno::ENODEV)
    }
    /// Readiness now; the waker, if given, is woken once when it may have changed.
    fn ready(&self, _waker: Option<&Waker>) -> Readiness {
        Readiness::IN | Readiness::OUT
    }
    /// Joins a fresh device to the connection of another one (`FUSE_DEV_IOC_CLONE`).
    fn join(&self, _other: &Rc<dyn File>) -> Result<(), Errno> {
        Err(Errno::ENOTTY)
    }
    fn as_any(&self) -> &dyn std::any::Any;
}
