//! The mount tables in /proc (proc(5)): the host's lines, and the view's after them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::rc::Rc;

use fsmodules::api::{Description, MountFlags};

use super::{HostPlace, Mount, Mounts, Place, Root};

/// `/proc/filesystems`: the host's, and those of the modules that it lacks.
pub fn filesystems<'a>(host: &[u8], modules: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(host).into_owned();
    for line in modules {
        if !text.lines().any(|known| known == line) {
            let _ = writeln!(text, "{line}");
        }
    }
    text.into_bytes()
}

/// `/proc/PID/mountinfo`
pub fn mountinfo(host: &[u8], mounts: &Mounts, root: &Place) -> Vec<u8> {
    let mut text = reachable(host, 4, mounts, root);
    for (mount, shown) in shown(mounts, root, host) {
        let parent = match mount.mountpoint() {
            Some(Place::Host(at)) if at.mount.is_base() => host_parent(host, &at.path.to_string_lossy()),
            Some(at) => at.mount().id(),
            None => mount.id(),
        };
        let line = format!(
            "{} {parent} {} {} {} {} - {} {} {}\n",
            mount.id(),
            shown.device,
            shown.root,
            shown.target,
            shown.mount_options,
            shown.fstype,
            shown.source,
            shown.super_options,
        );
        text.extend_from_slice(line.as_bytes());
    }
    text
}

/// `/proc/PID/mounts`, in the form of fstab(5).
pub fn mounts(host: &[u8], mounts: &Mounts, root: &Place) -> Vec<u8> {
    let mut text = reachable(host, 1, mounts, root);
    for (_, shown) in shown(mounts, root, &host_mountinfo()) {
        let options = shown.all_options();
        text.extend_from_slice(
            format!("{} {} {} {options} 0 0\n", shown.source, shown.target, shown.fstype).as_bytes(),
        );
    }
    text
}

/// `/proc/PID/mountstats`
pub fn mountstats(host: &[u8], mounts: &Mounts, root: &Place) -> Vec<u8> {
    let mut text = reachable(host, 4, mounts, root);
    for (_, shown) in shown(mounts, root, &host_mountinfo()) {
        let line = format!(
            "device {} mounted on {} with fstype {}\n",
            shown.source, shown.target, shown.fstype
        );
        text.extend_from_slice(line.as_bytes());
    }
    text
}

/// `/proc/PID/maps`: paths as a caller with this root knows them. The program may be mapped from a copy in memory.
pub fn maps(host: &[u8], mounts: &Mounts, root: &Place, program: Option<&Place>) -> Vec<u8> {
    /// Where the path begins in a line.
    const COLUMN: usize = 73;
    let mut text = String::new();
    for line in String::from_utf8_lossy(host).lines() {
        let place = match line.get(COLUMN..) {
            Some(COPIED_PROGRAM) => program.cloned(),
            Some(path) if path.starts_with('/') => Some(mounts.host_place(path.as_ref(), root, None)),
            _ => None,
        };
        match place.and_then(|place| mounts.reachable_path(&place, root)) {
            Some(path) => {
                let _ = writeln!(text, "{}{}", &line[..COLUMN], String::from_utf8_lossy(&path));
            }
            None => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text.into_bytes()
}

/// How the kernel names the copies that are executed where a program's interpreter is elsewhere.
const COPIED_PROGRAM: &str = "/memfd:program (deleted)";

/// The host's lines of the mounts that a caller with this root can reach; their mountpoint is the word with that
/// number.
fn reachable(host: &[u8], word: usize, mounts: &Mounts, root: &Place) -> Vec<u8> {
    if root.is_host_root() {
        return host.to_vec();
    }
    let mut text = String::new();
    for line in String::from_utf8_lossy(host).lines() {
        let mut words: Vec<&str> = line.split(' ').collect();
        let Some(point) = words.get(word).map(|point| unescape(point)) else {
            continue;
        };
        let place = Place::Host(HostPlace {
            mount: mounts.base(),
            path: OsString::from_vec(point).into(),
        });
        if let Some(path) = mounts.reachable_path(&place, root) {
            let path = escape(&path);
            words[word] = &path;
            let _ = writeln!(text, "{}", words.join(" "));
        }
    }
    text.into_bytes()
}

/// The view's mounts that a caller with this root can reach.
fn shown<'a>(mounts: &Mounts, root: &'a Place, host: &'a [u8]) -> impl Iterator<Item = (Rc<Mount>, Shown)> {
    let visible = mounts.visible().into_iter();
    visible.filter_map(|mount| {
        let target = mounts.reachable_path(&mount.root_place(), root)?;
        let shown = Shown::new(&mount, &target, host);
        Some((mount, shown))
    })
}

fn host_mountinfo() -> Vec<u8> {
    std::fs::read("/proc/self/mountinfo").unwrap_or_default()
}

/// A mount in the words of the tables.
struct Shown {
    device: String,
    root: String,
    target: String,
    mount_options: String,
    fstype: String,
    source: String,
    super_options: String,
}

impl Shown {
    fn new(mount: &Mount, target: &[u8], host: &[u8]) -> Shown {
        let dev = mount.dev();
        let mut shown = Shown {
            device: format!("{}:{}", libc::major(dev), libc::minor(dev)),
            root: "/".into(),
            target: escape(target),
            mount_options: mount_options(mount.flags()),
            fstype: String::new(),
            source: String::new(),
            super_options: String::new(),
        };
        match mount.root() {
            Root::Host(path) => shown.borrow_host(host, path),
            Root::Virtual(dentry) => {
                let path = dentry.path();
                if !path.is_empty() {
                    shown.root = escape(&path);
                }
                shown.describe(&mount.describe(), mount.flags());
            }
        }
        shown
    }

    fn describe(&mut self, shown: &Description, flags: MountFlags) {
        self.fstype = escape(shown.fstype.as_bytes());
        self.source = if shown.source.is_empty() {
            "none".into()
        } else {
            escape(shown.source.as_bytes())
        };
        self.super_options = if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" }.into();
        if !shown.options.is_empty() {
            self.super_options.push(',');
            self.super_options.push_str(&shown.options);
        }
    }

    /// A bind mount of host files shows the file system they are on.
    fn borrow_host(&mut self, host: &[u8], path: &std::path::Path) {
        use std::os::unix::ffi::OsStrExt;
        let path = path.as_os_str().as_bytes();
        let text = String::from_utf8_lossy(host);
        let Some(line) = covering(&text, path) else { return };
        let words: Vec<&str> = line.split(' ').collect();
        let tail = words.iter().position(|word| *word == "-").unwrap_or(words.len());
        let word = |n: usize| words.get(n).copied().unwrap_or("none").to_owned();
        let inside = path.strip_prefix(word(4).as_bytes()).unwrap_or(path);
        let base = word(3);
        let joined = [
            base.trim_end_matches('/').as_bytes(),
            b"/",
            inside.strip_prefix(b"/").unwrap_or(inside),
        ]
        .concat();
        self.root = escape(&joined);
        self.device = word(2);
        self.fstype = word(tail + 1);
        self.source = word(tail + 2);
        self.super_options = word(tail + 3);
    }

    /// `mounts` has one list where mountinfo has two.
    fn all_options(&self) -> String {
        let rest = self.super_options.split_once(',').map_or("", |(_, rest)| rest);
        if rest.is_empty() {
            self.mount_options.clone()
        } else {
            format!("{},{rest}", self.mount_options)
        }
    }
}

/// The host's line whose mountpoint covers a path most closely.
fn covering<'a>(host: &'a str, path: &[u8]) -> Option<&'a str> {
    host.lines()
        .filter(|line| {
            let point = line.split(' ').nth(4).unwrap_or_default().as_bytes();
            point == b"/" || path == point || path.strip_prefix(point).is_some_and(|rest| rest.starts_with(b"/"))
        })
        .max_by_key(|line| line.split(' ').nth(4).map_or(0, str::len))
}

