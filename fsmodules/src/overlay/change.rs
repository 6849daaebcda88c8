//! In which layer something is changed.

use std::rc::Rc;

use super::node::OverlayNode;
use crate::api::{Access, Cx, Errno, FileKind, Name, Vnode};

/// Where changes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// To the upper layer, by whoever may change the file: an overlay.
    Above,
    /// To the upper layer, by whoever may read the file: a copy is the caller's own.
    AboveFreely,
    /// To the lower layer; where that refuses, as [`Changes::AboveFreely`].
    BelowFirst,
    /// To the lower layer only.
    Below,
}

/// Does a copy help where a lower layer refuses?
fn refused(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
}

impl OverlayNode {
    fn changes(&self) -> Changes {
        self.fs.setup.changes
    }

    /// Its file in the lower layer, if changes may go there: names in a directory can, where both layers have it.
    pub fn beneath(&self) -> Option<Rc<dyn Vnode>> {
        let parts = self.parts.borrow();
        let hidden = parts.upper.is_some() && self.kind() != FileKind::Directory;
        match self.changes() {
            Changes::BelowFirst | Changes::Below if !hidden => parts.lower.first().map(|(_, node)| node.clone()),
            _ => None,
        }
    }

    /// May the caller change the file because the changed copy is their own? Virtual users have their rights instead.
    pub fn is_anybodys(&self, cx: Cx<'_>) -> bool {
        let freely = matches!(self.changes(), Changes::AboveFreely | Changes::BelowFirst);
        freely && !cx.caller.has_virtual_ids() && self.upper().is_none()
    }

    /// What the caller must be allowed to do, for `mask` to be done to the file or to a copy.
    pub fn asked(&self, cx: Cx<'_>, mut mask: Access) -> Access {
        if mask.contains(Access::WRITE) && self.is_anybodys(cx) {
            mask.remove(Access::WRITE);
            mask.set(
                Access::READ,
                mask.contains(Access::READ) || self.kind() == FileKind::Regular,
            );
        }
        mask
    }

    /// Changes the file, in the layer where that is to be done; without `data` its content does not matter.
    pub async fn change<T>(
        &self,
        cx: Cx<'_>,
        data: bool,
        make: impl AsyncFn(Rc<dyn Vnode>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.fs.check_writable()?;
        let lower = self.beneath().filter(|_| self.upper().is_none());
        match (self.changes(), lower) {
            (Changes::Below, None) => return Err(Errno::EROFS),
            (Changes::Below, Some(lower)) => return make(lower).await,
            (_, Some(lower)) => match make(lower).await {
                Err(errno) if refused(errno) => {}
                done => return done,
            },
            (_, None) => {}
        }
        self.copy_up(cx, data).await?;
        make(self.upper().ok_or(Errno::EROFS)?).await
    }

    /// Changes names in this directory's lower layer, if that is where names are changed. `None` if it is not, or
    /// refuses, and the change is to be made above. The upper layer must have none of these names.
    pub async fn change_beneath<T>(
        &self,
        cx: Cx<'_>,
        names: &[(&OverlayNode, &Name)],
        make: impl AsyncFn(Rc<dyn Vnode>) -> Result<T, Errno>,
    ) -> Result<Option<T>, Errno> {
        self.fs.check_writable()?;
        let only = self.changes() == Changes::Below;
        let Some(lower) = self.beneath() else {
            return if only { Err(Errno::EROFS) } else { Ok(None) };
        };
        for (dir, name) in names {
            if let Some(upper) = dir.upper()
                && upper.lookup(cx, name).await.is_ok()
            {
                return if only { Err(Errno::EROFS) } else { Ok(None) };
            }
        }
        let done = match lower.permission(cx, Access::WRITE | Access::EXECUTE).await {
            Ok(()) => make(lower).await,
            Err(errno) => Err(errno),
        };
        match done {
            Err(errno) if refused(errno) && !only => Ok(None),
            done => done.map(Some),
        }
    }
}
