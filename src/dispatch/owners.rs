//! The host's files for callers whose ids are virtual: owners, modes and device nodes as the view remembers them, and
//! permission checks by the ids that the caller believes in.
//!
//! The kernel still makes the call, as the real user, to whom every file belongs. Where the real user's permission
//! bits would be in the way of virtual root, they are widened on disk, and the view goes on showing the narrow ones.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

use fsmodules::api::{Access, AttrQuery, Errno, FileKind, MountFlags, OpenFlags, SetAttr, errno};
use fsmodules::ids::{Cap, Creds, Owner, changed, may_remove, permits, without_set_id};

use crate::abi::{RawCall, Stat, Statx, StatxTimestamp};
use crate::trap::Reply;
use crate::view::{Found, HostPlace, HostRights, Place};

use super::context::HostFile;
use super::{Ctx, host};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
/// Permissions that the real user keeps.
const OWN_FILE: u32 = 0o600;
const OWN_DIR: u32 = 0o700;

fn key(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn on_disk(meta: &Metadata) -> Owner {
    Owner {
        uid: meta.uid(),
        gid: meta.gid(),
        mode: meta.mode(),
        rdev: meta.rdev(),
    }
}

fn shown(cx: &Ctx, meta: &Metadata) -> Owner {
    cx.hv.owners.borrow().shown(key(meta), on_disk(meta))
}

fn remember(cx: &Ctx, meta: &Metadata, owner: Owner) {
    cx.hv.owners.borrow_mut().set(key(meta), on_disk(meta), owner);
}

fn look(path: &Path, follow: bool) -> Result<Metadata, Errno> {
    Ok(match follow {
        true => std::fs::metadata(path)?,
        false => std::fs::symlink_metadata(path)?,
    })
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

// Permissions.

/// Checks directories on the way of a walk.
pub struct Searcher<'a> {
    pub cx: &'a Ctx,
    pub creds: Rc<Creds>,
}

impl HostRights for Searcher<'_> {
    fn search(&self, directory: &HostPlace) -> Result<(), Errno> {
        if self.creds.has(Cap::DacOverride) {
            return Ok(());
        }
        match look(&directory.path, true) {
            Ok(meta) => check(self.cx, &self.creds, &meta, Access::EXECUTE),
            // The walk will find out.
            Err(_) => Ok(()),
        }
    }
}

