//! The command line: one file a command. Each gives its exit status; errors are one line on stderr.

mod client;
mod enter;
mod fusermount;
mod inherited;
mod modules;
mod mountspec;
mod ps;
mod root;
mod run;
mod start;
mod support;
mod terminal;
mod user;
mod vumount;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::control::io_text;

/// Names under which umvu is found inside a view, and what they stand for.
pub const APPLETS: [&str; 10] = [
    "umvu",
    "vumount",
    "vuumount",
    "vu_lsmod",
    "vu_insmod",
    "vu_rmmod",
    "vuname",
    "vudebug",
    "vusu",
    "fusermount3",
];

/// All names that umvu goes by in a view.
pub fn command_names() -> impl Iterator<Item = &'static str> {
    APPLETS.into_iter().chain(["fusermount"])
}

/// umvu's own failure, as env(1) and others have it.
pub const FAILURE: u8 = 125;

/// Run a program in a view of its own, where FUSE filesystems can be mounted without privileges.
///
/// umvu sh -c 'sshfs host:/srv m && ls m'
#[derive(Parser)]
#[command(
    name = "umvu",
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    run: run::Run,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Vumount(vumount::Mount),
    Vuumount(vumount::Unmount),
    Exec(enter::Exec),
    Ps(ps::Ps),
    #[command(name = "vu_lsmod")]
    Lsmod(modules::Lsmod),
    #[command(name = "vu_insmod")]
    Insmod(modules::Insmod),
    #[command(name = "vu_rmmod")]
    Rmmod(modules::Rmmod),
    Vuname(modules::Name),
    Vusu(user::Su),
    Vudebug(modules::Debug),
    Support(support::Support),
    /// Mounts what was asked for, from inside the view, then becomes the command.
    #[command(name = "__start", hide = true)]
    Start(start::Start),
}

/// Does what the arguments say.
pub fn main(mut args: Vec<OsString>) -> ExitCode {
    client::go_home();
    let name = args
        .first()
        .and_then(|arg| Path::new(arg).file_name())
        .map(|n| n.to_string_lossy().into_owned());
    match name.as_deref() {
        Some("fusermount" | "fusermount3") => return fusermount::main(args),
        // Called by the name of a command: as if the command had been given.
        Some(applet) if applet != "umvu" && APPLETS.contains(&applet) => args.insert(1, applet.into()),
        _ => {}
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            if !error.use_stderr() {
                // Help or version.
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            return complain(name.as_deref(), &Failure::new(first_words(&error)));
        }
    };
    let result = match cli.command {
        None => cli.run.run(),
        Some(Command::Vumount(command)) => command.run(),
        Some(Command::Vuumount(command)) => command.run(),
        Some(Command::Exec(command)) => command.run(),
        Some(Command::Ps(command)) => command.run(),
        Some(Command::Lsmod(command)) => command.run(),
        Some(Command::Insmod(command)) => command.run(),
        Some(Command::Rmmod(command)) => command.run(),
        Some(Command::Vuname(command)) => command.run(),
        Some(Command::Vusu(command)) => command.run(),
        Some(Command::Vudebug(command)) => command.run(),
        Some(Command::Support(command)) => command.run(),
        Some(Command::Start(command)) => command.run(),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => complain(name.as_deref(), &failure),
    }
}

fn complain(name: Option<&str>, failure: &Failure) -> ExitCode {
    say(&format!("{}: {}", name.unwrap_or("umvu"), failure.message));
    ExitCode::from(failure.status)
}

/// What is wrong with the arguments, without clap's hints, in one line.
fn first_words(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let line = words.join(" ");
    format!("{} (see --help)", line.strip_prefix("error: ").unwrap_or(&line))
}

/// A line on stderr. One that cannot be written changes nothing.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The result of a command: text on stdout. A reader who has seen enough is no failure.
fn print(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::with(1, format!("cannot write: {}", io_text(&error))))
        }
        _ => Ok(0),
    }
}

/// A command that cannot do what it was asked.
pub struct Failure {
    pub status: u8,
    /// One line: what, where, and what to do.
    pub message: String,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            status: FAILURE,
            message: message.into(),
        }
    }

    pub fn with(status: u8, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
        }
    }
}

pub type Outcome = Result<u8, Failure>;
