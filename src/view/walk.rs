//! From a path to a place: the kernel's path walk (path_resolution(7), fs/namei.c) over host and virtual files.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fsmodules::api::{Access, AttrQuery, Cx, Errno, FileKind, Name};

use super::{HostPlace, Mounts, Place, VirtualPlace};

const PATH_MAX: usize = 4096;
const MAX_SYMLINKS: usize = 40;

bitflags::bitflags! {
    /// How to walk.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WalkFlags: u32 {
        /// Follow a symlink at the end.
        const FOLLOW = 1;
        /// The last component is a name to be made, removed or replaced: never followed, slash or not.
        const PARENT = 2;
        /// The restrictions of openat2(2).
        const NO_SYMLINKS = 4;
        const NO_MAGICLINKS = 8;
        const NO_XDEV = 16;
        const BENEATH = 32;
        const IN_ROOT = 64;
        /// Go into mounts that the caller may not use (umount does).
        const NO_CROSSING_CHECK = 128;
        /// The last name is to be made or replaced: whoever has it is asked for anew (`LOOKUP_EXCL`,
        /// `LOOKUP_RENAME_TARGET`).
        const FRESH = 256;
        /// In a virtual directory, nobody asks who has the last name.
        const UNSEEN = 512;
        /// The path is a name in a directory that the caller may search.
        const ENTERED = 1024;
    }
}

impl WalkFlags {
    /// From `RESOLVE_*`; `None` if the kernel would refuse them.
    pub fn from_resolve(resolve: u64) -> Option<WalkFlags> {
        let pairs = [
            (0x01, WalkFlags::NO_XDEV),
            (0x02, WalkFlags::NO_MAGICLINKS),
            (0x04, WalkFlags::NO_SYMLINKS),
            (0x08, WalkFlags::BENEATH),
            (0x10, WalkFlags::IN_ROOT),
        ];
        let known = pairs.iter().fold(0, |all, (bit, _)| all | bit);
        if resolve & !known != 0 || resolve & 0x18 == 0x18 {
            return None;
        }
        Some(
            pairs
                .iter()
                .filter(|(bit, _)| resolve & bit != 0)
                .map(|(_, flag)| *flag)
                .collect(),
        )
    }
}

/// A link below /proc that leads to what a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcLink {
    Cwd,
    Root,
    Exe,
    Fd(i32),
}

/// What a walk must know of processes.
pub trait ProcLinks {
    /// The caller's process and thread id: where `/proc/self` and `/proc/thread-self` lead.
    fn caller(&self) -> (i32, i32);
    /// Where a link of a process in the view leads, if to something virtual; else the kernel's own link is right.
    fn link(&self, pid: i32, link: ProcLink) -> Option<Place>;
}

/// What a walk must know of the host's directories where the caller's ids are virtual.
pub trait HostRights {
    /// May the caller search this directory?
    fn search(&self, directory: &HostPlace) -> Result<(), Errno>;
}

/// The last component of a path, after symlinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    Name(Name),
    Root,
    Dot,
    DotDot,
}

/// Where a walk has come to.
pub struct Found {
    /// The directory of the last component, if that is a name.
    pub parent: Option<Place>,
    pub last: Last,
    /// `None`: there is nothing of that name.
    pub place: Option<Place>,
    /// The path ended in a slash.
    pub slash: bool,
    /// The kernel, resolving the same path from the caller's directory, arrives at the same file.
    pub native: bool,
}

impl Found {
    /// The path of the host's file, if it is one; else the view must serve it.
    pub fn host_path(&self) -> Option<Vec<u8>> {
        let mut path = match (&self.place, &self.parent, &self.last) {
            (Some(Place::Host(place)), ..) => place.bytes(),
            (None, Some(Place::Host(parent)), Last::Name(name)) => parent.join(name),
            _ => return None,
        };
        if self.slash && path != b"/" {
            path.push(b'/');
        }
        Some(path)
    }
}

enum Step {
    Into(Name),
    Dot,
    DotDot,
}

pub struct Walker<'a> {
    pub mounts: &'a Mounts,
    pub cx: Cx<'a>,
    /// The caller's root directory.
    pub root: Place,
    pub links: &'a dyn ProcLinks,
    /// Asked before the host is, where the caller's ids are virtual.
    pub rights: Option<&'a dyn HostRights>,
    /// `fs.protected_symlinks` (proc_sys_fs(5))
    pub protected_symlinks: bool,
}