fn check(cx: &Ctx, creds: &Creds, meta: &Metadata, mask: Access) -> Result<(), Errno> {
    if permits(creds, &shown(cx, meta), mask) {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

/// May the caller make and remove names there?
fn check_directory(cx: &Ctx, creds: &Creds, name: &Path) -> Result<(), Errno> {
    match look(parent(name), true) {
        Ok(meta) if !meta.is_dir() => Err(Errno::ENOTDIR),
        Ok(meta) => check(cx, creds, &meta, Access::WRITE | Access::EXECUTE),
        Err(_) => Ok(()),
    }
}

fn check_removal(cx: &Ctx, creds: &Creds, name: &Path) -> Result<(), Errno> {
    check_directory(cx, creds, name)?;
    if let (Ok(dir), Ok(victim)) = (look(parent(name), true), look(name, false))
        && !may_remove(creds, &shown(cx, &dir), &shown(cx, &victim))
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// access(2), with the real ids unless `effective`.
pub fn access(cx: &Ctx, creds: &Creds, path: &Path, follow: bool, mask: Access, effective: bool) -> Result<(), Errno> {
    let meta = look(path, follow)?;
    let asking = if effective {
        creds.clone()
    } else {
        let mut real = creds.clone();
        (real.ids.fsuid, real.ids.fsgid) = (creds.ids.ruid, creds.ids.rgid);
        real.caps.effective = if creds.ids.ruid == 0 { creds.caps.permitted } else { 0 };
        real
    };
    check(cx, &asking, &meta, mask)?;
    if meta.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    // Whatever the view says, the host must allow it too.
    let mask = rustix::fs::Access::from_bits_truncate(mask.bits());
    rustix::fs::access(path, mask).map_err(errno)
}

/// Who the caller will be when it executes this program.
pub async fn executed(cx: &Ctx, program: &Place) -> Result<Option<Creds>, Errno> {
    let Some(creds) = cx.task.creds() else { return Ok(None) };
    let owner = match program {
        Place::Host(place) => {
            let meta = look(&place.path, true)?;
            check(cx, &creds, &meta, Access::EXECUTE)?;
            shown(cx, &meta)
        }
        Place::Virtual(place) => {
            let attr = place.node().attr(cx.cx(), AttrQuery::KNOWN).await?;
            Owner {
                uid: attr.uid,
                gid: attr.gid,
                mode: attr.mode,
                rdev: 0,
            }
        }
    };
    let takes = |bits: u32| owner.mode & bits == bits && !program.mount().flags().contains(MountFlags::NOSUID);
    let set_uid = takes(SET_UID).then_some(owner.uid);
    let set_gid = takes(SET_GID | 0o10).then_some(owner.gid);
    Ok(Some(creds.executed(set_uid, set_gid)))
}

// Attributes.

pub fn stat(cx: &Ctx, path: &Path, follow: bool, address: u64) -> Result<Reply, Errno> {
    let meta = look(path, follow)?;
    let owner = shown(cx, &meta);
    let stat = Stat {
        st_dev: meta.dev(),
        st_ino: meta.ino(),
        st_nlink: meta.nlink(),
        st_mode: owner.mode,
        st_uid: owner.uid,
        st_gid: owner.gid,
        st_rdev: owner.rdev,
        st_size: meta.size() as i64,
        st_blksize: meta.blksize() as i64,
        st_blocks: meta.blocks() as i64,
        st_atime: meta.atime(),
        st_atime_nsec: meta.atime_nsec(),
        st_mtime: meta.mtime(),
        st_mtime_nsec: meta.mtime_nsec(),
        st_ctime: meta.ctime(),
        st_ctime_nsec: meta.ctime_nsec(),
        ..zerocopy::FromZeros::new_zeroed()
    };
    cx.write_value(address, &stat)?;
    Ok(Reply::Return(0))
}

pub fn statx(cx: &Ctx, path: &Path, follow: bool) -> Result<Reply, Errno> {
    use rustix::fs::{AtFlags, CWD, StatxFlags};
    let mut flags = AtFlags::from_bits_retain(cx.int(2)) & !(AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW);
    flags.set(AtFlags::SYMLINK_NOFOLLOW, !follow);
    // The owner is found by the inode, whatever was asked for.
    let mask = StatxFlags::from_bits_retain(cx.int(3)) | StatxFlags::BASIC_STATS;
    let got = rustix::fs::statx(CWD, path, flags, mask).map_err(errno)?;
    let disk = Owner {
        uid: got.stx_uid,
        gid: got.stx_gid,
        mode: got.stx_mode.into(),
        rdev: libc::makedev(got.stx_rdev_major, got.stx_rdev_minor),
    };
    let dev = libc::makedev(got.stx_dev_major, got.stx_dev_minor);
    let owner = cx.hv.owners.borrow().shown((dev, got.stx_ino), disk);
    let time = |t: rustix::fs::StatxTimestamp| StatxTimestamp {
        tv_sec: t.tv_sec,
        tv_nsec: t.tv_nsec,
        pad: 0,
    };
    let statx = Statx {
        stx_mask: got.stx_mask,
        stx_blksize: got.stx_blksize,
        stx_attributes: got.stx_attributes.bits(),
        stx_nlink: got.stx_nlink,
        stx_uid: owner.uid,
        stx_gid: owner.gid,
        stx_mode: owner.mode as u16,
        stx_ino: got.stx_ino,
        stx_size: got.stx_size,
        stx_blocks: got.stx_blocks,
        stx_attributes_mask: got.stx_attributes_mask.bits(),
        stx_atime: time(got.stx_atime),
        stx_btime: time(got.stx_btime),
        stx_ctime: time(got.stx_ctime),
        stx_mtime: time(got.stx_mtime),
        stx_rdev_major: libc::major(owner.rdev),
        stx_rdev_minor: libc::minor(owner.rdev),
        stx_dev_major: got.stx_dev_major,
        stx_dev_minor: got.stx_dev_minor,
        stx_mnt_id: got.stx_mnt_id,
        ..zerocopy::FromZeros::new_zeroed()
    };
    cx.write_value(cx.arg(4), &statx)?;
    Ok(Reply::Return(0))
}

/// chown(2) and its family: remembered, not done. −1 leaves an id alone.
pub fn chown(cx: &Ctx, creds: &Creds, path: &Path, follow: bool, [uid, gid]: [u32; 2]) -> Result<Reply, Errno> {
    let meta = look(path, follow)?;
    let old = shown(cx, &meta);
    let id = |id: u32| (id != u32::MAX).then_some(id);
    let change = SetAttr {
        uid: id(uid),
        gid: id(gid),
        ..SetAttr::default()
    };
    let new = changed(creds, &old, &change)?;
    remember(cx, &meta, new);
    touch_ctime(path, follow);
    Ok(Reply::Return(0))
}

/// The file's time of change, which a real chown(2) would have set.
fn touch_ctime(path: &Path, follow: bool) {
    use rustix::fs::{AtFlags, CWD, chownat};
    let flags = if follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    // Of a file that is not the real user's, the time stays.
    let _ = chownat(CWD, path, None, None, flags);
}

/// chmod(2) and its family: done as far as the real user keeps access; set-id bits are only remembered.
pub fn chmod(cx: &Ctx, creds: &Creds, path: &Path, follow: bool, mode: u32) -> Result<Reply, Errno> {
    let meta = look(path, follow)?;
    if meta.is_symlink() {
        return Err(Errno::EOPNOTSUPP);
    }
    let old = shown(cx, &meta);
    let change = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    let new = changed(creds, &old, &change)?;
    let own = if meta.is_dir() { OWN_DIR } else { OWN_FILE };
    let disk = new.mode & 0o1777 | own;
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(disk)) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && creds.has(Cap::Fowner) => {}
        Err(e) => return Err(e.into()),
    }
    let meta = look(path, follow)?;
    remember(cx, &meta, new);
    Ok(Reply::Return(0))
}

/// A call that changes a file otherwise: may the caller?
pub fn check_change(cx: &Ctx, creds: &Creds, file: &HostFile) -> Result<(), Errno> {
    let Ok(meta) = look(file.as_path(), true) else {
        return Ok(());
    };
    let owns = creds.ids.fsuid == shown(cx, &meta).uid || creds.has(Cap::Fowner);
    let times = matches!(
        i64::from(cx.call.nr),
        libc::SYS_utimensat | libc::SYS_utime | libc::SYS_utimes | libc::SYS_futimesat
    );
    if times && owns {
        return Ok(());
    }
    if times && sets_a_time(cx) {
        return Err(Errno::EPERM);
    }
    check(cx, creds, &meta, Access::WRITE)?;
    if i64::from(cx.call.nr) == libc::SYS_truncate {
        drop_set_id(cx, creds, &meta);
    }
    Ok(())
}

/// Does the call set a time that is not simply now? That takes the owner.
fn sets_a_time(cx: &Ctx) -> bool {
    if i64::from(cx.call.nr) != libc::SYS_utimensat {
        return cx.arg(if i64::from(cx.call.nr) == libc::SYS_futimesat {
            2
        } else {
            1
        }) != 0;
    }
    match cx.read_value::<[i64; 4]>(cx.arg(2)) {
        Ok([_, atime, _, mtime]) => [atime, mtime] != [libc::UTIME_NOW; 2],
        Err(_) => false,
    }
}

// Names.

/// mkdirat(2), mknodat(2) and symlinkat(2), with the path in argument `arg`.
pub async fn make(cx: &Ctx, creds: &Creds, arg: usize, name: &HostFile) -> Result<Reply, Errno> {
    check_directory(cx, creds, name.as_path())?;
    let umask = cx.task.fs().umask.get();
    let mut call = cx.call;
    let mut made = Made::default();
    match i64::from(call.nr) {
        libc::SYS_mkdirat => {
            made.mode = Some(libc::S_IFDIR | cx.int(2) & 0o1777 & !umask);
            call.args[2] |= u64::from(OWN_DIR);
        }
        libc::SYS_mknodat => {
            let mode = cx.int(2);
            let kind = FileKind::from_mode(mode).unwrap_or(FileKind::Regular);
            made.mode = Some(kind.mode() | mode & 0o7777 & !umask);
            call.args[2] = u64::from(mode & !0o6000 | OWN_FILE);
            if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
                if !creds.has(Cap::Mknod) {
                    return Err(Errno::EPERM);
                }
                made.rdev = u64::from(cx.int(3));
                call.args[2] = u64::from(libc::S_IFREG | OWN_FILE);
                call.args[3] = 0;
            }
        }
        _ => {}
    }
    let reply = cx.call_with_paths(call, &[(arg, name)]).await?;
    if matches!(reply, Reply::Return(0)) {
        created(cx, creds, name.as_path(), made);
    }
    Ok(reply)
}

