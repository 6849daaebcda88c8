//! Who the caller is: the get*id and set*id calls, groups and capabilities of threads whose ids are virtual.

use std::rc::Rc;

use fsmodules::api::{Errno, Ids};
use fsmodules::ids::{CapSets, Creds, Triple};

use crate::task::Task;
use crate::trap::{Reply, Tid};

use super::Ctx;
use super::install::catch_ids;
use super::process;

/// `NGROUPS_MAX`
const MAX_GROUPS: usize = 65536;
const PR_SET_SECUREBITS: i32 = 28;
const PR_GET_SECUREBITS: i32 = 27;

/// Who executes a program in a view of mixed ids: its own ids stay, but are virtual from now on, so that it sees what
/// others have changed.
pub async fn share(cx: &Ctx) -> Result<(), Errno> {
    if cx.hv.mixed_ids.get() && cx.task.creds().is_none() {
        let ids = cx.task.ids();
        catch_ids(cx).await?;
        cx.task.set_creds(Creds::having(Ids::clone(&ids)));
    }
    Ok(())
}

/// getuid(2) and its relatives.
pub async fn get(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(creds) = cx.task.creds() else {
        return Ok(Reply::Passthrough);
    };
    let id = match i64::from(cx.call.nr) {
        libc::SYS_getuid => creds.ids.ruid,
        libc::SYS_geteuid => creds.ids.euid,
        libc::SYS_getgid => creds.ids.rgid,
        _ => creds.ids.egid,
    };
    Ok(Reply::Return(id.into()))
}

/// getresuid(2) and getresgid(2).
pub async fn get_all(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(creds) = cx.task.creds() else {
        return Ok(Reply::Passthrough);
    };
    let Triple(real, effective, saved) = if i64::from(cx.call.nr) == libc::SYS_getresuid {
        creds.uids()
    } else {
        creds.gids()
    };
    for (n, id) in [real, effective, saved].iter().enumerate() {
        cx.write_value(cx.arg(n), id)?;
    }
    Ok(Reply::Return(0))
}

pub async fn getgroups(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(creds) = cx.task.creds() else {
        return Ok(Reply::Passthrough);
    };
    let (room, groups) = (cx.fd(0), &creds.ids.groups);
    if room < 0 || room != 0 && (room as usize) < groups.len() {
        return Err(Errno::EINVAL);
    }
    if room > 0 {
        let bytes: Vec<u8> = groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
        cx.write(cx.arg(1), &bytes)?;
    }
    Ok(Reply::Return(groups.len() as i64))
}

/// The calls that set ids. Without virtual ids they are the kernel's, and read anew when they are next needed.
pub async fn set(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(creds) = cx.task.creds() else {
        let result = cx.run(cx.call.nr.into(), cx.call.args).await;
        cx.task.forget_ids();
        process::stay_in_reach(cx).await?;
        return result.map(Reply::Return);
    };
    let (a, b, c) = (cx.int(0), cx.int(1), cx.int(2));
    let new = match i64::from(cx.call.nr) {
        libc::SYS_setuid => creds.setuid(a)?,
        libc::SYS_setgid => creds.setgid(a)?,
        libc::SYS_setreuid => creds.setreuid(a, b)?,
        libc::SYS_setregid => creds.setregid(a, b)?,
        libc::SYS_setresuid => creds.setresuid(Triple(a, b, c))?,
        libc::SYS_setresgid => creds.setresgid(Triple(a, b, c))?,
        // These two return what was before, whether it changes or not.
        libc::SYS_setfsuid => {
            cx.task.set_creds(creds.setfsuid(a));
            return Ok(Reply::Return(creds.ids.fsuid.into()));
        }
        libc::SYS_setfsgid => {
            cx.task.set_creds(creds.setfsgid(a));
            return Ok(Reply::Return(creds.ids.fsgid.into()));
        }
        _ => creds.setgroups(groups(cx)?)?,
    };
    cx.task.set_creds(new);
    Ok(Reply::Return(0))
}

fn groups(cx: &Ctx) -> Result<Vec<u32>, Errno> {
    let count = cx.int(0) as usize;
    if count > MAX_GROUPS {
        return Err(Errno::EINVAL);
    }
    let bytes = cx.read(cx.arg(1), 4 * count)?;
    let id = |word: &[u8]| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
    let mut groups: Vec<u32> = bytes.chunks_exact(4).map(id).collect();
    groups.sort_unstable();
    Ok(groups)
}

// capabilities(7)

/// The versions of `struct __user_cap_header_struct`, and how many words each set has.
const VERSIONS: [(u32, usize); 3] = [(0x1998_0330, 1), (0x2007_1026, 2), (0x2008_0522, 2)];
const NEWEST: u32 = 0x2008_0522;

/// The words of a set and the thread that a header speaks of. An unknown version is answered with the newest.
fn header(cx: &Ctx) -> Result<(usize, i32), Errno> {
    let [version, pid]: [u32; 2] = cx.read_value(cx.arg(0))?;
    match VERSIONS.iter().find(|(known, _)| *known == version) {
        Some((_, words)) => Ok((*words, pid as i32)),
        None => {
            cx.write_value(cx.arg(0), &NEWEST)?;
            Err(Errno::EINVAL)
        }
    }
}

