//! umvu's own behaviour: exit statuses, commands, errors, and what remains when things end badly.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Running, Work, stdout, text, unique};

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
        "umvu-memfs memory mnt & server=$!; until mountpoint -q mnt; do sleep 0.05; done; kill -STOP $server; sleep 0.2; \
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
    .stdout(Stdio::piped())
    // A process may have a call refused before it is ended, and say so.
    .stderr(Stdio::null());
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
fn a_request_to_end_counts_at_any_time() {
    let work = Work::new();
    for n in 0..40 {
        let mut umvu = Running(work.command("umvu").args(["sleep", "1000"]).spawn().unwrap());
        std::thread::sleep(Duration::from_micros(n * 400));
        Command::new("kill").arg(umvu.0.id().to_string()).status().unwrap();
        let start = Instant::now();
        while umvu.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(15), "asked after {n} * 0.4 ms");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
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

#[test]
fn a_view_has_a_name_that_can_be_changed() {
    let work = Work::new();
    let (first, second) = (unique("first"), unique("second"));
    let script = format!(
        "vuname; vuname {second}; vuname; umvu ps {second} | head -1 | cut -d' ' -f 2; \
         umvu ps {first} 2>&1; vuname 'not a word' 2>&1; true"
    );
    let seen = stdout(&work.umvu(&["--name", &first, "sh", "-c", &script]));
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..3], [&first, &second, &second]);
    assert!(lines[3].contains(&format!("no view is called `{first}`")), "{seen}");
    assert!(lines[4].contains("cannot be a view's name"), "{seen}");
}

#[test]
fn a_name_that_is_taken() {
    let work = Work::new();
    let name = unique("taken");
    let view = work.command("umvu").args(["--name", &name, "sleep", "1000"]).spawn();
    let mut view = Running(view.unwrap());
    soon("the view", || work.umvu(&["ps", &name]).status.success());
    let second = work.umvu(&["--name", &name, "true"]);
    assert_eq!(second.status.code(), Some(125));
    assert!(text(&second.stderr).contains("running already"), "{second:?}");
    // However the first ends, its name is free again.
    view.0.kill().unwrap();
    view.0.wait().unwrap();
    assert!(work.umvu(&["--name", &name, "true"]).status.success());
}

#[test]
fn modules_are_listed_and_disabled() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "vu_lsmod | grep -c '^fuse  *on'; vu_rmmod fuse; vu_lsmod | grep -c '^fuse  *off'; \
         vumount -t fuse umvu-memfs x mnt 2>/dev/null || echo refused; \
         vu_insmod fuse; vumount -t fuse umvu-memfs x mnt && mountpoint mnt; vu_rmmod nosuchmodule 2>&1; true",
    ));
    assert!(
        seen.starts_with("1\n1\nrefused\nmnt is a mountpoint\n") && seen.contains("no module `nosuchmodule`"),
        "{seen}"
    );
}

#[test]
fn options_and_values_with_commas() {
    let work = Work::new();
    let seen = stdout(
        &work.sh("vumount -t fuse.umvu-memfs 'a,b c' mnt -r -o allow_other,rw && \
         grep '^a,b\\\\040c ' /proc/mounts | grep -c 'ro,.*allow_other' && touch mnt/f 2>&1 | sed 's/.*: //'"),
    );
    assert_eq!(seen, "1\nRead-only file system\n");
    let mount = r#"type=fuse.umvu-memfs,"source=a,b",dst=mnt,"o=allow_other,default_permissions",ro"#;
    let output = work.umvu(&["--mount", mount, "grep", "-c", "^a,b .*ro.*allow_other", "/proc/mounts"]);
    assert_eq!(stdout(&output), "1\n");
}

#[test]
fn several_mounts_in_their_order() {
    let work = Work::new();
    let output = work.umvu(&[
        "--mount",
        "type=fuse.umvu-memfs,source=lower,target=mnt",
        "--mount",
        "type=fuse.umvu-memfs,source=upper,target=mnt",
        "--mount",
        "type=bind,source=/etc,target=mnt,readonly",
        "sh",
        "-c",
        "cmp mnt/passwd /etc/passwd && grep ' '$PWD/mnt' ' /proc/mounts | head -2 | cut -d' ' -f1 && vuumount mnt && ! ls mnt/passwd",
    ]);
    assert_eq!(stdout(&output), "lower\nupper\n");
}

#[test]
fn what_is_left_mounted_is_unmounted_in_the_servers_own_time() {
    let work = Work::new();
    let output = work.sh("vumount -t fuse umvu-memfs x mnt -o last_words=$PWD/note; echo data > mnt/f; exit 7");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let note = std::fs::read_to_string(work.path().join("note")).unwrap();
    assert_eq!(note, "ended in its own time\n");
}