/// What was asked for where the disk has something else.
#[derive(Default)]
struct Made {
    mode: Option<u32>,
    rdev: u64,
}

/// A new file belongs to whom it would belong to.
fn created(cx: &Ctx, creds: &Creds, path: &Path, made: Made) {
    let Ok(meta) = look(path, false) else { return };
    // An earlier file may have had the same number.
    cx.hv.owners.borrow_mut().forget(key(&meta));
    let mut owner = Owner {
        uid: creds.ids.fsuid,
        gid: creds.ids.fsgid,
        mode: made.mode.unwrap_or(meta.mode()),
        rdev: made.rdev,
    };
    if let Ok(dir) = look(parent(path), true).map(|meta| shown(cx, &meta))
        && dir.mode & SET_GID != 0
    {
        owner.gid = dir.gid;
        if meta.is_dir() {
            owner.mode |= SET_GID;
        }
    }
    remember(cx, &meta, owner);
}

/// unlinkat(2) and rmdir(2).
pub async fn remove(cx: &Ctx, creds: &Creds, arg: usize, name: &HostFile) -> Result<Reply, Errno> {
    check_removal(cx, creds, name.as_path())?;
    let victim = look(name.as_path(), false);
    let reply = cx.with_paths(&[(arg, name)]).await?;
    if let (Reply::Return(0), Ok(meta)) = (&reply, victim) {
        forget_last(cx, &meta);
    }
    Ok(reply)
}

