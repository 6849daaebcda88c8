//! `umvu CMD`: a new view, from its first program to its end.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use fsmodules::api::{Module, Name};

use crate::control::{COMMANDS_DIRECTORY, io_text};
use crate::door::Door;
use crate::hypervisor::Hypervisor;
use crate::session::Session;
use crate::trace::Trace;
use crate::trap::{self, Engine, SpawnSpec, Tracer, WaitStatus};
use crate::view::{HostPlace, Mounts, Place};

use super::mountspec::MountSpec;
use super::root::RootArgs;
use super::user::UserArgs;
use super::{APPLETS, Failure, Outcome, client, command_names};

#[derive(Args)]
pub struct Run {
    /// Mount before the command starts: type=fuse,program=PROGRAM,source=SOURCE,target=DIR (and readonly, options=…),
    /// type=overlay,lowerdir=DIR:DIR…,upperdir=DIR,workdir=DIR,target=DIR, type=vufs,source=DIR,target=DIR,o=cow, or
    /// type=bind,source=PATH,target=PATH
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<MountSpec>,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    user: UserArgs,
    /// Name of the view, for `umvu exec` and `umvu ps`
    #[arg(long)]
    name: Option<String>,
    /// Print one line a call: `call`, `fuse` or both, to stderr or to a file
    #[arg(long, value_name = "call,fuse[:FILE]", num_args = 0..=1, require_equals = true, default_missing_value = "call,fuse")]
    trace: Option<String>,
    /// How calls are caught: auto, ptrace (works everywhere) or notify (fast, Linux 5.19 and newer)
    #[arg(long, value_name = "ENGINE", default_value = "auto", env = "UMVU_ENGINE")]
    engine: Engine,
    /// Catch each call on a path, also where it can touch nothing virtual: slower, and nothing is put into programs
    #[arg(long)]
    no_agent: bool,
    /// How long filesystems may take to end after the command
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=86_400))]
    grace: u64,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Run {
    pub fn run(mut self) -> Outcome {
        if self.command.is_empty() {
            return Err(Failure::new("no command given; umvu --help shows how to use it"));
        }
        if let Ok(view) = client::describe() {
            return Err(Failure::new(format!(
                "this is view {} already, and views do not nest: mount in it (vumount), and run the command as it is",
                view.name
            )));
        }
        let status = if self.mount.is_empty() && self.root.root.is_none() && self.user.is_empty() {
            let program = look_up(&self.command[0])?;
            self.start(&program)?
        } else {
            let program = own_path()?;
            let mut argv = start_words(&self.mount)?;
            argv.extend(self.root.to_words());
            argv.extend(self.user.to_words());
            argv.push("--".into());
            argv.append(&mut self.command);
            self.command = argv;
            self.start(&program)?
        };
        Ok(exit_status(status))
    }

    fn start(&self, program: &Path) -> Result<WaitStatus, Failure> {
        let trace = Trace::default();
        if let Some(wanted) = &self.trace {
            let (what, file) = wanted
                .split_once(':')
                .map_or((wanted.as_str(), None), |(what, file)| (what, Some(file)));
            let what = if what.is_empty() { "call,fuse" } else { what };
            let switched = trace.switch(Some(what), file);
            switched.map_err(|message| Failure::new(format!("--trace: {message}")))?;
        }
        let name = self.name.clone().unwrap_or_else(|| std::process::id().to_string());
        let door = match Door::open(&name) {
            Ok(door) => Some(door),
            Err(e) if matches!(e.kind(), ErrorKind::AddrInUse | ErrorKind::InvalidInput) => {
                return Err(Failure::new(e.to_string()));
            }
            // A host without abstract sockets: the view works, only nobody can join it.
            Err(_) => None,
        };
        trap::probe().map_err(|e| Failure::new(e.to_string()))?;
        let mut tracer = Tracer::new().map_err(|e| Failure::new(e.to_string()))?;
        let argv = self.command.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let spec = SpawnSpec {
            program: program.as_os_str().as_bytes().to_vec(),
            argv,
            envp: None,
        };
        let shown = self.command[0].to_string_lossy();
        let main = match tracer.spawn(&spec, self.engine) {
            Err(trap::SpawnError::Killed(signal)) => return Ok(WaitStatus::Signaled(signal)),
            main => main.map_err(|e| cannot_run(&shown, &e))?,
        };
        let modules = modules();
        let mounts = Mounts::new();
        fit_out(&mounts, &modules);
        let hv = Hypervisor::new(tracer, mounts, modules, name, door, trace)
            .map_err(|e| Failure::new(format!("cannot start: {}", io_text(&e))))?;
        if self.no_agent {
            hv.agents.switch_off();
        }
        Ok(Session::new(hv, main, Duration::from_secs(self.grace)).run())
    }
}

