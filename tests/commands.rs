//! umvu's own behaviour: exit statuses, commands, errors, and what remains when things end badly.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Running, Work, stdout, text};

fn stderr_lines(output: &std::process::Output) -> Vec<String> {
    text(&output.stderr).lines().map(str::to_owned).collect()
}

/// Is a process still there, other than as a zombie that its parent has not collected?
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[track_caller]
fn soon(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(15), "{what} does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_status_is_the_commands() {
    let work = Work::new();
    for (script, status) in [
        ("true", 0),
        ("exit 3", 3),
        ("kill -9 $$", 137),
        ("nosuchcommand 2>/dev/null", 127),
    ] {
        assert_eq!(work.sh(script).status.code(), Some(status), "{script}");
    }
    assert_eq!(work.umvu(&["nosuchcommand"]).status.code(), Some(127));
    assert_eq!(work.umvu(&["/etc/passwd"]).status.code(), Some(126));
    assert_eq!(work.umvu(&["--nosuchoption", "true"]).status.code(), Some(125));
    assert_eq!(work.umvu(&[]).status.code(), Some(125));
}

#[test]
fn programs_behave_as_outside() {
    let work = Work::new();
    let script = "trap 'echo got' USR1; kill -USR1 $$; (sleep 0.1; echo late) & wait; echo a | tr a b; \
                  python3 -c 'import threading as t; l=[t.Thread(target=print, args=(i,)) for i in range(3)]; [(x.start(), x.join()) for x in l]'; \
                  ulimit -n; umask; pwd";
    let outside = work.command("sh").args(["-c", script]).output().unwrap();
    assert_eq!(stdout(&work.sh(script)), stdout(&outside));
}

#[test]
fn a_mount_is_seen_by_everybody_in_the_view_and_nobody_else() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "vumount -t fuse umvu-memfs memory mnt && echo hello > mnt/f && cat mnt/f && \
         mountpoint -q mnt && findmnt -rno FSTYPE,SOURCE mnt && grep -c ^memory /proc/mounts && df mnt | wc -l && \
         stat -f -c %T mnt && vuumount mnt && ls mnt | wc -l && ! mountpoint -q mnt",
    ));
    assert_eq!(seen, "hello\nfuse memory\n1\n2\nfuseblk\n0\n");
    assert!(std::fs::read_dir(work.mountpoint()).unwrap().next().is_none());
}

#[test]
fn mounts_of_the_command_line_and_an_archive() {
    let work = Work::new();
    stdout(
        &work
            .command("tar")
            .args(["cf", "a.tar", "-C", "/etc", "passwd"])
            .output()
            .unwrap(),
    );
    let mount = format!(
        "type=fuse,program=umvu-archivefs,source={0}/a.tar,target={0}/mnt",
        work.path().display()
    );
    let output = work.umvu(&["--mount", &mount, "--", "cmp", "mnt/passwd", "/etc/passwd"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn one_line_says_what_is_wrong() {
    let work = Work::new();
    for (script, words) in [
        ("vumount -t fuse nosuchprogram x mnt", "nosuchprogram"),
        ("vumount -t fuse umvu-memfs x nomountpoint", "nomountpoint"),
        ("vumount -t fuse false x mnt", "mnt"),
        ("vuumount mnt", "mnt"),
        ("umvu exec noview true", "noview"),
    ] {
        let output = work.sh(script);
        assert!(!output.status.success(), "{script}");
        let lines = stderr_lines(&output);
        assert!(lines.len() == 1 && lines[0].contains(words), "{script}: {lines:?}");
    }
    let output = work.umvu(&[
        "--mount",
        "type=fuse,program=umvu-archivefs,source=/etc/passwd,target=mnt",
        "true",
    ]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("neither a zip file nor"),
        "the program's own error is shown: {output:?}"
    );
}

#[test]
fn a_killed_server_means_enotconn_and_never_a_hang() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "umvu-memfs memory mnt & until mountpoint -q mnt; do sleep 0.05; done; exec 3> mnt/f; kill -9 $!; wait $! 2>/dev/null; \
         ls mnt 2>&1 | sed 's/.*: //'; echo x 2>/dev/null >&3 || echo refused; \
         grep -c ^memory /proc/mounts; exec 3>&-; umount mnt || vuumount mnt; ls mnt | wc -l; \
         umvu-memfs again mnt & until mountpoint -q mnt; do sleep 0.05; done; echo y > mnt/f; cat mnt/f",
    ));
    assert_eq!(seen, "Transport endpoint is not connected\nrefused\n1\n0\ny\n");
}

