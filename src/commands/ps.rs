//! `umvu ps`: the views of this user.

use clap::Args;

use crate::control::{Request, Response};
use crate::door;

use super::{Failure, Outcome};

/// List this user's views, their mounts, their processes, and what each waits for.
#[derive(Args)]
pub struct Ps {
    /// Only this view
    view: Option<String>,
}

impl Ps {
    pub fn run(self) -> Outcome {
        let all = self.view.is_none();
        for name in self.view.map_or_else(door::names, |name| vec![name]) {
            match door::ask(&name, &Request::Describe) {
                Ok(Response::View(view)) => show(&view),
                Ok(_) => return Err(Failure::with(1, format!("view `{name}` gave a strange answer"))),
                // It has ended since it was listed.
                Err(_) if all => {}
                Err(error) => return Err(Failure::with(1, error.to_string())),
            }
        }
        Ok(0)
    }
}

fn show(view: &crate::control::Description) {
    println!("view {} (umvu {})", view.name, view.pid);
    for mount in &view.mounts {
        println!(
            "  {} on {} type {} ({})",
            mount.source, mount.target, mount.fstype, mount.options
        );
    }
    for process in &view.processes {
        let thread = if process.tid == process.pid {
            String::new()
        } else {
            format!(" thread {}", process.tid)
        };
        let waits = process
            .waits_for
            .as_ref()
            .map(|call| format!(", waits in {call}"))
            .unwrap_or_default();
        println!("  {}{thread} {}{waits}", process.pid, process.command);
    }
}
