//! Who may do what: the rules of `fs/namei.c` (`generic_permission`) and `fs/attr.c`, for `default_permissions`.

use fuse_compat::wire::abi::Attr;

use crate::api::{Access, Ids, SetAttr, SetTime};

const DIRECTORY: u32 = 0o040000;
const STICKY: u32 = 0o1000;

/// Do owner, group and mode bits allow it?
pub fn allows(ids: &Ids, attr: &Attr, mask: Access) -> bool {
    if ids.fsuid == 0 {
        return !mask.contains(Access::EXECUTE) || attr.mode & 0o170000 == DIRECTORY || attr.mode & 0o111 != 0;
    }
    let shift = match () {
        () if ids.fsuid == attr.uid => 6,
        () if ids.in_group(attr.gid) => 3,
        () => 0,
    };
    attr.mode >> shift & mask.bits() == mask.bits()
}

/// May a name be removed from a directory with the sticky bit?
pub fn may_remove(ids: &Ids, dir: &Attr, victim: &Attr) -> bool {
    dir.mode & STICKY == 0 || ids.fsuid == 0 || ids.fsuid == victim.uid || ids.fsuid == dir.uid
}

/// May the caller change these attributes (`EPERM` otherwise)? Write permission, where that is the question, apart.
pub fn may_change(ids: &Ids, attr: &Attr, change: &SetAttr<'_>) -> bool {
    if ids.fsuid == 0 {
        return true;
    }
    let owner = ids.fsuid == attr.uid;
    let explicit_time = [change.atime, change.mtime]
        .iter()
        .flatten()
        .any(|time| matches!(time, SetTime::At(_)));
    let uid = change.uid.is_none_or(|uid| owner && uid == attr.uid);
    let gid = change
        .gid
        .is_none_or(|gid| owner && (gid == attr.gid || ids.in_group(gid)));
    uid && gid && (owner || change.mode.is_none() && !explicit_time)
}

/// The mode as the caller may set it: set-group-id only with a group of theirs (`setattr_prepare`).
pub fn settable(ids: &Ids, gid: u32, mode: u32) -> u32 {
    if ids.fsuid == 0 || ids.in_group(gid) {
        mode
    } else {
        mode & !0o2000
    }
}

/// The mode without set-id bits, as a change by an ordinary user leaves it (`setattr_should_drop_suidgid`).
pub fn without_set_id(mode: u32) -> u32 {
    let mode = mode & !0o4000;
    if mode & 0o2010 == 0o2010 { mode & !0o2000 } else { mode }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(uid: u32, gid: u32, groups: &[u32]) -> Ids {
        Ids {
            fsuid: uid,
            fsgid: gid,
            groups: groups.to_vec(),
            ..Ids::default()
        }
    }

    #[test]
    fn the_first_matching_class_decides() {
        let attr = Attr {
            mode: 0o100074,
            uid: 1,
            gid: 2,
            ..Attr::default()
        };
        assert!(!allows(&ids(1, 2, &[]), &attr, Access::READ));
        assert!(allows(&ids(3, 9, &[2]), &attr, Access::WRITE | Access::EXECUTE));
        assert!(allows(&ids(3, 9, &[]), &attr, Access::READ));
        assert!(!allows(&ids(3, 9, &[]), &attr, Access::WRITE));
    }

    #[test]
    fn root_executes_only_what_somebody_may() {
        let file = Attr {
            mode: 0o100600,
            ..Attr::default()
        };
        assert!(allows(&ids(0, 0, &[]), &file, Access::WRITE));
        assert!(!allows(&ids(0, 0, &[]), &file, Access::EXECUTE));
        assert!(allows(
            &ids(0, 0, &[]),
            &Attr { mode: 0o040000, ..file },
            Access::EXECUTE
        ));
    }

    #[test]
    fn sticky_directories() {
        let dir = Attr {
            mode: 0o041777,
            uid: 5,
            ..Attr::default()
        };
        let victim = Attr {
            uid: 6,
            ..Attr::default()
        };
        assert_eq!(
            [0, 5, 6, 7].map(|uid| may_remove(&ids(uid, 0, &[]), &dir, &victim)),
            [true, true, true, false]
        );
    }

    #[test]
    fn set_id_bits() {
        assert_eq!(without_set_id(0o106755), 0o100755);
        assert_eq!(without_set_id(0o102745), 0o102745);
    }

    #[test]
    fn only_the_owner_changes_modes() {
        let attr = Attr {
            uid: 1,
            gid: 1,
            ..Attr::default()
        };
        let mode = SetAttr {
            mode: Some(0),
            ..SetAttr::default()
        };
        let group = SetAttr {
            gid: Some(7),
            ..SetAttr::default()
        };
        let touch = SetAttr {
            mtime: Some(SetTime::Now),
            ..SetAttr::default()
        };
        assert!(may_change(&ids(1, 1, &[]), &attr, &mode) && !may_change(&ids(2, 1, &[]), &attr, &mode));
        assert!(may_change(&ids(1, 1, &[7]), &attr, &group) && !may_change(&ids(1, 1, &[]), &attr, &group));
        assert!(may_change(&ids(2, 2, &[]), &attr, &touch));
    }
}
