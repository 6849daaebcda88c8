//! Extended attributes (xattr(7)), by path, by link and by descriptor.

use bytes::Bytes;
use fsmodules::api::{Access, AttrQuery, Caller, Errno, FileKind, Name, XattrFlags};

use crate::trap::{GuestMemory, Reply};
use crate::view::{Events, VirtualPlace};

use super::Ctx;
use super::context::{CWD, Target, check_writable};
use super::io::not_path_only;

const NAME_MAX: usize = 255;
const SIZE_MAX: u64 = 65536;

/// Calls that the libc crate does not name.
pub const SYS_SETXATTRAT: i64 = 463;
pub const SYS_GETXATTRAT: i64 = 464;
pub const SYS_LISTXATTRAT: i64 = 465;
pub const SYS_REMOVEXATTRAT: i64 = 466;

/// The file that the first argument names: a path, followed to the end unless the call's name begins with `l`.
async fn by_path(cx: &Ctx) -> Result<Result<VirtualPlace, Reply>, Errno> {
    let follow = !matches!(
        i64::from(cx.call.nr),
        libc::SYS_lgetxattr | libc::SYS_llistxattr | libc::SYS_lsetxattr | libc::SYS_lremovexattr
    );
    match cx.target(CWD, &cx.path(0)?, follow).await? {
        Target::Native => Ok(Err(Reply::Passthrough)),
        Target::Host(file) => {
            let changes = [
                libc::SYS_setxattr,
                libc::SYS_lsetxattr,
                libc::SYS_removexattr,
                libc::SYS_lremovexattr,
            ];
            if changes.contains(&cx.call.nr.into()) {
                file.check_writable()?;
            }
            Ok(Err(cx.with_paths(&[(0, &file)]).await?))
        }
        Target::Virtual(place) => Ok(Ok(place)),
    }
}

/// The same for the `*at` calls: (dirfd, path, flags, ...).
async fn by_path_at(cx: &Ctx) -> Result<Result<VirtualPlace, Reply>, Errno> {
    const KNOWN: u32 = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) as u32;
    let flags = cx.int(2);
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0;
    match cx.target_at(cx.fd(0), &cx.path(1)?, flags, follow).await? {
        Target::Native => Ok(Err(Reply::Passthrough)),
        Target::Host(path) => Ok(Err(cx.with_paths(&[(1, &path)]).await?)),
        Target::Virtual(place) => Ok(Ok(place)),
    }
}

/// `struct xattr_args`: (value, size, flags) of setxattrat(2) and getxattrat(2).
fn value_args(cx: &Ctx) -> Result<(u64, u64, u32), Errno> {
    const LEN: u64 = 16;
    let (address, len) = (cx.arg(4), cx.arg(5));
    if len < LEN {
        return Err(Errno::EINVAL);
    }
    // What later kernels add must be unused.
    if len > super::install::PAGE || cx.read(address + LEN, (len - LEN) as usize)?.iter().any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    let [value, rest]: [u64; 2] = cx.read_value(address)?;
    Ok((value, rest & u64::from(u32::MAX), (rest >> 32) as u32))
}

fn by_fd(cx: &Ctx) -> Result<Result<VirtualPlace, Reply>, Errno> {
    let Some(open) = cx.open_file(cx.fd(0)) else {
        return Ok(Err(Reply::Passthrough));
    };
    not_path_only(&open)?;
    Ok(Ok(open.place.clone()))
}

fn by_fd_to_change(cx: &Ctx) -> Result<Result<VirtualPlace, Reply>, Errno> {
    let found = by_fd(cx)?;
    if found.is_err() {
        cx.check_fd_writable(cx.fd(0))?;
    }
    Ok(found)
}

fn name(cx: &Ctx, arg: usize) -> Result<Name, Errno> {
    let bytes = cx
        .memory()
        .read_cstr(cx.arg(arg), NAME_MAX + 1)
        .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::ERANGE } else { e })?;
    if bytes.is_empty() || bytes.len() > NAME_MAX {
        return Err(Errno::ERANGE);
    }
    Name::attribute(&bytes)
}