/// One name of a file is gone.
fn forget_last(cx: &Ctx, meta: &Metadata) {
    if meta.is_dir() || meta.nlink() <= 1 {
        cx.hv.owners.borrow_mut().forget(key(meta));
    }
}

pub fn check_link(cx: &Ctx, creds: &Creds, new: &HostFile) -> Result<(), Errno> {
    check_directory(cx, creds, new.as_path())
}

/// A directory that comes to be in another one is written to: its ".." changes.
fn check_reparenting(cx: &Ctx, creds: &Creds, old: &Path, new: &Path) -> Result<(), Errno> {
    match look(old, false) {
        Ok(meta) if meta.is_dir() && parent(old) != parent(new) => check(cx, creds, &meta, Access::WRITE),
        _ => Ok(()),
    }
}

pub async fn rename(cx: &Ctx, creds: &Creds, old: &HostFile, new: &HostFile) -> Result<Reply, Errno> {
    check_removal(cx, creds, old.as_path())?;
    check_removal(cx, creds, new.as_path())?;
    check_reparenting(cx, creds, old.as_path(), new.as_path())?;
    let (moved, victim) = (look(old.as_path(), false), look(new.as_path(), false));
    let reply = cx.with_paths(&[(1, old), (3, new)]).await?;
    let exchange = i64::from(cx.call.nr) == libc::SYS_renameat2 && cx.int(4) & libc::RENAME_EXCHANGE != 0;
    if let (Reply::Return(0), Ok(moved), Ok(victim)) = (&reply, moved, victim)
        && !exchange
        && key(&moved) != key(&victim)
    {
        forget_last(cx, &victim);
    }
    Ok(reply)
}

// open(2)

