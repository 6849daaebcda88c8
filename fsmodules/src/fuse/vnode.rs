//! The operations on a file by name or inode (`fs/fuse/dir.c`, `fs/fuse/xattr.c`).

use std::any::Any;
use std::rc::Rc;

use bytes::Bytes;
use fuse_compat::kernel::{Calls, NewMode, expiry};
use fuse_compat::wire::abi::{self, FopenFlags, InitFlags, Opcode};

use super::dirfile::DirFile;
use super::dirty::pause;
use super::file::FuseFile;
use super::node::{Node, PERMISSIONS, check_name};
use super::perm;
use crate::api::{
    Access, Attr, AttrMask, AttrQuery, Created, Cx, Errno, File, FileKind, FileSystem, Name, Op, OpenFlags,
    RenameFlags, SetAttr, StatFs, Time, Vnode, XattrFlags,
};

const SUPER_MAGIC: u64 = 0x6573_5546;

/// The largest power of two that is not larger; 4096 if the server leaves it open.
fn block_size(told: u32) -> u32 {
    if told == 0 { 4096 } else { 1 << told.ilog2() }
}

fn time(sec: u64, nsec: u32) -> Time {
    Time {
        sec: sec as i64,
        nsec: nsec.min(999_999_999),
    }
}

fn shown(attr: &abi::Attr) -> Attr {
    Attr {
        ino: attr.ino,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        size: attr.size,
        blocks: attr.blocks,
        blksize: block_size(attr.blksize),
        atime: time(attr.atime, attr.atimensec),
        mtime: time(attr.mtime, attr.mtimensec),
        ctime: time(attr.ctime, attr.ctimensec),
        btime: None,
    }
}

impl Node {
    pub fn calls<'a>(&'a self, cx: Cx<'a>) -> Calls<'a> {
        self.fs.connection.by(cx.caller)
    }

    /// `fuse_update_get_attr`
    async fn attributes(&self, cx: Cx<'_>, query: AttrQuery) -> Result<Attr, Errno> {
        self.check()?;
        let known = self.fs.connection.negotiated().is_some();
        let suffices =
            |asked| asked == AttrMask::empty() || !query.force && (query.cached && known || self.knows(asked));
        let has_statx = self.speaks(39) && !self.fs.connection.lacks(Opcode::STATX);
        if query.mask.contains(AttrMask::BTIME) && has_statx && !suffices(query.mask) {
            match self.ask_statx(cx).await {
                Err(Errno::ENOSYS) => {}
                told => return told,
            }
        }
        if suffices(query.mask & AttrMask::BASIC) {
            return Ok(Attr {
                btime: self.btime.get(),
                ..shown(&self.known())
            });
        }
        Ok(shown(&self.refresh(cx.caller, None).await?))
    }

    async fn ask_statx(&self, cx: Cx<'_>) -> Result<Attr, Errno> {
        let version = self.fs.attr_version();
        let mask = (AttrMask::BASIC | AttrMask::BTIME).bits();
        let out = self.calls(cx).statx(self.nodeid(), mask).await?;
        self.check_kind(out.mode.into())?;
        Ok(self.learn_statx(&out, version))
    }

    pub fn speaks(&self, minor: u32) -> bool {
        self.fs.connection.negotiated().is_some_and(|n| n.minor >= minor)
    }

    fn learn_statx(&self, out: &abi::StatxOut, version: u64) -> Attr {
        let minor = out.rdev_minor;
        let attr = abi::Attr {
            ino: out.ino,
            size: out.size,
            blocks: out.blocks,
            atime: out.atime.tv_sec as u64,
            mtime: out.mtime.tv_sec as u64,
            ctime: out.ctime.tv_sec as u64,
            atimensec: out.atime.tv_nsec,
            mtimensec: out.mtime.tv_nsec,
            ctimensec: out.ctime.tv_nsec,
            mode: out.mode.into(),
            nlink: out.nlink,
            uid: out.uid,
            gid: out.gid,
            rdev: minor & 0xff | out.rdev_major << 8 | (minor & !0xff) << 12,
            blksize: out.blksize,
            flags: 0,
        };
        let told = AttrMask::from_bits_truncate(out.mask);
        if told.contains(AttrMask::BASIC) {
            self.learn(
                attr,
                expiry(self.fs.now(), out.attr_valid, out.attr_valid_nsec),
                version,
            );
        }
        let birth = told
            .contains(AttrMask::BTIME)
            .then(|| time(out.btime.tv_sec as u64, out.btime.tv_nsec));
        self.btime.set(birth);
        self.told(AttrMask::BTIME);
        Attr {
            btime: birth,
            ..shown(&self.corrected(attr))
        }
    }

