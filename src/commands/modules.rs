//! `vu_lsmod`, `vu_insmod`, `vu_rmmod`, `vuname`, `vudebug`: looking into and adjusting the view one is in.

use clap::Args;

use crate::control::{Description, Request, Response};

use super::client::{ask, order};
use super::{Failure, Outcome};

fn describe() -> Result<Description, Failure> {
    match ask(&Request::Describe)? {
        Response::View(view) => Ok(view),
        _ => Err(Failure::with(1, "the view gave a strange answer")),
    }
}

/// List the modules of this view.
#[derive(Args)]
pub struct Lsmod {}

impl Lsmod {
    pub fn run(self) -> Outcome {
        for module in describe()?.modules {
            let state = if module.enabled { "on" } else { "off" };
            println!("{:<10} {state:<4} {}", module.name, module.summary);
        }
        Ok(0)
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
            None => {
                println!("{}", describe()?.name);
                Ok(0)
            }
        }
    }
}

/// Switch the trace of this view on or off while it runs.
#[derive(Args)]
pub struct Debug {
    /// What to trace: `call`, `fuse`, both separated by a comma, or `off`
    what: String,
    /// Where to: a file, or umvu's stderr
    #[arg(short, long)]
    output: Option<String>,
}

impl Debug {
    pub fn run(self) -> Outcome {
        let what = (self.what != "off").then_some(self.what);
        order(&Request::Trace {
            what,
            file: self.output,
        })
    }
}