#[test]
fn a_stopped_server_can_be_waited_for_or_left() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "umvu-memfs memory mnt & server=$!; until mountpoint -q mnt; do sleep 0.05; done; kill -STOP $server; \
         timeout -s KILL 1 ls mnt/x; echo $?; timeout -s INT 1 ls mnt/y; echo $?; \
         ls mnt & sleep 0.3; kill -CONT $server; wait $!; echo $?",
    ));
    assert!(seen.starts_with("137\n") && seen.ends_with("0\n"), "{seen}");
}

#[test]
fn a_busy_mount_stays_unless_it_is_detached() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "vumount -t fuse umvu-memfs memory mnt; cd mnt; vuumount \"$OLDPWD/mnt\" 2>/dev/null; echo $?; \
         echo x > f; exec 3< f; vuumount -l \"$OLDPWD/mnt\"; cat <&3; ls; ls \"$OLDPWD/mnt\" | wc -l",
    ));
    assert_eq!(seen, "1\nx\nf\n0\n");
}

#[test]
fn a_second_terminal_joins_a_view() {
    let work = Work::new();
    let mut view = work.command("umvu");
    view.args(["vumount", "-t", "fuse", "umvu-memfs", "memory", "mnt"])
        .stderr(Stdio::piped());
    let mut view = Running(view.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(view.0.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let name = view.0.id().to_string();
    assert!(line.contains(&name), "{line}");
    let join = |args: &[&str]| work.umvu(&[&["exec", &name], args].concat());
    soon("the mount", || join(&["mountpoint", "-q", "mnt"]).status.success());
    assert_eq!(
        stdout(&join(&["sh", "-c", "echo joined > mnt/f; cat mnt/f"])),
        "joined\n"
    );
    assert_eq!(join(&["sh", "-c", "exit 9"]).status.code(), Some(9));
    let listed = stdout(&work.umvu(&["ps"]));
    assert!(
        listed.contains(&name) && listed.contains("type fuse ") && listed.contains("umvu-memfs"),
        "{listed}"
    );
    stdout(&join(&["vuumount", "mnt"]));
    assert!(view.0.wait().unwrap().success());
}

#[test]
fn nothing_survives_umvu() {
    let work = Work::new();
    let mut umvu = work.command("umvu");
    umvu.args([
        "sh",
        "-c",
        "umvu-memfs memory mnt & setsid sleep 1000 & echo $$ $!; wait",
    ])
    .stdout(Stdio::piped());
    let mut umvu = Running(umvu.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(umvu.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 2 && pids.iter().all(|&pid| runs(pid)), "{line}");
    umvu.0.kill().unwrap();
    umvu.0.wait().unwrap();
    soon("the end of all", || !pids.iter().any(|&pid| runs(pid)));
    let left: Vec<_> = std::fs::read_dir(work.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["mnt"]);
}

#[test]
fn a_request_to_end_reaches_the_command() {
    let work = Work::new();
    let mut umvu = work.command("umvu");
    umvu.args([
        "sh",
        "-c",
        "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.1; done",
    ])
    .stdout(Stdio::piped());
    let mut umvu = Running(umvu.spawn().unwrap());
    let mut output = BufReader::new(umvu.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    Command::new("kill").arg(umvu.0.id().to_string()).status().unwrap();
    assert_eq!(umvu.0.wait().unwrap().code(), Some(5));
    line.clear();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "asked\n");
}

#[test]
fn the_trace_names_call_module_and_requests() {
    let work = Work::new();
    let trace = work.path().join("trace");
    let output = work.umvu(&[
        &format!("--trace=call,fuse:{}", trace.display()),
        "sh",
        "-c",
        "vumount -t fuse umvu-memfs memory mnt; echo x > mnt/f; cat mnt/f",
    ]);
    assert_eq!(stdout(&output), "x\n");
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(
        trace
            .lines()
            .any(|line| line.contains("openat") && line.contains("CREATE") && line.contains("us")),
        "{trace}"
    );
}

#[test]
fn without_tmp_and_with_a_full_disk() {
    let work = Work::new();
    let mut command = work.command("umvu");
    let script = "vumount -t fuse umvu-memfs memory mnt; echo x > mnt/f; cat mnt/f";
    command
        .env("TMPDIR", "/nonexistent")
        .env("HOME", "/nonexistent")
        .args(["sh", "-c", script]);
    assert_eq!(stdout(&command.output().unwrap()), "x\n");
    let full = work.sh("vumount -t fuse umvu-memfs memory mnt; echo x > mnt/f; cat mnt/f > /dev/full");
    assert!(
        !full.status.success() && text(&full.stderr).contains("No space left"),
        "{full:?}"
    );
}