    /// A reply has made a file in this directory.
    fn made(
        &self,
        name: &Name,
        entry: Result<fuse_compat::kernel::Entry, Errno>,
        version: u64,
    ) -> Result<Rc<Node>, Errno> {
        match entry {
            Ok(entry) => {
                self.expire();
                self.adopt_child(name, entry, version)
            }
            Err(errno) => {
                if errno == Errno::EEXIST {
                    self.forget_name(name);
                }
                Err(errno)
            }
        }
    }

    async fn make_node(&self, cx: Cx<'_>, name: &Name, mode: u32, rdev: u32) -> Result<Rc<Node>, Errno> {
        check_name(name)?;
        self.may_change_names(cx).await?;
        let _alone = self.names_lock.write().await;
        let version = self.fs.attr_version();
        let new = NewMode {
            mode,
            umask: cx.caller.umask(),
        };
        self.made(
            name,
            self.calls(cx).mknod(self.nodeid(), name.as_bytes(), new, rdev).await,
            version,
        )
    }

    async fn create_file(&self, cx: Cx<'_>, name: &Name, mode: u32, flags: OpenFlags) -> Result<Created, Errno> {
        check_name(name)?;
        self.may_change_names(cx).await?;
        let new = NewMode {
            mode: mode & 0o7777 | FileKind::Regular.mode(),
            umask: cx.caller.umask(),
        };
        if !self.fs.connection.lacks(Opcode::CREATE) {
            let mut alone = self.names_lock.write().await;
            while !flags.contains(OpenFlags::EXCL) && self.is_named(name) {
                // Somebody has been faster since the walk. A second CREATE could give the file a second node.
                drop(alone);
                match self.child(cx, name).await {
                    Ok(node) => {
                        let file = Vnode::open(node.clone(), cx, flags).await?;
                        return Ok(Created { node, file });
                    }
                    Err(Errno::ENOENT) => alone = self.names_lock.write().await,
                    Err(errno) => return Err(errno),
                }
            }
            let version = self.fs.attr_version();
            let made = self
                .calls(cx)
                .create(self.nodeid(), name.as_bytes(), new, flags.bits())
                .await;
            drop(alone);
            match made {
                Ok((entry, handle)) => {
                    let node = self.made(name, Ok(entry), version)?;
                    let file = FuseFile::new(node.clone(), handle, flags)?;
                    return Ok(Created { node, file });
                }
                Err(Errno::ENOSYS) => {}
                Err(errno) => {
                    return self
                        .made(name, Err(errno), version)
                        .map(|_| unreachable!("it was an error"));
                }
            }
        }
        let (node, flags) = match self.make_node(cx, name, new.mode, 0).await {
            Err(Errno::EEXIST) if !flags.contains(OpenFlags::EXCL) => (self.child(cx, name).await?, flags),
            // What is new needs no truncation.
            made => (made?, flags - OpenFlags::TRUNC),
        };
        let file = Rc::clone(&node).open_file(cx, flags, false).await?;
        Ok(Created { node, file })
    }

    /// Opens a regular file. `check`: permissions, which a file just made need not grant.
    async fn open_file(self: Rc<Self>, cx: Cx<'_>, flags: OpenFlags, check: bool) -> Result<Rc<dyn File>, Errno> {
        let truncate = flags.contains(OpenFlags::TRUNC);
        if check {
            let mut mask = Access::empty();
            mask.set(Access::READ, flags.readable() && !flags.contains(OpenFlags::EXEC));
            mask.set(Access::WRITE, flags.writable() || truncate);
            mask.set(Access::EXECUTE, flags.contains(OpenFlags::EXEC));
            self.may(cx, mask).await?;
        }
        let atomic = self.fs.negotiated(InitFlags::ATOMIC_O_TRUNC);
        let alone = if truncate {
            Some(self.write_lock.lock().await)
        } else {
            None
        };
        let kill = truncate && cx.caller.ids().fsuid != 0;
        let content = self.content().filter(|_| truncate && atomic);
        let paused = pause(&content).await;
        let handle = self.calls(cx).open(self.nodeid(), flags.bits(), kill).await?;
        if truncate && atomic {
            self.resized(0);
            self.touch();
        } else if !handle.open_flags.contains(FopenFlags::KEEP_CACHE) {
            // The cache is dropped now. Errors are told later.
            let _ = self.write_back_data().await;
        }
        drop(paused);
        let file = FuseFile::new(self.clone(), handle, flags)?;
        if truncate && !atomic {
            self.truncate(cx, 0, None, true).await?;
        }
        drop(alone);
        Ok(file)
    }

