//! VUOS' file system patchworking: `mount -t vufs SOURCE TARGET -o MODE` puts one tree in front of another.
//!
//! - `move`, `bind`: the source is seen at the target.
//! - `merge`: the source in front of the target. What the source has cannot be changed, the rest is the target's.
//! - `cow`: so too, but all changes go to the source: who can read a file of the target can change their own copy of it.
//! - `mincow`: changes go to the target where it allows them, otherwise as with `cow`.
//!
//! What `cow` and `mincow` keep for themselves is in the directory `.-` of the source, and in the form of overlayfs.

use std::rc::Rc;

use super::change::Changes;
use super::node::Parts;
use super::{OverlayFs, Setup, directory, work_directory};
use crate::api::{
    Cx, Description, Errno, FileKind, FileSystem, Module, MountFlags, MountRequest, Name, Op, Vnode, fail,
};
use crate::hostfs::HostNode;

/// The directory of the source that is not shown.
const PRIVATE: &[u8] = b".-";

#[derive(Default)]
pub struct VufsModule;

impl Module for VufsModule {
    fn name(&self) -> &'static str {
        "vufs"
    }
    fn summary(&self) -> &'static str {
        "one tree in front of another: move, merge, cow or mincow"
    }
    fn serves(&self, fstype: &str) -> bool {
        fstype == "vufs"
    }
    fn filesystems(&self) -> &'static [&'static str] {
        &["nodev\tvufs"]
    }
    fn mount<'a>(&'a self, cx: Cx<'a>, request: MountRequest<'a>) -> Op<'a, Rc<dyn FileSystem>> {
        if request.target != FileKind::Directory {
            return fail(Errno::ENOTDIR);
        }
        Box::pin(async move { Ok(mount(cx, &request).await? as Rc<dyn FileSystem>) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Move,
    Merge,
    Cow,
    MinCow,
}

impl Mode {
    /// At most one mode, and nothing else.
    fn parse(data: &[u8]) -> Result<Mode, Errno> {
        let mut words = data.split(|&b| b == b',').filter(|word| !word.is_empty());
        let mode = match words.next() {
            None | Some(b"move" | b"bind") => Mode::Move,
            Some(b"merge") => Mode::Merge,
            Some(b"cow") => Mode::Cow,
            Some(b"mincow") => Mode::MinCow,
            Some(_) => return Err(Errno::EINVAL),
        };
        words.next().map_or(Ok(mode), |_| Err(Errno::EINVAL))
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Move => "move",
            Mode::Merge => "merge",
            Mode::Cow => "cow",
            Mode::MinCow => "mincow",
        }
    }

    fn changes(self) -> Changes {
        match self {
            // The source is the only layer.
            Mode::Move | Mode::Merge => Changes::Below,
            Mode::Cow => Changes::AboveFreely,
            Mode::MinCow => Changes::BelowFirst,
        }
    }
}

async fn mount(cx: Cx<'_>, request: &MountRequest<'_>) -> Result<Rc<OverlayFs>, Errno> {
    let mode = Mode::parse(request.data)?;
    let layer = async |path: &str| (request.layer)(path.to_owned()).await?.directory();
    let source = layer(request.source).await?;
    let mut changes = mode.changes();
    let (root, work, read_only) = match mode {
        Mode::Move => (lowest(None, source.node), None, source.read_only),
        Mode::Merge => {
            let target = layer(request.path).await?;
            (lowest(Some(source.node), target.node), None, target.read_only)
        }
        Mode::Cow | Mode::MinCow => {
            let target = layer(request.path).await?;
            if source.read_only {
                return Err(Errno::EROFS);
            }
            if target.read_only {
                changes = Changes::AboveFreely;
            }
            check_apart(&source.node, &target.node)?;
            let private = directory(cx, &source.node, PRIVATE).await?;
            let work = work_directory(cx, &private, false).await?;
            (lowest(Some(source.node), target.node), Some(work), false)
        }
    };
    let setup = Setup {
        work,
        description: Description {
            fstype: "vufs".into(),
            source: request.source.to_owned(),
            options: mode.name().into(),
        },
        read_only: read_only || request.flags.contains(MountFlags::RDONLY),
        volatile: false,
        changes,
        private: if mode == Mode::Move {
            None
        } else {
            Some(Name::new(PRIVATE)?)
        },
    };
    OverlayFs::start(cx, setup, root).await
}

fn lowest(upper: Option<Rc<dyn Vnode>>, lower: Rc<dyn Vnode>) -> Parts {
    Parts {
        upper,
        lower: vec![(1, lower)],
    }
}

/// The source may lie in the target, as when it takes the changes of a whole host, but not the other way round.
fn check_apart(source: &Rc<dyn Vnode>, target: &Rc<dyn Vnode>) -> Result<(), Errno> {
    let path = |node: &Rc<dyn Vnode>| node.as_any().downcast_ref::<HostNode>()?.path();
    match (path(source), path(target)) {
        (Some(source), Some(target)) if target.starts_with(&source) => Err(Errno::ELOOP),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (data, mode) in [
            ("", Mode::Move),
            ("bind", Mode::Move),
            ("merge", Mode::Merge),
            ("cow", Mode::Cow),
            (",mincow", Mode::MinCow),
        ] {
            assert_eq!(Mode::parse(data.as_bytes()), Ok(mode));
        }
        for bad in ["cow,merge", "except=/proc", "nonsense", "cow=1"] {
            assert_eq!(Mode::parse(bad.as_bytes()), Err(Errno::EINVAL), "{bad}");
        }
    }
}
