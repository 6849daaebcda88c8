//! Layered trees, in the manner and with the on-disk form of the kernel's overlayfs (Documentation/filesystems/
//! overlayfs.rst) mounted with `userxattr`; the form of fuse-overlayfs is understood too.
//!
//! [`node`] is the merged tree, [`dir`] and [`mod@file`] what is open in it, [`change`] says in which layer something is
//! changed, [`copyup`] is the first write to a file of a lower layer, by the [`mounter`], [`names`] what is made, removed
//! and renamed; [`vufs`] puts one tree in front of another. Layers are vnodes, of the host or of any mount of the view.
//! Redirected directories and metadata-only copies are refused, as the kernel refuses them with `userxattr`; so are the
//! inode index, fs-verity and NFS export, which the kernel could do.

mod change;
mod copyup;
mod dir;
mod file;
mod mounter;
mod names;
mod node;
mod options;
mod vufs;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

pub use self::vufs::VufsModule;

use self::change::Changes;
use self::dir::list;
use self::node::{Key, OverlayNode, Parts};
use self::options::Options;
use crate::api::{
    Cx, Description, Errno, FileKind, FileSystem, Module, MountFlags, MountRequest, Name, Op, SetAttr, Vnode,
};
use crate::hostfs::HostNode;

#[derive(Default)]
pub struct OverlayModule;

impl Module for OverlayModule {
    fn name(&self) -> &'static str {
        "overlay"
    }
    fn summary(&self) -> &'static str {
        "layered trees: what is written goes to an upper directory"
    }
    fn serves(&self, fstype: &str) -> bool {
        fstype == "overlay"
    }
    fn filesystems(&self) -> &'static [&'static str] {
        &["nodev\toverlay"]
    }
    fn mount<'a>(&'a self, cx: Cx<'a>, request: MountRequest<'a>) -> Op<'a, Rc<dyn FileSystem>> {
        Box::pin(async move { mount(cx, &request).await })
    }
}

/// What is wrong with options of which mount(2) says no more than `EINVAL`.
pub fn complaint(options: &str) -> Option<String> {
    Options::parse(options.as_bytes()).err()
}

async fn mount(cx: Cx<'_>, request: &MountRequest<'_>) -> Result<Rc<dyn FileSystem>, Errno> {
    if request.target != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    let options = Options::parse(request.data).map_err(|_| Errno::EINVAL)?;
    let layer = async |path: &str| (request.layer)(path.to_owned()).await?.directory();
    let mut lower = Vec::new();
    for path in &options.lower {
        lower.push(layer(path).await?.node);
    }
    let upper = match &options.upper {
        Some((upper, work)) => {
            let (upper, work) = (layer(upper).await?, layer(work).await?);
            if upper.read_only || work.read_only {
                return Err(Errno::EINVAL);
            }
            let (upper, work) = (upper.node, work.node);
            check_apart(&upper, &work)?;
            Some((upper, work_directory(cx, &work, options.volatile).await?))
        }
        None => None,
    };
    check_overlap(upper.iter().flat_map(|(upper, work)| [upper, work]).chain(&lower))?;
    let root = Parts {
        upper: upper.as_ref().map(|(upper, _)| upper.clone()),
        lower: lower.into_iter().enumerate().map(|(n, node)| (n + 1, node)).collect(),
    };
    let setup = Setup {
        work: upper.map(|(_, work)| work),
        description: Description {
            fstype: "overlay".into(),
            source: request.source.to_owned(),
            options: options.show(),
        },
        read_only: options.upper.is_none() || request.flags.contains(MountFlags::RDONLY),
        volatile: options.volatile,
        changes: Changes::Above,
        private: None,
    };
    Ok(OverlayFs::start(cx, setup, root).await?)
}