fn task(cx: &Ctx, pid: i32) -> Result<Rc<Task>, Errno> {
    match pid {
        0 => Ok(cx.task.clone()),
        1.. => cx.hv.task(Tid::from_raw(pid)).ok_or(Errno::ESRCH),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn capget(cx: &Ctx) -> Result<Reply, Errno> {
    if cx.task.creds().is_none() {
        return Ok(Reply::Passthrough);
    }
    let (words, pid) = match header(cx) {
        // Without data it was only a question for the version.
        Err(Errno::EINVAL) if cx.arg(1) == 0 => return Ok(Reply::Return(0)),
        other => other?,
    };
    let caps = task(cx, pid)?.creds().map(|creds| creds.caps).unwrap_or_default();
    let mut bytes = Vec::new();
    for word in 0..words {
        for set in [caps.effective, caps.permitted, caps.inheritable] {
            bytes.extend_from_slice(&((set >> (32 * word)) as u32).to_ne_bytes());
        }
    }
    cx.write(cx.arg(1), &bytes)?;
    Ok(Reply::Return(0))
}

pub async fn capset(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(creds) = cx.task.creds() else {
        return Ok(Reply::Passthrough);
    };
    let (words, pid) = header(cx)?;
    if pid != 0 && pid != cx.task.tid.get().as_raw() {
        return Err(Errno::EPERM);
    }
    let mut caps = CapSets::default();
    for word in 0..words {
        let data: [u32; 3] = cx.read_value(cx.arg(1) + 12 * word as u64)?;
        let shift = 32 * word;
        caps.effective |= u64::from(data[0]) << shift;
        caps.permitted |= u64::from(data[1]) << shift;
        caps.inheritable |= u64::from(data[2]) << shift;
    }
    cx.task.set_creds(creds.capset(caps)?);
    Ok(Reply::Return(0))
}

/// The requests of prctl(2) that concern capabilities.
pub async fn prctl(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(creds) = cx.task.creds() else {
        return Ok(Reply::Passthrough);
    };
    let (value, third) = (cx.int(1), cx.int(2));
    let changed = match cx.int(0) as i32 {
        libc::PR_CAPBSET_READ => return creds.bounding_has(value).map(answer),
        libc::PR_GET_KEEPCAPS => return Ok(answer(creds.keeps_caps())),
        PR_GET_SECUREBITS => return Ok(Reply::Return(creds.securebits.into())),
        libc::PR_CAPBSET_DROP => creds.drop_bounding(value)?,
        libc::PR_SET_KEEPCAPS if value > 1 => return Err(Errno::EINVAL),
        libc::PR_SET_KEEPCAPS => creds.keep_caps(value == 1),
        PR_SET_SECUREBITS => creds.secure(value)?,
        libc::PR_CAP_AMBIENT => match value as i32 {
            libc::PR_CAP_AMBIENT_IS_SET => return creds.ambient_has(third).map(answer),
            libc::PR_CAP_AMBIENT_RAISE => creds.set_ambient(third, true)?,
            libc::PR_CAP_AMBIENT_LOWER => creds.set_ambient(third, false)?,
            libc::PR_CAP_AMBIENT_CLEAR_ALL => creds.without_ambient(),
            _ => return Err(Errno::EINVAL),
        },
        _ => return Ok(Reply::Passthrough),
    };
    cx.task.set_creds(changed);
    Ok(Reply::Return(0))
}

fn answer(value: bool) -> Reply {
    Reply::Return(value.into())
}

/// `/proc/PID/status` (proc(5)), with the ids that the thread has in the view.
pub fn status(host: &[u8], creds: &Creds) -> Vec<u8> {
    let four = |real: u32, effective: u32, saved: u32, fs: u32| format!("{real}\t{effective}\t{saved}\t{fs}");
    let ids = &creds.ids;
    let mut text = String::new();
    for line in String::from_utf8_lossy(host).lines() {
        let (key, value) = line.split_once(":\t").unwrap_or((line, ""));
        let new = match key {
            "Uid" => four(ids.ruid, ids.euid, ids.suid, ids.fsuid),
            "Gid" => four(ids.rgid, ids.egid, ids.sgid, ids.fsgid),
            "Groups" => ids.groups.iter().map(|gid| format!("{gid} ")).collect(),
            "CapInh" => format!("{:016x}", creds.caps.inheritable),
            "CapPrm" => format!("{:016x}", creds.caps.permitted),
            "CapEff" => format!("{:016x}", creds.caps.effective),
            "CapBnd" => format!("{:016x}", creds.bounding),
            "CapAmb" => format!("{:016x}", creds.ambient),
            _ => value.to_owned(),
        };
        text.push_str(&format!("{key}:\t{new}\n"));
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_shows_virtual_ids() {
        let host = b"Name:\tsh\nUid:\t5\t5\t5\t5\nGroups:\t5 \nCapEff:\t0000000000000000\nThreads:\t1\n";
        let text = String::from_utf8(status(host, &Creds::of(0, 7, vec![7, 8]))).unwrap();
        assert_eq!(
            text,
            "Name:\tsh\nUid:\t0\t0\t0\t0\nGroups:\t7 8 \nCapEff:\t000001ffffffffff\nThreads:\t1\n"
        );
    }
}