/// May the caller read or write an attribute of this name (`xattr_permission`)?
async fn permission(cx: &Ctx, place: &VirtualPlace, name: &Name, how: Access) -> Result<(), Errno> {
    let name = name.as_bytes();
    let of = |space: &str| name.starts_with(space.as_bytes());
    if of("security.") || of("system.") {
        return Ok(());
    }
    let kind = place.node().kind();
    let has_none = of("user.") && !matches!(kind, FileKind::Regular | FileKind::Directory);
    if has_none || of("trusted.") && !cx.is_root() {
        return Err(if how == Access::WRITE {
            Errno::EPERM
        } else {
            Errno::ENODATA
        });
    }
    if of("user.") && kind == FileKind::Directory && how == Access::WRITE && !cx.is_root() {
        let attr = place.node().attr(cx.cx(), AttrQuery::KNOWN).await?;
        if attr.mode & libc::S_ISVTX != 0 && attr.uid != cx.ids().fsuid {
            return Err(Errno::EPERM);
        }
    }
    place.node().permission(cx.cx(), how).await
}

pub async fn getxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path(cx).await? {
        Ok(place) => get(cx, &place, 1, cx.arg(2), cx.arg(3)).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn getxattrat(cx: &Ctx) -> Result<Reply, Errno> {
    let (value, size, flags) = value_args(cx)?;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    match by_path_at(cx).await? {
        Ok(place) => get(cx, &place, 3, value, size).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn fgetxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_fd(cx)? {
        Ok(place) => get(cx, &place, 1, cx.arg(2), cx.arg(3)).await,
        Err(reply) => Ok(reply),
    }
}

async fn get(cx: &Ctx, place: &VirtualPlace, name_arg: usize, address: u64, size: u64) -> Result<Reply, Errno> {
    let name = name(cx, name_arg)?;
    permission(cx, place, &name, Access::READ).await?;
    let value = place.node().getxattr(cx.cx(), &name).await?;
    put(cx, &value, address, size)
}

/// A size of 0 asks how long the value is.
fn put(cx: &Ctx, value: &[u8], address: u64, size: u64) -> Result<Reply, Errno> {
    if size > 0 {
        if value.len() as u64 > size {
            return Err(Errno::ERANGE);
        }
        cx.write(address, value)?;
    }
    Ok(Reply::Return(value.len() as i64))
}

pub async fn listxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path(cx).await? {
        Ok(place) => list(cx, &place, cx.arg(1), cx.arg(2)).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn flistxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_fd(cx)? {
        Ok(place) => list(cx, &place, cx.arg(1), cx.arg(2)).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn listxattrat(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path_at(cx).await? {
        Ok(place) => list(cx, &place, cx.arg(3), cx.arg(4)).await,
        Err(reply) => Ok(reply),
    }
}

async fn list(cx: &Ctx, place: &VirtualPlace, address: u64, size: u64) -> Result<Reply, Errno> {
    let names = place.node().listxattr(cx.cx()).await?;
    put(cx, &names, address, size)
}

pub async fn setxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path(cx).await? {
        Ok(place) => set(cx, &place, 1, (cx.arg(2), cx.arg(3), cx.int(4))).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn fsetxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_fd_to_change(cx)? {
        Ok(place) => set(cx, &place, 1, (cx.arg(2), cx.arg(3), cx.int(4))).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn setxattrat(cx: &Ctx) -> Result<Reply, Errno> {
    let value = value_args(cx)?;
    match by_path_at(cx).await? {
        Ok(place) => set(cx, &place, 3, value).await,
        Err(reply) => Ok(reply),
    }
}

async fn set(
    cx: &Ctx,
    place: &VirtualPlace,
    name_arg: usize,
    (address, size, flags): (u64, u64, u32),
) -> Result<Reply, Errno> {
    let Some(flags) = XattrFlags::from_bits(flags) else {
        return Err(Errno::EINVAL);
    };
    let name = name(cx, name_arg)?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    check_writable(place)?;
    let value = Bytes::from(cx.read(address, size as usize)?);
    permission(cx, place, &name, Access::WRITE).await?;
    place.node().setxattr(cx.cx(), &name, value, flags).await?;
    place.happened(Events::ATTRIB);
    Ok(Reply::Return(0))
}

pub async fn removexattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path(cx).await? {
        Ok(place) => remove(cx, &place, 1).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn fremovexattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_fd_to_change(cx)? {
        Ok(place) => remove(cx, &place, 1).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn removexattrat(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path_at(cx).await? {
        Ok(place) => remove(cx, &place, 3).await,
        Err(reply) => Ok(reply),
    }
}

async fn remove(cx: &Ctx, place: &VirtualPlace, name_arg: usize) -> Result<Reply, Errno> {
    let name = name(cx, name_arg)?;
    check_writable(place)?;
    permission(cx, place, &name, Access::WRITE).await?;
    place.node().removexattr(cx.cx(), &name).await?;
    place.happened(Events::ATTRIB);
    Ok(Reply::Return(0))
}
