//! SETATTR: chmod, chown, truncate, utimensat, and the clearing of set-id bits (`fs/fuse/dir.c`, `fuse_do_setattr`).

use std::time::{SystemTime, UNIX_EPOCH};

use fuse_compat::kernel::expiry;
use fuse_compat::wire::abi::{Attr, InitFlags, SetattrIn, SetattrValid};

use super::dirty::pause;
use super::file::FuseFile;
use super::node::Node;
use super::perm;
use crate::api::{Access, AttrMask, Cx, Errno, FileKind, FileSystem, SetAttr, SetTime};

/// The owner of locks, as a server sees it.
pub fn lock_owner(files_id: u64) -> u64 {
    // Any one-to-one mapping will do; addresses and counters are nobody's business.
    files_id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995
}

impl Node {
    /// `ATTR_SIZE` only; the caller holds the write lock. `opened`: by a descriptor, or by opening it, which is a change
    /// even if the size is the same.
    pub async fn truncate(&self, cx: Cx<'_>, size: u64, fh: Option<u64>, opened: bool) -> Result<(), Errno> {
        let content = self.content();
        let paused = pause(&content).await;
        let old = self.known().size;
        let mut set = SetattrIn {
            size,
            ..SetattrIn::default()
        };
        let mut valid = SetattrValid::SIZE | SetattrValid::LOCKOWNER;
        if opened || size != old {
            valid |= self.stamp(&mut set, SetattrValid::MTIME | SetattrValid::CTIME);
        }
        set.lock_owner = lock_owner(cx.caller.files_id());
        if let Some(fh) = fh {
            valid |= SetattrValid::FH;
            set.fh = fh;
        }
        let by_flag = self.fs.negotiated(InitFlags::HANDLE_KILLPRIV_V2);
        let wanted = cx.caller.ids().fsuid != 0 && (by_flag || self.has_set_id());
        valid |= self.kill_set_id(cx, &mut set, wanted).await?;
        self.send(cx, set, valid).await?;
        drop(paused);
        if let Some(content) = content.filter(|_| self.known().size != old) {
            // As on Linux, what is left is read anew. Errors are told later.
            let _ = self.write_back_data().await;
            content.invalidate(0..u64::MAX);
        }
        Ok(())
    }

    /// What must be set besides, so that a change of data or owner clears set-id bits.
    async fn kill_set_id(&self, cx: Cx<'_>, set: &mut SetattrIn, wanted: bool) -> Result<SetattrValid, Errno> {
        if !wanted || self.kind != FileKind::Regular || self.fs.negotiated(InitFlags::HANDLE_KILLPRIV) {
            return Ok(SetattrValid::empty());
        }
        if self.fs.negotiated(InitFlags::HANDLE_KILLPRIV_V2) {
            return Ok(SetattrValid::KILL_SUIDGID);
        }
        let mode = self.refresh(cx.caller, None).await?.mode;
        set.mode = perm::without_set_id(mode);
        Ok(if set.mode == mode {
            SetattrValid::empty()
        } else {
            SetattrValid::MODE
        })
    }

    pub fn has_set_id(&self) -> bool {
        let mode = self.known().mode;
        perm::without_set_id(mode) != mode
    }

    /// Before a write: clears set-id bits, where the server does not do it (`file_remove_privs`).
    pub async fn before_write(&self, cx: Cx<'_>) -> Result<(), Errno> {
        let by_server =
            self.fs.negotiated(InitFlags::HANDLE_KILLPRIV) || self.fs.negotiated(InitFlags::HANDLE_KILLPRIV_V2);
        if by_server || cx.caller.ids().fsuid == 0 || !self.has_set_id() {
            return Ok(());
        }
        let mut set = SetattrIn::default();
        let valid = self.kill_set_id(cx, &mut set, true).await?;
        if valid.is_empty() {
            Ok(())
        } else {
            self.send(cx, set, valid).await
        }
    }

