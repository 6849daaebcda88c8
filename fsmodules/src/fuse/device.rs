//! `/dev/fuse`: the node, and its open files, through which servers speak.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use bytes::Bytes;
use fuse_compat::kernel::{Device, DeviceState};

use super::fs::FuseFs;
use crate::api::{
    Attr, AttrQuery, Backing, Chunks, Cx, Errno, File, FileKind, IoctlCall, IoctlReply, Op, OpenFlags, Readiness,
    Vnode, done, fail,
};

/// `makedev(10, 229)`
const FUSE_DEVICE: u32 = 10 << 8 | 229;
const BACKING_OPEN: u32 = 0x4010_e501;
const BACKING_CLOSE: u32 = 0x4004_e502;

/// The device node, as udev makes it: `crw-rw-rw- 10, 229`.
pub struct DeviceNode;

impl Vnode for DeviceNode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileKind {
        FileKind::CharDevice
    }

    fn id(&self) -> u64 {
        1
    }

    fn attr<'a>(&'a self, _cx: Cx<'a>, _query: AttrQuery) -> Op<'a, Attr> {
        done(Attr {
            ino: 1,
            mode: 0o020666,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: FUSE_DEVICE,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: Default::default(),
            mtime: Default::default(),
            ctime: Default::default(),
            btime: None,
        })
    }

    fn open<'a>(self: Rc<Self>, _cx: Cx<'a>, flags: OpenFlags) -> Op<'a, Rc<dyn File>> {
        let node: Rc<dyn Vnode> = self;
        done(Rc::new(DeviceFile {
            node,
            device: Device::default(),
            fs: RefCell::default(),
            flags: Cell::new(flags),
        }))
    }
}

/// An open `/dev/fuse`. Dropping it closes the device: with the last one, the connection ends.
pub struct DeviceFile {
    node: Rc<dyn Vnode>,
    pub device: Device,
    /// The file system that it was mounted as.
    pub fs: RefCell<Option<Weak<FuseFs>>>,
    flags: Cell<OpenFlags>,
}

impl DeviceFile {
    async fn next_request(&self, cx: Cx<'_>, len: usize) -> Result<Chunks, Errno> {
        poll_fn(|context| {
            self.device.wait(context.waker());
            match self.device.read(len) {
                Ok(Some(message)) => return Poll::Ready(Ok(message)),
                Ok(None) => {}
                Err(errno) => return Poll::Ready(Err(errno)),
            }
            if self.flags.get().contains(OpenFlags::NONBLOCK) {
                return Poll::Ready(Err(Errno::EAGAIN));
            }
            match cx.caller.poll_signal(context) {
                Poll::Ready(()) => Poll::Ready(Err(Errno::ERESTARTSYS)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

impl File for DeviceFile {
    fn vnode(&self) -> Option<&Rc<dyn Vnode>> {
        Some(&self.node)
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Stream
    }

    fn seekable(&self) -> bool {
        false
    }

    fn set_flags(&self, flags: OpenFlags) {
        self.flags.set(flags);
    }

    fn read<'a>(&'a self, cx: Cx<'a>, _at: u64, len: usize) -> Op<'a, Chunks> {
        Box::pin(self.next_request(cx, len))
    }

    fn write<'a>(&'a self, _cx: Cx<'a>, at: u64, _append: bool, data: Bytes) -> Op<'a, (usize, u64)> {
        match self.device.write(&data) {
            Ok(()) => done((data.len(), at)),
            Err(errno) => fail(errno),
        }
    }

    fn ioctl<'a>(&'a self, _cx: Cx<'a>, call: IoctlCall) -> Op<'a, IoctlReply> {
        match call.cmd {
            BACKING_OPEN | BACKING_CLOSE => fail(Errno::EPERM),
            _ => fail(Errno::ENOTTY),
        }
    }

    fn ready(&self, waker: Option<&Waker>) -> Readiness {
        match self.device.state(waker) {
            // The kernel shows an error here too, but ours cannot be taken back when the mount comes.
            DeviceState::Unbound => Readiness::empty(),
            DeviceState::Gone => Readiness::ERR,
            DeviceState::Idle => Readiness::OUT,
            DeviceState::Readable => Readiness::IN | Readiness::OUT,
        }
    }

    fn join(&self, other: &Rc<dyn File>) -> Result<(), Errno> {
        let other = other.as_any().downcast_ref::<DeviceFile>().ok_or(Errno::EINVAL)?;
        let connection = other.device.connection().ok_or(Errno::EINVAL)?;
        self.device.bind(connection)?;
        self.fs.replace(other.fs.borrow().clone());
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
