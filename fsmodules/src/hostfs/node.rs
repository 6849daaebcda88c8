//! A file of the host.

use std::any::Any;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, chmodat, chownat,
    fstat, fstatfs, linkat, mkdirat, mknodat, openat, readlinkat, renameat_with, statat, symlinkat, unlinkat,
    utimensat,
};

use super::file::{HostDir, HostFile};
use super::{HANDLE, HostFs};
use crate::api::{
    Access, Attr, AttrQuery, Created, Cx, Errno, File, FileKind, Name, Op, OpenFlags, RenameFlags, SetAttr, SetTime,
    StatFs, Time, Vnode, XattrFlags, errno, split_dev,
};
use crate::fuse::locks::LockTable;
use crate::ids::{Cap, Creds, Owner, changed, permits, without_set_id};

/// Permissions that the real user keeps where ids are virtual.
const OWN_FILE: u32 = 0o600;
const OWN_DIR: u32 = 0o700;
const SET_GID: u32 = 0o2000;

pub struct HostNode {
    fs: Rc<HostFs>,
    fd: OwnedFd,
    kind: FileKind,
    key: (u64, u64),
    id: u64,
    pub(super) locks: LockTable,
}

impl Drop for HostNode {
    fn drop(&mut self) {
        self.fs.gone(self.key);
    }
}

impl HostNode {
    pub(super) fn new(fs: Rc<HostFs>, fd: OwnedFd, kind: FileKind, key: (u64, u64), id: u64) -> Rc<HostNode> {
        Rc::new(HostNode {
            fs,
            fd,
            kind,
            key,
            id,
            locks: LockTable::default(),
        })
    }

    /// The number of the host's device that it is on.
    pub fn dev(&self) -> u64 {
        self.key.0
    }

    /// Where the host has it now.
    pub fn path(&self) -> Option<PathBuf> {
        std::fs::read_link(self.link()).ok()
    }

