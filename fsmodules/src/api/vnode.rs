//! File systems and their files.

use std::any::Any;
use std::rc::Rc;

use bytes::Bytes;

use super::{
    Access, Attr, AttrQuery, Created, Cx, Errno, File, FileKind, Name, Op, OpenFlags, RenameFlags, SetAttr, StatFs,
    XattrFlags, done, fail,
};

/// How a mounted file system shows itself in `/proc/self/mountinfo` (proc(5)), unescaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// `fuse.sshfs`
    pub fstype: String,
    pub source: String,
    /// The super block's options without `rw` and `ro`: `user_id=1000,group_id=1000`.
    pub options: String,
}

/// A mounted file system, shared by all its mounts.
pub trait FileSystem {
    fn root(&self) -> Rc<dyn Vnode>;
    fn describe(&self) -> Description;
    /// May this caller use the mount at all? (FUSE without `allow_other`.) Asked on every crossing into it.
    fn permits(&self, _cx: Cx<'_>) -> Result<(), Errno> {
        Ok(())
    }
    /// Do the handles of name_to_handle_at(2) find their files again? If not, it gives none but identifiers.
    fn exports(&self) -> bool {
        true
    }
    /// Ready when the file system can answer (or never will: then the error). `vumount` waits for it.
    fn ready(&self) -> Op<'_, ()> {
        done(())
    }
    /// `umount2(MNT_FORCE)`: fail everything that waits.
    fn abort(&self) {}
    /// `sync(2)`, `syncfs(2)`, and a clean unmount: write back what is dirty.
    fn sync<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, ()> {
        done(())
    }
    /// The last mount and the last open file are gone.
    fn shutdown(&self) {}
}

/// A file of a file system: an inode. Two `Rc`s of one file have the same [`Vnode::id`].
///
/// Permission checks on the way to a file are the hypervisor's: it calls [`Vnode::permission`] for each directory it
/// walks through. Checks of the operation itself (write permission on the parent, sticky bits, ownership) are the
/// file system's.
pub trait Vnode {
    fn as_any(&self) -> &dyn Any;
    fn kind(&self) -> FileKind;
    /// Identifies the file within its file system, as long as an `Rc` of it lives.
    fn id(&self) -> u64;
    fn attr<'a>(&'a self, cx: Cx<'a>, query: AttrQuery) -> Op<'a, Attr>;

    /// May the caller do this? Walking asks `EXECUTE` of each directory; `open` and `exec` ask inside
    /// [`Vnode::open`].
    fn permission<'a>(&'a self, _cx: Cx<'a>, _mask: Access) -> Op<'a, ()> {
        done(())
    }
    /// `access(2)`, and `chdir(2)` with `EXECUTE`.
    fn access<'a>(&'a self, cx: Cx<'a>, mask: Access) -> Op<'a, ()> {
        self.permission(cx, mask)
    }
    fn lookup<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name) -> Op<'a, Rc<dyn Vnode>> {
        fail(Errno::ENOTDIR)
    }
    /// The next [`Vnode::lookup`] of the name shall not be answered from memory.
    fn doubt(&self, _name: &Name) {}
    fn readlink<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, Bytes> {
        fail(Errno::EINVAL)
    }
    /// Opens the file; `O_TRUNC` included, `O_CREAT` and `O_PATH` never.
    fn open<'a>(self: Rc<Self>, _cx: Cx<'a>, _flags: OpenFlags) -> Op<'a, Rc<dyn File>> {
        fail(Errno::ENXIO)
    }
    /// `O_CREAT` of a name that the last lookup did not find. `mode` has the permission bits, umask not yet applied.
    /// Somebody may have been faster: then it opens what is there, or `EEXIST` with `O_EXCL`.
    fn create<'a>(self: Rc<Self>, _cx: Cx<'a>, _name: &'a Name, _mode: u32, _flags: OpenFlags) -> Op<'a, Created> {
        fail(Errno::EACCES)
    }
    /// `O_TMPFILE` in this directory.
    fn tmpfile<'a>(self: Rc<Self>, _cx: Cx<'a>, _mode: u32, _flags: OpenFlags) -> Op<'a, Created> {
        fail(Errno::EOPNOTSUPP)
    }
    /// FIFO, socket, device node or regular file; `mode` has the type, umask not yet applied.
    fn mknod<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name, _mode: u32, _rdev: u32) -> Op<'a, Rc<dyn Vnode>> {
        fail(Errno::EPERM)
    }
    fn mkdir<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name, _mode: u32) -> Op<'a, Rc<dyn Vnode>> {
        fail(Errno::EPERM)
    }
    fn symlink<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name, _target: &'a [u8]) -> Op<'a, Rc<dyn Vnode>> {
        fail(Errno::EPERM)
    }
    /// Gives the existing file `target` (of the same file system) a name in this directory.
    fn link<'a>(&'a self, _cx: Cx<'a>, _target: &'a Rc<dyn Vnode>, _name: &'a Name) -> Op<'a, ()> {
        fail(Errno::EPERM)
    }
    fn unlink<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name) -> Op<'a, ()> {
        fail(Errno::EPERM)
    }
    fn rmdir<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name) -> Op<'a, ()> {
        fail(Errno::EPERM)
    }
    /// `new_dir` is a directory of the same file system.
    fn rename<'a>(
        &'a self,
        _cx: Cx<'a>,
        _name: &'a Name,
        _new_dir: &'a Rc<dyn Vnode>,
        _new_name: &'a Name,
        _flags: RenameFlags,
    ) -> Op<'a, ()> {
        fail(Errno::EPERM)
    }
    fn setattr<'a>(&'a self, _cx: Cx<'a>, _change: SetAttr<'a>) -> Op<'a, ()> {
        fail(Errno::EPERM)
    }
    fn statfs<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, StatFs> {
        fail(Errno::ENOSYS)
    }
    /// The whole value (at most 64 KiB). The hypervisor handles the caller's buffer size.
    fn getxattr<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name) -> Op<'a, Bytes> {
        fail(Errno::EOPNOTSUPP)
    }
    /// All names, each followed by NUL.
    fn listxattr<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, Bytes> {
        fail(Errno::EOPNOTSUPP)
    }
    fn setxattr<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name, _value: Bytes, _flags: XattrFlags) -> Op<'a, ()> {
        fail(Errno::EOPNOTSUPP)
    }
    fn removexattr<'a>(&'a self, _cx: Cx<'a>, _name: &'a Name) -> Op<'a, ()> {
        fail(Errno::EOPNOTSUPP)
    }
}
