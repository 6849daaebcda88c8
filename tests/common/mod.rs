//! What all tests of the whole program need: umvu and the bundled file systems, run as an ordinary user.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

/// `nobody`, as whom everything runs if the tests are run by root.
const NOBODY: u32 = 65534;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Can a test be run on the kernel's FUSE as well? Says so if it cannot.
pub fn has_kernel_fuse(test: &str) -> bool {
    let usable = is_root() && fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !usable {
        eprintln!("{test}: not compared, as kernel FUSE needs root and /dev/fuse");
    }
    usable
}

/// What a script said in a view and on the kernel must be the same.
#[track_caller]
pub fn assert_same(view: &Output, kernel: &Output) {
    let (seen, told) = (text(&view.stderr), text(&kernel.stderr));
    assert_eq!(
        stdout(view),
        stdout(kernel),
        "left: in the view; right: the kernel; their stderr: {seen:?} and {told:?}"
    );
    assert_eq!(seen, told, "left: in the view; right: the kernel");
}

/// A directory with the programs, which every user can reach. It is there as long as somebody has it: what a `static`
/// owns would stay behind.
fn programs() -> Arc<TempDir> {
    static PROGRAMS: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut shared = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(programs) = shared.upgrade() {
        return programs;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_umvu")).parent().unwrap();
    for name in ["umvu", "umvu-memfs", "umvu-archivefs", "umvu-testfs"] {
        let (from, to) = (built.join(name), dir.path().join(name));
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .unwrap_or_else(|e| panic!("{name} is missing ({e}): run `cargo test --workspace`"));
    }
    let programs = Arc::new(dir);
    *shared = Arc::downgrade(&programs);
    programs
}

/// A working directory of the ordinary user, removed at the end.
pub struct Work {
    dir: TempDir,
    programs: Arc<TempDir>,
}

impl Work {
    pub fn new() -> Work {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        if is_root() {
            for path in [dir.path(), &dir.path().join("mnt")] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let programs = programs();
        Work { dir, programs }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.path().join("mnt")
    }

    /// A command of the ordinary user in this directory.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("LC_ALL", "C")
            .env(
                "PATH",
                format!(
                    "{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                    self.programs.path().display()
                ),
            )
            .envs(std::env::var("UMVU_ENGINE").map(|engine| ("UMVU_ENGINE", engine)))
            .stdin(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// As [`Work::command`], by the user who runs the tests.
    pub fn as_tester(&self, program: &str) -> Command {
        let mut command = self.command(program);
        let user = rustix::process::getuid().as_raw();
        command.uid(user).gid(rustix::process::getgid().as_raw());
        command
    }

    /// `umvu ARGS`, at most a minute long.
    pub fn umvu(&self, args: &[&str]) -> Output {
        let mut command = self.command("timeout");
        command.args(["-k", "5", "60", "umvu"]).args(args).output().unwrap()
    }

    /// `umvu sh -c SCRIPT`
    pub fn sh(&self, script: &str) -> Output {
        self.umvu(&["sh", "-c", script])
    }
}

/// A name for a view that no other run of the tests takes at the same time.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a run that succeeded.
#[track_caller]
pub fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// What the script prints for root, in a mount namespace of its own. `None` where that is not possible.
pub fn on_kernel(work: &Work, script: &str) -> Option<Output> {
    let possible = is_root()
        && Command::new("unshare")
            .args(["-m", "true"])
            .output()
            .is_ok_and(|o| o.status.success());
    if !possible {
        eprintln!("not compared, as mount namespaces need root");
        return None;
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .current_dir(work.path())
        .env("LC_ALL", "C");
    Some(command.output().unwrap())
}

/// Runs the script in a view and on the kernel; both must succeed and print the same. `WORK` in it is the last name of
/// the working directory's path.
#[track_caller]
pub fn compare(script: &str) -> String {
    let name = |work: &Work| work.path().file_name().unwrap().to_string_lossy().into_owned();
    let both = |work: &Work, output: &Output| {
        let (out, err) = (stdout(output), text(&output.stderr));
        (out.replace(&name(work), "WORK"), err.replace(&name(work), "WORK"))
    };
    let work = Work::new();
    let view = work.sh(&script.replace("WORK", &name(&work)));
    let (seen, errors) = both(&work, &view);
    assert!(!seen.is_empty());
    let work = Work::new();
    if let Some(kernel) = on_kernel(&work, &script.replace("WORK", &name(&work))) {
        let (out, err) = both(&work, &kernel);
        assert_eq!(seen, out, "left: in the view; right: the kernel");
        assert_eq!(errors, err, "left: in the view; right: the kernel");
    }
    seen
}

/// A process that ends with the test, however that ends.
pub struct Running(pub std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
