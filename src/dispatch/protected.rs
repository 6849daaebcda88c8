//! `fs.protected_*` (proc_sys_fs(5)): what the host forbids in sticky directories, and with the files of others, it
//! forbids on mounts too (fs/namei.c).

use fsmodules::api::{Access, Attr, AttrQuery, Caller, Errno, FileKind};

use crate::view::{Place, VirtualPlace};

use super::Ctx;
use super::settings::setting;

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o2;
const GROUP_WRITES: u32 = 0o20;

/// The host's settings.
pub struct Protected {
    hardlinks: u8,
    pub symlinks: bool,
    fifos: u8,
    regular: u8,
}

impl Protected {
    pub fn of_host() -> Protected {
        let value = |name: &str| {
            let level = setting(&format!("protected_{name}"));
            level.and_then(|level| u8::try_from(level).ok()).unwrap_or(0)
        };
        Protected {
            hardlinks: value("hardlinks"),
            symlinks: value("symlinks") > 0,
            fifos: value("fifos"),
            regular: value("regular"),
        }
    }

    /// `may_create_in_sticky`: may a file with these attributes be opened with `O_CREAT` in such a directory?
    fn allows_open(&self, kind: FileKind, fsuid: u32, file: &Attr, dir: &Attr) -> bool {
        let level = match kind {
            FileKind::Regular => self.regular,
            FileKind::Fifo => self.fifos,
            _ => 0,
        };
        let forbidden = match level {
            0 => 0,
            1 => OTHERS_WRITE,
            _ => OTHERS_WRITE | GROUP_WRITES,
        };
        dir.mode & STICKY == 0 || file.uid == dir.uid || file.uid == fsuid || dir.mode & forbidden == 0
    }
}

/// May the caller give the file another name (`may_linkat`)?
pub async fn check_link(cx: &Ctx, file: &VirtualPlace) -> Result<(), Errno> {
    let fsuid = cx.ids().fsuid;
    if cx.hv.protected.hardlinks == 0 || fsuid == 0 {
        return Ok(());
    }
    let attr = file.node().attr(cx.cx(), AttrQuery::KNOWN).await?;
    if attr.uid == fsuid {
        return Ok(());
    }
    let set_id = attr.mode & 0o4000 != 0 || attr.mode & 0o2010 == 0o2010;
    if file.node().kind() != FileKind::Regular || set_id {
        return Err(Errno::EPERM);
    }
    let allowed = file.node().permission(cx.cx(), Access::READ | Access::WRITE).await;
    allowed.map_err(|_| Errno::EPERM)
}

/// May the caller open what exists with `O_CREAT`?
pub async fn check_create(cx: &Ctx, parent: Option<&Place>, file: &VirtualPlace) -> Result<(), Errno> {
    let (Some(Place::Virtual(parent)), FileKind::Regular | FileKind::Fifo) = (parent, file.node().kind()) else {
        return Ok(());
    };
    if cx.hv.protected.regular == 0 && cx.hv.protected.fifos == 0 {
        return Ok(());
    }
    let dir = parent.node().attr(cx.cx(), AttrQuery::KNOWN).await?;
    let attr = file.node().attr(cx.cx(), AttrQuery::KNOWN).await?;
    let protected = &cx.hv.protected;
    match protected.allows_open(file.node().kind(), cx.ids().fsuid, &attr, &dir) {
        true => Ok(()),
        false => Err(Errno::EACCES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(mode: u32, uid: u32) -> Attr {
        Attr {
            ino: 1,
            mode,
            nlink: 1,
            uid,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 0,
            atime: Default::default(),
            mtime: Default::default(),
            ctime: Default::default(),
            btime: None,
        }
    }

    #[test]
    fn files_of_others_in_sticky_directories() {
        let protected = Protected {
            hardlinks: 0,
            symlinks: false,
            fifos: 1,
            regular: 2,
        };
        let allows = |kind, fsuid, file, mode| protected.allows_open(kind, fsuid, &attr(0, file), &attr(mode, 5));
        assert!(allows(FileKind::Regular, 1, 2, 0o777));
        assert!(!allows(FileKind::Regular, 1, 2, 0o1777));
        assert!(!allows(FileKind::Regular, 1, 2, 0o1770));
        assert!(allows(FileKind::Fifo, 1, 2, 0o1770));
        assert!(!allows(FileKind::Fifo, 0, 2, 0o1707));
        assert!(allows(FileKind::Fifo, 2, 2, 0o1777) && allows(FileKind::Fifo, 1, 5, 0o1777));
        assert!(allows(FileKind::Socket, 1, 2, 0o1777));
    }
}
