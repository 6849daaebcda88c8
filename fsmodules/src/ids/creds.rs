//! The credentials of a thread, and what changes them (kernel/sys.c, security/commoncap.c).

use crate::api::{Errno, Ids};

/// The capabilities that matter to umvu, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    Chown = 0,
    DacOverride = 1,
    DacReadSearch = 2,
    Fowner = 3,
    Fsetid = 4,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    Mknod = 27,
}

const LAST_CAP: u32 = 40;
const ALL: u64 = (1 << (LAST_CAP + 1)) - 1;
/// What goes and comes with a file-system uid of 0 (`CAP_FS_SET`): chown, dac_override, dac_read_search, fowner,
/// fsetid, linux_immutable, mknod, mac_override.
const FS_SET: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;

const NOROOT: u32 = 1;
const NO_SETUID_FIXUP: u32 = 1 << 2;
const KEEP_CAPS: u32 = 1 << 4;
const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;

/// The three sets of `capget(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// Real, effective and saved id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triple(pub u32, pub u32, pub u32);

/// "Leave it as it is."
const SAME: u32 = u32::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creds {
    pub ids: Ids,
    pub caps: CapSets,
    pub bounding: u64,
    pub ambient: u64,
    pub securebits: u32,
}

impl Creds {
    /// Somebody who has just logged in: with all capabilities as uid 0, else with none.
    pub fn of(uid: u32, gid: u32, groups: Vec<u32>) -> Creds {
        Creds::having(Ids {
            ruid: uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            rgid: gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups,
        })
    }

    /// Somebody with these ids, and all capabilities if the effective one is 0.
    pub fn having(ids: Ids) -> Creds {
        let held = if ids.euid == 0 { ALL } else { 0 };
        Creds {
            ids,
            caps: CapSets {
                effective: held,
                permitted: held,
                inheritable: 0,
            },
            bounding: ALL,
            ambient: 0,
            securebits: 0,
        }
    }

    /// A caller as far as files go: with the capabilities that its file-system uid stands for.
    pub fn for_files(ids: &Ids) -> Creds {
        Creds {
            ids: ids.clone(),
            ..Creds::of(ids.fsuid, ids.fsgid, Vec::new())
        }
    }

    pub fn has(&self, cap: Cap) -> bool {
        self.caps.effective & 1 << cap as u32 != 0
    }

    pub fn uids(&self) -> Triple {
        Triple(self.ids.ruid, self.ids.euid, self.ids.suid)
    }

    pub fn gids(&self) -> Triple {
        Triple(self.ids.rgid, self.ids.egid, self.ids.sgid)
    }

    // What the calls of these names do.

    pub fn setuid(&self, uid: u32) -> Result<Creds, Errno> {
        let Triple(ruid, _, suid) = self.uids();
        match uid {
            SAME => Err(Errno::EINVAL),
            _ if self.has(Cap::Setuid) => Ok(self.with_uids(Triple(uid, uid, uid))),
            _ if uid == ruid || uid == suid => Ok(self.with_uids(Triple(ruid, uid, suid))),
            _ => Err(Errno::EPERM),
        }
    }

    pub fn setreuid(&self, ruid: u32, euid: u32) -> Result<Creds, Errno> {
        let uids = reid(self.uids(), ruid, euid, self.has(Cap::Setuid))?;
        Ok(self.with_uids(uids))
    }

    pub fn setresuid(&self, ids: Triple) -> Result<Creds, Errno> {
        let uids = resid(self.uids(), ids, self.has(Cap::Setuid))?;
        Ok(self.with_uids(uids))
    }

