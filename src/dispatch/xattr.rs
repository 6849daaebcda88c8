//! Extended attributes (xattr(7)), by path, by link and by descriptor.

use bytes::Bytes;
use fsmodules::api::{Errno, Name, XattrFlags};

use crate::trap::{GuestMemory, Reply};
use crate::view::VirtualPlace;

use super::Ctx;
use super::context::{CWD, Target, check_writable};
use super::io::served;

const NAME_MAX: usize = 255;
const SIZE_MAX: u64 = 65536;

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

fn by_fd(cx: &Ctx) -> Result<Result<VirtualPlace, Reply>, Errno> {
    let Some(open) = cx.open_file(cx.fd(0)) else {
        return Ok(Err(Reply::Passthrough));
    };
    served(&open)?;
    Ok(Ok(open.place.clone()))
}

fn name(cx: &Ctx) -> Result<Name, Errno> {
    let bytes = cx
        .memory()
        .read_cstr(cx.arg(1), NAME_MAX + 1)
        .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::ERANGE } else { e })?;
    if bytes.is_empty() || bytes.len() > NAME_MAX {
        return Err(Errno::ERANGE);
    }
    Name::attribute(&bytes)
}

pub async fn getxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path(cx).await? {
        Ok(place) => get(cx, &place).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn fgetxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_fd(cx)? {
        Ok(place) => get(cx, &place).await,
        Err(reply) => Ok(reply),
    }
}

async fn get(cx: &Ctx, place: &VirtualPlace) -> Result<Reply, Errno> {
    let value = place.node().getxattr(cx.cx(), &name(cx)?).await?;
    put(cx, &value, cx.arg(2), cx.arg(3))
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
        Ok(place) => list(cx, &place).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn flistxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_fd(cx)? {
        Ok(place) => list(cx, &place).await,
        Err(reply) => Ok(reply),
    }
}

async fn list(cx: &Ctx, place: &VirtualPlace) -> Result<Reply, Errno> {
    let names = place.node().listxattr(cx.cx()).await?;
    put(cx, &names, cx.arg(1), cx.arg(2))
}

pub async fn setxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path(cx).await? {
        Ok(place) => set(cx, &place).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn fsetxattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_fd(cx)? {
        Ok(place) => set(cx, &place).await,
        Err(reply) => Ok(reply),
    }
}

async fn set(cx: &Ctx, place: &VirtualPlace) -> Result<Reply, Errno> {
    let Some(flags) = XattrFlags::from_bits(cx.int(4)) else {
        return Err(Errno::EINVAL);
    };
    let name = name(cx)?;
    if cx.arg(3) > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    check_writable(place)?;
    let value = Bytes::from(cx.read(cx.arg(2), cx.arg(3) as usize)?);
    place.node().setxattr(cx.cx(), &name, value, flags).await?;
    Ok(Reply::Return(0))
}

pub async fn removexattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_path(cx).await? {
        Ok(place) => remove(cx, &place).await,
        Err(reply) => Ok(reply),
    }
}

pub async fn fremovexattr(cx: &Ctx) -> Result<Reply, Errno> {
    match by_fd(cx)? {
        Ok(place) => remove(cx, &place).await,
        Err(reply) => Ok(reply),
    }
}

async fn remove(cx: &Ctx, place: &VirtualPlace) -> Result<Reply, Errno> {
    let name = name(cx)?;
    check_writable(place)?;
    place.node().removexattr(cx.cx(), &name).await?;
    Ok(Reply::Return(0))
}
