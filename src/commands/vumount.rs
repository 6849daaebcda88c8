//! `vumount` and `vuumount`: mounting in a view, from inside; outside, serving a view of one's own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;

use crate::control::{Request, Response};

use super::mountspec::MountSpec;
use super::{Failure, Outcome, client, run};

/// A program that neither mounts nor ends within this time is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Mount a FUSE filesystem (or bind a path) in this view. Outside a view: serve it in a view of its own until it is
/// unmounted or Ctrl-C is pressed.
///
/// vumount -t fuse ./sshfs-like remote /mnt
#[derive(Args)]
#[command(
    override_usage = "vumount -t fuse PROGRAM SOURCE MOUNTPOINT [-o OPTIONS] [-r]\n       \
    vumount -t fuse.PROGRAM SOURCE MOUNTPOINT [-o OPTIONS] [-r]\n       vumount --bind SOURCE MOUNTPOINT [-r]"
)]
pub struct Mount {
    /// fuse, fuse.PROGRAM or bind
    #[arg(short = 't', long = "type", default_value = "fuse")]
    kind: String,
    /// Options for the program, as -o of mount(8)
    #[arg(short, long)]
    options: Vec<String>,
    /// Mount read-only
    #[arg(short = 'r', long = "read-only")]
    readonly: bool,
    /// Show SOURCE at MOUNTPOINT too
    #[arg(long)]
    bind: bool,
    /// Name of the view, if one is made
    #[arg(long)]
    name: Option<String>,
    /// The program (with -t fuse), the source and the mountpoint
    #[arg(required = true)]
    words: Vec<String>,
}

impl Mount {
    pub fn run(self) -> Outcome {
        let name = self.name.clone();
        let spec = self.spec()?;
        if client::in_view() {
            mount(&spec)
        } else {
            run::serve(spec, name)
        }
    }

    fn spec(self) -> Result<MountSpec, Failure> {
        let kind = if self.bind { "bind".to_owned() } else { self.kind };
        let mut words = self.words.into_iter();
        let program = if kind == "fuse" { words.next() } else { None };
        let rest: Vec<String> = words.collect();
        let (source, target) = match rest.as_slice() {
            [target] if kind != "bind" => (None, target.clone()),
            [source, target] => (Some(source.clone()), target.clone()),
            _ => {
                return Err(Failure::with(
                    1,
                    "usage: vumount -t fuse PROGRAM SOURCE MOUNTPOINT [-o OPTIONS]",
                ));
            }
        };
        let spec = MountSpec {
            kind,
            program,
            source,
            target,
            readonly: self.readonly,
            options: self.options,
        };
        spec.to_words().parse().map_err(|e: String| Failure::with(1, e))
    }
}

/// Mounts in the view that this process runs in; returns when the file system answers.
pub fn mount(spec: &MountSpec) -> Outcome {
    let target = mountpoint(&spec.target)?;
    if spec.kind == "bind" {
        return bind(spec, &target);
    }
    if spec.kind == "overlay" {
        return overlay(spec, &target);
    }
    let program = match spec.kind.strip_prefix("fuse.") {
        Some(name) => name.to_owned(),
        None => spec.program.clone().unwrap_or_default(),
    };
    let mut log = scratch_file()?;
    let mut child = start(&program, spec, &target, &log)?;
    match wait_for_mount(&mut child, &target) {
        Ok(()) => {
            show(&mut log);
            Ok(0)
        }
        Err(reason) => {
            // Its own words say it best; ours come after.
            show(&mut log);
            let _ = child.kill();
            let _ = child.wait();
            Err(Failure::with(
                1,
                format!("{program} did not mount {}: {reason}", target.display()),
            ))
        }
    }
}

fn mountpoint(target: &str) -> Result<PathBuf, Failure> {
    match std::fs::metadata(target) {
        Ok(_) => std::path::absolute(target).map_err(|e| Failure::with(1, format!("{target}: {e}"))),
        Err(e) => Err(Failure::with(
            1,
            format!("mountpoint {target}: {}; create it first", io_text(&e)),
        )),
    }
}

/// An error without Rust's "(os error 2)".
pub fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn bind(spec: &MountSpec, target: &Path) -> Outcome {
    use rustix::mount::{MountFlags, mount_bind, mount_remount};
    let source = spec.source.as_deref().unwrap_or_default();
    let failed = |e: rustix::io::Errno| {
        Failure::with(
            1,
            format!("cannot bind {source} to {}: {}", target.display(), io_text(&e.into())),
        )
    };
    mount_bind(source, target).map_err(failed)?;
    if spec.readonly {
        mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "").map_err(failed)?;
    }
    Ok(0)
}

