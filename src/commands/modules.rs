//! `vu_lsmod`, `vu_insmod`, `vu_rmmod`, `vuname`, `vudebug`: looking into and adjusting the view one is in.

use clap::Args;

use crate::control::{ModuleLine, Request, io_text};

use super::client::{describe, order};
use super::{Failure, Outcome, print};

/// List the modules of this view.
#[derive(Args)]
pub struct Lsmod {}

impl Lsmod {
    pub fn run(self) -> Outcome {
        let line = |module: ModuleLine| {
            let state = if module.enabled { "on" } else { "off" };
            format!("{:<10} {state:<4} {}\n", module.name, module.summary)
        };
        print(&describe()?.modules.into_iter().map(line).collect::<String>())
    }
}

/// Enable a module in this view (all are enabled at first).
#[derive(Args)]
pub struct Insmod {
    name: String,
}

impl Insmod {
    pub fn run(self) -> Outcome {
        order(&Request::Module {
            name: self.name,
            enabled: true,
        })
    }
}

/// Disable a module in this view. What it has mounted already stays.
#[derive(Args)]
pub struct Rmmod {
    name: String,
}

impl Rmmod {
    pub fn run(self) -> Outcome {
        order(&Request::Module {
            name: self.name,
            enabled: false,
        })
    }
}

/// Print the name of this view, or give it another.
#[derive(Args)]
pub struct Name {
    name: Option<String>,
}

impl Name {
    pub fn run(self) -> Outcome {
        match self.name {
            Some(name) => order(&Request::Rename { name }),
            None => print(&format!("{}\n", describe()?.name)),
        }
    }
}

/// Switch the trace of this view on or off while it runs.
#[derive(Args)]
pub struct Debug {
    /// What to trace: `call`, `fuse`, both separated by a comma, or `off`
    what: String,
    /// Where to: a file of the host, or else umvu's stderr
    #[arg(short, long)]
    output: Option<String>,
}

impl Debug {
    pub fn run(self) -> Outcome {
        let what = (self.what != "off").then_some(self.what);
        let file = self.output.map(std::path::absolute).transpose();
        let file = file.map_err(|e| Failure::with(1, format!("the file for the trace: {}", io_text(&e))))?;
        order(&Request::Trace {
            what,
            file: file.map(|path| path.to_string_lossy().into_owned()),
        })
    }
}