/// The command line of a view's first program that mounts before anything else.
fn start_words(mounts: &[MountSpec]) -> Result<Vec<OsString>, Failure> {
    let mounts = serde_json::to_string(mounts).map_err(|e| Failure::new(e.to_string()))?;
    Ok(["umvu", "__start", &mounts].map(OsString::from).to_vec())
}

/// `umvu vumount …` outside a view: serves it until it is unmounted or interrupted.
pub fn serve(spec: MountSpec, name: Option<String>) -> Outcome {
    let mut command = start_words(&[spec])?;
    command.push("--serve".into());
    let run = Run {
        mount: Vec::new(),
        root: RootArgs::default(),
        user: UserArgs::default(),
        name,
        trace: None,
        engine: Engine::default(),
        no_agent: false,
        grace: 10,
        command,
    };
    Ok(exit_status(run.start(&own_path()?)?))
}

fn cannot_run(command: &str, error: &trap::SpawnError) -> Failure {
    match error {
        trap::SpawnError::Exec(errno) => {
            let status = if errno.raw() == libc::ENOENT { 127 } else { 126 };
            let why = io_text(&std::io::Error::from_raw_os_error(errno.raw()));
            Failure::with(status, format!("cannot run {command}: {why}"))
        }
        other => Failure::new(other.to_string()),
    }
}

/// The modules of a view.
fn modules() -> Vec<Rc<dyn Module>> {
    vec![
        Rc::new(fsmodules::fuse::FuseModule),
        Rc::new(fsmodules::overlay::OverlayModule),
        Rc::new(fsmodules::overlay::VufsModule),
    ]
}

/// The commands that a host may have, too.
const LIBFUSES: [&str; 2] = ["fusermount", "fusermount3"];

/// What every view has besides the host's files: the modules' devices and umvu's own commands.
fn fit_out(mounts: &Mounts, modules: &[Rc<dyn Module>]) {
    for device in modules.iter().flat_map(|module| module.devices()) {
        mounts.fit_device(Path::new(device.path), device.node);
    }
    let Ok(own) = own_path() else { return };
    let commands = Path::new(COMMANDS_DIRECTORY);
    // The host's fusermount3 relies on privileges that nothing in a view gets.
    let powerless = |path: &Path| path.metadata().is_ok_and(|found| found.mode() & libc::S_ISUID != 0);
    let mut places = BTreeSet::new();
    for name in command_names() {
        let path = commands.join(name);
        if powerless(&path) || !path.exists() && search_path(name.as_ref()).is_err() {
            places.insert((commands.to_owned(), name));
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for directory in std::env::split_paths(&path) {
        let found = LIBFUSES.into_iter().filter(|name| powerless(&directory.join(name)));
        places.extend(found.filter_map(|name| Some((directory.canonicalize().ok()?, name))));
    }
    for (path, name) in places {
        let mount = mounts.base();
        if let Ok(name) = Name::new(name.as_bytes()) {
            mounts.fit_command(&Place::Host(HostPlace { mount, path }), &name, &own);
        }
    }
}

fn own_path() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|e| Failure::new(format!("cannot find umvu's own program: {}", io_text(&e))))
}

/// Finds a command as execvp(3) does, or one of umvu's own, with the shell's exit statuses.
fn look_up(command: &OsStr) -> Result<PathBuf, Failure> {
    let shown = command.to_string_lossy();
    if command.as_bytes().contains(&b'/') {
        return Ok(command.into());
    }
    search_path(command).or_else(|found| match found {
        _ if APPLETS.iter().any(|name| *name == command) => own_path(),
        Some(file) => Err(Failure::with(
            126,
            format!("cannot run {}: permission denied", file.display()),
        )),
        None => Err(Failure::with(
            127,
            format!("cannot run `{shown}`: no such command in PATH"),
        )),
    })
}

/// An executable file in one of `PATH`'s directories; the error is one that may not be executed, if there is any.
fn search_path(command: &OsStr) -> Result<PathBuf, Option<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut found = None;
    for candidate in std::env::split_paths(&path).map(|directory| directory.join(command)) {
        if candidate.is_file() {
            if rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK).is_ok() {
                return Ok(candidate);
            }
            found = Some(candidate);
        }
    }
    Err(found)
}

fn exit_status(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(code) => code as u8,
        WaitStatus::Signaled(signal) => (128 + signal) as u8,
    }
}