/// The id of the host mount on which a mountpoint lies.
fn host_parent(host: &[u8], target: &str) -> u32 {
    let text = String::from_utf8_lossy(host);
    covering(&text, target.as_bytes())
        .and_then(|line| line.split(' ').next()?.parse().ok())
        .unwrap_or(1)
}

/// The mount's own options, in the kernel's order (fs/proc_namespace.c).
fn mount_options(flags: MountFlags) -> String {
    let mut words = vec![if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" }];
    let named = [
        (MountFlags::NOSUID, "nosuid"),
        (MountFlags::NODEV, "nodev"),
        (MountFlags::NOEXEC, "noexec"),
        (MountFlags::NOATIME, "noatime"),
        (MountFlags::NODIRATIME, "nodiratime"),
    ];
    words.extend(
        named
            .iter()
            .filter(|(flag, _)| flags.contains(*flag))
            .map(|(_, word)| *word),
    );
    if !flags.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME) {
        words.push("relatime");
    }
    words.join(",")
}

/// Space, tab, newline and backslash as octal numbers.
fn escape(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => text.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => text.push(byte),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The inverse of [`escape`].
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        match octal.and_then(|octal| u8::from_str_radix(std::str::from_utf8(octal).ok()?, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n25 20 0:5 / /dev rw - devtmpfs udev rw,size=1k\n";

    #[test]
    fn escapes_as_the_kernel() {
        assert_eq!(escape(b"a b\tc\\d"), "a\\040b\\011c\\134d");
        assert_eq!(unescape("a\\040b\\011c\\134d\\"), b"a b\tc\\d\\");
    }

    #[test]
    fn finds_the_covering_mount() {
        assert_eq!(host_parent(HOST.as_bytes(), "/dev/shm"), 25);
        assert_eq!(host_parent(HOST.as_bytes(), "/device"), 20);
    }

    #[test]
    fn options_in_order() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        assert_eq!(mount_options(flags), "rw,nosuid,nodev,relatime");
        assert_eq!(mount_options(MountFlags::RDONLY | MountFlags::NOATIME), "ro,noatime");
    }

    #[test]
    fn known_filesystems_are_not_repeated() {
        let text = filesystems(b"nodev\tsysfs\nnodev\tfuse\n", ["nodev\tfuse", "\tfuseblk"].into_iter());
        assert_eq!(text, b"nodev\tsysfs\nnodev\tfuse\n\tfuseblk\n");
    }
}