/// openat(2) and openat2(2), of a file that may exist or not; `call` is the openat(2) that the kernel is to be asked.
pub async fn open(
    cx: &Ctx,
    creds: &Creds,
    call: RawCall,
    found: &Found,
    file: &HostFile,
    flags: OpenFlags,
) -> Result<Reply, Errno> {
    let path = file.as_path();
    let exists = found.place.is_some();
    let temporary = flags.contains(OpenFlags::TMPFILE);
    let creates = flags.contains(OpenFlags::CREAT) && !exists && !flags.contains(OpenFlags::PATH);
    if flags.contains(OpenFlags::PATH) || !exists && !creates {
        return cx.call_with_paths(call, &[(1, file)]).await;
    }
    if creates {
        return create(cx, creds, file).await;
    }
    let refused = flags.contains(OpenFlags::CREAT | OpenFlags::EXCL)
        || flags.contains(OpenFlags::NOFOLLOW) && look(path, false)?.is_symlink();
    if refused {
        return cx.call_with_paths(call, &[(1, file)]).await;
    }
    let meta = look(path, true)?;
    if !temporary {
        check(cx, creds, &meta, wanted(flags))?;
    }
    let owner = shown(cx, &meta);
    if owner.mode & libc::S_IFMT != meta.mode() & libc::S_IFMT {
        let device = device(owner.mode, owner.rdev, file.mount.flags())?;
        return cx.with_paths(&[(1, device.as_bytes())]).await;
    }
    let reply = if (meta.is_file() || meta.is_dir()) && !temporary {
        host::open_existing(cx, call, file).await?
    } else {
        cx.call_with_paths(call, &[(1, file)]).await?
    };
    let refused = matches!(reply, Reply::Return(result) if result == -i64::from(libc::EACCES));
    if refused && creds.has(Cap::DacOverride) && widen(cx, path, &meta, owner) {
        return cx.call_with_paths(call, &[(1, file)]).await;
    }
    // Writing itself is not seen.
    if matches!(reply, Reply::Return(0..)) && wanted(flags).contains(Access::WRITE) {
        drop_set_id(cx, creds, &meta);
    }
    Ok(reply)
}

/// Who writes to a file of another user takes its set-id bits away (`file_remove_privs`).
fn drop_set_id(cx: &Ctx, creds: &Creds, meta: &Metadata) {
    let old = shown(cx, meta);
    let new = Owner {
        mode: without_set_id(old.mode),
        ..old
    };
    if new != old && meta.is_file() && !creds.has(Cap::Fsetid) {
        remember(cx, meta, new);
    }
}

/// What opening a file so takes.
pub fn wanted(flags: OpenFlags) -> Access {
    let mut mask = Access::empty();
    mask.set(Access::READ, flags.readable());
    mask.set(Access::WRITE, flags.writable() || flags.contains(OpenFlags::TRUNC));
    mask
}

async fn create(cx: &Ctx, creds: &Creds, file: &HostFile) -> Result<Reply, Errno> {
    check_directory(cx, creds, file.as_path())?;
    let umask = cx.task.fs().umask.get();
    let mut call = cx.call;
    let mut made = Made::default();
    // The mode of openat2(2) is in memory: what it is on disk, it is in the view.
    if i64::from(call.nr) == libc::SYS_openat {
        made.mode = Some(libc::S_IFREG | cx.int(3) & 0o7777 & !umask);
        call.args[3] = u64::from(cx.int(3) & 0o1777 | OWN_FILE);
    }
    let reply = cx.call_with_paths(call, &[(1, file)]).await?;
    if matches!(reply, Reply::Return(0..)) {
        created(cx, creds, file.as_path(), made);
    }
    Ok(reply)
}

/// Lets the real user at a file of its own, whose permissions the view goes on showing.
fn widen(cx: &Ctx, path: &Path, meta: &Metadata, owner: Owner) -> bool {
    let own = if meta.is_dir() { OWN_DIR } else { OWN_FILE };
    let wider = meta.mode() & 0o7777 | own;
    if std::fs::set_permissions(path, std::fs::Permissions::from_mode(wider)).is_err() {
        return false;
    }
    if let Ok(meta) = look(path, true) {
        remember(cx, &meta, owner);
    }
    true
}

/// The host's own node of a device that the view has a node of, among those that every user may open.
pub fn device(mode: u32, rdev: u64, flags: MountFlags) -> Result<&'static str, Errno> {
    const DEVICES: [(u32, u32, &str); 7] = [
        (1, 3, "/dev/null"),
        (1, 5, "/dev/zero"),
        (1, 7, "/dev/full"),
        (1, 8, "/dev/random"),
        (1, 9, "/dev/urandom"),
        (5, 0, "/dev/tty"),
        (5, 2, "/dev/ptmx"),
    ];
    if flags.contains(MountFlags::NODEV) {
        return Err(Errno::EACCES);
    }
    let number = (libc::major(rdev), libc::minor(rdev));
    let known = DEVICES.iter().find(|(major, minor, _)| number == (*major, *minor));
    match known {
        Some((.., path)) if mode & libc::S_IFMT == libc::S_IFCHR => Ok(path),
        _ => Err(Errno::ENXIO),
    }
}
