//! The first change of a file that is in a lower layer only: it is copied to the upper one.
//!
//! The copy is made in the work directory and takes its place by a rename, so that nobody ever sees half of it.

use std::rc::Rc;

use super::mounter::Mounter;
use super::node::{ESCAPED, OverlayNode, PRIVATE, keep_number, mark_impure};
use crate::api::{
    Attr, AttrQuery, Cx, Errno, FileKind, Name, Op, OpenFlags, RenameFlags, SetAttr, SetTime, Vnode, XattrFlags,
};

const CHUNK: usize = 128 << 10;
/// The permissions that whoever owns a copy needs to change it.
const OWN: u32 = 0o600;

impl OverlayNode {
    /// Makes sure that it is in the upper layer; without `data` its content does not matter.
    pub fn copy_up<'a>(&'a self, cx: Cx<'a>, data: bool) -> Op<'a, ()> {
        Box::pin(async move {
            self.fs.check_writable()?;
            if self.upper().is_some() {
                return Ok(());
            }
            let Some((parent, name)) = self.place.borrow().clone() else {
                return Err(Errno::EROFS);
            };
            if self.removed.get() {
                return Err(Errno::ENOENT);
            }
            parent.copy_up(cx, true).await?;
            let _alone = self.copying.lock().await;
            if self.upper().is_some() {
                return Ok(());
            }
            let added = if self.is_anybodys(cx) { OWN } else { 0 };
            let mounter = Mounter::of(cx);
            let cx = mounter.cx();
            let to = parent.upper().ok_or(Errno::EROFS)?;
            let (work, temporary) = (self.fs.work()?.clone(), self.fs.temporary()?);
            let copied = self.copy_to(cx, &work, &temporary, data, added).await;
            let placed = match copied {
                Ok(copy) => {
                    let renamed = work.rename(cx, &temporary, &to, &name, RenameFlags::empty()).await;
                    renamed.map(|()| copy)
                }
                Err(errno) => Err(errno),
            };
            match placed {
                Ok(copy) => {
                    mark_impure(cx, &to).await;
                    self.risen(cx, copy).await
                }
                Err(errno) => {
                    // Nothing may be left of it; the next mount would remove it.
                    let _ = if self.kind() == FileKind::Directory {
                        work.rmdir(cx, &temporary).await
                    } else {
                        work.unlink(cx, &temporary).await
                    };
                    Err(errno)
                }
            }
        })
    }

    /// With these permissions besides its own.
    async fn copy_to(
        &self,
        cx: Cx<'_>,
        work: &Rc<dyn Vnode>,
        name: &Name,
        data: bool,
        added: u32,
    ) -> Result<Rc<dyn Vnode>, Errno> {
        let source = self.top()?;
        let attr = source.attr(cx, AttrQuery::default()).await?;
        let copy = match self.kind() {
            FileKind::Directory => work.mkdir(cx, name, 0o700).await?,
            FileKind::Symlink => work.symlink(cx, name, &source.readlink(cx).await?).await?,
            FileKind::Regular => {
                let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL;
                let made = work.clone().create(cx, name, 0o600, flags).await?;
                if data {
                    self.copy_data(cx, &source, &*made.file, attr.size).await?;
                }
                made.node
            }
            _ => work.mknod(cx, name, attr.mode, attr.rdev).await?,
        };
        copy_attributes(cx, &source, &copy).await?;
        if self.kind() == FileKind::Regular && attr.nlink == 1 {
            keep_number(cx, &copy, self.ino.get()).await?;
        }
        // Owner before mode, which a change of owner would strip of its set-id bits.
        match copy.setattr(cx, owner_of(&attr)).await {
            // Who cannot give files away keeps them.
            Err(Errno::EPERM) if !cx.caller.has_virtual_ids() => {}
            other => other?,
        }
        if self.kind() != FileKind::Symlink {
            let mode = SetAttr {
                mode: Some(attr.mode & 0o7777 | added),
                ..SetAttr::default()
            };
            copy.setattr(cx, mode).await?;
        }
        let times = SetAttr {
            atime: Some(SetTime::At(attr.atime)),
            mtime: Some(SetTime::At(attr.mtime)),
            ..SetAttr::default()
        };
        copy.setattr(cx, times).await?;
        Ok(copy)
    }

    async fn copy_data(
        &self,
        cx: Cx<'_>,
        source: &Rc<dyn Vnode>,
        to: &dyn crate::api::File,
        size: u64,
    ) -> Result<(), Errno> {
        let from = source.clone().open(cx, OpenFlags::empty()).await?;
        let mut at = 0;
        while at < size {
            // Holes stay holes.
            match from.seek_data(cx, at, false).await {
                Ok(data) => at = data.max(at),
                Err(Errno::ENXIO) => break,
                Err(_) => {}
            }
            let chunks = from.read(cx, at, CHUNK).await?;
            let read: usize = chunks.iter().map(|chunk| chunk.len()).sum();
            if read == 0 {
                break;
            }
            for chunk in chunks {
                let len = chunk.len();
                let (written, _) = to.write(cx, at, false, chunk).await?;
                if written < len {
                    return Err(Errno::ENOSPC);
                }
                at += len as u64;
            }
        }
        if let Some(node) = to.vnode() {
            let whole = SetAttr {
                size: Some(size),
                ..SetAttr::default()
            };
            node.setattr(cx, whole).await?;
        }
        if self.fs.setup.volatile {
            Ok(())
        } else {
            to.fsync(cx, false).await
        }
    }
}

fn owner_of(attr: &Attr) -> SetAttr<'static> {
    SetAttr {
        uid: Some(attr.uid),
        gid: Some(attr.gid),
        ..SetAttr::default()
    }
}

/// Extended attributes, except those that cannot be given or are overlayfs' own.
async fn copy_attributes(cx: Cx<'_>, from: &Rc<dyn Vnode>, to: &Rc<dyn Vnode>) -> Result<(), Errno> {
    let Ok(names) = from.listxattr(cx).await else {
        return Ok(());
    };
    for name in names
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty() && (!name.starts_with(PRIVATE) || name.starts_with(ESCAPED)))
    {
        let name = Name::attribute(name)?;
        let Ok(value) = from.getxattr(cx, &name).await else {
            continue;
        };
        match to.setxattr(cx, &name, value, XattrFlags::empty()).await {
            Err(Errno::EPERM | Errno::EOPNOTSUPP) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
