//! `vumount` and `vuumount`: mounting in a view, from inside; outside, serving a view of one's own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use crate::control::{Request, Response, io_text};

use super::mountspec::MountSpec;
use super::terminal::{Lent, Terminal};
use super::{Failure, Outcome, client, run, say};

/// A program that neither mounts nor ends within this time is given up, unless somebody can press Ctrl-C.
const PATIENCE: Duration = Duration::from_secs(60);
/// After this time somebody at the terminal is told what is being waited for.
const NOTICE: Duration = Duration::from_secs(10);

/// Mount a FUSE filesystem (or bind a path) in this view. Outside a view: serve it in a view of its own until it is
/// unmounted or Ctrl-C is pressed.
///
/// vumount -t fuse ./sshfs-like remote /mnt
#[derive(Args)]
#[command(
    override_usage = "vumount -t fuse PROGRAM SOURCE MOUNTPOINT [-o OPTIONS] [-r]\n       \
    vumount -t fuse.PROGRAM SOURCE MOUNTPOINT [-o OPTIONS] [-r]\n       vumount --bind SOURCE MOUNTPOINT [-r]\n       \
    vumount -t vufs SOURCE MOUNTPOINT -o move|merge|cow|mincow [-r]"
)]
pub struct Mount {
    /// fuse, fuse.PROGRAM, vufs or bind
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
            mount(&spec, Messages::Kept)?;
            Ok(0)
        } else {
            run::serve(spec, name)
        }
    }

    fn spec(self) -> Result<MountSpec, Failure> {
        let kind = if self.bind { "bind".to_owned() } else { self.kind };
        let usage = |words| Failure::with(1, format!("-t {kind} takes {words}"));
        let mut words = self.words.into_iter();
        let program = if kind == "fuse" { words.next() } else { None };
        let rest: Vec<String> = words.collect();
        let (source, target) = match rest.as_slice() {
            [target] if kind.starts_with("fuse.") => (None, target.clone()),
            [source, target] => (Some(source.clone()), target.clone()),
            _ if kind == "fuse" => return Err(usage("PROGRAM SOURCE MOUNTPOINT")),
            _ => return Err(usage("SOURCE MOUNTPOINT")),
        };
        let spec = MountSpec {
            kind,
            program,
            source,
            target,
            readonly: self.readonly,
            options: self.options,
        };
        spec.check().map_err(|message| Failure::with(1, message))?;
        Ok(spec)
    }
}

/// A mount that answers.
pub struct Mounted {
    pub target: PathBuf,
    /// The program that serves it, unless it has gone into the background by itself.
    pub server: Option<Child>,
}

/// Where the messages of a program go that serves a mount.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// To the terminal.
    Shown,
    /// To nobody once it has mounted, unless it is the terminal: nothing that reads the caller's output must wait for it
    /// to end.
    Kept,
}

/// Mounts in the view that this process runs in; returns when the file system answers.
pub fn mount(spec: &MountSpec, messages: Messages) -> Result<Mounted, Failure> {
    let target = mountpoint(&spec.target)?;
    if spec.kind == "bind" {
        bind(spec, &target)?;
        return Ok(Mounted { target, server: None });
    }
    if matches!(spec.kind.as_str(), "overlay" | "vufs") {
        layered(spec, &target)?;
        return Ok(Mounted { target, server: None });
    }
    let program = spec.program();
    let above = mounted_at(&target)?;
    let terminal = Terminal::own();
    let mut log = match messages {
        Messages::Kept if terminal.is_none() => Some(scratch_file()?),
        _ => None,
    };
    let mut child = start(program, spec, &target, terminal.is_some(), log.as_ref())?;
    let lent = terminal.map(|terminal| terminal.lend(&child));
    let result = wait_for_mount(&mut child, program, &target, above, lent.as_ref());
    drop(lent);
    // The program's own words say it best; ours come after.
    log.iter_mut().for_each(show);
    match result {
        Ok(()) => {
            let server = matches!(child.try_wait(), Ok(None)).then_some(child);
            Ok(Mounted { target, server })
        }
        Err(reason) => {
            let interrupted = matches!(child.try_wait(), Ok(Some(end)) if end.signal() == Some(libc::SIGINT));
            give_up(child, &target, above);
            let status = if interrupted { 128 + libc::SIGINT as u8 } else { 1 };
            let target = target.display();
            Err(Failure::with(
                status,
                format!("{program} did not mount {target}: {reason}"),
            ))
        }
    }
}

/// How many file systems are mounted there, one over the other.
fn mounted_at(target: &Path) -> Result<usize, Failure> {
    let mounts = client::describe()?.mounts;
    Ok(mounts.iter().filter(|mount| Path::new(&mount.target) == target).count())
}

