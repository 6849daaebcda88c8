//! `umvu ps`: the views of this user.

use std::fmt::Write as _;
use std::io::ErrorKind;

use clap::Args;

use crate::control::{Description, ProcessLine, Request, Response};
use crate::door;

use super::{Failure, Outcome, print};

/// List this user's views, their mounts, their processes, and what each waits for.
#[derive(Args)]
pub struct Ps {
    /// Only this view
    view: Option<String>,
}

impl Ps {
    pub fn run(self) -> Outcome {
        let all = self.view.is_none();
        let names = self.view.map_or_else(door::names, |name| vec![name]);
        let mut text = String::new();
        for name in names {
            match door::ask(&name, &Request::Describe) {
                Ok(Response::View(view)) => text.push_str(&show(&view)),
                Ok(_) => return Err(Failure::with(1, format!("view `{name}` gave a strange answer"))),
                // It has ended since it was listed.
                Err(error) if all && error.kind() == ErrorKind::NotFound => {}
                Err(error) if all && error.kind() == ErrorKind::TimedOut => {
                    let _ = writeln!(text, "view {name}: does not answer; is it stopped?");
                }
                Err(error) => return Err(Failure::with(1, error.to_string())),
            }
        }
        print(&text)
    }
}

fn show(view: &Description) -> String {
    let mut text = format!("view {} (umvu {})\n", view.name, view.pid);
    for mount in &view.mounts {
        let options = if mount.options.is_empty() {
            String::new()
        } else {
            format!(" ({})", mount.options)
        };
        let _ = writeln!(
            text,
            "  {} on {} type {}{options}",
            mount.source, mount.target, mount.fstype
        );
    }
    for process in &view.processes {
        text.push_str(&line(process));
    }
    text
}

fn line(process: &ProcessLine) -> String {
    let thread = if process.tid == process.pid {
        String::new()
    } else {
        format!(" thread {}", process.tid)
    };
    let waits = process.waits_in.as_ref();
    let waits = waits.map_or_else(String::new, |call| format!(", waits in {call}"));
    format!("  {}{thread} {}{waits}\n", process.pid, process.command)
}
