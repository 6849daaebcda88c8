//! open(2) and its family: where virtual descriptors are born.

use std::rc::Rc;

use fsmodules::api::{Access, AttrQuery, Errno, File, FileKind, OpenFlags};

use crate::task::OpenFile;
use crate::trap::Reply;
use crate::view::{Events, Found, Last, Place, VirtualPlace, WalkFlags};

use super::context::{HostFile, check_writable, host_file};
use super::install::{PAGE, install};
use super::meta::wide_dev;
use super::{Ctx, fifo, host, lease, owners, procfs, protected};

/// Flags that openat(2) knows; the others are ignored by it and refused by openat2(2).
const MODE_BITS: u32 = 0o7777;
/// What makes `O_TMPFILE` out of `O_DIRECTORY`.
const NAMELESS: u32 = 0o20_000_000;
const VALID_FLAGS: u32 = 0o37_777_703;
/// "Only if nobody must be asked": whoever sets it tries again without.
const RESOLVE_CACHED: u64 = 0x20;

pub async fn openat(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = OpenFlags::from_bits_retain(cx.int(2));
    let mode = cx.int(3) & MODE_BITS;
    open(cx, flags, mode, WalkFlags::empty()).await
}

/// openat2(2): as openat, with the RESOLVE_* restrictions.
pub async fn openat2(cx: &Ctx) -> Result<Reply, Errno> {
    let [flags, mode, resolve]: [u64; 3] = open_how(cx, cx.arg(2), cx.arg(3))?;
    let restrictions = WalkFlags::from_resolve(resolve & !RESOLVE_CACHED).ok_or(Errno::EINVAL)?;
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let creating = flags & (OpenFlags::CREAT.bits() | NAMELESS) != 0;
    let modes = if creating { MODE_BITS } else { 0 };
    if flags & !VALID_FLAGS != 0 || mode & !u64::from(modes) != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = OpenFlags::from_bits_retain(flags);
    if flags.contains(OpenFlags::PATH) && checked(flags)? != flags {
        return Err(Errno::EINVAL);
    }
    if resolve & RESOLVE_CACHED != 0 {
        return Err(Errno::EAGAIN);
    }
    open(cx, flags, mode as u32, restrictions).await
}

/// `struct open_how`, of which later kernels' fields must be unused.
fn open_how(cx: &Ctx, address: u64, len: u64) -> Result<[u64; 3], Errno> {
    const LEN: u64 = 24;
    if len < LEN {
        return Err(Errno::EINVAL);
    }
    if len > PAGE || cx.read(address + LEN, (len - LEN) as usize)?.iter().any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    cx.read_value(address)
}

async fn open(cx: &Ctx, flags: OpenFlags, mode: u32, restrictions: WalkFlags) -> Result<Reply, Errno> {
    let flags = checked(flags)?;
    let path = cx.path(1)?;
    let dirfd = cx.fd(0);
    if restrictions.is_empty() && !procfs::may_matter(&path) && cx.is_quick(dirfd, &path) {
        return Ok(Reply::Passthrough);
    }
    let found = cx.walk(dirfd, &path, walk_flags(flags) | restrictions).await?;
    if let Some(Place::Host(place)) = &found.place
        && let Some(reply) = procfs::open(cx, place, flags).await?
    {
        return Ok(reply);
    }
    if found.native && cx.task.creds().is_none() {
        return Ok(Reply::Passthrough);
    }
    match host_file(&found) {
        Some(file) => {
            let given = found.native.then_some(path);
            host::open(cx, &found, &HostFile { given, ..file }, flags, mode).await
        }
        None => open_virtual(cx, found, flags, mode).await,
    }
}