/// Ends a program that has not mounted, or whose file system does not answer.
fn give_up(mut child: Child, target: &Path, above: usize) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // Whatever is gone by now, needs no ending.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    if mounted_at(target).is_ok_and(|count| count > above) {
        let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
    }
}

fn mountpoint(target: &str) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(target).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::NotFound => "; create it first",
            ErrorKind::NotConnected => "; unmount it first",
            _ => "",
        };
        Failure::with(1, format!("mountpoint {target}: {}{hint}", io_text(&error)))
    })
}

fn bind(spec: &MountSpec, target: &Path) -> Result<(), Failure> {
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
    Ok(())
}

/// File systems that umvu serves itself, from other files of the view.
fn layered(spec: &MountSpec, target: &Path) -> Result<(), Failure> {
    use rustix::mount::MountFlags;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, spec.readonly);
    let text = spec.options.join(",");
    let options = std::ffi::CString::new(&*text).map_err(|_| Failure::with(1, "an option has a NUL in it"))?;
    let kind = spec.kind.as_str();
    let source = spec.source.as_deref().unwrap_or(kind);
    rustix::mount::mount(source, target, kind, flags, options.as_c_str()).map_err(|e| {
        let why = match e {
            rustix::io::Errno::INVAL if kind == "vufs" => "its one option is move, merge, cow or mincow".to_owned(),
            rustix::io::Errno::INVAL => fsmodules::overlay::complaint(&text)
                .unwrap_or_else(|| "upperdir and workdir must be apart, on one file system, and writable".to_owned()),
            rustix::io::Errno::LOOP => "a layer is, or lies in, another one".to_owned(),
            _ => io_text(&e.into()),
        };
        Failure::with(1, format!("cannot mount {kind} on {}: {why}", target.display()))
    })?;
    Ok(())
}

/// A file without a name for what the program says until it has mounted: nothing stays behind, and it never blocks.
fn scratch_file() -> Result<File, Failure> {
    let fd = rustix::fs::memfd_create("vumount-log", rustix::fs::MemfdFlags::CLOEXEC);
    fd.map(File::from)
        .map_err(|e| Failure::new(format!("no memory for the program's messages: {}", io_text(&e.into()))))
}

/// Runs the program as mount(8)'s helpers do: PROGRAM SOURCE MOUNTPOINT -o OPTIONS.
fn start(
    program: &str,
    spec: &MountSpec,
    target: &Path,
    at_terminal: bool,
    log: Option<&File>,
) -> Result<Child, Failure> {
    let mut options = spec.options.clone();
    if spec.readonly {
        options.push("ro".into());
    }
    let mut args: Vec<OsString> = spec.source.iter().map(OsString::from).collect();
    args.push(target.into());
    if !options.is_empty() {
        args.extend(["-o".into(), options.join(",").into()]);
    }
    let own = |e: std::io::Error| Failure::new(format!("cannot share the log: {}", io_text(&e)));
    let mut command = Command::new(program);
    command.args(args);
    if !at_terminal {
        command.stdin(Stdio::null());
    }
    if let Some(log) = log {
        command
            .stdout(log.try_clone().map_err(own)?)
            .stderr(log.try_clone().map_err(own)?);
    }
    // A process group of its own: once it has mounted, Ctrl-C in the terminal is for the command that uses the mount.
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
fn wait_for_mount(
    child: &mut Child,
    program: &str,
    target: &Path,
    above: usize,
    lent: Option<&Lent>,
) -> Result<(), String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = target.to_string_lossy().into_owned();
    let mounted = sender.clone();
    std::thread::spawn(move || {
        let answer = client::ask(&Request::Await { target: path, above });
        let _ = mounted.send(match answer {
            Ok(Response::Failed(message)) => Err(message),
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.message),
        });
    });
    let begun = Instant::now();
    let (mut ended, mut noticed) = (None, false);
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
            Ok(Some(status)) => return Err(ending(status)),
            _ => {}
        }
        match lent {
            Some(lent) => {
                lent.stop_together();
                if begun.elapsed() > NOTICE && !std::mem::replace(&mut noticed, true) {
                    say(&format!(
                        "umvu: {program} has not mounted {} yet; Ctrl-C ends it",
                        target.display()
                    ));
                }
            }
            None if begun.elapsed() > PATIENCE => {
                return Err(format!("nothing answers there after {} seconds", PATIENCE.as_secs()));
            }
            None => {}
        }
    }
}

/// Is something mounted there whose server is gone? (A stat could be answered from what is cached.)
pub fn is_dead(mountpoint: &Path) -> bool {
    rustix::fs::statfs(mountpoint).is_err_and(|errno| errno == rustix::io::Errno::NOTCONN)
}

/// How a program ended.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (_, Some(signal)) => format!("it was killed by signal {signal}"),
        _ => "it ended".into(),
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
