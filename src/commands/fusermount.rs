//! umvu's own `fusermount3`. It needs no privileges: the view does the mounting.
//!
//! Protocol: the FUSE library makes a socket pair, gives one end's number in `_FUSE_COMMFD`, and receives the device
//! descriptor there, with one byte (libfuse, util/fusermount.c).

use std::ffi::OsString;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::control::io_text;

use super::inherited;
use super::vumount::is_dead;

#[derive(Default)]
struct Options {
    mountpoint: Option<PathBuf>,
    options: String,
    unmount: bool,
    lazy: bool,
    quiet: bool,
    auto_unmount: bool,
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let quiet = args.iter().any(|arg| arg == "-q" || arg == "--quiet");
    match parse(args).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            if !quiet {
                eprintln!("fusermount3: {message}");
            }
            ExitCode::FAILURE
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<Options, String> {
    let mut parsed = Options::default();
    let mut words = args.into_iter().skip(1);
    let mut only_paths = false;
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        match text.as_str() {
            _ if only_paths || !text.starts_with('-') => {
                if parsed.mountpoint.replace(word.into()).is_some() {
                    return Err(format!("extra argument {text}"));
                }
            }
            "--" => only_paths = true,
            "-o" => add(&mut parsed, &words.next().ok_or("-o needs options")?.to_string_lossy()),
            "--unmount" => parsed.unmount = true,
            "--lazy" => parsed.lazy = true,
            "--quiet" => parsed.quiet = true,
            "--auto-unmount" => parsed.auto_unmount = true,
            "--help" => return help(),
            "--version" => return version(),
            _ if text.starts_with("-o") => add(&mut parsed, &text[2..]),
            _ => {
                for letter in text[1..].chars() {
                    match letter {
                        'u' => parsed.unmount = true,
                        'z' => parsed.lazy = true,
                        'q' => parsed.quiet = true,
                        'U' => parsed.auto_unmount = true,
                        'h' => return help(),
                        'V' => return version(),
                        _ => return Err(format!("unknown option -{letter}")),
                    }
                }
            }
        }
    }
    Ok(parsed)
}

fn add(parsed: &mut Options, options: &str) {
    if !parsed.options.is_empty() {
        parsed.options.push(',');
    }
    parsed.options.push_str(options);
}

fn help() -> Result<Options, String> {
    println!("fusermount3: [options] mountpoint\n  -u unmount   -z lazy   -q quiet   -o OPTIONS   -V version");
    std::process::exit(0)
}

fn version() -> Result<Options, String> {
    println!("fusermount3 version: umvu {}", env!("CARGO_PKG_VERSION"));
    std::process::exit(0)
}

fn run(options: Options) -> Result<(), String> {
    let Some(mountpoint) = &options.mountpoint else {
        return Err("no mountpoint given".into());
    };
    if options.unmount {
        let mut flags = UnmountFlags::NOFOLLOW;
        flags.set(UnmountFlags::DETACH, options.lazy);
        let text = |e: rustix::io::Errno| format!("cannot unmount {}: {}", mountpoint.display(), io_text(&e.into()));
        return rustix::mount::unmount(mountpoint, flags).map_err(text);
    }
    let socket = std::env::var("_FUSE_COMMFD")
        .ok()
        .and_then(|n| n.parse().ok())
        .and_then(inherited::take);
    let socket = socket.ok_or("_FUSE_COMMFD names no open descriptor: fusermount3 is for FUSE libraries to call")?;
    let auto_unmount = options.auto_unmount || options.options.split(',').any(|word| word == "auto_unmount");
    if !options.auto_unmount {
        let device = mount(mountpoint, &options.options)?;
        send(&socket, &device)?;
    }
    if auto_unmount {
        wait_and_unmount(socket, mountpoint)?;
    }
    Ok(())
}

/// The mount options that are flags of mount(2), by name; the others go to the file system.
fn split(options: &str) -> (MountFlags, Vec<&str>, Option<&str>, Option<&str>) {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    let (mut data, mut name, mut subtype) = (Vec::new(), None, None);
    for word in options.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=').unwrap_or((word, "")) {
            ("fsname", value) => name = Some(value),
            ("subtype", value) => subtype = Some(value),
            ("ro", _) => flags |= MountFlags::RDONLY,
            ("noexec", _) => flags |= MountFlags::NOEXEC,
            ("sync", _) => flags |= MountFlags::SYNCHRONOUS,
            ("dirsync", _) => flags |= MountFlags::DIRSYNC,
            ("noatime", _) => flags |= MountFlags::NOATIME,
            // The defaults, what only the library understands, and what an ordinary user may not have anyway.
            (
                "rw" | "nosuid" | "nodev" | "exec" | "async" | "atime" | "suid" | "dev" | "auto_unmount" | "nonempty",
                _,
            ) => {}
            (key, _)
                if key.starts_with("x-")
                    || matches!(key, "user" | "nouser" | "users" | "auto" | "noauto" | "_netdev") => {}
            _ => data.push(word),
        }
    }
    (flags, data, name, subtype)
}

