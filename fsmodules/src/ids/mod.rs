//! Virtual users: who a process is in the view, and who owns the host's files there.
//!
//! [`Creds`] follows credentials(7) and capabilities(7): what the `set*id` calls, `capset(2)` and `execve(2)` make of
//! them. [`Owners`] remembers what `chown(2)`, `chmod(2)` and `mknod(2)` would have changed; on disk every file stays
//! the real user's.

mod creds;
mod owners;

pub use creds::{Cap, CapSets, Creds, Triple};
pub use owners::{IdMap, Owner, Owners};

use crate::api::{Access, Errno, Ids, SetAttr, SetTime};

const TYPE: u32 = 0o170000;
const DIRECTORY: u32 = 0o040000;
const STICKY: u32 = 0o1000;
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// Do owner, group and mode bits allow it (`generic_permission` of fs/namei.c)?
pub fn permits(creds: &Creds, owner: &Owner, mask: Access) -> bool {
    let ids: &Ids = &creds.ids;
    let shift = match () {
        () if ids.fsuid == owner.uid => 6,
        () if ids.in_group(owner.gid) => 3,
        () => 0,
    };
    if owner.mode >> shift & mask.bits() == mask.bits() {
        return true;
    }
    let directory = owner.mode & TYPE == DIRECTORY;
    if creds.has(Cap::DacOverride) && (directory || !mask.contains(Access::EXECUTE) || owner.mode & 0o111 != 0) {
        return true;
    }
    let reads = mask == Access::READ || directory && !mask.contains(Access::WRITE);
    reads && creds.has(Cap::DacReadSearch)
}

/// May a name be removed from a directory with the sticky bit?
pub fn may_remove(creds: &Creds, dir: &Owner, victim: &Owner) -> bool {
    let fsuid = creds.ids.fsuid;
    dir.mode & STICKY == 0 || fsuid == victim.uid || fsuid == dir.uid || creds.has(Cap::Fowner)
}

/// What `chmod(2)` and `chown(2)` by this caller make of a file (`setattr_prepare` of fs/attr.c).
pub fn changed(creds: &Creds, old: &Owner, change: &SetAttr<'_>) -> Result<Owner, Errno> {
    let owns = creds.ids.fsuid == old.uid;
    let mut new = *old;
    if change.is_of_owner() {
        new.uid = change.uid.unwrap_or(old.uid);
        new.gid = change.gid.unwrap_or(old.gid);
        let allowed = (change.uid.is_none() || owns && new.uid == old.uid)
            && (change.gid.is_none() || owns && (new.gid == old.gid || creds.ids.in_group(new.gid)));
        if !allowed && !creds.has(Cap::Chown) {
            return Err(Errno::EPERM);
        }
        if old.mode & TYPE != DIRECTORY {
            new.mode = without_set_id(new.mode);
        }
    }
    if let Some(mode) = change.mode {
        if !owns && !creds.has(Cap::Fowner) {
            return Err(Errno::EPERM);
        }
        new.mode = old.mode & TYPE | mode & 0o7777;
        if !creds.ids.in_group(new.gid) && !creds.has(Cap::Fsetid) {
            new.mode &= !SET_GID;
        }
    }
    Ok(new)
}

/// May this caller set a file's times, to "now" or to others (`setattr_prepare` and `vfs_utimes`)?
pub fn check_times(creds: &Creds, owner: &Owner, change: &SetAttr<'_>) -> Result<(), Errno> {
    let times = [change.atime, change.mtime];
    let now = |time: Option<SetTime>| matches!(time, Some(SetTime::Now));
    if times == [None, None] || creds.ids.fsuid == owner.uid || creds.has(Cap::Fowner) {
        Ok(())
    } else if !times.into_iter().all(now) {
        Err(Errno::EPERM)
    } else if permits(creds, owner, Access::WRITE) {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

/// A mode without its set-id bits; a set-group-id bit without execution by the group means something else, and stays.
pub fn without_set_id(mode: u32) -> u32 {
    let mode = mode & !SET_UID;
    if mode & 0o10 != 0 { mode & !SET_GID } else { mode }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(mode: u32, uid: u32, gid: u32) -> Owner {
        Owner {
            mode,
            uid,
            gid,
            rdev: 0,
        }
    }

    #[test]
    fn the_first_class_decides_unless_a_capability_does() {
        let user = Creds::of(1000, 100, vec![7]);
        assert!(!permits(&user, &owner(0o100077, 1000, 1), Access::READ));
        assert!(permits(&user, &owner(0o100070, 1, 7), Access::WRITE | Access::READ));
        assert!(!permits(&user, &owner(0o100606, 1, 7), Access::READ));
        let root = Creds::of(0, 0, vec![]);
        assert!(permits(&root, &owner(0o100000, 5, 5), Access::WRITE));
        assert!(!permits(&root, &owner(0o100666, 5, 5), Access::EXECUTE));
        assert!(permits(&root, &owner(0o040000, 5, 5), Access::EXECUTE));
    }

    #[test]
    fn sticky_directories() {
        let (tmp, file) = (owner(0o041777, 0, 0), owner(0o100644, 1000, 1000));
        let removes = |uid| may_remove(&Creds::of(uid, uid, vec![]), &tmp, &file);
        assert_eq!([0, 1000, 1001].map(removes), [true, true, false]);
    }
}
