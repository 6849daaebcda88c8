# Descriptors that move: SCM_RIGHTS, pidfd_getfd, /proc/self/fd, dup, close_range, openat2, across exec and fork.
python3 - <<'P'
import os, errno, ctypes, struct, socket, fcntl, array, sys, subprocess, stat
libc = ctypes.CDLL(None, use_errno=True)
def attempt(f, *args, **kw):
    try: return f(*args, **kw)
    except OSError as e: return errno.errorcode.get(e.errno, e.errno)
def call(nr, *args):
    r = libc.syscall(nr, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return r if r >= 0 else errno.errorcode.get(ctypes.get_errno())
def p(*a): print(*a, flush=True)
def kind(r): return "fd" if isinstance(r, int) else r
open("f", "w").write("hello file\n"); os.mkdir("d"); open("d/g", "w").write("in d\n"); os.symlink("f", "s"); os.symlink("..", "d/up"); os.symlink("/proc/self/fd", "magic")
# openat2
def openat2(path, flags=0, mode=0, resolve=0, size=24, dirfd=-100, extra=b""):
    how = struct.pack("QQQ", flags, mode, resolve) + extra
    return call(437, dirfd, path.encode(), ctypes.create_string_buffer(how, max(len(how), size)), size)
p("openat2", kind(openat2("f")), openat2("nope"), openat2("s", resolve=4), kind(openat2("s")), kind(openat2("d/up/f", resolve=8)), kind(openat2("d/g", resolve=8)), openat2("/etc/passwd", resolve=8), openat2("f", flags=1 << 40), openat2("f", mode=0o600), openat2("f", size=16), kind(openat2("f", size=32)), openat2("f", size=32, extra=b"x" * 8), openat2("f", resolve=1 << 20), kind(openat2("new", flags=os.O_CREAT | os.O_RDWR, mode=0o640)), oct(os.stat("new").st_mode), openat2("new", flags=os.O_CREAT, mode=0o10640), openat2("f", flags=os.O_PATH | os.O_CREAT), openat2("magic/0", resolve=2))
root = os.open("d", os.O_PATH); p("in root", kind(openat2("/g", resolve=16, dirfd=root)), kind(openat2("../../g", resolve=16, dirfd=root)), openat2("up/f", resolve=16, dirfd=root), openat2("up/f", resolve=8, dirfd=root), openat2("..", resolve=8, dirfd=root), kind(openat2("g", resolve=1, dirfd=root)), kind(openat2("..", resolve=1, dirfd=root, flags=os.O_PATH)))
# fdinfo
fd = os.open("f", os.O_RDWR | os.O_APPEND | os.O_NONBLOCK); os.read(fd, 5)
info = dict(line.split(":\t") for line in open(f"/proc/self/fdinfo/{fd}").read().splitlines() if ":\t" in line)
p("fdinfo", info["pos"], info["flags"], int(info["ino"]) == os.fstat(fd).st_ino, "mnt_id" in info); os.close(fd)
# SCM_RIGHTS
a, b = socket.socketpair()
fd = os.open("f", os.O_RDWR); dd = os.open("d", os.O_RDONLY); os.lseek(fd, 6, 0)
socket.send_fds(a, [b"x"], [fd, dd, root]); _, fds, _, _ = socket.recv_fds(b, 10, 5)
p("rights", os.read(fds[0], 4), os.lseek(fd, 0, 1), os.listdir(fds[1]), attempt(os.listdir, fds[2]), os.path.samestat(os.fstat(fds[0]), os.fstat(fd)), os.stat("g", dir_fd=fds[2]).st_size)
if os.fork() == 0:
    n = os.open("f", os.O_WRONLY | os.O_APPEND); socket.send_fds(a, [b"y"], [n]); os._exit(0)
os.wait(); _, (n,), _, _ = socket.recv_fds(b, 10, 5); p(os.write(n, b"more\n"), open("f").read(), attempt(os.read, n, 1)); os.close(n)
# pidfd_getfd
r, w = os.pipe(); pid = os.fork()
if pid == 0:
    os.close(w); os.read(r, 1); os._exit(0)
pidfd = os.pidfd_open(pid); got = call(438, pidfd, fd, 0); p("pidfd_getfd", kind(got), isinstance(got, int) and os.pread(got, 5, 0)); os.close(w); os.wait()
# /proc/self/fd
p("proc", open("/proc/self/fd/%d" % fd).read(), os.path.basename(os.readlink("/proc/self/fd/%d" % fd)), os.stat("/proc/self/fd/%d" % dd).st_ino == os.stat("d").st_ino, os.listdir("/proc/self/fd/%d" % dd), open("/dev/fd/%d" % fd).read(5), str(fd) in os.listdir("/proc/self/fd"))
# close_range, dup
e = os.dup(fd); p("dup", os.lseek(fd, 3, 0), os.lseek(e, 0, 1), os.get_inheritable(e)); call(436, e, e, 0); p(attempt(os.fstat, e))
x = [os.open("f", 0) for _ in range(5)]; call(436, min(x), max(x), 0); p([attempt(os.fstat, y) for y in x]); y = os.open("f", 0); call(436, y, y, 4); p(fcntl.fcntl(y, 1))
os.dup2(fd, 100); p(os.pread(100, 5, 0)); os.close(100); z = fcntl.fcntl(fd, fcntl.F_DUPFD, 50); p(z >= 50, os.pread(z, 5, 0))
# exec
os.set_inheritable(fd, True); os.lseek(fd, 0, 0)
p(subprocess.run(["cat"], stdin=fd, capture_output=True).stdout, subprocess.run(["sh", "-c", "cat <&%d; ls /proc/self/fd | grep -c '^%d$'" % (fd, y)], close_fds=False, capture_output=True).stdout)
out = os.open("out", os.O_WRONLY | os.O_CREAT); subprocess.run(["sh", "-c", "echo to out; echo to err >&2; exec 5<f; cat <&5"], stdout=out, stderr=out); p(open("out").read())
p(attempt(os.execv, "d", ["x"]), attempt(os.execv, "f", ["x"]))
# fexecve, execveat
import shutil; shutil.copy(shutil.which("echo"), "echo"); os.chmod("echo", 0o755); ee = os.open("echo", os.O_RDONLY)
def child(f):
    pid = os.fork()
    if pid == 0:
        try: f()
        except OSError as e: p("failed", errno.errorcode[e.errno])
        os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def execveat(dirfd, path, flags, argv=[b"x", b"through execveat"]):
    args = (ctypes.c_char_p * 3)(*argv, None); env = (ctypes.c_char_p * 1)(None)
    r = libc.syscall(322, dirfd, path, args, env, flags); p("failed", errno.errorcode[ctypes.get_errno()])
p("fexecve", child(lambda: os.execve(ee, ["echo", "by descriptor"], {})), child(lambda: execveat(ee, b"", 0x1000)), child(lambda: execveat(-100, b"echo", 0)), child(lambda: execveat(ee, b"", 0)), child(lambda: execveat(dd, b"../echo", 0)), child(lambda: execveat(-100, b"s", 0x100)), child(lambda: execveat(-100, b"echo", 0x4000)))
open("sc", "w").write("#!/bin/sh\necho script $0 | sed s:[0-9]*$:N:\n"); os.chmod("sc", 0o755); sc = os.open("sc", os.O_RDONLY); p(child(lambda: execveat(-100, b"sc", 0)), child(lambda: execveat(dd, b"../sc", 0)))
sys.stdout.flush()
P
