//! `umvu exec VIEW CMD`: joins a running view from another terminal.
//!
//! This very process becomes the command, traced by the view's hypervisor: its stdio, terminal, process group and
//! parent stay what they are, so signals, window size, job control and the exit status need no help.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;

use crate::control::{Request, Response, io_text};
use crate::{door, trap};

use super::{Failure, Outcome, client};

/// Run a command in a view that is running already.
#[derive(Args)]
pub struct Exec {
    /// The view's name (see umvu ps)
    view: String,
    /// Directory of the view to run it in, rather than the present one
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

impl Exec {
    pub fn run(self) -> Outcome {
        let here = std::env::current_dir().ok();
        trap::be_traced(|pid| match door::ask(&self.view, &Request::Enter { pid }) {
            Ok(Response::Done) => Ok(()),
            Ok(Response::Failed(message)) => Err(message),
            Ok(_) => Err("the view gave a strange answer".to_owned()),
            Err(error) => Err(io_text(&error)),
        })
        .map_err(Failure::new)?;
        client::order(&Request::Join)?;
        self.change_directory(here)?;
        let argv: Vec<Vec<u8>> = self.command.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let errno = trap::exec_path(&argv);
        let status = if errno.raw() == libc::ENOENT { 127 } else { 126 };
        let why = io_text(&std::io::Error::from_raw_os_error(errno.raw()));
        Err(Failure::with(
            status,
            format!("cannot run {}: {why}", self.command[0].to_string_lossy()),
        ))
    }

    /// From here on this process sees the view: what something is mounted on may be another directory there.
    fn change_directory(&self, here: Option<PathBuf>) -> Result<(), Failure> {
        let Some(directory) = self.workdir.clone().or(here) else {
            return Ok(());
        };
        let lost = || !std::env::current_dir().is_ok_and(|path| path.is_absolute());
        match std::env::set_current_dir(&directory) {
            // The view has a root of its own, without the caller's directory in it.
            Err(_) if self.workdir.is_none() && lost() => {
                std::env::set_current_dir("/").map_err(|e| Failure::new(format!("cannot go to /: {}", io_text(&e))))
            }
            // Who is in a directory already need not be allowed to enter it.
            Err(error) if self.workdir.is_none() && error.kind() == ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(Failure::new(format!(
                "cannot change to {} in view {}: {}; -w DIR names another directory",
                directory.display(),
                self.view,
                io_text(&error)
            ))),
            Ok(()) => Ok(()),
        }
    }
}