/// The upper and the work directory must be separate trees of one file system.
fn check_apart(upper: &Rc<dyn Vnode>, work: &Rc<dyn Vnode>) -> Result<(), Errno> {
    let host = |node: &Rc<dyn Vnode>| {
        let node = node.as_any().downcast_ref::<HostNode>()?;
        Some((node.dev(), node.path()?))
    };
    match (host(upper), host(work)) {
        (Some((upper_dev, upper)), Some((work_dev, work))) => {
            if upper_dev != work_dev || upper.starts_with(&work) || work.starts_with(&upper) {
                return Err(Errno::EINVAL);
            }
        }
        (None, None) if upper.id() != work.id() => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// No layer may be another one or lie in it.
fn check_overlap<'a>(layers: impl Iterator<Item = &'a Rc<dyn Vnode>>) -> Result<(), Errno> {
    let path = |node: &Rc<dyn Vnode>| node.as_any().downcast_ref::<HostNode>()?.path();
    let paths: Vec<_> = layers.filter_map(path).collect();
    for (n, one) in paths.iter().enumerate() {
        if paths[n + 1..]
            .iter()
            .any(|other| one.starts_with(other) || other.starts_with(one))
        {
            return Err(Errno::ELOOP);
        }
    }
    Ok(())
}

/// The directory `work` in the work directory, emptied of what an earlier mount may have left half done.
///
/// After a volatile mount nobody knows whether what is in the upper directory is whole. The kernel's overlayfs and this
/// one refuse to mount it again until its owner has removed the mark, `incompat/volatile`.
async fn work_directory(cx: Cx<'_>, parent: &Rc<dyn Vnode>, volatile: bool) -> Result<Rc<dyn Vnode>, Errno> {
    let work = directory(cx, parent, b"work").await?;
    // The kernel's has no permissions at all.
    let own = SetAttr {
        mode: Some(0o700),
        ..SetAttr::default()
    };
    work.setattr(cx, own).await?;
    if let Ok(incompatible) = work.lookup(cx, &Name::new(b"incompat")?).await
        && list(cx, &incompatible)
            .await?
            .iter()
            .any(|entry| !matches!(&entry.name[..], b"." | b".."))
    {
        return Err(Errno::EINVAL);
    }
    names::empty(cx, &work).await?;
    if volatile {
        let incompatible = directory(cx, &work, b"incompat").await?;
        directory(cx, &incompatible, b"volatile").await?;
    }
    Ok(work)
}

async fn directory(cx: Cx<'_>, parent: &Rc<dyn Vnode>, name: &[u8]) -> Result<Rc<dyn Vnode>, Errno> {
    let name = Name::new(name)?;
    match parent.lookup(cx, &name).await {
        Err(Errno::ENOENT) => parent.mkdir(cx, &name, 0o700).await,
        other => other,
    }
}

fn one_device<'a>(mut layers: impl Iterator<Item = &'a Rc<dyn Vnode>>) -> bool {
    let dev = |node: &Rc<dyn Vnode>| node.as_any().downcast_ref::<HostNode>().map(HostNode::dev);
    let Some(first) = layers.next().and_then(dev) else {
        return false;
    };
    layers.all(|layer| dev(layer) == Some(first))
}

/// What a mount decides.
struct Setup {
    work: Option<Rc<dyn Vnode>>,
    description: Description,
    read_only: bool,
    /// Nothing is synced before it takes its place.
    volatile: bool,
    changes: Changes,
    /// A name in the root that the merged tree does not show.
    private: Option<Name>,
}

pub struct OverlayFs {
    me: Weak<OverlayFs>,
    setup: Setup,
    /// Inode numbers need the layer's number in them, as layers may use the same ones.
    numbered_apart: bool,
    /// Layer 0 is the upper one.
    nodes: RefCell<HashMap<Key, Weak<OverlayNode>>>,
    root: RefCell<Option<Rc<OverlayNode>>>,
    last_id: Cell<u64>,
    last_temporary: Cell<u64>,
}

impl OverlayFs {
    async fn start(cx: Cx<'_>, setup: Setup, root: Parts) -> Result<Rc<OverlayFs>, Errno> {
        let numbered_apart = !one_device(root.upper.iter().chain(root.lower.iter().map(|(_, node)| node)));
        let fs = Rc::new_cyclic(|me| OverlayFs {
            me: me.clone(),
            setup,
            numbered_apart,
            nodes: RefCell::default(),
            root: RefCell::default(),
            last_id: Cell::new(0),
            last_temporary: Cell::new(0),
        });
        let root = fs.node(cx, root, None).await?;
        fs.root.replace(Some(root));
        Ok(fs)
    }

    fn this(&self) -> Rc<OverlayFs> {
        self.me
            .upgrade()
            .unwrap_or_else(|| unreachable!("borrowed, hence alive"))
    }

    /// `EROFS` without an upper layer.
    fn check_writable(&self) -> Result<(), Errno> {
        if self.setup.read_only {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    fn work(&self) -> Result<&Rc<dyn Vnode>, Errno> {
        self.setup.work.as_ref().ok_or(Errno::EROFS)
    }

    /// A name in the work directory that nothing has.
    fn temporary(&self) -> Result<Name, Errno> {
        self.last_temporary.set(self.last_temporary.get() + 1);
        Name::new(format!("#{:x}", self.last_temporary.get()).as_bytes())
    }

    /// The inode number that the merged tree shows.
    fn ino(&self, layer: usize, ino: u64) -> u64 {
        if self.numbered_apart {
            ino ^ (layer as u64) << 56
        } else {
            ino
        }
    }
}

impl FileSystem for OverlayFs {
    fn root(&self) -> Rc<dyn Vnode> {
        match &*self.root.borrow() {
            Some(root) => root.clone(),
            None => unreachable!("set before anybody sees the file system"),
        }
    }
    fn describe(&self) -> Description {
        self.setup.description.clone()
    }
    fn shutdown(&self) {
        // The root holds the file system, and the other way round.
        self.root.take();
    }
}
