//! Making, removing and renaming: always in the upper layer, with whiteouts where a lower one would show through.

use std::rc::Rc;

use super::dir::list;
use super::file::OverlayFile;
use super::node::{OverlayNode, Parts, is_whiteout, make_opaque, mark_impure};
use crate::api::{
    Access, AttrQuery, Created, Cx, Errno, File, FileKind, Name, Op, OpenFlags, RenameFlags, SetAttr, Vnode,
};
use crate::ids::{Creds, Owner, changed, check_times, may_remove};

/// Removes everything from a directory of a layer.
pub fn empty<'a>(cx: Cx<'a>, dir: &'a Rc<dyn Vnode>) -> Op<'a, ()> {
    Box::pin(async move {
        for entry in list(cx, dir).await? {
            if matches!(&entry.name[..], b"." | b"..") {
                continue;
            }
            let name = Name::new(&entry.name)?;
            let child = dir.lookup(cx, &name).await?;
            if child.kind() == FileKind::Directory {
                empty(cx, &child).await?;
                dir.rmdir(cx, &name).await?;
            } else {
                dir.unlink(cx, &name).await?;
            }
        }
        Ok(())
    })
}

impl OverlayNode {
    /// Its directory in the upper layer, in which the caller may change names.
    async fn changeable(&self, cx: Cx<'_>) -> Result<Rc<dyn Vnode>, Errno> {
        self.fs.check_writable()?;
        if self.removed.get() {
            return Err(Errno::ENOENT);
        }
        let mask = self.asked(cx, Access::WRITE | Access::EXECUTE);
        self.top()?.permission(cx, mask).await?;
        self.copy_up(cx, true).await?;
        self.upper().ok_or(Errno::EROFS)
    }

