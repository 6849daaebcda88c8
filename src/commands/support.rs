//! `umvu support`: what becomes of each system call, from the one table of them, as Markdown.

use std::fmt::Write as _;

use clap::Args;

use crate::table::{Catch, TABLE, Treat};

use super::{Outcome, print};

/// Print what a view does with each system call, as Markdown.
#[derive(Args)]
pub struct Support {}

impl Support {
    pub fn run(self) -> Outcome {
        print(&list())
    }
}

/// Calls that share a treatment, in the order in which the table has the first of them.
#[derive(Default)]
struct Groups(Vec<(String, Vec<&'static str>)>);

impl Groups {
    fn add(&mut self, why: String, call: &'static str) {
        match self.0.iter_mut().find(|(known, _)| *known == why) {
            Some((_, calls)) => calls.push(call),
            None => self.0.push((why, vec![call])),
        }
    }
}

fn list() -> String {
    let (mut served, mut passed, mut refused) = (Groups::default(), Groups::default(), Groups::default());
    for entry in TABLE {
        match entry.treat {
            Treat::Serve(Catch::Always) => served.add("always caught".into(), entry.name),
            Treat::Serve(Catch::Given(_)) => served.add("caught only with an address".into(), entry.name),
            Treat::Serve(Catch::Peer(_)) => served.add(
                "caught only with an address, once the program has bound a socket on a mount".into(),
                entry.name,
            ),
            Treat::Serve(_) => served.add("caught only on descriptors that may be virtual".into(), entry.name),
            Treat::Pass(why) => passed.add(why.into(), entry.name),
            Treat::Refuse(errno, why) => refused.add(format!("`{errno}`: {why}"), entry.name),
        }
    }
    let mut text = String::new();
    section(&mut text, "Served where they touch something virtual", &served);
    section(&mut text, "Passed to the kernel, never caught", &passed);
    section(&mut text, "Refused", &refused);
    text
}

fn section(text: &mut String, title: &str, groups: &Groups) {
    let count: usize = groups.0.iter().map(|(_, calls)| calls.len()).sum();
    let _ = writeln!(text, "**{title}** ({count} calls)\n");
    for (why, calls) in &groups.0 {
        let _ = writeln!(text, "- {why}: `{}`", calls.join("` `"));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_listed_once() {
        let text = list();
        for entry in TABLE {
            assert_eq!(text.matches(&format!("`{}`", entry.name)).count(), 1, "{}", entry.name);
        }
    }

    #[test]
    fn the_readme_has_it() {
        let readme = include_str!("../../README.md");
        assert!(
            readme.contains(list().trim()),
            "README.md is out of date: scripts/readme renews it"
        );
    }
}
