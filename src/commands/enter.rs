//! `umvu exec VIEW CMD`: joins a running view from another terminal.
//!
//! This very process becomes the command, traced by the view's hypervisor: its stdio, terminal, process group and
//! parent stay what they are, so signals, window size, job control and the exit status need no help.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use crate::control::{Request, Response};
use crate::{door, trap};

use super::vumount::io_text;
use super::{Failure, Outcome, client};

/// Run a command in a view that is running already.
#[derive(Args)]
pub struct Exec {
    /// The view's name (see umvu ps)
    view: String,
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
        let cwd = std::env::current_dir()
            .unwrap_or_else(|_| "/".into())
            .to_string_lossy()
            .into_owned();
        let view = self.view.clone();
        trap::be_traced(
            |pid| match door::ask(&view, &Request::Enter { pid, cwd: cwd.clone() }) {
                Ok(Response::Done) => Ok(()),
                Ok(Response::Failed(message)) => Err(message),
                Ok(_) => Err("the view gave a strange answer".to_owned()),
                Err(error) => Err(io_text(&error)),
            },
        )
        .map_err(Failure::new)?;
        client::order(&Request::Join)?;
        // The caller's directory may be nowhere in the view.
        if !std::env::current_dir().is_ok_and(|path| path.is_absolute()) {
            std::env::set_current_dir("/").map_err(|e| Failure::new(format!("cannot go to /: {}", io_text(&e))))?;
        }
        let argv: Vec<Vec<u8>> = self.command.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let errno = trap::exec_path(&argv);
        let status = if errno.raw() == libc::ENOENT { 127 } else { 126 };
        let why = io_text(&std::io::Error::from_raw_os_error(errno.raw()));
        Err(Failure::with(
            status,
            format!("cannot run {}: {why}", self.command[0].to_string_lossy()),
        ))
    }
}