    /// The path that leads to it whatever its name is.
    fn link(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    fn stat(&self) -> Result<Stat, Errno> {
        fstat(&self.fd).map_err(errno)
    }

    fn owner(&self, cx: Cx<'_>, stat: &Stat) -> Owner {
        let disk = on_disk(stat);
        if cx.caller.has_virtual_ids() {
            self.fs.owners.borrow().shown(self.key, disk)
        } else {
            disk
        }
    }

    fn child(&self, name: &Name) -> Result<Rc<HostNode>, Errno> {
        self.fs
            .adopt(openat(&self.fd, os(name), HANDLE, Mode::empty()).map_err(errno)?)
    }

    /// A file that has just been made here.
    fn made(&self, cx: Cx<'_>, name: &Name, mode: Option<u32>) -> Result<Rc<HostNode>, Errno> {
        let fd = openat(&self.fd, os(name), HANDLE, Mode::empty()).map_err(errno)?;
        self.take(cx, fd, mode)
    }

    fn take(&self, cx: Cx<'_>, fd: OwnedFd, mode: Option<u32>) -> Result<Rc<HostNode>, Errno> {
        let stat = fstat(&fd).map_err(errno)?;
        // An earlier file may have had the same number.
        self.fs.owners.borrow_mut().forget((stat.st_dev, stat.st_ino));
        let node = self.fs.adopt(fd)?;
        node.finish(cx, self, mode)?;
        Ok(node)
    }

    /// The file whose last name this is, so that nothing of it need be remembered once the name is gone.
    fn last_name_of(&self, name: &Name) -> Option<(u64, u64)> {
        let stat = statat(&self.fd, os(name), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let last = stat.st_nlink <= 1 || FileKind::from_mode(stat.st_mode) == Some(FileKind::Directory);
        last.then_some((stat.st_dev, stat.st_ino))
    }

    fn remove(&self, name: &Name, flags: AtFlags) -> Result<(), Errno> {
        let last = self.last_name_of(name);
        unlinkat(&self.fd, os(name), flags).map_err(errno)?;
        self.fs.forget(last);
        Ok(())
    }

    fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(CWD, self.link(), flags | OFlags::CLOEXEC, Mode::empty()).map_err(errno)
    }

    /// A file that has just been made in `dir` gets its mode, whatever umvu's own umask, and its owner.
    fn finish(&self, cx: Cx<'_>, dir: &HostNode, mode: Option<u32>) -> Result<(), Errno> {
        let mode = mode.map(|mode| mode & 0o7777 & !cx.caller.umask());
        let stat = self.stat()?;
        if !cx.caller.has_virtual_ids() {
            return match mode {
                // A directory may have inherited the bit.
                Some(mode) => self.set_mode(mode | stat.st_mode & SET_GID),
                None => Ok(()),
            };
        }
        if let Some(mode) = mode {
            self.set_mode(mode & 0o1777 | self.own())?;
        }
        let stat = self.stat()?;
        let mode = mode.map_or(stat.st_mode, |mode| stat.st_mode & !0o7777 | mode);
        let owner = dir.heir(cx, mode, stat.st_rdev)?;
        self.fs.owners.borrow_mut().set(self.key, on_disk(&stat), owner);
        Ok(())
    }

    /// To whom a new file in this directory belongs.
    fn heir(&self, cx: Cx<'_>, mode: u32, rdev: u64) -> Result<Owner, Errno> {
        let ids = cx.caller.ids();
        let mut owner = Owner {
            uid: ids.fsuid,
            gid: ids.fsgid,
            mode,
            rdev,
        };
        let dir = self.owner(cx, &self.stat()?);
        if dir.mode & SET_GID != 0 {
            owner.gid = dir.gid;
            if FileKind::from_mode(mode) == Some(FileKind::Directory) {
                owner.mode |= SET_GID;
            }
        }
        Ok(owner)
    }

    /// A device node that is only remembered: on disk it is an empty file.
    fn remembered_device(&self, cx: Cx<'_>, name: &Name, mode: u32, rdev: u32) -> Result<Rc<HostNode>, Errno> {
        let empty = rustix::fs::FileType::RegularFile;
        mknodat(&self.fd, os(name), empty, Mode::RUSR | Mode::WUSR, 0).map_err(errno)?;
        let fd = openat(&self.fd, os(name), HANDLE, Mode::empty()).map_err(errno)?;
        let stat = fstat(&fd).map_err(errno)?;
        let owner = self.heir(cx, mode & !cx.caller.umask(), decoded_dev(rdev))?;
        self.fs
            .owners
            .borrow_mut()
            .set((stat.st_dev, stat.st_ino), on_disk(&stat), owner);
        self.fs.adopt(fd)
    }

    fn own(&self) -> u32 {
        if self.kind == FileKind::Directory {
            OWN_DIR
        } else {
            OWN_FILE
        }
    }

    /// Whoever writes to another user's file takes its set-id bits away (`file_remove_privs`). Those on disk the kernel
    /// takes.
    pub(super) fn written(&self, cx: Cx<'_>) -> Result<(), Errno> {
        let known = self.fs.owners.borrow().known(self.key, FileKind::Regular.mode());
        let Some(old) = known.filter(|_| cx.caller.has_virtual_ids()) else {
            return Ok(());
        };
        let new = Owner {
            mode: without_set_id(old.mode),
            ..old
        };
        if new != old && !Creds::for_files(cx.caller.ids()).has(Cap::Fsetid) {
            self.fs.owners.borrow_mut().set(self.key, on_disk(&self.stat()?), new);
        }
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        chmodat(CWD, self.link(), Mode::from_raw_mode(mode as RawMode), AtFlags::empty()).map_err(errno)
    }

    fn change(&self, cx: Cx<'_>, change: SetAttr<'_>) -> Result<(), Errno> {
        if let Some(size) = change.size {
            match change.file.and_then(|file| file.as_any().downcast_ref::<HostFile>()) {
                Some(open) => open.truncate(size)?,
                None => rustix::fs::ftruncate(self.reopen(OFlags::WRONLY)?, size).map_err(errno)?,
            }
            self.written(cx)?;
        }
        if change.mode.is_some() || change.is_of_owner() {
            if cx.caller.has_virtual_ids() {
                self.change_owner(cx, &change)?;
            } else {
                self.change_on_disk(&change)?;
            }
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(change.atime),
                last_modification: timespec(change.mtime),
            };
            utimensat(CWD, self.link(), &times, AtFlags::empty()).map_err(errno)?;
        }
        Ok(())
    }

