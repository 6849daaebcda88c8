//! What umvu's own commands say to a view's hypervisor, from inside (by the control call) and from outside (by a
//! socket): requests and responses, as JSON.

use serde::{Deserialize, Serialize};

/// Where a view has umvu's own commands.
pub const COMMANDS_DIRECTORY: &str = "/usr/bin";

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// The view's name, mounts, processes and modules.
    Describe,
    /// Wait until more than `above` file systems are mounted at this absolute path of the view, and the last answers.
    Await { target: String, above: usize },
    /// Wait until nothing is mounted at this absolute path of the view any more.
    AwaitEnd { target: String },
    /// Enable or disable a module; mounts that it serves already stay.
    Module { name: String, enabled: bool },
    /// Give the view a name.
    Rename { name: String },
    /// Whoever enters the view from now on has the caller's root directory, where umvu's own commands are found under
    /// these names, unless there are others.
    KeepRoot { commands: Vec<String> },
    /// The caller, one of these commands, has been loaded; its root directory is again what it was before.
    GoHome,
    /// Make the caller this user, and see files through these maps from now on.
    Become {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
        files: Option<FileIds>,
    },
    /// Make the caller, who has just entered, the user that the view was made for.
    Join,
    /// Switch the trace on (`call`, `fuse`; to this file or to umvu's stderr) or off.
    Trace { what: Option<String>, file: Option<String> },
    /// Trace this waiting process; it enters the view.
    Enter { pid: i32 },
}

/// What the view shows of the owners of the host's files.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileIds {
    /// In the form of `IdMap`; without one, the real user is seen as the caller and everybody else as they are.
    pub uid_map: Option<String>,
    pub gid_map: Option<String>,
    /// Where it is kept beyond the view: an absolute path of the host.
    pub state: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Response {
    Done,
    View(Description),
    /// One clear line.
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Description {
    pub name: String,
    pub pid: u32,
    pub mounts: Vec<MountLine>,
    pub processes: Vec<ProcessLine>,
    pub modules: Vec<ModuleLine>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct MountLine {
    pub target: String,
    pub fstype: String,
    pub source: String,
    pub options: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessLine {
    pub pid: i32,
    pub tid: i32,
    pub command: String,
    /// The call it is in, if it does not run.
    pub waits_in: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ModuleLine {
    pub name: String,
    pub summary: String,
    pub enabled: bool,
}

/// The longest request or response.
pub const MAX_MESSAGE: usize = 1 << 20;

/// An error for a clear line, without Rust's "(os error 2)".
pub fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