    /// The credentials are the old ones if it is not allowed; the call never fails.
    pub fn setfsuid(&self, uid: u32) -> Creds {
        let Triple(ruid, euid, suid) = self.uids();
        let mut new = self.clone();
        if uid == SAME || ![ruid, euid, suid, self.ids.fsuid].contains(&uid) && !self.has(Cap::Setuid) {
            return new;
        }
        new.ids.fsuid = uid;
        if self.securebits & NO_SETUID_FIXUP == 0 {
            match (self.ids.fsuid, uid) {
                (0, 1..) => new.caps.effective &= !FS_SET,
                (1.., 0) => new.caps.effective |= new.caps.permitted & FS_SET,
                _ => {}
            }
        }
        new
    }

    pub fn setgid(&self, gid: u32) -> Result<Creds, Errno> {
        let Triple(rgid, _, sgid) = self.gids();
        match gid {
            SAME => Err(Errno::EINVAL),
            _ if self.has(Cap::Setgid) => Ok(self.with_gids(Triple(gid, gid, gid))),
            _ if gid == rgid || gid == sgid => Ok(self.with_gids(Triple(rgid, gid, sgid))),
            _ => Err(Errno::EPERM),
        }
    }

    pub fn setregid(&self, rgid: u32, egid: u32) -> Result<Creds, Errno> {
        let gids = reid(self.gids(), rgid, egid, self.has(Cap::Setgid))?;
        Ok(self.with_gids(gids))
    }

    pub fn setresgid(&self, ids: Triple) -> Result<Creds, Errno> {
        let gids = resid(self.gids(), ids, self.has(Cap::Setgid))?;
        Ok(self.with_gids(gids))
    }

    pub fn setfsgid(&self, gid: u32) -> Creds {
        let Triple(rgid, egid, sgid) = self.gids();
        let mut new = self.clone();
        if gid != SAME && ([rgid, egid, sgid, self.ids.fsgid].contains(&gid) || self.has(Cap::Setgid)) {
            new.ids.fsgid = gid;
        }
        new
    }

    pub fn setgroups(&self, groups: Vec<u32>) -> Result<Creds, Errno> {
        if !self.has(Cap::Setgid) {
            return Err(Errno::EPERM);
        }
        let mut new = self.clone();
        new.ids.groups = groups;
        Ok(new)
    }

    pub fn capset(&self, caps: CapSets) -> Result<Creds, Errno> {
        let old = &self.caps;
        let inherits = if self.has(Cap::Setpcap) {
            old.inheritable | self.bounding
        } else {
            old.inheritable | old.permitted
        };
        let allowed = caps.inheritable & !inherits == 0
            && caps.inheritable & !(old.inheritable | self.bounding) == 0
            && caps.permitted & !old.permitted == 0
            && caps.effective & !caps.permitted == 0;
        if !allowed {
            return Err(Errno::EPERM);
        }
        let mut new = self.clone();
        new.caps = caps;
        new.ambient &= caps.permitted & caps.inheritable;
        Ok(new)
    }

    /// `PR_CAPBSET_READ`
    pub fn bounding_has(&self, cap: u32) -> Result<bool, Errno> {
        bit(cap).map(|bit| self.bounding & bit != 0)
    }

    /// `PR_CAPBSET_DROP`
    pub fn drop_bounding(&self, cap: u32) -> Result<Creds, Errno> {
        if !self.has(Cap::Setpcap) {
            return Err(Errno::EPERM);
        }
        let bit = bit(cap)?;
        let mut new = self.clone();
        new.bounding &= !bit;
        Ok(new)
    }

    pub fn keeps_caps(&self) -> bool {
        self.securebits & KEEP_CAPS != 0
    }

    /// `PR_SET_KEEPCAPS`
    pub fn keep_caps(&self, keep: bool) -> Creds {
        let mut new = self.clone();
        new.securebits = (self.securebits & !KEEP_CAPS) | if keep { KEEP_CAPS } else { 0 };
        new
    }

    /// `PR_SET_SECUREBITS`
    pub fn secure(&self, bits: u32) -> Result<Creds, Errno> {
        // Every second bit locks the one before it, and stays.
        let locks = 0b1010_1010;
        let locked = (self.securebits & locks) >> 1 | self.securebits & locks;
        if bits & !0xff != 0 || (bits ^ self.securebits) & locked != 0 || !self.has(Cap::Setpcap) {
            return Err(Errno::EPERM);
        }
        let mut new = self.clone();
        new.securebits = bits;
        Ok(new)
    }

