//! The agent decides nothing wrong: a process that has one sees what is mounted, moved and changed like all others.

mod common;

use common::{Work, stdout};

/// What follows runs in a process that has made enough calls on paths to have an agent.
const WARM: &str = r#"
import os, sys
def forms(name):
    top = os.open(".", os.O_RDONLY)
    there = os.path.abspath(name)
    found = []
    for path, where in ((name, None), (there, None), (name, top), ("./" + name, None), (name + "/../" + name, None)):
        try:
            os.stat(path, dir_fd=where)
            os.close(os.open(path, os.O_RDONLY, dir_fd=where))
            found.append(os.access(path, os.R_OK, dir_fd=where))
        except OSError as error:
            found.append(error.errno)
    os.close(top)
    return found
for _ in range(30):
    forms("x"), forms("mnt"), forms("mnt/hello"), forms("way/hello")
    os.path.islink("way") and os.readlink("way"), os.fstat(1), os.stat("/usr/bin"), os.lstat("/bin")
def agents():
    return sum(line.split()[1:] == ["r-xp", "00000000", "00:00", "0"] for line in open("/proc/self/maps"))
def sh(line):
    if os.system(line): sys.exit(line)
"#;

#[track_caller]
fn says(options: &[&str], script: &str, expected: &str) {
    let work = Work::new();
    let script = format!("{WARM}{script}");
    let output = work.umvu(&[options, &["--", "python3", "-c", &script]].concat());
    assert_eq!(stdout(&output), expected);
}

#[test]
fn comes_where_it_is_worthwhile() {
    says(&[], "print(agents())", "1\n");
    says(&["--engine", "ptrace"], "print(agents())", "1\n");
    says(&["--no-agent"], "print(agents())", "0\n");
    let fresh =
        "print(os.execvp('python3', ['python3', '-c', 'print(open(\"/proc/self/maps\").read().count(\"heap\"))']))";
    says(&[], fresh, "1\n");
}

#[test]
fn spares_threads_too() {
    // None of these calls has been made before there are threads. Each that is caught makes umvu wait once.
    let script = r#"
import threading
umvu = os.getppid()
def waits():
    status = open(f"/proc/{umvu}/status").read().split()
    return int(status[status.index("voluntary_ctxt_switches:") + 1])
def work():
    before = waits()
    for _ in range(2000): os.mkdir("x"), os.rmdir("x"), os.chmod("mnt", 0o755)
    print(waits() - before < 2000)
thread = threading.Thread(target=work)
thread.start(), thread.join()
"#;
    says(&[], script, "True\n");
}

#[test]
fn sees_what_is_mounted_later() {
    let script = r#"
os.symlink("mnt", "way")
sh("vumount -t fuse umvu-memfs memory mnt && echo hello >mnt/hello && mkdir mnt/mnt")
print(forms("mnt/hello"), forms("way/hello"))
os.chdir("mnt")
print(forms("hello"), forms("../mnt/hello"), forms("../way/hello"), forms("mnt"))
os.chdir("..")
top = os.open("mnt", os.O_RDONLY)
print(os.stat("hello", dir_fd=top).st_size, os.fstat(top).st_dev == os.stat("mnt").st_dev)
os.close(top)
sh("umount mnt")
print(forms("mnt/hello"), forms("way/hello"), agents())
"#;
    let expected = "[True, True, True, True, 20] [True, True, True, True, 20]\n\
                    [True, True, True, True, 20] [True, True, True, True, 20] [True, True, True, True, 20] \
                    [True, True, True, True, True]\n6 True\n[2, 2, 2, 2, 2] [2, 2, 2, 2, 2] 1\n";
    says(&[], script, expected);
    says(&["--engine", "ptrace"], script, expected);
    let with_thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()";
    says(&[], &format!("{with_thread}\n{script}"), expected);
}

/// The shell's children share its memory until they execute a program, just when it is to be told of a mount.
#[test]
fn a_shell_is_told_each_time() {
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do
        mkdir m$n && vumount -t fuse umvu-memfs memory m$n || exit 2
        mkdir m$n/many || exit 3
        for file in 1 2 3 4 5 6 7 8 9; do true >m$n/many/$file || exit 4; done
    done
    echo fine";
    assert_eq!(stdout(&Work::new().sh(script)), "fine\n");
}

#[test]
fn a_child_learns_what_its_parent_is_not_asked() {
    let script = r#"
def child(work):
    pid = os.fork()
    if pid == 0:
        try: work()
        finally: os._exit(0)
    os.waitpid(pid, 0)
def mount():
    sh("vumount -t fuse umvu-memfs memory mnt && touch mnt/hello")
    print(forms("mnt/hello"), flush=True)
child(mount)
print(forms("mnt/hello"), flush=True)
child(lambda: print(forms("mnt/hello"), flush=True))
child(lambda: (os.chdir("mnt"), print(forms("hello"), flush=True)))
print(forms("hello"))
"#;
    let there = "[True, True, True, True, 20]\n";
    says(&[], script, &format!("{}[2, 2, 2, 2, 2]\n", there.repeat(4)));
}

#[test]
fn read_only_and_bound_places() {
    let script = r#"
os.mkdir("x"); os.mkdir("y"); open("x/file", "w").close()
top = os.open("x", os.O_RDONLY)
sh("vumount -r --bind x y")
def writes(path, where=None):
    try: os.close(os.open(path, os.O_WRONLY, dir_fd=where)); return "fine"
    except OSError as error: return os.strerror(error.errno)
through = os.open("y", os.O_RDONLY)
print(writes("x/file"), writes("file", top), writes("y/file"), writes("file", through), sep=", ")
os.chdir("y")
print(writes("file"), writes("../x/file"), sep=", ")
"#;
    let expected = "fine, fine, Read-only file system, Read-only file system\nRead-only file system, fine\n";
    says(&[], script, expected);
}

#[test]
fn another_user_and_another_root() {
    let script = "open('x', 'w').close(); print(os.stat('x').st_uid, os.stat('/etc/passwd').st_uid, agents())";
    says(&["--as-root"], script, "0 0 0\n");
    let script = r#"
os.makedirs("new/x")
pid = os.fork()
if pid == 0:
    os.chroot("new")
    print(forms("/x"), os.path.exists("/new"), os.path.exists("/usr"), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(os.path.exists("/usr"))
"#;
    says(
        &["--as-root"],
        script,
        "[True, True, True, 2, True] False False\nTrue\n",
    );
}

#[test]
fn a_trace_has_all_calls() {
    let script = r#"
sh("vudebug call -o trace")
os.stat("/usr/bin"); os.access("x", 0)
sh("vudebug off")
os.stat("/usr/lib")
lines = open("trace").read()
print("/usr/bin" in lines, '"x"' in lines, "/usr/lib" in lines)
"#;
    says(&[], script, "True True False\n");
}

#[test]
fn rests_where_a_process_has_filters_of_its_own() {
    // Allows all calls but openat2(2), which ends the process.
    let script = r#"
import ctypes, struct
sh("vumount -t fuse umvu-memfs memory mnt")
load, jump, ret = 0x20, 0x15, 0x06
program = [(load, 0, 0, 0), (jump, 0, 1, 437), (ret, 0, 0, 0x80000000), (ret, 0, 0, 0x7fff0000)]
code = b"".join(struct.pack("HBBI", *line) for line in program)
fprog = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(held := ctypes.create_string_buffer(code)))
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
print(libc.prctl(22, 2, ctypes.create_string_buffer(fprog)))
print(forms("/etc/passwd")[:2], agents())
"#;
    says(&[], script, "0\n[True, True] 1\n");
}
