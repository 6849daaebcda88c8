//! The parts of /proc that a view must tell the truth about.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use fsmodules::api::{Errno, OpenFlags, errno};

use crate::agent::{PROC_FILES, PROC_LINKS};
use crate::hypervisor::Hypervisor;
use crate::task::Task;
use crate::trap::{Reply, Tid};
use crate::view::{Found, HostPlace, Last, Place, ProcLink, ProcLinks, proctext};

use super::install::reopen;
use super::{Ctx, fdinfo, host, inotify};

/// A quick look at a path: could it name one of the files below, or lead through one of the links?
pub fn may_matter(path: &[u8]) -> bool {
    if own_fd(path).is_some() {
        return false;
    }
    let last = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    PROC_FILES.contains(&last)
        || PROC_LINKS.contains(&last)
        || path.starts_with(b"/proc/")
        || path.starts_with(b"/dev/fd/")
}

/// The descriptor, if the path is `/proc/self/fd/N`.
pub fn own_fd(path: &[u8]) -> Option<i32> {
    path.strip_prefix(b"/proc/self/fd/").and_then(number)
}

/// The process (or thread) and the rest of a path below /proc.
fn split(path: &[u8]) -> Option<(i32, &[u8])> {
    let rest = path.strip_prefix(b"/proc/")?;
    let (pid, rest) = component(rest);
    let pid = number(pid)?;
    match rest.strip_prefix(b"task/") {
        Some(rest) => {
            let (tid, rest) = component(rest);
            Some((number(tid)?, rest))
        }
        None => Some((pid, rest)),
    }
}

fn component(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (path, b""),
    }
}

fn number(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Opens a file whose text the view must write itself; `None` if the path names no such file.
pub async fn open(cx: &Ctx, place: &HostPlace, flags: OpenFlags) -> Result<Option<Reply>, Errno> {
    let path = place.path.as_os_str().as_bytes();
    let descriptor = split(path).and_then(|(pid, name)| Some((pid, number(name.strip_prefix(b"fdinfo/")?)?)));
    let text = match descriptor {
        Some((pid, fd)) => fdinfo::text(cx, pid, fd).await,
        None => text(cx, path),
    };
    let Some(text) = text else {
        return Ok(None);
    };
    if flags.contains(OpenFlags::PATH) || flags.writable() || flags.contains(OpenFlags::DIRECTORY) {
        return Ok(None);
    }
    let memory = rustix::fs::memfd_create("umvu-proc", rustix::fs::MemfdFlags::CLOEXEC).map_err(errno)?;
    let mut rest = &text[..];
    while !rest.is_empty() {
        let put = rustix::io::write(&memory, rest).map_err(errno)?;
        rest = &rest[put..];
    }
    let fd = reopen(cx, memory.as_fd(), flags & (OpenFlags::CLOEXEC | OpenFlags::NONBLOCK)).await?;
    Ok(Some(Reply::Return(fd.into())))
}

fn text(cx: &Ctx, path: &[u8]) -> Option<Vec<u8>> {
    let file = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    if path == b"/proc/filesystems" {
        let lines = cx
            .hv
            .modules
            .iter()
            .filter(|m| m.enabled.get())
            .flat_map(|m| m.module.filesystems());
        return Some(proctext::filesystems(&std::fs::read(file).ok()?, lines.copied()));
    }
    let (pid, name) = split(path)?;
    let task = cx.hv.process(Tid::from_raw(pid))?;
    let root = task.fs().root.borrow().clone();
    let host = || std::fs::read(file).ok();
    if let (b"status", Some(creds)) = (name, task.creds()) {
        return Some(super::ids::status(&host()?, &creds));
    }
    if !cx.hv.mounts.has_visible() && root.is_host_root() {
        return None;
    }
    match name {
        b"mountinfo" => Some(proctext::mountinfo(&host()?, &cx.hv.mounts, &root)),
        b"mounts" => Some(proctext::mounts(&host()?, &cx.hv.mounts, &root)),
        b"mountstats" => Some(proctext::mountstats(&host()?, &cx.hv.mounts, &root)),
        b"maps" if !root.is_host_root() => {
            let program = task.process().exe.borrow().clone();
            Some(proctext::maps(&host()?, &cx.hv.mounts, &root, program.as_ref()))
        }
        _ => None,
    }
}

/// The target of a link below /proc that leads to something virtual.
pub fn read_link(cx: &Ctx, found: &Found) -> Option<Vec<u8>> {
    let (Some(Place::Host(parent)), Last::Name(name)) = (&found.parent, &found.last) else {
        return None;
    };
    let path = parent.join(name);
    let (pid, rest) = split(&path)?;
    let links = Links {
        hv: &cx.hv,
        task: &cx.task,
    };
    let root = cx.task.fs().root.borrow().clone();
    let place = match links.link(pid, link(rest)?) {
        Some(place) => place,
        None if root.is_host_root() => return None,
        // The kernel knows the host's path of it.
        None => {
            let path = std::fs::read_link(std::ffi::OsStr::from_bytes(&path)).ok()?;
            if !path.is_absolute() {
                return None;
            }
            cx.hv.mounts.host_place(&path, &root, None)
        }
    };
    if let Place::Virtual(place) = &place
        && let Some(text) = inotify::link_text(place)
    {
        return Some(text.to_vec());
    }
    let mut text = cx.hv.mounts.view_path(&place, &root);
    if let Place::Virtual(place) = &place
        && place.dentry.is_deleted()
    {
        text.extend_from_slice(b" (deleted)");
    }
    Some(text)
}

fn link(rest: &[u8]) -> Option<ProcLink> {
    match rest {
        b"cwd" => Some(ProcLink::Cwd),
        b"root" => Some(ProcLink::Root),
        b"exe" => Some(ProcLink::Exe),
        _ => number(rest.strip_prefix(b"fd/")?).map(ProcLink::Fd),
    }
}

/// Answers a walk's questions about the links of processes in the view.
pub struct Links<'a> {
    pub hv: &'a Rc<Hypervisor>,
    pub task: &'a Rc<Task>,
}

