//! The first program of a view that begins with mounts: mounts from inside, then becomes the command, or stays.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc;

use clap::Args;

use crate::control::{Request, io_text};

use super::mountspec::MountSpec;
use super::root::{self, RootArgs};
use super::user::UserArgs;
use super::vumount::{Messages, Mounted, ending, is_dead, mount};
use super::{FAILURE, Failure, Outcome, client, say};

#[derive(Args)]
pub struct Start {
    /// What to mount, as JSON
    #[arg(value_parser = specs)]
    mounts: Specs,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    user: UserArgs,
    /// There is no command: stay until what was mounted is unmounted.
    #[arg(long)]
    serve: bool,
    #[arg(last = true)]
    command: Vec<OsString>,
}

type Specs = std::sync::Arc<[MountSpec]>;

fn specs(text: &str) -> Result<Specs, serde_json::Error> {
    Ok(serde_json::from_str::<Vec<MountSpec>>(text)?.into())
}

impl Start {
    pub fn run(self) -> Outcome {
        if self.serve {
            return self.mounts.iter().try_fold(0, |_, spec| stay(spec));
        }
        let at_root = |spec: &&MountSpec| spec.target == "/";
        let mut tree = self.root.clone();
        // An overlay at "/" is a tree by itself.
        let layer = self.mounts.iter().find(at_root).and_then(MountSpec::first_layer);
        tree.root = tree.root.or(layer.map(PathBuf::from));
        let root = tree.prepare()?;
        let environment = self.user.apply(root.as_deref())?;
        let mounted = |spec: &MountSpec| {
            let placed = root::placed(root.as_deref(), spec.clone());
            if !self.command.is_empty() {
                return mount_apart(&placed);
            }
            mount(&placed, Messages::Kept).map_err(|failure| Failure {
                status: FAILURE,
                ..failure
            })?;
            Ok(true)
        };
        // Where one fails, it has said why.
        for spec in self.mounts.iter().filter(at_root) {
            if !mounted(spec)? {
                return Ok(FAILURE);
            }
        }
        if let Some(root) = &root {
            tree.show_host(root)?;
        }
        for spec in self.mounts.iter().filter(|spec| !at_root(spec)) {
            if !mounted(spec)? {
                return Ok(FAILURE);
            }
        }
        if let Some(root) = &root {
            root::enter(root)?;
        }
        let Some((program, args)) = self.command.split_first() else {
            return Ok(0);
        };
        let error = std::process::Command::new(program).args(args).envs(environment).exec();
        let status = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
        Err(Failure::with(
            status,
            format!("cannot run {}: {}", program.to_string_lossy(), io_text(&error)),
        ))
    }
}

/// Mounts by a child of its own, so that the server is not a child of the command, which may wait for all that it has.
fn mount_apart(spec: &MountSpec) -> Result<bool, Failure> {
    let own = |e: std::io::Error| Failure::new(format!("cannot run umvu itself: {}", io_text(&e)));
    let specs = serde_json::to_string(&[spec]).map_err(|e| own(e.into()))?;
    let mut command = std::process::Command::new(std::env::current_exe().map_err(own)?);
    let status = command.args(["__start", &specs]).status();
    status.map(|status| status.success()).map_err(own)
}

/// Serves a mount until it is unmounted, or its program has ended.
fn stay(spec: &MountSpec) -> Outcome {
    let Mounted { target, server } = mount(spec, Messages::Shown)?;
    let name = client::describe()?.name;
    let shown = target.display();
    say(&format!(
        "umvu: {shown} is served in view {name}; join it with: umvu exec {name} COMMAND"
    ));
    let (sender, receiver) = mpsc::channel();
    if let Some(server) = server {
        let (sender, target) = (sender.clone(), target.clone());
        std::thread::spawn(move || watch(server, &target, &sender));
    }
    let request = Request::AwaitEnd {
        target: target.to_string_lossy().into_owned(),
    };
    std::thread::spawn(move || sender.send(client::order(&request)));
    receiver.recv().unwrap_or(Ok(0))
}

/// A program that ends without unmounting leaves a mount that answers nobody.
fn watch(mut server: Child, target: &Path, end: &mpsc::Sender<Outcome>) {
    let Ok(status) = server.wait() else { return };
    if is_dead(target) {
        let message = format!("{} is gone: its program died ({})", target.display(), ending(status));
        let _ = end.send(Err(Failure::with(1, message)));
    }
}
