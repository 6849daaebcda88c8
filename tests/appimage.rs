//! A static executable that mounts the image it carries by FUSE and starts its payload from there.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{Work, has_kernel_fuse, stdout, text};

/// Says where it runs, who started it and how, uses its file system, and ends with a status of its own.
const APP_RUN: &str = r#"#!/bin/sh
echo "${ARGV0##*/} with $#: $*"
[ "$0" = "$APPDIR/AppRun" ] && cd "$APPDIR" && pwd >&2
sed -n "s:.* $APPDIR .* - \([^ ]*\) .*:\1:p" /proc/self/mountinfo
usr/bin/echo from the image
usr/bin/cmp usr/share/text "$(dirname "$APPIMAGE")/text" && ls -R | sort
readlink /proc/$$/fd/1023 | sed "s:$APPDIR:APPDIR:"
echo x 2>/dev/null > new || echo read-only
exit 7
"#;

/// The executable, in the working directory; `None` where it cannot be built.
fn build(work: &Work) -> Option<PathBuf> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for folder in ["usr/bin", "usr/share"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("AppRun"), APP_RUN).unwrap();
    fs::set_permissions(root.join("AppRun"), fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["echo", "cmp"] {
        fs::copy(Path::new("/usr/bin").join(program), root.join("usr/bin").join(program)).unwrap();
    }
    let lines: String = (0..40_000).map(|n| format!("{n}\n")).collect();
    fs::write(root.join("usr/share/text"), &lines).unwrap();
    fs::write(work.path().join("text"), &lines).unwrap();

    let output = work.path().join("app");
    let script = format!("{}/fixtures/appimage/build", env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(script).args([root, &output]).status().unwrap();
    if status.code() == Some(77) {
        eprintln!("not tried, as the executable cannot be built here");
        return None;
    }
    assert!(status.success(), "{status}");
    Some(output)
}

/// What the payload printed; the mount and its directory must be gone.
fn payload(run: &Output) -> String {
    assert_eq!(
        run.status.code(),
        Some(7),
        "{}\n{}",
        text(&run.stdout),
        text(&run.stderr)
    );
    let directory = text(&run.stderr).trim_end().to_owned();
    assert!(directory.starts_with("/tmp/.mount_umvu"), "{directory}");
    let start = Instant::now();
    while Path::new(&directory).exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "{directory} stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    text(&run.stdout)
}

#[test]
fn starts_in_a_view_as_on_the_kernel() {
    let work = Work::new();
    let Some(app) = build(&work) else { return };
    let app = app.to_str().unwrap();
    let seen = payload(&work.umvu(&[app, "one", "two"]));
    assert!(seen.starts_with("app with 2: one two\nfuse.appimage\n"), "{seen}");
    assert!(seen.contains("\nfrom the image\n"), "{seen}");
    if has_kernel_fuse("appimage") {
        let output = Command::new(app).args(["one", "two"]).output().unwrap();
        assert_eq!(seen, payload(&output), "left: in the view; right: the kernel");
    }
}

/// From a shell in the view, twice at the same time. The servers unmount what they served, while the view lives on.
/// (The view shows the host's mounts too, such as the other test's on the kernel.)
#[test]
fn several_at_once() {
    let work = Work::new();
    let Some(app) = build(&work) else { return };
    let app = app.display();
    let output = work.sh(&format!(
        "{app} a >1 2>dir1 & {app} b >2 2>dir2; wait
         for dir in $(cat dir1 dir2); do while grep -q \" $dir \" /proc/mounts || [ -e $dir ]; do sleep 0.1; done; done
         cat 1 2 | grep with; cat dir1 dir2 | wc -l; grep -cFf dir1 -f dir2 /proc/mounts || true"
    ));
    assert_eq!(stdout(&output), "app with 1: a\napp with 1: b\n2\n0\n");
}
