//! ioctl(2): the commands that the kernel's VFS answers for every file (`do_vfs_ioctl`), and those of servers.

use std::rc::Rc;

use bytes::Bytes;
use fsmodules::api::{AttrQuery, Errno, File, FileKind, IoctlCall, OpenFlags};

use crate::task::OpenFile;
use crate::trap::Reply;

use super::io::{known_size, served};
use super::{Ctx, inotify};

const FIBMAP: u32 = 1;
const FIGETBSZ: u32 = 2;
const FIOCLEX: u32 = libc::FIOCLEX as u32;
const FIONCLEX: u32 = libc::FIONCLEX as u32;
const FIONBIO: u32 = libc::FIONBIO as u32;
const FIOASYNC: u32 = libc::FIOASYNC as u32;
const FIONREAD: u32 = libc::FIONREAD as u32;
const FIOQSIZE: u32 = 0x5460;
const FIFREEZE: u32 = 0xc004_5877;
const FITHAW: u32 = 0xc004_5878;
const FS_IOC_FIEMAP: u32 = 0xc020_660b;
const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;
const FIDEDUPERANGE: u32 = 0xc018_9436;
const FUSE_DEV_IOC_CLONE: u32 = 0x8004_e500;

/// Of files on any FUSE mount.
const BLOCK_SIZE: i32 = 4096;

pub async fn ioctl(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    let (cmd, arg) = (cx.int(1), cx.arg(2));
    let kind = open.place.node().kind();
    match cmd {
        FIOCLEX | FIONCLEX => {
            cx.task.files().set_cloexec(cx.fd(0), cmd == FIOCLEX);
            return Ok(Reply::Passthrough);
        }
        FIONBIO => switch(cx, &open, OpenFlags::NONBLOCK)?,
        FIOASYNC => switch(cx, &open, OpenFlags::ASYNC)?,
        FUSE_DEV_IOC_CLONE => clone_device(cx, &*file)?,
        _ if kind == FileKind::CharDevice => return of_server(cx, &*file, cmd, arg).await,
        FIGETBSZ => cx.write_value(arg, &BLOCK_SIZE)?,
        FIOQSIZE => {
            let attr = open.place.node().attr(cx.cx(), AttrQuery::KNOWN).await?;
            cx.write_value(arg, &((attr.blocks * 512) as i64))?;
        }
        FIFREEZE | FITHAW => return Err(Errno::EPERM),
        FIBMAP if kind == FileKind::Regular => block_of(cx, arg)?,
        FS_IOC_FIEMAP | FIDEDUPERANGE => return Err(Errno::EOPNOTSUPP),
        FICLONE => return cannot_clone(cx, &open, arg as i32),
        FICLONERANGE => return cannot_clone(cx, &open, cx.read_value::<i64>(arg)? as i32),
        FIONREAD if kind == FileKind::Regular => {
            let left = match inotify::instance(&open) {
                Some(instance) => instance.waiting() as u64,
                None => {
                    let pos = *open.pos.lock().await;
                    known_size(cx, &open).await?.saturating_sub(pos)
                }
            };
            cx.write_value(arg, &(left.min(i32::MAX as u64) as i32))?;
        }
        _ => return of_server(cx, &*file, cmd, arg).await,
    }
    Ok(Reply::Return(0))
}

/// `FIBMAP`: which block of a device has this one of the file. No device has any, but only root is told that.
fn block_of(cx: &Ctx, address: u64) -> Result<(), Errno> {
    if !cx.is_root() {
        return Err(Errno::EPERM);
    }
    if cx.read_value::<i32>(address)? < 0 {
        return Err(Errno::EINVAL);
    }
    cx.write_value(address, &0i32)
}

/// Sets or clears a status flag.
fn switch(cx: &Ctx, open: &OpenFile, flag: OpenFlags) -> Result<(), Errno> {
    let on: i32 = cx.read_value(cx.arg(2))?;
    let flags = open.flags.get();
    open.set_flags(if on != 0 { flags | flag } else { flags - flag });
    Ok(())
}

/// `FUSE_DEV_IOC_CLONE`: the argument is a device of the connection to join.
fn clone_device(cx: &Ctx, file: &dyn File) -> Result<(), Errno> {
    let fd: i32 = cx.read_value(cx.arg(2))?;
    let other = cx.task.files().get(fd).and_then(|other| other.file.clone());
    file.join(&other.ok_or(Errno::EINVAL)?)
}

/// FUSE shares no data between files: the errno that the kernel gives, here for all file systems.
fn cannot_clone(cx: &Ctx, target: &Rc<OpenFile>, source: i32) -> Result<Reply, Errno> {
    let Some(source) = cx.open_file(source) else {
        return Err(cx
            .task
            .look_at_fd(source, std::fs::symlink_metadata)
            .map_or(Errno::EBADF, |_| Errno::EXDEV));
    };
    Err(if source.place.mount.same_file_system(&target.place.mount) {
        Errno::EOPNOTSUPP
    } else {
        Errno::EXDEV
    })
}

/// A command whose direction and size are in its number (`_IOC`).
async fn of_server(cx: &Ctx, file: &dyn File, cmd: u32, arg: u64) -> Result<Reply, Errno> {
    let size = (cmd >> 16 & 0x3fff) as usize;
    let (writes, reads) = (cmd >> 30 & 1 != 0, cmd >> 30 & 2 != 0);
    let input = if writes {
        Bytes::from(cx.read(arg, size)?)
    } else {
        Bytes::new()
    };
    let call = IoctlCall {
        cmd,
        arg,
        input,
        output_len: if reads { size } else { 0 },
    };
    let reply = file.ioctl(cx.cx(), call).await?;
    if reads {
        cx.write(arg, &reply.output[..reply.output.len().min(size)])?;
    }
    Ok(Reply::Return(reply.result.into()))
}
