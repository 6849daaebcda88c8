//! What a module is.

use std::rc::Rc;

use super::{Cx, Errno, File, FileKind, FileSystem, Op, Vnode, fail};

bitflags::bitflags! {
    /// Flags of `mount(2)` that concern the file system or the mount.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MountFlags: u64 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const SYNCHRONOUS = 16;
        const DIRSYNC = 128;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 1 << 21;
        const STRICTATIME = 1 << 24;
    }
}

/// The arguments of `mount(2)`, digested.
pub struct MountRequest<'a> {
    pub source: &'a str,
    /// The whole type, `fuse.sshfs`.
    pub fstype: &'a str,
    pub flags: MountFlags,
    /// The comma-separated options.
    pub data: &'a [u8],
    /// What it is mounted on, as the caller has it.
    pub path: &'a str,
    /// What kind of file that is.
    pub target: FileKind,
    /// The file at a path of the caller's, for file systems that are built on others.
    pub layer: &'a dyn Fn(String) -> Op<'a, Layer>,
    /// The caller's open file with this number, if a module serves it.
    pub file: &'a dyn Fn(i32) -> Option<Rc<dyn File>>,
}

/// A file that another file system is built on.
pub struct Layer {
    pub node: Rc<dyn Vnode>,
    /// Its mount is, or the file system that has it.
    pub read_only: bool,
}

impl Layer {
    pub fn directory(self) -> Result<Layer, Errno> {
        match self.node.kind() {
            FileKind::Directory => Ok(self),
            _ => Err(Errno::ENOTDIR),
        }
    }
}

/// A device node that a module shows in every view.
pub struct Device {
    /// `/dev/fuse`
    pub path: &'static str,
    pub node: Rc<dyn Vnode>,
}

/// Something a view can contain. Every method has a default: "not mine".
pub trait Module {
    /// One word, as `vu_lsmod` shows it.
    fn name(&self) -> &'static str;
    /// One line for people.
    fn summary(&self) -> &'static str;
    /// Does it serve this file-system type?
    fn serves(&self, _fstype: &str) -> bool {
        false
    }
    /// Lines for `/proc/filesystems`.
    fn filesystems(&self) -> &'static [&'static str] {
        &[]
    }
    /// Flags that its mounts always have if an ordinary user makes them.
    fn flags_for_users(&self) -> MountFlags {
        MountFlags::empty()
    }
    fn mount<'a>(&'a self, _cx: Cx<'a>, _request: MountRequest<'a>) -> Op<'a, Rc<dyn FileSystem>> {
        fail(Errno::ENODEV)
    }
    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}