    /// A name of this directory has been removed.
    async fn lost_name(&self, cx: Cx<'_>, name: &Name) {
        self.expire();
        if let Some(victim) = self.forget_name(name) {
            victim.lose_name(cx).await;
        }
    }

    async fn lose_name(&self, cx: Cx<'_>) {
        self.unlinked();
        self.touch_ctime(cx.caller).await;
        if self.known().nlink == 0 {
            self.fs.keep_no_longer(self);
        }
    }

    async fn remove(&self, cx: Cx<'_>, name: &Name, directory: bool) -> Result<(), Errno> {
        check_name(name)?;
        self.may_change_names(cx).await?;
        self.check_sticky(cx, name).await?;
        let _alone = self.names_lock.write().await;
        let calls = self.calls(cx);
        let removed = match directory {
            true => calls.rmdir(self.nodeid(), name.as_bytes()).await,
            false => calls.unlink(self.nodeid(), name.as_bytes()).await,
        };
        match removed {
            Ok(()) => self.lost_name(cx, name).await,
            Err(Errno::EINTR | Errno::ENOENT) => drop(self.forget_name(name)),
            Err(_) => {}
        }
        removed
    }

    /// With default_permissions: may the caller remove this name from a sticky directory?
    async fn check_sticky(&self, cx: Cx<'_>, name: &Name) -> Result<(), Errno> {
        if !self.fs.options.default_permissions || self.known().mode & 0o1000 == 0 {
            return Ok(());
        }
        let victim = self.child(cx, name).await?.known();
        if perm::may_remove(cx.caller.ids(), &self.known(), &victim) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    async fn rename_to(
        &self,
        cx: Cx<'_>,
        name: &Name,
        to_dir: &Node,
        to: &Name,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        check_name(name).and(check_name(to))?;
        self.may_change_names(cx).await?;
        to_dir.may_change_names(cx).await?;
        self.check_sticky(cx, name).await?;
        if to_dir.known().mode & 0o1000 != 0 && to_dir.child(cx, to).await.is_ok() {
            to_dir.check_sticky(cx, to).await?;
        }
        let same = std::ptr::eq(self, to_dir);
        let (first, second) = if self.nodeid() <= to_dir.nodeid() {
            (self, to_dir)
        } else {
            (to_dir, self)
        };
        let _first = first.names_lock.write().await;
        let _second = if same {
            None
        } else {
            Some(second.names_lock.write().await)
        };
        let calls = self.calls(cx);
        let renamed = calls
            .rename(
                self.nodeid(),
                name.as_bytes(),
                to_dir.nodeid(),
                to.as_bytes(),
                flags.bits(),
            )
            .await;
        match renamed {
            Ok(()) => {
                self.renamed(cx, name, to_dir, to, flags.contains(RenameFlags::EXCHANGE))
                    .await
            }
            Err(Errno::EINTR | Errno::ENOENT) => {
                self.forget_name(name);
                to_dir.forget_name(to);
            }
            Err(_) => {}
        }
        renamed
    }

    async fn renamed(&self, cx: Cx<'_>, name: &Name, to_dir: &Node, to: &Name, exchange: bool) {
        self.expire();
        to_dir.expire();
        let (moved, other) = (self.take_name(name), to_dir.take_name(to));
        if let Some((child, expires)) = moved {
            to_dir.remember(to, child.clone(), expires);
            if let Some(child) = child {
                child.touch_ctime(cx.caller).await;
            }
        }
        match other {
            Some((Some(child), expires)) if exchange => {
                self.remember(name, Some(child.clone()), expires);
                child.touch_ctime(cx.caller).await;
            }
            Some((Some(victim), _)) => victim.lose_name(cx).await,
            _ => {}
        }
    }

    async fn link_to(&self, cx: Cx<'_>, target: &Node, name: &Name) -> Result<(), Errno> {
        check_name(name)?;
        self.may_change_names(cx).await?;
        let _alone = self.names_lock.write().await;
        let version = self.fs.attr_version();
        let entry = self
            .calls(cx)
            .link(target.nodeid(), self.nodeid(), name.as_bytes())
            .await;
        // Servers that know files by their paths give the new name a node of its own; what is known of the old one stays.
        if matches!(entry, Err(Errno::EINTR)) {
            target.expire();
        }
        self.made(name, entry, version)?;
        if target.owns_size() {
            target.touch_ctime(cx.caller).await;
        }
        Ok(())
    }

    /// The target of a symbolic link.
    async fn target(&self, cx: Cx<'_>) -> Result<Bytes, Errno> {
        self.check()?;
        let cached = self.fs.negotiated(InitFlags::CACHE_SYMLINKS);
        if cached && let Some(target) = self.link.borrow().clone() {
            return Ok(target);
        }
        let target = self.calls(cx).readlink(self.nodeid()).await;
        self.accessed();
        let target = target?;
        if cached {
            self.link.replace(Some(target.clone()));
        }
        Ok(target)
    }
}

fn same_fs<'a>(node: &Node, other: &'a Rc<dyn Vnode>) -> Result<&'a Node, Errno> {
    let other = other.as_any().downcast_ref::<Node>().ok_or(Errno::EXDEV)?;
    if Rc::ptr_eq(&node.fs, &other.fs) {
        Ok(other)
    } else {
        Err(Errno::EXDEV)
    }
}

