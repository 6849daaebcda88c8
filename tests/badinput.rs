//! What cannot be done is said in one line, with the right status, and leaves nothing behind.

mod common;

use std::process::Output;

use common::{Work, stdout, text, unique};

/// Runs the words after its first argument under a seccomp filter that answers the calls of these numbers with EPERM, as
/// a host with a strict security profile does.
const FORBID: &str = r#"
import ctypes, os, struct, sys
numbers = [int(n) for n in sys.argv[1].split(",")]
code = [(0x20, 0, 0, 0)]
code += [(0x15, len(numbers) - i, 0, n) for i, n in enumerate(numbers)]
code += [(0x06, 0, 0, 0x7fff0000), (0x06, 0, 0, 0x00050001)]
code = b"".join(struct.pack("HBBI", *line) for line in code)
text = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(text)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[2], sys.argv[2:])
"#;

#[track_caller]
fn refused(output: &Output, status: i32, words: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.lines().count() == 1 && said.contains(words), "{said}");
    assert_eq!(text(&output.stdout), "");
}

fn nothing_is_left(work: &Work) {
    let names: Vec<_> = std::fs::read_dir(work.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["mnt"]);
    assert!(std::fs::read_dir(work.mountpoint()).unwrap().next().is_none());
}

#[test]
fn a_host_that_forbids_ptrace_or_seccomp() {
    let work = Work::new();
    let forbidding = |calls: String| {
        let mut command = work.command("python3");
        command.args(["-c", FORBID, &calls, "umvu", "true"]).output().unwrap()
    };
    refused(&forbidding(libc::SYS_ptrace.to_string()), 125, "does not allow ptrace");
    refused(
        &forbidding(libc::SYS_seccomp.to_string()),
        125,
        "does not allow seccomp filters",
    );
    let both = format!("{},{}", libc::SYS_seccomp, libc::SYS_ptrace);
    refused(&forbidding(both), 125, "does not allow");
    nothing_is_left(&work);
}

#[test]
fn a_host_without_access_to_others_memory() {
    let work = Work::new();
    let calls = format!(
        "{},{},{}",
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd
    );
    let script = "vumount -t fuse umvu-memfs x mnt && echo through /proc/TID/mem > mnt/f && cat mnt/f";
    let mut command = work.command("python3");
    let output = command
        .args(["-c", FORBID, &calls, "umvu", "sh", "-c", script])
        .output();
    assert_eq!(stdout(&output.unwrap()), "through /proc/TID/mem\n");
}

#[test]
fn mounts_that_cannot_be() {
    let work = Work::new();
    for (words, status, said) in [
        (
            "-t fuse nosuchprogram x mnt",
            127,
            "cannot run nosuchprogram: No such file",
        ),
        (
            "-t fuse /etc/passwd x mnt",
            126,
            "cannot run /etc/passwd: Permission denied",
        ),
        ("-t fuse false x mnt", 1, "false did not mount"),
        (
            "-t fuse umvu-memfs x missing",
            1,
            "mountpoint missing: No such file or directory; create it first",
        ),
        ("-t fuse umvu-memfs x", 1, "-t fuse takes PROGRAM SOURCE MOUNTPOINT"),
        ("-t nfs x mnt", 1, "type `nfs` is not known"),
        ("--bind x mnt", 1, "cannot bind x"),
        ("--nonsense", 125, "--nonsense"),
        ("", 125, "required"),
    ] {
        refused(&work.sh(&format!("vumount {words}")), status, said);
        let words: Vec<&str> = words.split_whitespace().collect();
        let outside = work.umvu(&[&["vumount"], words.as_slice()].concat());
        refused(&outside, status, said);
    }
    nothing_is_left(&work);
}