    fn change_on_disk(&self, change: &SetAttr<'_>) -> Result<(), Errno> {
        if change.is_of_owner() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            chownat(&self.fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(errno)?;
        }
        match change.mode {
            Some(mode) => self.set_mode(mode),
            None => Ok(()),
        }
    }

    /// Remembered, and done as far as the real user keeps access.
    fn change_owner(&self, cx: Cx<'_>, change: &SetAttr<'_>) -> Result<(), Errno> {
        let old = self.owner(cx, &self.stat()?);
        let new = changed(&Creds::for_files(cx.caller.ids()), &old, change)?;
        if change.mode.is_some() && self.kind != FileKind::Symlink {
            self.set_mode(new.mode & 0o1777 | self.own())?;
        } else {
            // The time of change, as if it had been done; that of somebody else's file stays.
            let _ = chownat(&self.fd, "", None, None, AtFlags::EMPTY_PATH);
        }
        self.fs.owners.borrow_mut().set(self.key, on_disk(&self.stat()?), new);
        Ok(())
    }
}

fn on_disk(stat: &Stat) -> Owner {
    Owner {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode,
        rdev: stat.st_rdev,
    }
}

fn os(name: &Name) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

fn timespec(time: Option<SetTime>) -> Timespec {
    let (tv_sec, tv_nsec) = match time {
        None => (0, UTIME_OMIT),
        Some(SetTime::Now) => (0, UTIME_NOW),
        Some(SetTime::At(time)) => (time.sec, time.nsec.into()),
    };
    Timespec { tv_sec, tv_nsec }
}