impl Vnode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn id(&self) -> u64 {
        std::ptr::from_ref(self).addr() as u64
    }

    fn attr<'a>(&'a self, cx: Cx<'a>, query: AttrQuery) -> Op<'a, Attr> {
        Box::pin(self.attributes(cx, query))
    }

    fn permission<'a>(&'a self, cx: Cx<'a>, mask: Access) -> Op<'a, ()> {
        Box::pin(self.may(cx, mask))
    }

    fn access<'a>(&'a self, cx: Cx<'a>, mask: Access) -> Op<'a, ()> {
        Box::pin(async move {
            if self.fs.options.default_permissions {
                return self.may(cx, mask).await;
            }
            self.fs.permits(cx)?;
            if mask.contains(Access::EXECUTE) && self.kind == FileKind::Regular {
                self.valid(cx.caller, None, PERMISSIONS).await?;
            }
            self.check()?;
            self.calls(cx).access(self.nodeid(), mask.bits()).await
        })
    }

    fn lookup<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move { self.child(cx, name).await.map(|node| node as Rc<dyn Vnode>) })
    }

    fn doubt(&self, name: &Name) {
        self.doubt_name(name);
    }

    fn readlink<'a>(&'a self, cx: Cx<'a>) -> Op<'a, Bytes> {
        if self.kind == FileKind::Symlink {
            Box::pin(self.target(cx))
        } else {
            crate::api::fail(Errno::EINVAL)
        }
    }

    fn open<'a>(self: Rc<Self>, cx: Cx<'a>, flags: OpenFlags) -> Op<'a, Rc<dyn File>> {
        Box::pin(async move {
            self.check()?;
            match self.kind {
                FileKind::Regular => self.open_file(cx, flags, true).await,
                FileKind::Directory if flags.writable() => Err(Errno::EISDIR),
                FileKind::Directory => {
                    self.may(cx, Access::READ).await?;
                    let handle = self.calls(cx).opendir(self.nodeid(), flags.bits()).await?;
                    Ok(Rc::new(DirFile::new(self, handle)) as Rc<dyn File>)
                }
                FileKind::Symlink => Err(Errno::ELOOP),
                FileKind::CharDevice | FileKind::BlockDevice => Err(Errno::EACCES),
                FileKind::Fifo | FileKind::Socket => Err(Errno::ENXIO),
            }
        })
    }

    fn create<'a>(self: Rc<Self>, cx: Cx<'a>, name: &'a Name, mode: u32, flags: OpenFlags) -> Op<'a, Created> {
        Box::pin(async move { self.create_file(cx, name, mode, flags).await })
    }

    fn tmpfile<'a>(self: Rc<Self>, cx: Cx<'a>, mode: u32, flags: OpenFlags) -> Op<'a, Created> {
        Box::pin(async move {
            self.may_change_names(cx).await?;
            let new = NewMode {
                mode: mode & 0o7777 | FileKind::Regular.mode(),
                umask: cx.caller.umask(),
            };
            let version = self.fs.attr_version();
            let (entry, handle) = self.calls(cx).tmpfile(self.nodeid(), new, flags.bits()).await?;
            self.expire();
            let node = self.fs.adopt(entry, version)?;
            let file = FuseFile::new(node.clone(), handle, flags)?;
            Ok(Created {
                node,
                file: file as Rc<dyn File>,
            })
        })
    }

    fn mknod<'a>(&'a self, cx: Cx<'a>, name: &'a Name, mode: u32, rdev: u32) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move {
            self.make_node(cx, name, mode, rdev)
                .await
                .map(|node| node as Rc<dyn Vnode>)
        })
    }

    fn mkdir<'a>(&'a self, cx: Cx<'a>, name: &'a Name, mode: u32) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move {
            check_name(name)?;
            self.may_change_names(cx).await?;
            let _alone = self.names_lock.write().await;
            let version = self.fs.attr_version();
            let new = NewMode {
                mode: mode & 0o7777,
                umask: cx.caller.umask(),
            };
            let entry = self.calls(cx).mkdir(self.nodeid(), name.as_bytes(), new).await;
            self.made(name, entry, version).map(|node| node as Rc<dyn Vnode>)
        })
    }

    fn symlink<'a>(&'a self, cx: Cx<'a>, name: &'a Name, target: &'a [u8]) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move {
            check_name(name)?;
            self.may_change_names(cx).await?;
            let _alone = self.names_lock.write().await;
            let version = self.fs.attr_version();
            let entry = self.calls(cx).symlink(self.nodeid(), name.as_bytes(), target).await;
            self.made(name, entry, version).map(|node| node as Rc<dyn Vnode>)
        })
    }

    fn link<'a>(&'a self, cx: Cx<'a>, target: &'a Rc<dyn Vnode>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move { self.link_to(cx, same_fs(self, target)?, name).await })
    }

    fn unlink<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(self.remove(cx, name, false))
    }

    fn rmdir<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(self.remove(cx, name, true))
    }

    fn rename<'a>(
        &'a self,
        cx: Cx<'a>,
        name: &'a Name,
        new_dir: &'a Rc<dyn Vnode>,
        new_name: &'a Name,
        flags: RenameFlags,
    ) -> Op<'a, ()> {
        Box::pin(async move { self.rename_to(cx, name, same_fs(self, new_dir)?, new_name, flags).await })
    }

    fn setattr<'a>(&'a self, cx: Cx<'a>, change: SetAttr<'a>) -> Op<'a, ()> {
        Box::pin(self.change(cx, change))
    }

    fn statfs<'a>(&'a self, cx: Cx<'a>) -> Op<'a, StatFs> {
        Box::pin(async move {
            if !self.fs.allows(cx) {
                return Ok(StatFs {
                    magic: SUPER_MAGIC,
                    ..StatFs::default()
                });
            }
            let out = self.calls(cx).statfs(self.nodeid()).await?;
            Ok(StatFs {
                magic: SUPER_MAGIC,
                blocks: out.blocks,
                bfree: out.bfree,
                bavail: out.bavail,
                files: out.files,
                ffree: out.ffree,
                bsize: out.bsize.into(),
                namelen: out.namelen.into(),
                frsize: if out.frsize == 0 {
                    out.bsize.into()
                } else {
                    out.frsize.into()
                },
            })
        })
    }

    fn getxattr<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, Bytes> {
        Box::pin(async move { self.calls(cx).getxattr(self.nodeid(), name.as_bytes()).await })
    }

    fn listxattr<'a>(&'a self, cx: Cx<'a>) -> Op<'a, Bytes> {
        Box::pin(async move {
            self.fs.permits(cx)?;
            self.calls(cx).listxattr(self.nodeid()).await
        })
    }

    fn setxattr<'a>(&'a self, cx: Cx<'a>, name: &'a Name, value: Bytes, flags: XattrFlags) -> Op<'a, ()> {
        Box::pin(async move {
            self.calls(cx)
                .setxattr(self.nodeid(), name.as_bytes(), value, flags.bits())
                .await?;
            self.touch_ctime(cx.caller).await;
            Ok(())
        })
    }

    fn removexattr<'a>(&'a self, cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move {
            self.calls(cx).removexattr(self.nodeid(), name.as_bytes()).await?;
            self.touch_ctime(cx.caller).await;
            Ok(())
        })
    }
}