    /// Is there a whiteout of that name in the upper layer?
    async fn hidden(&self, cx: Cx<'_>, upper: &Rc<dyn Vnode>, name: &Name) -> Result<bool, Errno> {
        match upper.lookup(cx, name).await {
            Ok(node) => is_whiteout(cx, &node).await,
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Where a new file is to be made: at its place, or in the work directory if it must replace a whiteout.
    async fn site(&self, cx: Cx<'_>, name: &Name) -> Result<Site, Errno> {
        let upper = self.changeable(cx).await?;
        Ok(if self.hidden(cx, &upper, name).await? {
            Site {
                dir: self.fs.work()?.clone(),
                name: self.fs.temporary()?,
                upper,
                replaces: true,
            }
        } else {
            Site {
                dir: upper.clone(),
                name: name.clone(),
                upper,
                replaces: false,
            }
        })
    }

    /// Puts what was made at a site where it belongs.
    async fn settle(
        &self,
        cx: Cx<'_>,
        site: &Site,
        node: Rc<dyn Vnode>,
        name: &Name,
    ) -> Result<Rc<OverlayNode>, Errno> {
        if site.replaces {
            let directory = node.kind() == FileKind::Directory;
            let done = async {
                if directory {
                    make_opaque(cx, &node).await?;
                    exchange(cx, &site.dir, &site.name, &site.upper, name).await
                } else {
                    site.dir
                        .rename(cx, &site.name, &site.upper, name, RenameFlags::empty())
                        .await
                }
            };
            if let Err(errno) = done.await {
                let _ = if directory {
                    site.dir.rmdir(cx, &site.name).await
                } else {
                    site.dir.unlink(cx, &site.name).await
                };
                return Err(errno);
            }
        }
        let parts = Parts {
            upper: Some(node),
            lower: Vec::new(),
        };
        self.fs.node(cx, parts, Some((self.this(), name.clone()))).await
    }

    /// Makes something new, in the layer where that is to be done.
    async fn make<T>(
        &self,
        cx: Cx<'_>,
        name: &Name,
        make: impl AsyncFn(Rc<dyn Vnode>, &Name) -> Result<(Rc<dyn Vnode>, T), Errno>,
    ) -> Result<(Rc<OverlayNode>, T), Errno> {
        let beneath = async |dir: Rc<dyn Vnode>| make(dir, name).await;
        if let Some((node, made)) = self.change_beneath(cx, &[(self, name)], beneath).await? {
            let parts = Parts {
                upper: None,
                lower: vec![(1, node)],
            };
            return Ok((self.fs.node(cx, parts, Some((self.this(), name.clone()))).await?, made));
        }
        let site = self.site(cx, name).await?;
        let (node, made) = make(site.dir.clone(), &site.name).await?;
        Ok((self.settle(cx, &site, node, name).await?, made))
    }

    pub async fn make_file(&self, cx: Cx<'_>, name: &Name, mode: u32, flags: OpenFlags) -> Result<Created, Errno> {
        let make = async |dir: Rc<dyn Vnode>, name: &Name| {
            let made = dir.create(cx, name, mode, flags).await?;
            Ok((made.node, made.file))
        };
        let (node, file) = self.make(cx, name, make).await?;
        Ok(created(node, file))
    }

    /// `O_TMPFILE`
    pub async fn make_nameless(&self, cx: Cx<'_>, mode: u32, flags: OpenFlags) -> Result<Created, Errno> {
        let make = async |dir: Rc<dyn Vnode>| dir.tmpfile(cx, mode, flags).await;
        let (made, below) = match self.change_beneath(cx, &[], make).await? {
            Some(made) => (made, true),
            None => (make(self.changeable(cx).await?).await?, false),
        };
        let parts = if below {
            Parts {
                upper: None,
                lower: vec![(1, made.node)],
            }
        } else {
            Parts {
                upper: Some(made.node),
                lower: Vec::new(),
            }
        };
        let node = self.fs.node(cx, parts, None).await?;
        Ok(created(node, made.file))
    }

    pub async fn make_node(&self, cx: Cx<'_>, name: &Name, mode: u32, rdev: u32) -> Result<Rc<dyn Vnode>, Errno> {
        if FileKind::from_mode(mode) == Some(FileKind::CharDevice) && rdev == 0 {
            // It would be a whiteout.
            return Err(Errno::EPERM);
        }
        let make = async |dir: Rc<dyn Vnode>, name: &Name| Ok((dir.mknod(cx, name, mode, rdev).await?, ()));
        Ok(self.make(cx, name, make).await?.0)
    }

    pub async fn make_directory(&self, cx: Cx<'_>, name: &Name, mode: u32) -> Result<Rc<dyn Vnode>, Errno> {
        let make = async |dir: Rc<dyn Vnode>, name: &Name| Ok((dir.mkdir(cx, name, mode).await?, ()));
        Ok(self.make(cx, name, make).await?.0)
    }

    pub async fn make_symlink(&self, cx: Cx<'_>, name: &Name, target: &[u8]) -> Result<Rc<dyn Vnode>, Errno> {
        let make = async |dir: Rc<dyn Vnode>, name: &Name| Ok((dir.symlink(cx, name, target).await?, ()));
        Ok(self.make(cx, name, make).await?.0)
    }

    pub async fn make_link(&self, cx: Cx<'_>, target: &Rc<OverlayNode>, name: &Name) -> Result<(), Errno> {
        let make = async |dir: Rc<dyn Vnode>| {
            let file = target.beneath().ok_or(Errno::EROFS)?;
            dir.link(cx, &file, name).await
        };
        if self.change_beneath(cx, &[(self, name)], make).await?.is_some() {
            return Ok(());
        }
        let site = self.site(cx, name).await?;
        target.copy_up(cx, true).await?;
        let file = target.top()?;
        site.dir.link(cx, &file, &site.name).await?;
        mark_impure(cx, &site.upper).await;
        if site.replaces {
            site.dir
                .rename(cx, &site.name, &site.upper, name, RenameFlags::empty())
                .await?;
        }
        Ok(())
    }

    async fn owner(&self, cx: Cx<'_>) -> Result<Owner, Errno> {
        let attr = self.attr(cx, AttrQuery::default()).await?;
        Ok(Owner {
            uid: attr.uid,
            gid: attr.gid,
            mode: attr.mode,
            rdev: 0,
        })
    }

    /// May the caller remove this name (the sticky bit)?
    async fn check_sticky(&self, cx: Cx<'_>, victim: &OverlayNode) -> Result<(), Errno> {
        if victim.is_anybodys(cx) {
            return Ok(());
        }
        let creds = Creds::for_files(cx.caller.ids());
        if may_remove(&creds, &self.owner(cx).await?, &victim.owner(cx).await?) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// May the caller change the attributes? Asked before the file is copied up for it.
    pub async fn check_change(&self, cx: Cx<'_>, change: &SetAttr<'_>) -> Result<(), Errno> {
        let (creds, owner) = (Creds::for_files(cx.caller.ids()), self.owner(cx).await?);
        check_times(&creds, &owner, change)?;
        changed(&creds, &owner, change).map(drop)
    }

    pub async fn remove(&self, cx: Cx<'_>, name: &Name, directory: bool) -> Result<(), Errno> {
        let child = self.child(cx, name).await?;
        let make = async |dir: Rc<dyn Vnode>| {
            self.check_sticky(cx, &child).await?;
            if directory {
                dir.rmdir(cx, name).await
            } else {
                dir.unlink(cx, name).await
            }
        };
        if self.change_beneath(cx, &[(self, name)], make).await?.is_some() {
            return Ok(());
        }
        let upper = self.changeable(cx).await?;
        self.check_sticky(cx, &child).await?;
        if directory && !child.merged(cx).await?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let shows_through = self.shows_through(cx, name).await?;
        match (child.upper(), shows_through) {
            (None, _) => whiteout(cx, &upper, name).await?,
            (Some(node), false) => {
                if directory {
                    empty(cx, &node).await?;
                    upper.rmdir(cx, name).await?;
                } else {
                    upper.unlink(cx, name).await?;
                }
            }
            (Some(node), true) => {
                let (work, temporary) = (self.fs.work()?.clone(), self.fs.temporary()?);
                whiteout(cx, &work, &temporary).await?;
                if directory {
                    exchange_only(cx, &work, &temporary, &upper, name).await?;
                    empty(cx, &node).await?;
                    work.rmdir(cx, &temporary).await?;
                } else {
                    work.rename(cx, &temporary, &upper, name, RenameFlags::empty()).await?;
                }
            }
        }
        // Who has it open keeps it, but there is no place any more to which it could be copied up.
        child.removed.set(directory || child.upper().is_none());
        Ok(())
    }

    pub async fn move_name(
        &self,
        cx: Cx<'_>,
        name: &Name,
        new_dir: &Rc<OverlayNode>,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let moved = self.child(cx, name).await?;
        if self.move_beneath(cx, (name, &moved), new_dir, new_name, flags).await? {
            return Ok(());
        }
        if flags.contains(RenameFlags::EXCHANGE) {
            return self.exchange_names(cx, name, new_dir, new_name).await;
        }
        let directory = moved.kind() == FileKind::Directory;
        let from = self.changeable(cx).await?;
        let to = new_dir.changeable(cx).await?;
        self.check_movable(cx, &moved, new_dir).await?;
        let victim = match new_dir.child(cx, new_name).await {
            Ok(victim) => Some(victim),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        if let Some(victim) = &victim {
            new_dir.check_sticky(cx, victim).await?;
            if victim.kind() == FileKind::Directory {
                if !victim.merged(cx).await?.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                if let Some(node) = victim.upper() {
                    empty(cx, &node).await?;
                }
            }
        }
        moved.copy_up(cx, true).await?;
        let upper = moved.upper().ok_or(Errno::EROFS)?;
        if directory && new_dir.shows_through(cx, new_name).await? {
            make_opaque(cx, &upper).await?;
        }
        let leaves_whiteout = self.shows_through(cx, name).await?;
        if directory && new_dir.hidden(cx, &to, new_name).await? {
            // A directory cannot replace a whiteout, but change places with it: it is then where it is needed, or not.
            exchange_only(cx, &from, name, &to, new_name).await?;
            if !leaves_whiteout {
                from.unlink(cx, name).await?;
            }
        } else {
            let flags = if leaves_whiteout {
                RenameFlags::WHITEOUT
            } else {
                RenameFlags::empty()
            };
            from.rename(cx, name, &to, new_name, flags).await?;
        }
        mark_impure(cx, &to).await;
        if let Some(victim) = victim.filter(|victim| victim.kind() == FileKind::Directory) {
            victim.removed.set(true);
        }
        moved.place.replace(Some((new_dir.clone(), new_name.clone())));
        Ok(())
    }

    /// Renames in the lower layer, if that is where names are changed.
    async fn move_beneath(
        &self,
        cx: Cx<'_>,
        (name, moved): (&Name, &OverlayNode),
        new_dir: &Rc<OverlayNode>,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<bool, Errno> {
        let to = new_dir.beneath();
        let make = async |from: Rc<dyn Vnode>| {
            let to = to.as_ref().ok_or(Errno::EROFS)?;
            to.permission(cx, Access::WRITE | Access::EXECUTE).await?;
            self.check_sticky(cx, moved).await?;
            let other = new_dir.child(cx, new_name).await.ok();
            if let Some(other) = &other {
                new_dir.check_sticky(cx, other).await?;
            }
            from.rename(cx, name, to, new_name, flags).await?;
            moved.place.replace(Some((new_dir.clone(), new_name.clone())));
            if let Some(other) = other.filter(|_| flags.contains(RenameFlags::EXCHANGE)) {
                other.place.replace(Some((self.this(), name.clone())));
            }
            Ok(())
        };
        let names = [(self, name), (&**new_dir, new_name)];
        Ok(self.change_beneath(cx, &names, make).await?.is_some())
    }

    /// May the caller take this name away, to put the file into `new_dir`?
    async fn check_movable(&self, cx: Cx<'_>, moved: &OverlayNode, new_dir: &OverlayNode) -> Result<(), Errno> {
        self.check_sticky(cx, moved).await?;
        if moved.kind() != FileKind::Directory {
            return Ok(());
        }
        if self.id() != new_dir.id() {
            // Its ".." changes.
            moved.permission(cx, Access::WRITE).await?;
        }
        // Without redirects a directory that lower layers take part in cannot be elsewhere.
        if moved.has_lower() { Err(Errno::EXDEV) } else { Ok(()) }
    }

    /// `RENAME_EXCHANGE`
    async fn exchange_names(
        &self,
        cx: Cx<'_>,
        name: &Name,
        new_dir: &Rc<OverlayNode>,
        new_name: &Name,
    ) -> Result<(), Errno> {
        let (one, other) = (self.child(cx, name).await?, new_dir.child(cx, new_name).await?);
        let (from, to) = (self.changeable(cx).await?, new_dir.changeable(cx).await?);
        self.check_movable(cx, &one, new_dir).await?;
        new_dir.check_movable(cx, &other, self).await?;
        for (moved, dir, name) in [(&one, new_dir.as_ref(), new_name), (&other, self, name)] {
            moved.copy_up(cx, true).await?;
            let upper = moved.upper().ok_or(Errno::EROFS)?;
            if moved.kind() == FileKind::Directory && dir.shows_through(cx, name).await? {
                make_opaque(cx, &upper).await?;
            }
        }
        exchange_only(cx, &from, name, &to, new_name).await?;
        mark_impure(cx, &from).await;
        mark_impure(cx, &to).await;
        one.place.replace(Some((new_dir.clone(), new_name.clone())));
        other.place.replace(Some((self.this(), name.clone())));
        Ok(())
    }
}

fn created(node: Rc<OverlayNode>, opened: Rc<dyn File>) -> Created {
    let file = Rc::new(OverlayFile::new(node.clone(), opened));
    Created { node, file }
}

/// Where a new file is made.
struct Site {
    dir: Rc<dyn Vnode>,
    name: Name,
    upper: Rc<dyn Vnode>,
    replaces: bool,
}

/// Says in the upper layer that there is nothing of this name.
async fn whiteout(cx: Cx<'_>, dir: &Rc<dyn Vnode>, name: &Name) -> Result<(), Errno> {
    dir.mknod(cx, name, FileKind::CharDevice.mode(), 0).await.map(drop)
}

async fn exchange_only(
    cx: Cx<'_>,
    dir: &Rc<dyn Vnode>,
    name: &Name,
    other: &Rc<dyn Vnode>,
    other_name: &Name,
) -> Result<(), Errno> {
    dir.rename(cx, name, other, other_name, RenameFlags::EXCHANGE).await
}

/// Puts a directory in the place of a whiteout, which is then gone.
async fn exchange(
    cx: Cx<'_>,
    work: &Rc<dyn Vnode>,
    name: &Name,
    upper: &Rc<dyn Vnode>,
    upper_name: &Name,
) -> Result<(), Errno> {
    exchange_only(cx, work, name, upper, upper_name).await?;
    work.unlink(cx, name).await
}