#[test]
fn a_served_mount_ends_with_its_program_or_a_signal() {
    let work = Work::new();
    let serve = || {
        // Whoever runs these tests in the background of a shell has SIGINT ignored.
        let mut command = work.command("env");
        command.args([
            "--default-signal=INT",
            "umvu",
            "vumount",
            "-t",
            "fuse",
            "umvu-memfs",
            "x",
            "mnt",
        ]);
        let mut view = Running(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(view.0.stderr.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("is served in view"), "{line}");
        (view, lines)
    };
    let (mut view, mut lines) = serve();
    let name = view.0.id().to_string();
    let kill = "kill -9 $(umvu ps $(vuname) | awk '$2 ~ /^umvu-memfs/ { print $1 }')";
    stdout(&work.umvu(&["exec", &name, "sh", "-c", kill]));
    assert_eq!(view.0.wait().unwrap().code(), Some(1));
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("killed by signal 9"), "{line}");

    let (mut view, _lines) = serve();
    Command::new("kill")
        .args(["-INT", &view.0.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(view.0.wait().unwrap().code(), Some(130));
}

#[test]
fn a_joined_command_starts_where_it_is_called() {
    let work = Work::new();
    let name = unique("with-directory");
    let mut view = work.command("umvu");
    view.args(["--name", &name, "sh", "-c"]);
    let mut view = Running(
        view.arg("vumount -t fuse umvu-memfs x mnt; mkdir mnt/inside; exec sleep 1000")
            .spawn()
            .unwrap(),
    );
    let join = |at: &std::path::Path, words: &[&str]| {
        let mut command = work.command("umvu");
        command.args(["exec"]).args(words).current_dir(at).output().unwrap()
    };
    let here = work.path();
    soon("the mount", || {
        join(here, &[&name, "test", "-d", "mnt/inside"]).status.success()
    });
    // The directory under the mount is another one than the mount that the view has there.
    assert_eq!(stdout(&join(&work.mountpoint(), &[&name, "ls"])), "inside\n");
    let shown = stdout(&join(here, &["-w", "mnt/inside", &name, "pwd"]));
    assert_eq!(shown.trim_end(), work.mountpoint().join("inside").to_str().unwrap());
    let failed = join(here, &["-w", "missing", &name, "pwd"]);
    assert_eq!(failed.status.code(), Some(125));
    assert!(text(&failed.stderr).contains("cannot change to missing"), "{failed:?}");
    for (words, status) in [([&name, "nosuchcommand"], 127), ([&name, "/etc/passwd"], 126)] {
        assert_eq!(join(here, &words).status.code(), Some(status));
    }
    view.0.kill().unwrap();
    view.0.wait().unwrap();
}

#[test]
fn ps_lists_views_whoever_the_view_makes_one() {
    let work = Work::new();
    let script = "umvu ps | grep -c \"^view $(vuname) \"; vusu 1000 -c 'umvu ps' | grep -c \"^view $(vuname) \"";
    assert_eq!(stdout(&work.umvu(&["--as-root", "sh", "-c", script])), "1\n1\n");
}

#[test]
fn ps_tells_what_processes_wait_in() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "umvu-memfs memory mnt & server=$!; until mountpoint -q mnt; do sleep 0.05; done; kill -STOP $server; sleep 0.2; \
         cat mnt/file & sleep 0.5; umvu ps $(vuname); kill -CONT $server; wait $!; true",
    ));
    assert!(
        seen.contains("cat, waits in openat(AT_FDCWD, \"mnt/file\", O_RDONLY"),
        "{seen}"
    );
    assert!(seen.contains("memory on ") && seen.contains("type fuse "), "{seen}");
}

#[test]
fn the_trace_is_switched_while_the_view_runs() {
    let work = Work::new();
    stdout(&work.sh(
        "vumount -t fuse umvu-memfs x mnt; vudebug call,fuse -o trace; echo hello > mnt/f; cat mnt/f; vudebug off; ls mnt; \
         vudebug nonsense && exit 1; mkfifo pipe; vudebug call -o pipe && exit 2; true",
    ));
    let trace = std::fs::read_to_string(work.path().join("trace")).unwrap();
    let has = |words: &[&str]| trace.lines().any(|line| words.iter().all(|word| line.contains(word)));
    for words in [
        &[
            "sh] openat(AT_FDCWD, \"mnt/f\", O_WRONLY|O_CREAT|O_TRUNC, 0666) = ",
            " fuse:/",
            "/mnt  ",
            "CREATE",
            "us",
        ][..],
        &["sh] write(1, \"hello\\n\", 6) = 6  fuse:/", "WRITE", "us"],
        &["cat] openat(AT_FDCWD, \"mnt/f\", O_RDONLY) = ", "OPEN", "us"],
        &["cat] read(", ", \"hello\\n\", ", ") = 6  fuse:/"],
        &["fuser-0] read(768, ", "device:/dev/fuse"],
    ] {
        assert!(has(words), "{words:?} in\n{trace}");
    }
    assert!(!has(&["ls] "]), "{trace}");
}