    /// `PR_CAP_AMBIENT_IS_SET`
    pub fn ambient_has(&self, cap: u32) -> Result<bool, Errno> {
        bit(cap).map(|bit| self.ambient & bit != 0)
    }

    /// `PR_CAP_AMBIENT_RAISE`, or `PR_CAP_AMBIENT_LOWER`
    pub fn set_ambient(&self, cap: u32, raise: bool) -> Result<Creds, Errno> {
        let bit = bit(cap)?;
        let mut new = self.clone();
        if !raise {
            new.ambient &= !bit;
        } else if self.caps.permitted & self.caps.inheritable & bit == 0 || self.securebits & NO_CAP_AMBIENT_RAISE != 0
        {
            return Err(Errno::EPERM);
        } else {
            new.ambient |= bit;
        }
        Ok(new)
    }

    /// `PR_CAP_AMBIENT_CLEAR_ALL`
    pub fn without_ambient(&self) -> Creds {
        Creds {
            ambient: 0,
            ..self.clone()
        }
    }

    /// `execve(2)` of a file whose set-id bits give these ids.
    pub fn executed(&self, set_uid: Option<u32>, set_gid: Option<u32>) -> Creds {
        let mut new = self.clone();
        new.ids.euid = set_uid.unwrap_or(self.ids.euid);
        new.ids.egid = set_gid.unwrap_or(self.ids.egid);
        (new.ids.suid, new.ids.fsuid) = (new.ids.euid, new.ids.euid);
        (new.ids.sgid, new.ids.fsgid) = (new.ids.egid, new.ids.egid);
        if set_uid.is_some() || set_gid.is_some() {
            new.ambient = 0;
        }
        let root = self.securebits & NOROOT == 0;
        new.caps.permitted = new.ambient;
        if root && (new.ids.euid == 0 || new.ids.ruid == 0) {
            new.caps.permitted |= self.caps.inheritable | self.bounding;
        }
        new.caps.effective = if root && new.ids.euid == 0 {
            new.caps.permitted
        } else {
            new.ambient
        };
        new.securebits &= !KEEP_CAPS;
        new
    }

    fn with_uids(&self, Triple(ruid, euid, suid): Triple) -> Creds {
        let mut new = self.clone();
        (new.ids.ruid, new.ids.euid, new.ids.suid, new.ids.fsuid) = (ruid, euid, suid, euid);
        if self.securebits & NO_SETUID_FIXUP != 0 {
            return new;
        }
        let Triple(old_ruid, old_euid, old_suid) = self.uids();
        if [old_ruid, old_euid, old_suid].contains(&0) && ![ruid, euid, suid].contains(&0) {
            if !self.keeps_caps() {
                new.caps.permitted = 0;
                new.caps.effective = 0;
            }
            new.ambient = 0;
        }
        match (old_euid, euid) {
            (0, 1..) => new.caps.effective = 0,
            (1.., 0) => new.caps.effective = new.caps.permitted,
            _ => {}
        }
        new
    }

    fn with_gids(&self, Triple(rgid, egid, sgid): Triple) -> Creds {
        let mut new = self.clone();
        (new.ids.rgid, new.ids.egid, new.ids.sgid, new.ids.fsgid) = (rgid, egid, sgid, egid);
        new
    }
}

fn bit(cap: u32) -> Result<u64, Errno> {
    if cap > LAST_CAP {
        Err(Errno::EINVAL)
    } else {
        Ok(1 << cap)
    }
}