fn overlay(spec: &MountSpec, target: &Path) -> Outcome {
    use rustix::mount::MountFlags;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, spec.readonly);
    let options =
        std::ffi::CString::new(spec.options.join(",")).map_err(|_| Failure::with(1, "an option has a NUL in it"))?;
    let source = spec.source.as_deref().unwrap_or("overlay");
    rustix::mount::mount(source, target, "overlay", flags, options.as_c_str()).map_err(|e| {
        let why = match e {
            rustix::io::Errno::INVAL => "a layer or an option that overlay does not take".to_owned(),
            _ => io_text(&e.into()),
        };
        Failure::with(1, format!("cannot mount an overlay on {}: {why}", target.display()))
    })?;
    Ok(0)
}

/// A file without a name for what the program says until it has mounted: nothing stays behind, and it never blocks.
fn scratch_file() -> Result<File, Failure> {
    let fd = rustix::fs::memfd_create("vumount-log", rustix::fs::MemfdFlags::CLOEXEC);
    fd.map(File::from)
        .map_err(|e| Failure::new(format!("no memory for the program's messages: {e}")))
}

/// Runs the program as mount(8)'s helpers do: PROGRAM SOURCE MOUNTPOINT -o OPTIONS.
fn start(program: &str, spec: &MountSpec, target: &Path, log: &File) -> Result<Child, Failure> {
    let mut options = spec.options.clone();
    if spec.readonly {
        options.push("ro".into());
    }
    let mut args: Vec<OsString> = spec.source.iter().map(OsString::from).collect();
    args.push(target.into());
    if !options.is_empty() {
        args.extend(["-o".into(), options.join(",").into()]);
    }
    let own = |e: std::io::Error| Failure::new(format!("cannot share the log: {e}"));
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(own)?)
        .stderr(log.try_clone().map_err(own)?);
    // A process group of its own: Ctrl-C in the terminal is for the command that uses the mount.
    command.process_group(0);
    command.spawn().map_err(|e| {
        let status = if e.kind() == std::io::ErrorKind::NotFound {
            127
        } else {
            126
        };
        Failure::with(status, format!("cannot run {program}: {}", io_text(&e)))
    })
}

/// Waits until the mountpoint answers, or the program has ended without mounting.
fn wait_for_mount(child: &mut Child, target: &Path) -> Result<(), String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = target.to_string_lossy().into_owned();
    let mounted = sender.clone();
    std::thread::spawn(move || {
        let answer = client::ask(&Request::Await { target: path });
        let _ = mounted.send(match answer {
            Ok(Response::Failed(message)) => Err(message),
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.message),
        });
    });
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut ended = None;
    loop {
        // Once the program has ended, a daemon of its may still be about to answer: a moment for that.
        let pause = if ended.is_some() {
            Duration::from_secs(2)
        } else {
            Duration::from_millis(50)
        };
        match receiver.recv_timeout(pause) {
            Ok(result) => return result,
            Err(_) if ended.is_some() => return Err(ended.unwrap_or_default()),
            Err(_) => {}
        }
        match child.try_wait() {
            Ok(Some(status)) if status.success() => ended = Some("it ended and left nothing mounted".to_owned()),
            Ok(Some(status)) => {
                return Err(match (status.code(), status.signal()) {
                    (Some(code), _) => format!("it ended with status {code}"),
                    (_, Some(signal)) => format!("it was killed by signal {signal}"),
                    _ => "it ended".into(),
                });
            }
            _ => {}
        }
        if std::time::Instant::now() > deadline {
            return Err(format!("no answer within {} seconds", PATIENCE.as_secs()));
        }
    }
}

/// What the program has said so far.
fn show(log: &mut File) {
    let mut text = Vec::new();
    if log.seek(SeekFrom::Start(0)).is_ok() && log.read_to_end(&mut text).is_ok() {
        let _ = std::io::stderr().write_all(&text);
    }
}

/// Unmount in this view.
#[derive(Args)]
pub struct Unmount {
    /// Detach it now, clean up when it is no longer in use
    #[arg(short, long)]
    lazy: bool,
    /// Abort the connection to a server that does not answer
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    mountpoints: Vec<PathBuf>,
}

impl Unmount {
    pub fn run(self) -> Outcome {
        use rustix::mount::{UnmountFlags, unmount};
        let mut flags = UnmountFlags::NOFOLLOW;
        flags.set(UnmountFlags::DETACH, self.lazy);
        flags.set(UnmountFlags::FORCE, self.force);
        for mountpoint in self.mountpoints {
            unmount(&mountpoint, flags).map_err(|e| {
                let why = match e {
                    rustix::io::Errno::INVAL => "not mounted in this view".to_owned(),
                    rustix::io::Errno::BUSY => "busy; -l detaches it all the same".to_owned(),
                    _ => io_text(&e.into()),
                };
                Failure::with(1, format!("cannot unmount {}: {why}", mountpoint.display()))
            })?;
        }
        Ok(0)
    }
}
