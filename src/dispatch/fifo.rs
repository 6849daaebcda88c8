//! FIFOs on virtual file systems. The pipe behind one is a FIFO of the host to which no name leads any more: so
//! opening it waits for the other side as the kernel lets it wait, and what is open is a file of the kernel's own.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use fsmodules::api::{Access, Errno, OpenFlags, Vnode};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open as open_host, unlink};

use crate::abi::RawCall;
use crate::hypervisor::temporary_directories;
use crate::trap::Reply;
use crate::view::VirtualPlace;

use super::{Ctx, context};

/// A FIFO that somebody has opened. Its node stays known, and so the same for whoever opens it next.
pub struct Fifo {
    dev: u64,
    node: Rc<dyn Vnode>,
    pipe: OwnedFd,
}

/// The oldest ones are forgotten beyond this many: who opens them then does not meet those who had them open.
const MAX_FIFOS: usize = 1024;

/// Flags that have been followed already, or mean nothing for a FIFO.
const DONE: OpenFlags = OpenFlags::CREAT
    .union(OpenFlags::EXCL)
    .union(OpenFlags::TRUNC)
    .union(OpenFlags::NOFOLLOW);

pub async fn open(cx: &Ctx, place: &VirtualPlace, flags: OpenFlags) -> Result<Reply, Errno> {
    let mut wanted = Access::empty();
    wanted.set(Access::READ, flags.readable());
    wanted.set(Access::WRITE, flags.writable());
    place.node().permission(cx.cx(), wanted).await?;
    let mut path = behind(cx, place)?;
    path.push(0);
    let slot = cx.scratch().await?;
    cx.write(slot.address, &path)?;
    let flags = (flags - DONE).bits();
    cx.finish_run(RawCall {
        nr: libc::SYS_openat as u32,
        args: [context::CWD as u64, slot.address, flags.into(), 0, 0, 0],
    })
    .await
}

/// The path at which guests find the pipe behind a FIFO.
fn behind(cx: &Ctx, place: &VirtualPlace) -> Result<Vec<u8>, Errno> {
    let mut fifos = cx.hv.fifos.borrow_mut();
    let (dev, node) = (place.mount.dev(), place.node());
    if let Some(fifo) = fifos.iter().find(|fifo| fifo.dev == dev && fifo.node.id() == node.id()) {
        return Ok(cx.hv.reopen_path(&fifo.pipe));
    }
    let pipe = unnamed_fifo()?;
    let path = cx.hv.reopen_path(&pipe);
    if fifos.len() >= MAX_FIFOS {
        fifos.remove(0);
    }
    fifos.push(Fifo {
        dev,
        node: node.clone(),
        pipe,
    });
    Ok(path)
}

fn unnamed_fifo() -> Result<OwnedFd, Errno> {
    let mut error = Errno::ENXIO;
    for directory in temporary_directories() {
        let path = directory.join(format!("umvu-{}-fifo", std::process::id()));
        let made = mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
        let opened = made.and_then(|()| {
            let opened = open_host(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            unlink(&path)?;
            opened
        });
        match opened {
            Ok(pipe) => return Ok(pipe),
            Err(e) => error = Errno::from_raw(e.raw_os_error()),
        }
    }
    Err(error)
}