/// The flags that count, if they can go together (`build_open_flags`).
fn checked(flags: OpenFlags) -> Result<OpenFlags, Errno> {
    if flags.contains(OpenFlags::PATH) {
        return Ok(flags & (OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC));
    }
    let temporary = flags.bits() & NAMELESS != 0;
    if flags.contains(OpenFlags::DIRECTORY | OpenFlags::CREAT)
        || temporary && !(flags.contains(OpenFlags::DIRECTORY) && flags.writable())
    {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

fn walk_flags(flags: OpenFlags) -> WalkFlags {
    let exclusive = flags.contains(OpenFlags::CREAT | OpenFlags::EXCL);
    let mut walk = WalkFlags::empty();
    if !flags.contains(OpenFlags::NOFOLLOW) && !exclusive {
        walk |= WalkFlags::FOLLOW;
    }
    if exclusive {
        walk |= WalkFlags::FRESH;
    }
    walk
}

async fn open_virtual(cx: &Ctx, found: Found, flags: OpenFlags, mode: u32) -> Result<Reply, Errno> {
    let open = match found.place {
        Some(Place::Virtual(place)) => {
            cx.answered(&place);
            if flags.contains(OpenFlags::CREAT) && !flags.intersects(OpenFlags::EXCL | OpenFlags::PATH) {
                protected::check_create(cx, found.parent.as_ref(), &place).await?;
            }
            if opens_fifo(&place, flags) && !found.slash {
                return Ok(Reply::Return(fifo::open(cx, place, flags).await?.into()));
            }
            if opens_device(&place, flags) && !found.slash {
                let device = device(cx, &place, flags).await?;
                return cx.with_paths(&[(1, device.as_bytes())]).await;
            }
            existing(cx, place, flags, found.slash, mode).await?
        }
        _ => created(cx, found, flags, mode).await?,
    };
    opened(&open);
    install(cx, open).await
}

/// Tells of an open, and of what it did besides.
fn opened(open: &OpenFile) {
    let flags = open.flags.get();
    if flags.contains(OpenFlags::PATH) {
        return;
    }
    open.place.happened(Events::OPEN);
    if flags.contains(OpenFlags::TRUNC) && !open.created.get() {
        open.place.happened(Events::MODIFY);
    }
}

/// Is a FIFO or a device opened for what it stands for, and not just as a name?
fn opens_itself(flags: OpenFlags) -> bool {
    let otherwise = OpenFlags::PATH | OpenFlags::DIRECTORY;
    !flags.intersects(otherwise) && !flags.contains(OpenFlags::CREAT | OpenFlags::EXCL)
}

fn opens_fifo(place: &VirtualPlace, flags: OpenFlags) -> bool {
    place.node().kind() == FileKind::Fifo && opens_itself(flags)
}

/// Modules show devices of their own on hidden mounts.
fn opens_device(place: &VirtualPlace, flags: OpenFlags) -> bool {
    let device = matches!(place.node().kind(), FileKind::CharDevice | FileKind::BlockDevice);
    device && !place.mount.hidden() && opens_itself(flags)
}

/// The host's own node of a device.
async fn device(cx: &Ctx, place: &VirtualPlace, flags: OpenFlags) -> Result<&'static str, Errno> {
    place.node().permission(cx.cx(), owners::wanted(flags)).await?;
    let attr = place.node().attr(cx.cx(), AttrQuery::KNOWN).await?;
    owners::device(attr.mode, wide_dev(attr.rdev), place.mount.flags())
}

/// Opens what is there.
async fn existing(
    cx: &Ctx,
    place: VirtualPlace,
    flags: OpenFlags,
    slash: bool,
    mode: u32,
) -> Result<Rc<OpenFile>, Errno> {
    let kind = place.node().kind();
    let creating = flags.contains(OpenFlags::CREAT) && !flags.contains(OpenFlags::PATH);
    if creating && flags.contains(OpenFlags::EXCL) {
        return Err(Errno::EEXIST);
    }
    if flags.contains(OpenFlags::PATH) {
        if (flags.contains(OpenFlags::DIRECTORY) || slash) && kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        return Ok(OpenFile::new(None, place, flags));
    }
    if kind == FileKind::Symlink {
        return Err(if flags.contains(OpenFlags::DIRECTORY) {
            Errno::ENOTDIR
        } else {
            Errno::ELOOP
        });
    }
    if flags.contains(OpenFlags::TMPFILE) {
        return temporary(cx, place, flags, mode).await;
    }
    if kind == FileKind::Directory {
        if creating || flags.writable() || flags.contains(OpenFlags::TRUNC) {
            return Err(Errno::EISDIR);
        }
    } else if flags.contains(OpenFlags::DIRECTORY) || slash {
        return Err(Errno::ENOTDIR);
    }
    if flags.writable() || flags.contains(OpenFlags::TRUNC) {
        check_special_writable(&place, kind)?;
    }
    let _opening = lease::opening(cx, &place, flags).await?;
    let file = open_node(cx, &place, kind, flags).await?;
    Ok(OpenFile::new(Some(file), place, flags))
}

/// A read-only mount forbids writing to files, but not through FIFOs and devices.
fn check_special_writable(place: &VirtualPlace, kind: FileKind) -> Result<(), Errno> {
    match kind {
        FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => Ok(()),
        _ => check_writable(place),
    }
}

async fn open_node(cx: &Ctx, place: &VirtualPlace, kind: FileKind, flags: OpenFlags) -> Result<Rc<dyn File>, Errno> {
    if kind == FileKind::Socket {
        return Err(Errno::ENXIO);
    }
    place.node().clone().open(cx.cx(), flags).await
}

async fn temporary(cx: &Ctx, dir: VirtualPlace, flags: OpenFlags, mode: u32) -> Result<Rc<OpenFile>, Errno> {
    if dir.node().kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    check_writable(&dir)?;
    dir.node().permission(cx.cx(), Access::WRITE | Access::EXECUTE).await?;
    let made = dir.node().clone().tmpfile(cx.cx(), mode, flags).await?;
    let dentry = dir.dentry.unnamed(made.node);
    Ok(OpenFile::new(
        Some(made.file),
        VirtualPlace {
            mount: dir.mount,
            dentry,
        },
        flags,
    ))
}

/// `O_CREAT` of a name that does not exist.
async fn created(cx: &Ctx, found: Found, flags: OpenFlags, mode: u32) -> Result<Rc<OpenFile>, Errno> {
    let (Some(Place::Virtual(dir)), Last::Name(name)) = (found.parent, found.last) else {
        return Err(Errno::ENOENT);
    };
    cx.answered(&dir);
    if !flags.contains(OpenFlags::CREAT) || flags.contains(OpenFlags::PATH) {
        return Err(Errno::ENOENT);
    }
    if found.slash {
        return Err(Errno::EISDIR);
    }
    check_writable(&dir)?;
    let made = dir.node().clone().create(cx.cx(), &name, mode, flags).await?;
    dir.name_happened(&name, FileKind::Regular, Events::CREATE);
    let dentry = dir.dentry.child(&name, made.node);
    let place = VirtualPlace {
        mount: dir.mount,
        dentry,
    };
    let open = OpenFile::new(Some(made.file), place, flags);
    open.created.set(true);
    Ok(open)
}