/// `dev_t` in the kernel's 32-bit encoding, and back.
fn encoded_dev(dev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

fn decoded_dev(dev: u32) -> u64 {
    let (major, minor) = split_dev(dev);
    rustix::fs::makedev(major, minor)
}

impl Vnode for HostNode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn kind(&self) -> FileKind {
        self.kind
    }
    fn id(&self) -> u64 {
        self.id
    }
    fn attr<'a>(&'a self, cx: Cx<'a>, _query: AttrQuery) -> Op<'a, Attr> {
        Box::pin(async move {
            let stat = self.stat()?;
            let owner = self.owner(cx, &stat);
            let time = |sec: i64, nsec: u64| Time { sec, nsec: nsec as u32 };
            Ok(Attr {
                ino: stat.st_ino,
                mode: owner.mode,
                nlink: stat.st_nlink as u32,
                uid: owner.uid,
                gid: owner.gid,
                rdev: encoded_dev(owner.rdev),
                size: stat.st_size as u64,
                blocks: stat.st_blocks as u64,
                blksize: stat.st_blksize as u32,
                atime: time(stat.st_atime, stat.st_atime_nsec),
                mtime: time(stat.st_mtime, stat.st_mtime_nsec),
                ctime: time(stat.st_ctime, stat.st_ctime_nsec),
                btime: None,
            })
        })
    }
    fn permission<'a>(&'a self, cx: Cx<'a>, mask: Access) -> Op<'a, ()> {
        Box::pin(async move {
            if permits(&Creds::for_files(cx.caller.ids()), &self.owner(cx, &self.stat()?), mask) {
                Ok(())
            } else {
                Err(Errno::EACCES)
            }
        })
    }
    fn lookup<'a>(&'a self, _cx: Cx<'a>, name: &'a Name) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move { Ok(self.child(name)? as Rc<dyn Vnode>) })
    }
    fn readlink<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, Bytes> {
        Box::pin(async { Ok(readlinkat(&self.fd, "", Vec::new()).map_err(errno)?.into_bytes().into()) })
    }
    fn open<'a>(self: Rc<Self>, _cx: Cx<'a>, flags: OpenFlags) -> Op<'a, Rc<dyn File>> {
        Box::pin(async move {
            let kept = OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::TRUNC | OpenFlags::NONBLOCK;
            let fd = self.reopen(OFlags::from_bits_retain((flags & kept).bits()))?;
            Ok(match self.kind {
                FileKind::Directory => Rc::new(HostDir::new(self, fd)) as Rc<dyn File>,
                _ => Rc::new(HostFile::new(self, fd)),
            })
        })
    }
    fn create<'a>(self: Rc<Self>, cx: Cx<'a>, name: &'a Name, mode: u32, flags: OpenFlags) -> Op<'a, Created> {
        Box::pin(async move {
            let how = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            match openat(&self.fd, os(name), how, Mode::RUSR | Mode::WUSR) {
                Ok(_) => {
                    let node = self.made(cx, name, Some(mode))?;
                    let file = node.clone().open(cx, flags).await?;
                    Ok(Created { node, file })
                }
                Err(rustix::io::Errno::EXIST) if !flags.contains(OpenFlags::EXCL) => {
                    let node = self.child(name)?;
                    let file = node.clone().open(cx, flags).await?;
                    Ok(Created { node, file })
                }
                Err(e) => Err(errno(e)),
            }
        })
    }
    fn tmpfile<'a>(self: Rc<Self>, cx: Cx<'a>, mode: u32, flags: OpenFlags) -> Op<'a, Created> {
        Box::pin(async move {
            let how = OFlags::TMPFILE
                | OFlags::WRONLY
                | OFlags::CLOEXEC
                | OFlags::from_bits_retain((flags & OpenFlags::EXCL).bits());
            let made = openat(CWD, self.link(), how, Mode::RUSR | Mode::WUSR).map_err(errno)?;
            // By its link, whose last part must be followed: it has no name.
            let link = format!("/proc/self/fd/{}", made.as_raw_fd());
            let fd = openat(CWD, link, HANDLE.difference(OFlags::NOFOLLOW), Mode::empty()).map_err(errno)?;
            let node = self.take(cx, fd, Some(mode))?;
            let file = node.clone().open(cx, flags).await?;
            Ok(Created { node, file })
        })
    }
    fn mknod<'a>(&'a self, cx: Cx<'a>, name: &'a Name, mode: u32, rdev: u32) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move {
            let kind = rustix::fs::FileType::from_raw_mode(mode as RawMode);
            if kind.is_char_device() && rdev == 0 {
                // A whiteout, which is nobody's.
                mknodat(&self.fd, os(name), kind, Mode::empty(), 0).map_err(errno)?;
                return Ok(self.child(name)? as Rc<dyn Vnode>);
            }
            if cx.caller.has_virtual_ids() && (kind.is_char_device() || kind.is_block_device()) {
                return Ok(self.remembered_device(cx, name, mode, rdev)? as Rc<dyn Vnode>);
            }
            mknodat(&self.fd, os(name), kind, Mode::RUSR | Mode::WUSR, decoded_dev(rdev)).map_err(errno)?;
            Ok(self.made(cx, name, Some(mode))? as Rc<dyn Vnode>)
        })
    }
    fn mkdir<'a>(&'a self, cx: Cx<'a>, name: &'a Name, mode: u32) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move {
            mkdirat(&self.fd, os(name), Mode::RWXU).map_err(errno)?;
            Ok(self.made(cx, name, Some(mode))? as Rc<dyn Vnode>)
        })
    }
    fn symlink<'a>(&'a self, cx: Cx<'a>, name: &'a Name, target: &'a [u8]) -> Op<'a, Rc<dyn Vnode>> {
        Box::pin(async move {
            symlinkat(OsStr::from_bytes(target), &self.fd, os(name)).map_err(errno)?;
            Ok(self.made(cx, name, None)? as Rc<dyn Vnode>)
        })
    }
    fn link<'a>(&'a self, _cx: Cx<'a>, target: &'a Rc<dyn Vnode>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move {
            let target = target.as_any().downcast_ref::<HostNode>().ok_or(Errno::EXDEV)?;
            linkat(CWD, target.link(), &self.fd, os(name), AtFlags::SYMLINK_FOLLOW).map_err(errno)
        })
    }
    fn unlink<'a>(&'a self, _cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move { self.remove(name, AtFlags::empty()) })
    }
    fn rmdir<'a>(&'a self, _cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move { self.remove(name, AtFlags::REMOVEDIR) })
    }
    fn rename<'a>(
        &'a self,
        _cx: Cx<'a>,
        name: &'a Name,
        new_dir: &'a Rc<dyn Vnode>,
        new_name: &'a Name,
        flags: RenameFlags,
    ) -> Op<'a, ()> {
        Box::pin(async move {
            let new_dir = new_dir.as_any().downcast_ref::<HostNode>().ok_or(Errno::EXDEV)?;
            let exchange = flags.contains(RenameFlags::EXCHANGE);
            let victim = new_dir.last_name_of(new_name).filter(|_| !exchange);
            let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
            renameat_with(&self.fd, os(name), &new_dir.fd, os(new_name), flags).map_err(errno)?;
            self.fs.forget(victim);
            Ok(())
        })
    }
    fn setattr<'a>(&'a self, cx: Cx<'a>, change: SetAttr<'a>) -> Op<'a, ()> {
        Box::pin(async move { self.change(cx, change) })
    }
    fn statfs<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, StatFs> {
        Box::pin(async {
            let stat = fstatfs(&self.fd).map_err(errno)?;
            Ok(StatFs {
                magic: stat.f_type as u64,
                blocks: stat.f_blocks,
                bfree: stat.f_bfree,
                bavail: stat.f_bavail,
                files: stat.f_files,
                ffree: stat.f_ffree,
                bsize: stat.f_bsize as u64,
                namelen: stat.f_namelen as u64,
                frsize: stat.f_frsize as u64,
            })
        })
    }
    fn getxattr<'a>(&'a self, _cx: Cx<'a>, name: &'a Name) -> Op<'a, Bytes> {
        Box::pin(async move {
            let mut value = vec![0; 65536];
            let len = rustix::fs::getxattr(self.link(), os(name), &mut value).map_err(errno)?;
            value.truncate(len);
            Ok(value.into())
        })
    }
    fn listxattr<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, Bytes> {
        Box::pin(async {
            let mut names = vec![0; 65536];
            let len = rustix::fs::listxattr(self.link(), &mut names).map_err(errno)?;
            names.truncate(len);
            Ok(names.into())
        })
    }
    fn setxattr<'a>(&'a self, _cx: Cx<'a>, name: &'a Name, value: Bytes, flags: XattrFlags) -> Op<'a, ()> {
        let flags = rustix::fs::XattrFlags::from_bits_retain(flags.bits());
        Box::pin(async move { rustix::fs::setxattr(self.link(), os(name), &value, flags).map_err(errno) })
    }
    fn removexattr<'a>(&'a self, _cx: Cx<'a>, name: &'a Name) -> Op<'a, ()> {
        Box::pin(async move { rustix::fs::removexattr(self.link(), os(name)).map_err(errno) })
    }
}
