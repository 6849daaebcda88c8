//! Virtual users: `--as-root`, `--uid-map`, and `vusu`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::control::{FileIds, Request, io_text};

use super::{Failure, Outcome, client};

#[derive(Args, Clone, Default)]
pub struct UserArgs {
    /// Run the command as a virtual root: it may change owners, make device nodes and become other users, as far as the
    /// view shows; on disk every file stays yours
    #[arg(long)]
    pub as_root: bool,
    /// Which uids of the host are which in the view; what is in none is nobody's. Without it you are the command's
    /// user, and all others are who they are
    #[arg(long, value_name = "INSIDE:OUTSIDE:COUNT,…")]
    pub uid_map: Option<String>,
    /// The same for groups
    #[arg(long, value_name = "INSIDE:OUTSIDE:COUNT,…")]
    pub gid_map: Option<String>,
    /// Keep owners and modes in this file, in the form of fakeroot's save files, so that they outlive the view
    #[arg(long, value_name = "FILE")]
    pub owners: Option<PathBuf>,
}

impl UserArgs {
    pub fn is_empty(&self) -> bool {
        !self.as_root && self.uid_map.is_none() && self.gid_map.is_none() && self.owners.is_none()
    }

    /// As arguments that read the same.
    pub fn to_words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        words.extend(self.as_root.then(|| "--as-root".into()));
        for (name, map) in [("--uid-map", &self.uid_map), ("--gid-map", &self.gid_map)] {
            words.extend(map.iter().flat_map(|map| [name.into(), map.into()]));
        }
        words.extend(self.owners.iter().flat_map(|file| ["--owners".into(), file.into()]));
        words
    }

    /// Becomes that user, with everything this process starts, which should have this added to its environment.
    pub fn apply(&self, root: Option<&Path>) -> Result<Environment, Failure> {
        if self.is_empty() {
            return Ok(Environment::new());
        }
        let (real_uid, real_gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let (uid, gid) = if self.as_root {
            (0, 0)
        } else {
            (seen(&self.uid_map, real_uid)?, seen(&self.gid_map, real_gid)?)
        };
        let state = self.owners.as_ref().map(std::path::absolute).transpose();
        let state = state.map_err(|e| Failure::new(format!("--owners: {}", io_text(&e))))?;
        client::order(&Request::Become {
            uid,
            gid,
            groups: vec![gid],
            files: Some(FileIds {
                uid_map: self.uid_map.clone(),
                gid_map: self.gid_map.clone(),
                state: state.map(|path| path.to_string_lossy().into_owned()),
            }),
        })?;
        Ok(if uid == 0 {
            roots_environment(root.is_some())
        } else {
            Environment::new()
        })
    }
}

type Environment = Vec<(&'static str, OsString)>;

/// Who a real user is by a map.
fn seen(map: &Option<String>, real: u32) -> Result<u32, Failure> {
    match map {
        Some(map) => {
            let map: fsmodules::ids::IdMap = map.parse().map_err(Failure::new)?;
            Ok(map.inside(real))
        }
        None => Ok(real),
    }
}

/// What root finds in its environment: the directories of system programs, and in a tree of its own a home there.
fn roots_environment(own_tree: bool) -> Environment {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for directory in ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    let mut settings = Environment::new();
    if let Ok(path) = std::env::join_paths(directories) {
        settings.push(("PATH", path));
    }
    if own_tree {
        settings.extend([
            ("HOME", "/root".into()),
            ("USER", "root".into()),
            ("LOGNAME", "root".into()),
        ]);
    }
    settings
}

/// Run a command as another user of this view, as su(1) does; anybody may become anybody here.
///
/// vusu root -c "chown 1000:1000 f"
#[derive(Args)]
#[command(override_usage = "vusu [USER] [-c COMMAND | -- CMD…]")]
pub struct Su {
    /// Give this command to the user's shell
    #[arg(short, long)]
    command: Option<String>,
    /// A name from the view's /etc/passwd, or a number
    #[arg(default_value = "root")]
    user: String,
    /// The command and its arguments; without one, the user's shell
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD",
        conflicts_with = "command"
    )]
    words: Vec<OsString>,
}

impl Su {
    pub fn run(self) -> Outcome {
        let user = User::find(&self.user)?;
        let (program, args): (OsString, Vec<OsString>) = match (&self.command, self.words.split_first()) {
            (Some(command), _) => (user.shell.clone().into(), vec!["-c".into(), command.into()]),
            (None, Some((program, args))) => (program.clone(), args.to_vec()),
            (None, None) => (user.shell.clone().into(), Vec::new()),
        };
        client::order(&Request::Become {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups()?,
            files: None,
        })?;
        let mut command = std::process::Command::new(&program);
        if user.uid == 0 {
            command.envs(roots_environment(false));
        }
        command.args(args).env("HOME", &user.home).env("SHELL", &user.shell);
        command.env("USER", &user.name).env("LOGNAME", &user.name);
        let error = command.exec();
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        Err(Failure::with(
            if missing { 127 } else { 126 },
            format!("cannot run {}: {}", program.to_string_lossy(), io_text(&error)),
        ))
    }
}

/// A line of passwd(5).
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

impl User {
    fn find(wanted: &str) -> Result<User, Failure> {
        let text = table("/etc/passwd")?;
        if let Some(user) = text
            .lines()
            .filter_map(User::parse)
            .find(|user| user.name == wanted || wanted.parse() == Ok(user.uid))
        {
            return Ok(user);
        }
        match wanted.parse() {
            Ok(uid) => Ok(User {
                name: wanted.into(),
                uid,
                gid: uid,
                home: "/".into(),
                shell: "/bin/sh".into(),
            }),
            Err(_) => Err(Failure::with(
                1,
                format!("no user `{wanted}` in this view's /etc/passwd"),
            )),
        }
    }

    fn parse(line: &str) -> Option<User> {
        let mut words = line.split(':');
        let (name, _, uid, gid) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (_, home, shell) = (words.next()?, words.next()?, words.next()?);
        Some(User {
            name: name.into(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.into(),
            shell: if shell.is_empty() { "/bin/sh" } else { shell }.into(),
        })
    }

    /// The groups of group(5) that list the user, and the user's own.
    fn groups(&self) -> Result<Vec<u32>, Failure> {
        let mut groups = vec![self.gid];
        for line in table("/etc/group")?.lines() {
            let words: Vec<&str> = line.split(':').collect();
            if let [_, _, gid, members] = words.as_slice()
                && members.split(',').any(|member| member == self.name)
                && let Ok(gid) = gid.parse()
            {
                groups.push(gid);
            }
        }
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }
}

/// A file that a small tree may lack.
fn table(path: &str) -> Result<String, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Failure::with(1, format!("{path}: {}", io_text(&e)))),
    }
}
