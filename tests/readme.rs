//! What the README tells to type works as it stands.

mod common;

use common::{Work, stdout};

const README: &str = include_str!("../README.md");

/// The shell's lines in the README that contain these words.
fn shell_lines(words: &str) -> Vec<&'static str> {
    let blocks = README.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
    lines.filter(|line| line.contains(words)).collect()
}

#[test]
fn the_first_command() {
    let lines = shell_lines("cargo build --release");
    let [command] = lines.as_slice() else {
        panic!("one line builds and mounts: {lines:?}");
    };
    // The programs are built already, and in PATH.
    let (built, mounts) = command.split_once(" && PATH=\"$PWD/target/release:$PATH\" ").unwrap();
    assert_eq!(built, "cargo build --release");
    let work = Work::new();
    stdout(&work.command("mkdir").arg("target").output().unwrap());
    let output = work.command("sh").args(["-c", mounts]).output().unwrap();
    let seen = stdout(&output);
    assert!(seen.contains(" file\n") && seen.contains("memory "), "{seen}");
    let left = std::fs::read_dir(work.path().join("target/mnt")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn one_command_runs_all_tests_and_ci_runs_it() {
    assert_eq!(shell_lines("cargo test"), ["cargo test --workspace"]);
    assert!(include_str!("../scripts/check").contains("cargo test --workspace"));
    assert!(include_str!("../.ci/run").contains("scripts/check"));
}