/// A walk in progress.
struct Walk {
    at: Place,
    /// Where absolute symlinks and `..` end.
    root: Place,
    steps: VecDeque<Step>,
    slash: bool,
    native: bool,
    /// The kernel, too, has its root there.
    kernels_root: bool,
    symlinks: usize,
    flags: WalkFlags,
}

/// What stands under a name.
enum Child {
    Missing,
    File(Place),
    Symlink(Place, Vec<u8>),
    /// A link below /proc.
    Magic(Place, i32, ProcLink),
}

impl Walker<'_> {
    pub async fn walk(&self, start: Place, path: &[u8], flags: WalkFlags) -> Result<Found, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let absolute = path[0] == b'/';
        if absolute && flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        let confined = flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT);
        let root = if confined { start.clone() } else { self.root.clone() };
        let at = if absolute { root.clone() } else { start };
        let kernels_root = confined || self.root.is_host_root();
        let native = at.is_transparent() && (kernels_root || !absolute);
        let mut walk = Walk {
            at,
            root,
            steps: VecDeque::new(),
            slash: false,
            native,
            kernels_root,
            symlinks: 0,
            flags,
        };
        let each_matters = WalkFlags::BENEATH | WalkFlags::IN_ROOT | WalkFlags::NO_XDEV;
        if self.rights.is_none()
            && !flags.intersects(each_matters)
            && let Some((place, rest)) = self.mounts.quick_mounted(&walk.at, &walk.root, path)
        {
            push(&mut walk, &rest)?;
            self.check_crossing(&walk, &place)?;
            walk.at = place;
            walk.native = false;
        } else {
            push(&mut walk, path)?;
        }
        self.go(&mut walk).await
    }

    async fn go(&self, walk: &mut Walk) -> Result<Found, Errno> {
        let mut last = Last::Root;
        let mut parent = None;
        while let Some(step) = walk.steps.pop_front() {
            if !walk.flags.contains(WalkFlags::ENTERED) {
                self.enter_directory(&walk.at).await?;
            }
            let name = match step {
                Step::Dot => {
                    (last, parent) = (Last::Dot, None);
                    continue;
                }
                Step::DotDot => {
                    let up = self.up(walk)?;
                    // The kernel stops at its own root, and knows nothing of the view's mounts.
                    walk.native &= if up.same(&walk.at) {
                        walk.kernels_root
                    } else {
                        Rc::ptr_eq(up.mount(), walk.at.mount())
                    };
                    walk.at = up;
                    (last, parent) = (Last::DotDot, None);
                    continue;
                }
                Step::Into(name) => name,
            };
            let ends = walk.steps.is_empty();
            let follow = !ends
                || !walk.flags.contains(WalkFlags::PARENT) && (walk.flags.contains(WalkFlags::FOLLOW) || walk.slash);
            let directory = walk.at.clone();
            if ends && walk.flags.contains(WalkFlags::UNSEEN) && matches!(directory, Place::Virtual(_)) {
                return Ok(self.found(walk, Some(directory), Last::Name(name), None));
            }
            if ends
                && walk.flags.contains(WalkFlags::FRESH)
                && let Place::Virtual(directory) = &directory
            {
                directory.node().doubt(&name);
            }
            let child = self.child(&directory, &name, follow).await?;
            (last, parent) = (Last::Name(name), Some(directory.clone()));
            let place = match child {
                Child::Missing if ends => return Ok(self.found(walk, parent, last, None)),
                Child::Missing => return Err(Errno::ENOENT),
                Child::File(place) => place,
                Child::Symlink(place, target) if follow => {
                    if ends {
                        self.check_last_link(&directory, &place).await?;
                    }
                    follow_symlink(walk, &place, &target)?;
                    continue;
                }
                Child::Magic(place, pid, link) if follow => match self.follow_magic(walk, pid, link)? {
                    Some(place) => place,
                    // The kernel's own link, at the end of the path: for the kernel to follow.
                    None if ends => return Ok(self.found(walk, parent, last, Some(place))),
                    None => self.target_of(&place)?,
                },
                Child::Symlink(place, _) | Child::Magic(place, ..) => place,
            };
            if !Rc::ptr_eq(place.mount(), directory.mount()) {
                self.check_crossing(walk, &place)?;
                walk.native = false;
            }
            walk.native &= place.is_transparent();
            walk.at = place;
        }
        let place = walk.at.clone();
        Ok(self.found(walk, parent, last, Some(place)))
    }

    fn found(&self, walk: &Walk, parent: Option<Place>, last: Last, place: Option<Place>) -> Found {
        Found {
            parent,
            last,
            place,
            slash: walk.slash,
            native: walk.native,
        }
    }

    /// A name is about to be looked up here: it must be a directory that the caller may search. The host checks its
    /// own at the lookup.
    async fn enter_directory(&self, at: &Place) -> Result<(), Errno> {
        let place = match at {
            Place::Host(place) => return self.rights.map_or(Ok(()), |rights| rights.search(place)),
            Place::Virtual(place) => place,
        };
        if place.node().kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        place.node().permission(self.cx, Access::EXECUTE).await
    }

    fn check_crossing(&self, walk: &Walk, place: &Place) -> Result<(), Errno> {
        if walk.flags.contains(WalkFlags::NO_XDEV) {
            return Err(Errno::EXDEV);
        }
        match place.mount().fs() {
            Some(fs) if !walk.flags.contains(WalkFlags::NO_CROSSING_CHECK) && !walk.steps.is_empty() => {
                fs.permits(self.cx)
            }
            _ => Ok(()),
        }
    }

    /// May a link at the end of a path be followed (`may_follow_link`)? Of the host's, the host decides.
    async fn check_last_link(&self, directory: &Place, link: &Place) -> Result<(), Errno> {
        const STICKY_FOR_ALL: u32 = 0o1002;
        let (Place::Virtual(directory), Place::Virtual(link), true) = (directory, link, self.protected_symlinks) else {
            return Ok(());
        };
        let link = link.node().attr(self.cx, AttrQuery::KNOWN).await?;
        let directory = directory.node().attr(self.cx, AttrQuery::KNOWN).await?;
        let allowed = link.uid == self.cx.caller.ids().fsuid
            || directory.mode & STICKY_FOR_ALL != STICKY_FOR_ALL
            || link.uid == directory.uid;
        if allowed { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// What has this name. A link is read only if it is to be followed: reading it may change its times.
    async fn child(&self, directory: &Place, name: &Name, follow: bool) -> Result<Child, Errno> {
        match directory {
            Place::Host(directory) => self.host_child(directory, name, follow),
            Place::Virtual(directory) => self.virtual_child(directory, name, follow).await,
        }
    }

    async fn virtual_child(&self, directory: &VirtualPlace, name: &Name, follow: bool) -> Result<Child, Errno> {
        // A removed directory is empty, and stays so (S_DEAD); its server need not know it any more.
        if directory.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        let node = match directory.node().lookup(self.cx, name).await {
            Ok(node) => node,
            Err(Errno::ENOENT) => {
                let command = self.mounts.command(directory, name);
                return Ok(command.map_or(Child::Missing, Child::File));
            }
            Err(errno) => return Err(errno),
        };
        let dentry = directory.dentry.child(name, node);
        let place = VirtualPlace {
            mount: directory.mount.clone(),
            dentry,
        };
        let is_link = follow && place.node().kind() == FileKind::Symlink;
        match self.mounts.cross_down(Place::Virtual(place)) {
            Place::Virtual(place) if is_link => {
                let target = place.node().readlink(self.cx).await?.to_vec();
                Ok(Child::Symlink(Place::Virtual(place), target))
            }
            place => Ok(Child::File(place)),
        }
    }

    fn host_child(&self, directory: &HostPlace, name: &Name, follow: bool) -> Result<Child, Errno> {
        let path = PathBuf::from(OsStr::from_bytes(&directory.join(name)));
        let place = Place::Host(HostPlace {
            mount: directory.mount.clone(),
            path: path.clone(),
        });
        let crossed = self.mounts.cross_down(place.clone());
        if !crossed.same(&place) {
            return Ok(Child::File(crossed));
        }
        if let Some(child) = self.proc_child(&path, &place) {
            return Ok(child);
        }
        let target = match follow {
            true => std::fs::read_link(&path).map(Some),
            false => std::fs::symlink_metadata(&path).map(|_| None),
        };
        match target {
            Ok(Some(target)) => Ok(Child::Symlink(place, target.into_os_string().as_bytes().to_vec())),
            Ok(None) => Ok(Child::File(place)),
            Err(error) => match Errno::from(error) {
                Errno::EINVAL => Ok(Child::File(place)),
                Errno::ENOENT => Ok(Child::Missing),
                errno => Err(errno),
            },
        }
    }

    /// The links below /proc that mean something else for each process.
    fn proc_child(&self, path: &Path, place: &Place) -> Option<Child> {
        let rest = path.as_os_str().as_bytes().strip_prefix(b"/proc/")?;
        let (tgid, tid) = self.links.caller();
        match rest {
            b"self" => return Some(Child::Symlink(place.clone(), tgid.to_string().into_bytes())),
            b"thread-self" => return Some(Child::Symlink(place.clone(), format!("{tgid}/task/{tid}").into_bytes())),
            _ => {}
        }
        let text = std::str::from_utf8(rest).ok()?;
        let words: Vec<&str> = text.split('/').collect();
        let (pid, words) = match words.as_slice() {
            [_, "task", tid, rest @ ..] => (tid.parse().ok()?, rest),
            [pid, rest @ ..] => (pid.parse().ok()?, rest),
            [] => return None,
        };
        let link = match words {
            ["cwd"] => ProcLink::Cwd,
            ["root"] => ProcLink::Root,
            ["exe"] => ProcLink::Exe,
            ["fd", fd] => ProcLink::Fd(fd.parse().ok()?),
            _ => return None,
        };
        std::fs::symlink_metadata(path).ok()?;
        Some(Child::Magic(place.clone(), pid, link))
    }

    fn follow_magic(&self, walk: &mut Walk, pid: i32, link: ProcLink) -> Result<Option<Place>, Errno> {
        count_symlink(walk)?;
        if walk.flags.contains(WalkFlags::NO_MAGICLINKS) {
            return Err(Errno::ELOOP);
        }
        if walk.flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT) {
            return Err(Errno::EXDEV);
        }
        Ok(self.links.link(pid, link))
    }

    /// Where one of the kernel's own links leads, if that has a path.
    fn target_of(&self, link: &Place) -> Result<Place, Errno> {
        let Place::Host(link) = link else {
            return Err(Errno::ENOENT);
        };
        let target = std::fs::read_link(&link.path)?;
        if !target.is_absolute() {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.mounts.host_place(&target, &self.root, None))
    }

    /// "..": never above the root, and out of mounts to where they are mounted.
    fn up(&self, walk: &Walk) -> Result<Place, Errno> {
        if walk.at.same(&walk.root) {
            return if walk.flags.contains(WalkFlags::BENEATH) {
                Err(Errno::EXDEV)
            } else {
                Ok(walk.at.clone())
            };
        }
        let below = self.mounts.cross_up(walk.at.clone());
        if walk.flags.contains(WalkFlags::NO_XDEV) && !Rc::ptr_eq(below.mount(), walk.at.mount()) {
            return Err(Errno::EXDEV);
        }
        let up = match below {
            Place::Host(HostPlace { mount, path }) => {
                let path = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
                Place::Host(HostPlace { mount, path })
            }
            Place::Virtual(VirtualPlace { mount, dentry }) => {
                let dentry = dentry.parent().unwrap_or(dentry);
                Place::Virtual(VirtualPlace { mount, dentry })
            }
        };
        Ok(self.mounts.cross_down(up))
    }
}