impl Links<'_> {
    /// A directory of the host that was opened through another mount than the base mount.
    fn opened_on_host(&self, task: &Task, fd: i32) -> Option<Place> {
        let path = task.look_at_fd(fd, std::fs::read_link).ok()?;
        let through = host::opened_through(&self.hv.mounts, task, fd, &path)?;
        let root = task.fs().root.borrow().clone();
        Some(self.hv.mounts.host_place(&path, &root, Some(&through))).filter(|place| !place.is_plain())
    }
}

impl ProcLinks for Links<'_> {
    fn caller(&self) -> (i32, i32) {
        (self.task.tgid().as_raw(), self.task.tid.get().as_raw())
    }

    fn link(&self, pid: i32, link: ProcLink) -> Option<Place> {
        let task = self.hv.process(Tid::from_raw(pid))?;
        match link {
            ProcLink::Cwd => Some(task.fs().cwd.borrow().clone()).filter(|place| !place.is_plain()),
            ProcLink::Root => Some(task.fs().root.borrow().clone()).filter(|place| !place.is_host_root()),
            ProcLink::Exe => task.process().exe.borrow().clone(),
            ProcLink::Fd(fd) => match task.files().get(fd) {
                Some(open) => Some(Place::Virtual(open.place.clone())),
                None => self.opened_on_host(&task, fd),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_proc_paths() {
        assert_eq!(split(b"/proc/12/mounts"), Some((12, &b"mounts"[..])));
        assert_eq!(split(b"/proc/12/task/13/fd/4"), Some((13, &b"fd/4"[..])));
        assert_eq!(split(b"/proc/meminfo"), None);
        assert_eq!(split(b"/etc/mtab"), None);
    }

    #[test]
    fn what_may_matter() {
        assert!(may_matter(b"/etc/mtab") && may_matter(b"/proc/1/x") && may_matter(b"mounts"));
        assert!(!may_matter(b"/usr/lib/libc.so.6"));
        assert!(!may_matter(b"/proc/self/fd/5") && may_matter(b"/proc/self/fd/5/x"));
    }
}
