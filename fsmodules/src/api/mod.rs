//! The boundary between the hypervisor and its modules.
//!
//! A module answers `mount` for the file-system types it claims and gives back objects: a [`FileSystem`], its
//! [`Vnode`]s and their open [`File`]s. Every method has a default, the errno that Linux gives where a file system
//! does not implement the operation. Methods that may wait return an [`Op`]; the hypervisor serves everybody else
//! meanwhile. All of it runs on one thread: `Rc`, `Cell` and `RefCell`, no locks, and no `RefCell` borrow across an
//! `.await`.

mod caller;
mod file;
mod module;
mod types;
mod vnode;

pub use caller::{Caller, Cx, Host, Ids};
pub use file::{Backing, File, IoctlCall, IoctlReply, Lock, LockKind, LockOwner, LockRange, MapRequest, Readiness};
pub use fuse_compat::Errno;
pub use module::{Device, Layer, Module, MountFlags, MountRequest};
pub use types::{
    Access, Attr, AttrMask, AttrQuery, Chunks, Created, DirEntry, FileKind, Name, OpenFlags, RenameFlags, SetAttr,
    SetTime, StatFs, Time, XattrFlags, split_dev,
};
pub use vnode::{Description, FileSystem, Vnode};

use std::future::Future;
use std::pin::Pin;

/// An error of the host's.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// An operation that may wait. Dropping it cancels the wait, never the operation's bookkeeping.
pub type Op<'a, T> = Pin<Box<dyn Future<Output = Result<T, Errno>> + 'a>>;

/// An operation that fails at once; the body of most default methods.
pub fn fail<'a, T: 'a>(errno: Errno) -> Op<'a, T> {
    Box::pin(std::future::ready(Err(errno)))
}

/// An operation that is done at once.
pub fn done<'a, T: 'a>(value: T) -> Op<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}