fn mount(mountpoint: &Path, options: &str) -> Result<OwnedFd, String> {
    let failed = |e: rustix::io::Errno| format!("cannot mount on {}: {}", mountpoint.display(), io_text(&e.into()));
    let stat = rustix::fs::stat(mountpoint).map_err(failed)?;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| format!("cannot open /dev/fuse: {}", io_text(&e.into())))?;
    let (flags, rest, name, subtype) = split(options);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let number = std::os::fd::AsRawFd::as_raw_fd(&device);
    let mode = stat.st_mode & 0o170000;
    let mut data = format!("fd={number},rootmode={mode:o},user_id={uid},group_id={gid}");
    for word in rest {
        data.push(',');
        data.push_str(word);
    }
    let kind = subtype.map_or("fuse".to_owned(), |subtype| format!("fuse.{subtype}"));
    let source = name.or(subtype).unwrap_or("/dev/fuse");
    let data = std::ffi::CString::new(data).map_err(|_| "an option has a NUL in it")?;
    rustix::mount::mount(source, mountpoint, kind.as_str(), flags, data.as_c_str()).map_err(failed)?;
    Ok(device)
}

fn send(socket: &OwnedFd, device: &OwnedFd) -> Result<(), String> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [device.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err("no room for a descriptor in a message".into());
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())
        .map(drop)
        .map_err(|e| format!("cannot pass the device on: {}", io_text(&e.into())))
}

/// auto_unmount: when the server is gone, its end of the socket closes, and what it left mounted is detached.
fn wait_and_unmount(socket: OwnedFd, mountpoint: &Path) -> Result<(), String> {
    let mountpoint =
        std::path::absolute(mountpoint).map_err(|e| format!("cannot tell where it is: {}", io_text(&e)))?;
    // Nobody waits for this process: it must not hold the terminal, a pipe or a directory.
    let text = |e: rustix::io::Errno| format!("cannot go to the background: {}", io_text(&e.into()));
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(text)?;
    rustix::stdio::dup2_stdin(&null).map_err(text)?;
    rustix::stdio::dup2_stdout(&null).map_err(text)?;
    rustix::stdio::dup2_stderr(&null).map_err(text)?;
    drop(null);
    inherited::close_all_but(&socket);
    rustix::process::chdir("/").map_err(text)?;
    // A process that leads its group has been put into the background by somebody else.
    let _ = rustix::process::setsid();
    let mut byte = [0; 1];
    loop {
        match rustix::io::read(&socket, &mut byte) {
            Ok(0) => break,
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(_) => break,
        }
    }
    if is_dead(&mountpoint) {
        // Somebody else may have been faster.
        let _ = rustix::mount::unmount(&mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn arguments_in_any_order() {
        let parsed = parse(words("fusermount3 -o ro,fsname=x -- /m")).unwrap();
        assert_eq!(parsed.mountpoint, Some("/m".into()));
        assert_eq!(parsed.options, "ro,fsname=x");
        let parsed = parse(words("fusermount3 /m -o rw")).unwrap();
        assert_eq!((parsed.mountpoint, parsed.options.as_str()), (Some("/m".into()), "rw"));
        let parsed = parse(words("fusermount3 -uqz /m")).unwrap();
        assert!(parsed.unmount && parsed.quiet && parsed.lazy);
        assert!(parse(words("fusermount3 -x /m")).is_err());
    }

    #[test]
    fn options_are_sorted_out() {
        let (flags, data, name, subtype) =
            split("rw,nosuid,ro,fsname=a:b,subtype=s,allow_other,max_read=4096,auto_unmount");
        assert!(flags.contains(MountFlags::RDONLY | MountFlags::NODEV));
        assert_eq!(data, ["allow_other", "max_read=4096"]);
        assert_eq!((name, subtype), (Some("a:b"), Some("s")));
    }
}