/// Test suites look for the set-user-id bit.
#[test]
fn umvus_own_fusermount_looks_like_the_hosts() {
    let work = Work::new();
    for name in ["fusermount", "fusermount3"] {
        let script = format!(
            "program=$(command -v {name}) && stat -c '%A %s' $program && python3 -c \"import os; print(os.stat('$program').st_mode)\""
        );
        let outside = work.command("sh").args(["-c", &script]).output().unwrap();
        if outside.status.success() {
            assert_eq!(stdout(&work.sh(&script)), stdout(&outside));
        }
    }
}

/// Wherever in PATH it is, what relies on being set-user-id would fail.
#[test]
fn umvus_own_fusermount_stands_for_each_that_is_set_user_id() {
    let work = Work::new();
    let run = "mkdir bin && cp /bin/echo bin/fusermount3 && chmod 4755 bin/fusermount3 && PATH=$PWD/bin:$PATH && \
               umvu sh -c 'fusermount3 -V; $PWD/bin/fusermount3 -V' && chmod 755 bin/fusermount3 && umvu fusermount3 -V";
    let output = work.command("sh").args(["-c", run]).output().unwrap();
    let seen = stdout(&output);
    let lines: Vec<&str> = seen.lines().collect();
    assert!(
        lines.len() == 3 && lines[..2].iter().all(|line| line.contains("umvu")) && lines[2] == "-V",
        "{seen}"
    );
}

#[test]
fn umvus_own_fusermount_unmounts_what_a_dead_server_leaves() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "fusermount3 -V; mounted() { grep -q \" $PWD/mnt \" /proc/mounts; }; \
         umvu-memfs -o auto_unmount,allow_other x mnt & until mountpoint -q mnt; do sleep 0.05; done; ls mnt; \
         kill -9 $!; wait $! 2>/dev/null; for i in $(seq 100); do mounted || break; sleep 0.1; done; \
         grep -c $PWD/mnt /proc/mounts; \
         out=$(umvu-memfs -o auto_unmount,allow_other x mnt & until mountpoint -q mnt; do sleep 0.05; done; kill -9 $!); echo \"<$out>\"; \
         while mounted; do sleep 0.05; done; \
         umvu-memfs x mnt & until mountpoint -q mnt; do sleep 0.05; done; fusermount3 -u mnt && wait $! && ls mnt",
    ));
    let lines: Vec<&str> = seen.lines().collect();
    assert!(lines[0].contains("umvu") && lines[1..] == ["0", "<>"], "{seen}");
}

/// What a person does at a pseudo-terminal.
fn at_a_terminal(script: &str, how: &str) {
    let work = Work::new();
    let script = [include_str!("terminal/prelude.py"), script].concat();
    let mut command = work.command("timeout");
    let output = command.args(["-k", "5", "120", "python3", "-c", &script, how]).output();
    assert_eq!(stdout(&output.unwrap()), "all seen\n");
}

/// Window size, Ctrl-C, Ctrl-Z and fg, the end of input, job control.
const VIEWS: &str = include_str!("terminal/views.py");

#[test]
fn a_view_has_the_terminal() {
    at_a_terminal(VIEWS, "run");
}

#[test]
fn a_joined_command_has_its_own_terminal() {
    at_a_terminal(VIEWS, "join");
}

#[test]
fn a_program_that_mounts_has_the_terminal_until_then() {
    at_a_terminal(include_str!("terminal/mounting.py"), "");
}

#[test]
fn who_serves_has_time_to_end_and_others_are_not_waited_for() {
    let work = Work::new();
    let start = Instant::now();
    let output = work.sh("vumount -t fuse umvu-memfs x mnt -o last_words=$PWD/note; sleep 1000 & vuumount mnt");
    assert!(output.status.success(), "{output:?}");
    // The server is unmounted already when the command ends, and then it ends within its time, not the sleeper's.
    assert!(work.path().join("note").exists());
    assert!(start.elapsed() < Duration::from_secs(8), "nobody waits for the sleeper");
}
