//! `--root DIR`: another root tree for the command, put together from the view's own mount(2) and chroot(2).

use std::path::{Path, PathBuf};

use clap::Args;
use rustix::mount::mount_bind;

use crate::control::{Request, io_text};

use super::mountspec::MountSpec;
use super::{Failure, client, command_names};

/// What a tree shows of the host unless it is asked not to.
const OF_THE_HOST: [&str; 3] = ["dev", "proc", "sys"];

#[derive(Args, Clone, Default)]
pub struct RootArgs {
    /// Run the command with this directory as its root, as chroot(1) does. The targets of --mount are below it
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// With --root: leave the tree's /dev, /proc and /sys as they are, instead of showing the host's there
    #[arg(long, requires = "root")]
    pub hide_host: bool,
}

impl RootArgs {
    /// As arguments that read the same.
    pub fn to_words(&self) -> Vec<std::ffi::OsString> {
        let mut words = Vec::new();
        if let Some(root) = &self.root {
            words.extend(["--root".into(), root.into()]);
        }
        words.extend(self.hide_host.then(|| "--hide-host".into()));
        words
    }

    /// Makes the tree a mount. Its absolute path.
    pub fn prepare(&self) -> Result<Option<PathBuf>, Failure> {
        let Some(root) = &self.root else { return Ok(None) };
        let failed =
            |path: &Path, e: std::io::Error| Failure::new(format!("--root {}: {}", path.display(), io_text(&e)));
        let root = std::fs::canonicalize(root).map_err(|e| failed(root, e))?;
        if !root.is_dir() {
            return Err(failed(&root, rustix::io::Errno::NOTDIR.into()));
        }
        mount_bind(&root, &root).map_err(|e| failed(&root, e.into()))?;
        Ok(Some(root))
    }

    /// Shows the host's directories in it.
    pub fn show_host(&self, root: &Path) -> Result<(), Failure> {
        let failed =
            |path: &Path, e: std::io::Error| Failure::new(format!("--root {}: {}", path.display(), io_text(&e)));
        for name in OF_THE_HOST.iter().filter(|_| !self.hide_host) {
            let inside = root.join(name);
            if !inside.is_dir() {
                std::fs::create_dir(&inside).map_err(|e| failed(&inside, e))?;
            }
            mount_bind(Path::new("/").join(name), &inside).map_err(|e| failed(&inside, e.into()))?;
        }
        Ok(())
    }
}

/// A mount's target, as seen from outside the tree.
pub fn placed(root: Option<&Path>, mut spec: MountSpec) -> MountSpec {
    if let Some(root) = root {
        let target = root.join(
            Path::new(&spec.target)
                .strip_prefix("/")
                .unwrap_or(spec.target.as_ref()),
        );
        spec.target = target.to_string_lossy().into_owned();
    }
    spec
}

/// Goes to live in the tree, with everybody who enters the view from now on.
pub fn enter(root: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("--root {}: {}", root.display(), io_text(&e)));
    let cwd = std::env::current_dir().unwrap_or_default();
    let inside = cwd
        .strip_prefix(root)
        .map_or_else(|_| PathBuf::from("/"), |rest| Path::new("/").join(rest));
    std::os::unix::fs::chroot(root).map_err(failed)?;
    std::env::set_current_dir(inside).map_err(failed)?;
    let commands = command_names().map(str::to_owned).collect();
    client::order(&Request::KeepRoot { commands }).map(drop)
}
