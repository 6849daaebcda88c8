//! FIFOs on virtual file systems: the node is virtual, the pipe behind it the kernel's.
//!
//! A guest that opens one opens a FIFO of the host, which is nameless and lives as long as somebody has it open. So
//! the kernel waits for the other side, and reads, writes and polls; what concerns the node is answered as for any
//! other virtual file.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};

use fsmodules::api::{Access, Errno, OpenFlags, Vnode, errno};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::hypervisor::temporary_directories;
use crate::task::OpenFile;
use crate::view::{Events, VirtualPlace};

use super::Ctx;
use super::install::{reopen, settle};

/// The kernel's side of a virtual FIFO.
pub struct Fifo {
    node: Rc<dyn Vnode>,
    /// Opened with `O_PATH`, so that it is neither a reader nor a writer.
    pipe: OwnedFd,
}

/// The FIFOs that somebody has open, or is about to open.
#[derive(Default)]
pub struct Fifos(Vec<Weak<Fifo>>);

impl Fifos {
    fn get(&mut self, node: &Rc<dyn Vnode>) -> Result<Rc<Fifo>, Errno> {
        self.0.retain(|fifo| fifo.strong_count() > 0);
        let known = self.0.iter().filter_map(Weak::upgrade);
        if let Some(fifo) = known.into_iter().find(|fifo| fifo.node.id() == node.id()) {
            return Ok(fifo);
        }
        let pipe = nameless()?;
        let fifo = Rc::new(Fifo {
            node: node.clone(),
            pipe,
        });
        self.0.push(Rc::downgrade(&fifo));
        Ok(fifo)
    }
}

/// Makes a FIFO and removes its name.
fn nameless() -> Result<OwnedFd, Errno> {
    let mut error = Errno::ENXIO;
    for directory in temporary_directories() {
        let path = directory.join(format!("umvu-{}-fifo", std::process::id()));
        let made = rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
        let opened = made.and_then(|()| {
            let pipe = rustix::fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            rustix::fs::unlink(&path)?;
            open_to_all(pipe?)
        });
        match opened {
            Ok(pipe) => return Ok(pipe),
            Err(e) => error = errno(e),
        }
    }
    Err(error)
}

/// Lets any user open a nameless FIFO or pipe who has a way to it: programs of root's view can be anybody.
pub fn open_to_all(pipe: OwnedFd) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    rustix::fs::chmod(path, Mode::from_raw_mode(0o666))?;
    Ok(pipe)
}

/// open(2) of a virtual FIFO, which waits for the other side; the descriptor.
pub async fn open(cx: &Ctx, place: VirtualPlace, flags: OpenFlags) -> Result<i32, Errno> {
    let mut mask = Access::empty();
    mask.set(Access::READ, flags.readable());
    mask.set(Access::WRITE, flags.writable());
    place.node().permission(cx.cx(), mask).await?;
    let fifo = cx.hv.fifos.borrow_mut().get(place.node())?;
    let kept = OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT;
    let fd = reopen(cx, fifo.pipe.as_fd(), flags & kept).await?;
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let fd = settle(cx, fd, cloexec).await?;
    place.happened(Events::OPEN);
    let open = OpenFile::native(fifo, place, flags);
    cx.task.files().insert(fd, open, cloexec);
    Ok(fd)
}