#[test]
fn a_program_that_mounts_nothing_is_ended() {
    let work = Work::new();
    let script = "printf '#!/bin/sh\\nkill -9 $$\\n' > killed; printf '#!/bin/sh\\n:\\n' > idle; chmod +x killed idle; \
                  vumount -t fuse umvu-memfs x mnt; echo kept > mnt/f; \
                  vumount -t fuse ./killed x mnt; vumount -t fuse ./idle x mnt; cat mnt/f";
    let output = work.sh(script);
    assert_eq!(stdout(&output), "kept\n");
    let said = text(&output.stderr);
    let said: Vec<&str> = said.lines().collect();
    assert!(
        said.len() == 2 && said[0].contains("killed by signal 9") && said[1].contains("left nothing mounted"),
        "{said:?}"
    );
}

#[test]
fn options_of_the_command_line() {
    let work = Work::new();
    let mount = |words: &str| work.umvu(&["--mount", words, "true"]);
    for (words, said) in [
        ("type=fuse.umvu-memfs,source=x", "target=DIRECTORY"),
        ("type=fuse,source=x,target=mnt", "needs program="),
        ("type=bind,target=mnt", "needs source="),
        ("target=mnt", "needs a type"),
        (
            "type=fuse.umvu-memfs,source=x,target=mnt,colour=red",
            "`colour` is not known",
        ),
        ("type=fuse.umvu-memfs,source=x,target=mnt,ro=maybe", "true or false"),
        ("type=fuse.umvu-memfs,source=x,target=missing", "mountpoint missing"),
        (
            "type=fuse.nosuchprogram,source=x,target=mnt",
            "cannot run nosuchprogram",
        ),
    ] {
        refused(&mount(words), 125, said);
    }
    refused(&work.umvu(&["--grace", "99999999999", "true"]), 125, "--grace");
    refused(
        &work.umvu(&["--name", "two words", "true"]),
        125,
        "cannot be a view's name",
    );
    refused(&work.umvu(&["--trace=everything", "true"]), 125, "`everything`");
    refused(
        &work.umvu(&["--trace=call:/nonexistent/f", "true"]),
        125,
        "No such file or directory",
    );
    nothing_is_left(&work);
}

#[test]
fn the_second_of_two_mounts_fails() {
    let work = Work::new();
    let output = work.umvu(&[
        "--mount",
        "type=fuse.umvu-memfs,source=x,target=mnt",
        "--mount",
        "type=fuse.false,source=x,target=mnt",
        "touch",
        "started",
    ]);
    refused(&output, 125, "false did not mount");
    nothing_is_left(&work);
}

#[test]
fn views_do_not_nest() {
    let work = Work::new();
    let outer = unique("outer");
    refused(
        &work.umvu(&["--name", &outer, "umvu", "true"]),
        125,
        &format!("this is view {outer} already"),
    );
}

#[test]
fn small_limits_do_not_end_a_view() {
    let work = Work::new();
    let script = "vumount -t fuse umvu-memfs x mnt && echo small > mnt/f && cat mnt/f && ulimit -n; \
                  head -c 100000 /dev/zero > mnt/big && echo too much; true";
    let limited = |limit: &str| {
        let mut command = work.command("sh");
        let script = format!("ulimit {limit}; exec umvu sh -c '{script}'");
        command.args(["-c", &script]).output().unwrap()
    };
    assert_eq!(stdout(&limited("-n 40")), "small\n40\ntoo much\n");
    let seen = stdout(&limited("-f 1"));
    assert!(seen.starts_with("small\n"), "{seen}");
}

#[test]
fn a_huge_message_to_a_device_takes_no_memory() {
    let work = Work::new();
    let program = "import mmap, os\n\
                   try: os.write(os.open('/dev/fuse', os.O_RDWR), mmap.mmap(-1, 1 << 30))\n\
                   except OSError as error: print(error.strerror)\n\
                   status = open(f'/proc/{os.getppid()}/status').read()\n\
                   print(int(status.split('VmHWM:')[1].split()[0]) < 100000)";
    let output = work.umvu(&["python3", "-c", program]);
    assert_eq!(stdout(&output), "Operation not permitted\nTrue\n");
}

#[test]
fn a_mountpoint_behind_a_closed_door() {
    let work = Work::new();
    let output = work.sh("mkdir -p closed/m && chmod 0 closed && vumount -t fuse umvu-memfs x closed/m");
    refused(&output, 1, "mountpoint closed/m: Permission denied");
}
