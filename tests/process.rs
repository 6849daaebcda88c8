//! Processes, threads and signals in a view are what they are outside.
//!
//! Each program runs outside, in an empty view, and in a view from a directory on a mount; what it prints and how it
//! ends must agree. All three run as an ordinary user.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Work, stdout, text};

const ENGINES: [&str; 2] = ["ptrace", "auto"];

fn source(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn run(mut command: Command, args: &[&str]) -> Output {
    command.args(["-k", "5", "100"]).args(args).output().unwrap()
}

#[track_caller]
fn assert_same(what: &str, view: &Output, outside: &Output) {
    assert_eq!(
        text(&view.stdout),
        text(&outside.stdout),
        "{what}: {}",
        text(&view.stderr)
    );
    assert_eq!(view.status, outside.status, "{what}: {}", text(&view.stderr));
}

#[track_caller]
fn compare(interpreter: &str, name: &str) {
    let work = Work::new();
    let source = source(name);
    let program = [interpreter, "-c", &source];
    let outside = run(work.command("timeout"), &program);
    assert!(
        !text(&outside.stderr).contains("Traceback"),
        "{}",
        text(&outside.stderr)
    );
    for engine in ENGINES {
        let empty = run(
            work.command("timeout"),
            &[&["umvu", "--engine", engine, "--"], &program[..]].concat(),
        );
        assert_same(&format!("{engine}, nothing mounted"), &empty, &outside);
        let mount = format!(
            "type=fuse,program=umvu-memfs,source=memory,target={}",
            work.mountpoint().display()
        );
        let there = [
            "umvu",
            "--engine",
            engine,
            "--mount",
            &mount,
            "--",
            "env",
            "--chdir=mnt",
        ];
        let mounted = run(work.command("timeout"), &[&there, &program[..]].concat());
        assert_same(&format!("{engine}, on a mount"), &mounted, &outside);
    }
}

#[test]
fn children() {
    compare("python3", "children.py");
}

#[test]
fn paths() {
    compare("python3", "paths.py");
}

#[test]
fn threads() {
    compare("python3", "threads.py");
}

#[test]
fn signals() {
    compare("python3", "signals.py");
}

#[test]
fn interrupted() {
    compare("python3", "interrupted.py");
}

#[test]
fn jobs() {
    compare("bash", "jobs.sh");
}

#[test]
fn nothing_gets_around_the_filter() {
    let work = Work::new();
    for engine in ENGINES {
        let output = work.umvu(&["--engine", engine, "python3", "-c", &source("refused.py")]);
        assert_eq!(
            stdout(&output),
            "io_uring_setup ENOSYS\nx32 getpid ENOSYS\ni386 getpid True\n"
        );
    }
}

#[test]
fn keys_at_a_terminal() {
    let work = Work::new();
    let source = source("terminal.py");
    let program = ["python3", "-c", &source];
    let outside = run(work.command("timeout"), &program);
    assert!(outside.status.success(), "{}", text(&outside.stderr));
    for engine in ENGINES {
        let shell = ["umvu", "--engine", engine, "--"];
        let view = run(work.command("timeout"), &[&program[..], &shell].concat());
        assert_same(engine, &view, &outside);
    }
}

/// Builds a program that needs no libraries; `None`, saying why, where that cannot be done.
fn built(work: &Work, compiler: &[&str], name: &str, source: &str) -> Option<String> {
    std::fs::write(work.path().join(name), source).unwrap();
    let output = work.path().join("program").display().to_string();
    let mut command = work.command(compiler[0]);
    command
        .args(&compiler[1..])
        .args(["-o", &output, name])
        .env("GOFLAGS", "-buildvcs=false");
    let built = command.output();
    let why = match &built {
        Ok(built) if built.status.success() => return Some(output),
        Ok(built) => text(&built.stderr),
        Err(error) => error.to_string(),
    };
    eprintln!("{name}: not tried, as it cannot be built: {why}");
    None
}

#[test]
fn static_programs() {
    for (compiler, name) in [
        (&["gcc", "-static"][..], "static.c"),
        (&["gcc", "-static", "-pthread"], "leader.c"),
        (&["go", "build"], "routines.go"),
    ] {
        let work = Work::new();
        let Some(program) = built(&work, compiler, name, &source(name)) else {
            continue;
        };
        let outside = run(work.command("timeout"), &[&program, "."]);
        assert!(outside.status.success(), "{}", text(&outside.stderr));
        for engine in ENGINES {
            let mount = format!(
                "type=fuse,program=umvu-memfs,source=memory,target={}",
                work.mountpoint().display()
            );
            let view = run(
                work.command("timeout"),
                &["umvu", "--engine", engine, "--mount", &mount, "--", &program, "mnt"],
            );
            assert_same(&format!("{name}, {engine}"), &view, &outside);
        }
    }
}
