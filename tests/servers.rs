//! Servers that misbehave, die or take their time: their clients fare in a view as on the kernel.
//!
//! Each script runs `umvu-testfs` by itself and prints what its clients see. The kernel's side needs root and /dev/fuse;
//! elsewhere the scripts run in a view only, where they must come to their end.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Work, assert_same, has_kernel_fuse, stdout};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers")
}

/// The script's text, since an ordinary user may not be able to read the source tree.
fn source(name: &str) -> String {
    let read = |name: &str| std::fs::read_to_string(folder().join(format!("{name}.sh"))).unwrap();
    read("prelude") + &read(name)
}

fn limited(command: Command, program: &str, args: &[&str]) -> Output {
    let mut command = command;
    command.args(["-k", "5", "100", program]).args(args).output().unwrap()
}

fn in_view(name: &str) -> Output {
    let work = Work::new();
    limited(work.command("timeout"), "umvu", &["sh", "-c", &source(name)])
}

/// `None` where the kernel's FUSE cannot be used.
fn on_kernel(name: &str) -> Option<Output> {
    if !has_kernel_fuse(name) {
        return None;
    }
    let work = Work::new();
    // With a mount namespace of its own, nothing stays behind.
    let args = ["-m", "sh", "-c", &source(name)];
    Some(limited(work.as_tester("timeout"), "unshare", &args))
}

fn compare(name: &str) {
    let view = in_view(name);
    stdout(&view);
    if let Some(kernel) = on_kernel(name) {
        assert_same(&view, &kernel);
    }
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { compare(stringify!($name)); })*

        #[test]
        fn every_script_is_run() {
            let listed = [$(stringify!($name)),*, "prelude"];
            for entry in std::fs::read_dir(folder()).unwrap() {
                let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
                assert!(listed.contains(&name.as_str()), "{name}.sh is not listed");
            }
        }
    };
}

scripts![
    asked,
    backing,
    balance,
    death,
    ends,
    errors,
    fresh,
    handles,
    interrupts,
    kills,
    late,
    lost,
    mappings,
    notifications,
    polling,
    removed,
    requests,
    stopped,
    traps,
    unmapped,
    vast,
    watched
];
