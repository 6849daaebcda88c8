//! The FUSE module: mounts that are served by unmodified FUSE programs.
//!
//! [`device`] is where a server comes in and its answers return; [`fs`] and [`node`] are the cached tree;
//! [`mod@file`] and [`dirfile`] are what is open, with [`content`] as the page cache.

mod background;
mod content;
mod device;
mod dirfile;
mod dirty;
mod failure;
mod file;
mod fs;
pub(crate) mod locks;
mod node;
mod notify;
mod options;
mod perm;
mod poll;
mod rangeset;
mod setattr;
mod sparse;
mod times;
mod vnode;
mod write;

use std::rc::{Rc, Weak};

use self::device::{DeviceFile, DeviceNode};
use self::fs::FuseFs;
use self::options::Options;
use crate::api::{Cx, Device, Errno, FileKind, FileSystem, Module, MountFlags, MountRequest, Op};

#[derive(Default)]
pub struct FuseModule;

impl Module for FuseModule {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn summary(&self) -> &'static str {
        "file systems served by FUSE programs, through mount(2) and /dev/fuse"
    }

    fn serves(&self, fstype: &str) -> bool {
        matches!(fstype, "fuse" | "fuseblk") || fstype.starts_with("fuse.") || fstype.starts_with("fuseblk.")
    }

    fn filesystems(&self) -> &'static [&'static str] {
        &["nodev\tfuse", "\tfuseblk"]
    }

    /// As fusermount3 sees to it.
    fn flags_for_users(&self) -> MountFlags {
        MountFlags::NOSUID | MountFlags::NODEV
    }

    fn mount<'a>(&'a self, cx: Cx<'a>, request: MountRequest<'a>) -> Op<'a, Rc<dyn FileSystem>> {
        Box::pin(async move { mount(cx, &request) })
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device {
            path: "/dev/fuse",
            node: Rc::new(DeviceNode),
        }]
    }
}

fn mount(cx: Cx<'_>, request: &MountRequest<'_>) -> Result<Rc<dyn FileSystem>, Errno> {
    let options = Options::parse(request.data, request.fstype.starts_with("fuseblk"))?;
    let root_is_dir = FileKind::from_mode(options.root_mode) == Some(FileKind::Directory);
    if root_is_dir != (request.target == FileKind::Directory) {
        return Err(Errno::ENOTDIR);
    }
    let file = (request.file)(options.fd).ok_or(Errno::EINVAL)?;
    let device = file.as_any().downcast_ref::<DeviceFile>().ok_or(Errno::EINVAL)?;
    if let Some(fs) = device.fs.borrow().as_ref() {
        let fs = fs
            .upgrade()
            .filter(|fs| fs.connection.is_alive())
            .ok_or(Errno::ENOTCONN)?;
        return Ok(fs);
    }
    let fs = FuseFs::new(cx, options, request);
    device.device.bind(&fs.connection)?;
    device.fs.replace(Some(Rc::downgrade(&fs) as Weak<FuseFs>));
    Ok(fs)
}