/// Puts the components of a path in front of what is still to be walked.
fn push(walk: &mut Walk, path: &[u8]) -> Result<(), Errno> {
    let ends_here = walk.steps.is_empty();
    let mut steps = Vec::new();
    for component in path.split(|&b| b == b'/').filter(|c| !c.is_empty()) {
        steps.push(match component {
            b"." => Step::Dot,
            b".." => Step::DotDot,
            name => Step::Into(Name::new(name)?),
        });
    }
    if ends_here {
        walk.slash |= path.last() == Some(&b'/') && !steps.is_empty();
        // "dir/." must be a directory, like "dir/".
        walk.slash |= matches!(steps.last(), Some(Step::Dot)) && steps.len() > 1;
    }
    for step in steps.into_iter().rev() {
        walk.steps.push_front(step);
    }
    Ok(())
}

fn count_symlink(walk: &mut Walk) -> Result<(), Errno> {
    walk.symlinks += 1;
    if walk.symlinks > MAX_SYMLINKS || walk.flags.contains(WalkFlags::NO_SYMLINKS) {
        Err(Errno::ELOOP)
    } else {
        Ok(())
    }
}

fn follow_symlink(walk: &mut Walk, link: &Place, target: &[u8]) -> Result<(), Errno> {
    count_symlink(walk)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    // The kernel would follow the host's link, but not one that only the view has.
    walk.native &= link.is_transparent();
    if target[0] == b'/' {
        if walk.flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        walk.at = walk.root.clone();
        walk.native &= walk.kernels_root;
    }
    push(walk, target)
}