fn reid(old: Triple, real: u32, effective: u32, privileged: bool) -> Result<Triple, Errno> {
    let Triple(old_real, old_effective, old_saved) = old;
    let allowed = privileged
        || [SAME, old_real, old_effective].contains(&real)
            && [SAME, old_real, old_effective, old_saved].contains(&effective);
    if !allowed {
        return Err(Errno::EPERM);
    }
    let new_real = if real == SAME { old_real } else { real };
    let new_effective = if effective == SAME { old_effective } else { effective };
    let saves = real != SAME || effective != SAME && effective != old_real;
    Ok(Triple(
        new_real,
        new_effective,
        if saves { new_effective } else { old_saved },
    ))
}

fn resid(old: Triple, Triple(real, effective, saved): Triple, privileged: bool) -> Result<Triple, Errno> {
    let known = [SAME, old.0, old.1, old.2];
    if !privileged && ![real, effective, saved].iter().all(|id| known.contains(id)) {
        return Err(Errno::EPERM);
    }
    let or = |id, old| if id == SAME { old } else { id };
    Ok(Triple(or(real, old.0), or(effective, old.1), or(saved, old.2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_gives_up_and_regains() {
        let root = Creds::of(0, 0, vec![0]);
        let lowered = root.setresuid(Triple(SAME, 1000, SAME)).unwrap();
        assert_eq!(
            (lowered.ids.fsuid, lowered.caps.effective, lowered.caps.permitted),
            (1000, 0, ALL)
        );
        assert_eq!(lowered.setuid(0).unwrap().caps.effective, ALL);
        let user = root.setuid(1000).unwrap();
        assert_eq!((user.uids(), user.caps), (Triple(1000, 1000, 1000), CapSets::default()));
        assert_eq!(user.setuid(0), Err(Errno::EPERM));
        assert_eq!(user.setgroups(vec![1]), Err(Errno::EPERM));
    }

    #[test]
    fn keepcaps_keeps_permitted() {
        let user = Creds::of(0, 0, vec![]).keep_caps(true).setuid(7).unwrap();
        assert_eq!((user.caps.permitted, user.caps.effective), (ALL, 0));
        assert!(!user.executed(None, None).keeps_caps());
    }

    #[test]
    fn setreuid_saves_as_the_kernel() {
        let user = Creds::of(5, 5, vec![]).executed(Some(6), None);
        assert_eq!(user.uids(), Triple(5, 6, 6));
        assert_eq!(user.setreuid(6, 5).unwrap().uids(), Triple(6, 5, 5));
        assert_eq!(user.setreuid(SAME, 5).unwrap().uids(), Triple(5, 5, 6));
        assert_eq!(user.setreuid(7, SAME), Err(Errno::EPERM));
    }

    #[test]
    fn a_set_uid_program_of_root_has_everything() {
        let su = Creds::of(1000, 1000, vec![]).executed(Some(0), None);
        assert_eq!((su.ids.ruid, su.ids.euid, su.caps.effective), (1000, 0, ALL));
        let back = su.setuid(1000).unwrap();
        assert_eq!(back.uids(), Triple(1000, 1000, 1000));
        let plain = su.setreuid(SAME, 1000).unwrap().executed(None, None);
        assert_eq!(plain.caps.effective, 0);
    }

    #[test]
    fn capabilities_are_only_dropped() {
        let root = Creds::of(0, 0, vec![]);
        let few = CapSets {
            effective: 1,
            permitted: 3,
            inheritable: 1,
        };
        let less = root.capset(few).unwrap();
        assert!(less.has(Cap::Chown) && !less.has(Cap::DacOverride));
        assert_eq!(less.capset(root.caps), Err(Errno::EPERM));
        assert_eq!(root.setfsuid(9).caps.effective, ALL & !FS_SET);
        assert_eq!(root.setfsuid(9).setfsuid(0).caps.effective, ALL);
        assert_eq!(root.bounding_has(41), Err(Errno::EINVAL));
        assert!(less.set_ambient(0, true).unwrap().ambient_has(0).unwrap());
        assert!(less.set_ambient(1, true).is_err());
    }
}