    async fn send(&self, cx: Cx<'_>, mut set: SetattrIn, valid: SetattrValid) -> Result<(), Errno> {
        set.valid = valid.bits();
        let out = self.calls(cx).setattr(self.nodeid(), set).await?;
        self.check_kind(out.attr.mode)?;
        let mut attr = self.corrected(out.attr);
        if self.owns_size() {
            if valid.contains(SetattrValid::SIZE) {
                attr.size = out.attr.size;
            }
            if valid.contains(SetattrValid::MTIME) {
                (attr.mtime, attr.mtimensec) = (set.mtime, set.mtimensec);
            }
            if valid.contains(SetattrValid::CTIME) {
                (attr.ctime, attr.ctimensec) = (set.ctime, set.ctimensec);
            }
        }
        self.changed(attr, expiry(self.fs.now(), out.attr_valid, out.attr_valid_nsec));
        self.told(AttrMask::BASIC);
        Ok(())
    }

    /// A limit on file sizes counts for files that grow (`inode_newsize_ok`).
    pub fn may_grow_to(&self, cx: Cx<'_>, size: u64) -> Result<(), Errno> {
        match size > self.known().size && size > cx.caller.file_size_limit() {
            true => Err(cx.caller.beyond_file_size_limit()),
            false => Ok(()),
        }
    }

    pub async fn change(&self, cx: Cx<'_>, change: SetAttr<'_>) -> Result<(), Errno> {
        self.check()?;
        self.fs.permits(cx)?;
        if change.size.is_some() && self.kind == FileKind::Directory {
            return Err(Errno::EISDIR);
        }
        let mut change = change;
        if self.fs.options.default_permissions {
            let attr = self.check_change(cx, &change).await?;
            let group = change.gid.unwrap_or(attr.gid);
            change.mode = change.mode.map(|mode| perm::settable(cx.caller.ids(), group, mode));
        }
        let fh = change
            .file
            .and_then(|file| file.as_any().downcast_ref::<FuseFile>())
            .map(FuseFile::fh);
        if let Some(size) = change.size {
            self.may_grow_to(cx, size)?;
            let _alone = self.write_lock.lock().await;
            return self.truncate(cx, size, fh, change.file.is_some()).await;
        }
        let explicit = |time: &Option<SetTime>| matches!(time, Some(SetTime::At(_)));
        let others = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        if self.owns_size() && (others || explicit(&change.atime) || explicit(&change.mtime)) {
            self.settle(cx.caller).await?;
        }
        let mut set = SetattrIn::default();
        let mut valid = SetattrValid::empty();
        if let Some(mode) = change.mode {
            valid |= SetattrValid::MODE;
            set.mode = mode & 0o7777 | self.kind.mode();
        }
        if let Some(uid) = change.uid {
            valid |= SetattrValid::UID;
            set.uid = uid;
        }
        if let Some(gid) = change.gid {
            valid |= SetattrValid::GID;
            set.gid = gid;
        }
        // A chown(2) that changes neither id is one nevertheless.
        let times = change.atime.is_some() || change.mtime.is_some();
        if change.uid.is_some() || change.gid.is_some() || change.mode.is_none() && !times {
            valid |= self.kill_set_id(cx, &mut set, change.mode.is_none()).await?;
        }
        // Some servers look at the time alone, and not at the flag that it is the present one.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wire = |time| match time {
            SetTime::Now => (now.as_secs(), now.subsec_nanos(), true),
            SetTime::At(at) => (at.sec as u64, at.nsec, false),
        };
        if let Some((sec, nsec, now)) = change.atime.map(wire) {
            (set.atime, set.atimensec) = (sec, nsec);
            valid |= SetattrValid::ATIME;
            valid.set(SetattrValid::ATIME_NOW, now);
        }
        if let Some((sec, nsec, now)) = change.mtime.map(wire) {
            (set.mtime, set.mtimensec) = (sec, nsec);
            valid |= SetattrValid::MTIME;
            valid.set(SetattrValid::MTIME_NOW, now && !self.owns_size());
        }
        valid |= self.stamp(&mut set, SetattrValid::CTIME);
        self.send(cx, set, valid).await
    }

    /// Gives the attributes by which it was decided.
    async fn check_change(&self, cx: Cx<'_>, change: &SetAttr<'_>) -> Result<Attr, Errno> {
        let attr = self.known();
        if !perm::may_change(cx.caller.ids(), &attr, change) {
            return Err(Errno::EPERM);
        }
        let owner = cx.caller.ids().fsuid == attr.uid || cx.caller.ids().fsuid == 0;
        let touches = change.atime.is_some() || change.mtime.is_some();
        if change.size.is_some() && change.file.is_none() || touches && !owner {
            self.may(cx, Access::WRITE).await?;
        }
        Ok(attr)
    }
}
