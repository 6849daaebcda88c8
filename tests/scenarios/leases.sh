# Leases (F_SETLEASE): who may have one, what breaks it, and what its holder and the others are told.
cat > lease.py <<'P'
import ctypes, errno, fcntl, functools, os, signal, struct, subprocess, threading, time
libc = ctypes.CDLL(None, use_errno=True)
print = functools.partial(print, flush=True)
SETSIG, GETSIG, SETOWN_EX, GETOWN_EX, SETLEASE, GETLEASE = 10, 11, 15, 16, 1024, 1025
KINDS = {0: "read", 1: "write", 2: "none"}

def attempt(function, *args):
    try:
        return function(*args)
    except OSError as e:
        return errno.errorcode[e.errno]

def setlease(fd, kind):
    return attempt(fcntl.fcntl, fd, SETLEASE, kind)

def lease(fd):
    return KINDS[fcntl.fcntl(fd, GETLEASE)]

def owner(fd):
    kind, number = struct.unpack("ii", fcntl.fcntl(fd, GETOWN_EX, bytes(8)))
    return {(kind, 0): "nobody", (1, os.getpid()): "me", (0, os.getpid()): "my thread", (2, os.getpgrp()): "my group"}.get((kind, number), "another")

def waited(signals, fd, seconds=5):
    """The next of these signals: its number, and what it says of the descriptor."""
    wanted = struct.pack("Q", sum(1 << (number - 1) for number in signals))
    info = ctypes.create_string_buffer(128)
    got = libc.syscall(128, wanted, info, struct.pack("qq", int(seconds), int(seconds % 1 * 1e9)), 8)
    if got < 0:
        return errno.errorcode[ctypes.get_errno()]
    code, = struct.unpack_from("i", info, 8)
    if code == 128:
        return got, "kernel"
    band, number = struct.unpack_from("qi", info, 16)
    return got, code, hex(band), "its descriptor" if number == fd else number

class Other:
    """Another process that does something with the file; `end` waits for it."""
    def __init__(self, function, *args):
        self.pipe, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            result = attempt(function, *args)
            os.write(writing, b"done" if isinstance(result, int | None) else result.encode())
            os._exit(0)
        os.close(writing)
    def is_waiting(self):
        time.sleep(0.2)
        return os.waitpid(self.pid, os.WNOHANG)[0] == 0
    def end(self):
        result = os.read(self.pipe, 100).decode()
        os.waitpid(self.pid, 0)
        os.close(self.pipe)
        return result

def block(*signals):
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
open("f", "w").write("0123456789")
open("g", "w").write("another")
P
export PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1
python3 - <<'P'
# Who may have one.
from lease import *
r = os.open("f", os.O_RDONLY)
print(lease(r), setlease(r, UN), setlease(r, 7), setlease(r, RD), lease(r), setlease(r, RD))
print(setlease(r, WR), lease(r), setlease(r, RD), setlease(r, UN), lease(r), setlease(r, UN))
w = os.open("f", os.O_WRONLY)
print(setlease(r, RD), setlease(w, RD), setlease(w, WR)); os.close(r)
print(setlease(w, WR), lease(w), setlease(w, RD), lease(w)); os.close(w)
a, b = os.open("f", os.O_RDONLY), os.open("f", os.O_RDONLY)
print(setlease(a, RD), setlease(b, RD), setlease(a, WR), lease(a), lease(b), setlease(b, UN), setlease(a, WR))
copy = os.dup(a); print(lease(copy), setlease(copy, UN), lease(a), setlease(copy, RD)); os.close(copy); print(lease(a))
if os.fork() == 0:
    print(lease(a), setlease(a, UN), flush=True); os._exit(0)
os.wait(); print(lease(a)); os.close(b)
rw = os.open("g", os.O_RDWR)
print(setlease(rw, RD), setlease(rw, WR), lease(rw)); os.close(rw)
d, p = os.open(".", os.O_RDONLY), os.open("f", os.O_PATH)
print(setlease(d, RD), setlease(d, UN), lease(d), setlease(p, RD), attempt(fcntl.fcntl, p, GETLEASE))
os.mkfifo("q"); q = os.open("q", os.O_RDWR); print(setlease(q, RD), lease(q))
# Mapped, but closed.
import mmap
a2 = os.open("g", os.O_RDWR); m = mmap.mmap(a2, 5); os.close(a2)
g = os.open("g", os.O_RDONLY); print(setlease(g, RD)); m.close(); print(setlease(g, RD), lease(g))
P
python3 - <<'P'
# Whom the signals go to.
from lease import *
fd = os.open("f", os.O_RDONLY)
ex = lambda: struct.unpack("ii", fcntl.fcntl(fd, GETOWN_EX, bytes(8)))
print(owner(fd), ex(), fcntl.fcntl(fd, GETSIG), attempt(fcntl.fcntl, fd, SETSIG, 65), attempt(fcntl.fcntl, fd, SETSIG, 64), fcntl.fcntl(fd, GETSIG))
print(setlease(fd, RD), owner(fd), ex()[0], setlease(fd, UN), owner(fd), ex(), fcntl.fcntl(fd, GETSIG))
print(fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp()), owner(fd), ex()[0], setlease(fd, RD), owner(fd), fcntl.fcntl(fd, GETSIG))
print(attempt(fcntl.fcntl, fd, fcntl.F_SETOWN, 4194304 * 4), attempt(fcntl.fcntl, fd, fcntl.F_SETOWN, -2147483648), owner(fd))
set_ex = lambda kind, pid: attempt(fcntl.fcntl, fd, SETOWN_EX, struct.pack("ii", kind, pid))
print(len(set_ex(0, threading.get_native_id())), ex()[0], owner(fd), set_ex(3, 0), set_ex(1, 4194304 * 4), set_ex(1, -5), ex()[0])
copy = os.dup(fd); print(fcntl.fcntl(copy, fcntl.F_SETOWN, 0), owner(fd), owner(copy), ex(), fcntl.fcntl(copy, SETSIG, 40), fcntl.fcntl(fd, GETSIG))
other = os.open("f", os.O_RDONLY); print(owner(other), fcntl.fcntl(other, GETSIG))
child = os.fork()
if child == 0:
    time.sleep(30)
print(fcntl.fcntl(fd, fcntl.F_SETOWN, child), owner(fd)); os.kill(child, 9); os.wait(); print(owner(fd))
print(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ASYNC, fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ASYNC)
P
python3 - <<'P'
# A lease for reading is broken by writers.
from lease import *
RT = signal.SIGRTMIN + 4
block(RT, signal.SIGIO)
fd = os.open("f", os.O_RDONLY)
def ready(kind=RD, signum=RT):
    return fcntl.fcntl(fd, SETSIG, signum), setlease(fd, kind)
print(ready(), Other(os.open, "f", os.O_RDONLY).end(), waited([RT], fd, 0))
for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_CREAT):
    other = Other(os.open, "f", flags)
    print(waited([RT], fd), other.is_waiting(), lease(fd), setlease(fd, RD), setlease(fd, WR), lease(fd), setlease(fd, UN), other.end(), lease(fd), ready())
other = Other(os.open, "f", os.O_WRONLY | os.O_NONBLOCK); print(other.end(), waited([RT], fd), lease(fd))
other = Other(os.open, "f", os.O_RDONLY); print(other.end(), lease(fd))
other = Other(os.open, "f", os.O_WRONLY | os.O_NONBLOCK); print(other.end(), waited([RT], fd, 0.1), lease(fd), setlease(fd, UN), ready())
other = Other(os.open, "f", os.O_RDONLY | os.O_TRUNC); print(other.end(), waited([RT], fd, 0.1), lease(fd))
other = Other(os.truncate, "f", 3); print(waited([RT], fd), other.is_waiting(), setlease(fd, UN), other.end(), os.fstat(fd).st_size, ready())
os.chmod("f", 0o600); os.utime("f"); os.rename("f", "h"); os.link("h", "f"); os.unlink("h"); os.stat("f"); os.close(os.open("f", os.O_PATH))
os.setxattr("f", "user.a", b"b"); os.chown("f", -1, os.getgid())
print(waited([RT], fd, 0), lease(fd))
# Without a signal of its own.
setlease(fd, UN); print(ready(signum=0))
other = Other(os.open, "f", os.O_WRONLY); print(waited([RT, signal.SIGIO], fd), setlease(fd, UN), other.end(), ready())
# Its end is the close of all descriptors.
copy = os.dup(fd); other = Other(os.open, "f", os.O_WRONLY); print(waited([RT], fd), other.is_waiting()); os.close(fd); os.close(copy); print(other.is_waiting()); os.kill(other.pid, 9)
P
python3 - <<'P'
# A lease for writing is broken by readers too, who are content with less.
from lease import *
RT = signal.SIGRTMIN + 4
block(RT)
open("p", "w").write("#!/bin/sh\necho run\n"); os.chmod("p", 0o755)
fd = os.open("p", os.O_RDWR)
def ready():
    return fcntl.fcntl(fd, SETSIG, RT), setlease(fd, WR)
print(ready()); other = Other(os.truncate, "p", 100); print(waited([RT], fd), other.is_waiting(), setlease(fd, RD), setlease(fd, UN), other.end(), os.truncate(fd, 19), ready())
other = Other(os.open, "p", os.O_RDONLY); print(waited([RT], fd), other.is_waiting(), lease(fd), setlease(fd, UN), other.end(), ready())
other = Other(os.open, "p", os.O_WRONLY); print(waited([RT], fd), other.is_waiting(), lease(fd), setlease(fd, RD), lease(fd), other.is_waiting(), setlease(fd, UN), other.end(), ready())
reader, writer = Other(os.open, "p", os.O_RDONLY), None
print(waited([RT], fd), lease(fd)); writer = Other(os.open, "p", os.O_WRONLY); print(waited([RT], fd), lease(fd), setlease(fd, UN), reader.end(), writer.end(), ready())
print(Other(os.open, "p", os.O_RDONLY | os.O_NONBLOCK).end(), waited([RT], fd), lease(fd), setlease(fd, UN)); os.close(fd)
fd = os.open("p", os.O_RDONLY); print(ready())
other = Other(os.open, "p", os.O_RDONLY); print(waited([RT], fd), lease(fd), setlease(fd, RD), setlease(fd, RD), lease(fd), other.end(), setlease(fd, UN), ready())
other = Other(lambda: subprocess.run(["./p"], stdout=subprocess.DEVNULL).returncode); print(waited([RT], fd), other.is_waiting(), setlease(fd, UN), other.end(), ready())
# A program that runs.
import shutil
shutil.copy("/bin/sleep", "s"); program = subprocess.Popen(["./s", "30"]); time.sleep(0.2)
s = os.open("s", os.O_RDONLY); print(setlease(s, WR), setlease(s, RD), setlease(s, UN)); program.kill(); program.wait(); print(setlease(s, WR))
P
python3 - <<'P'
# Several leases, several descriptors, and who opens the file itself.
from lease import *
RT = signal.SIGRTMIN + 4
block(RT, RT + 1)
a, b = os.open("f", os.O_RDONLY), os.open("f", os.O_RDONLY)
for fd, number in ((a, RT), (b, RT + 1)):
    fcntl.fcntl(fd, SETSIG, number); print(setlease(fd, RD))
other = Other(os.open, "f", os.O_WRONLY)
print(waited([RT], a), waited([RT + 1], b), setlease(a, UN), other.is_waiting(), setlease(b, UN), other.end())
# The number is that by which it was set last.
copy = os.dup(a); fcntl.fcntl(a, SETSIG, RT); print(setlease(a, RD), setlease(copy, RD))
other = Other(os.open, "f", os.O_WRONLY); print(waited([RT], copy), setlease(a, UN), other.end())
os.close(b); os.close(copy)
# A signal that gives it up lets the opener go on; another one interrupts it.
def give_up(*_): setlease(a, UN)
signal.signal(RT, give_up); signal.pthread_sigmask(signal.SIG_UNBLOCK, [RT])
fcntl.fcntl(a, SETSIG, RT); print(setlease(a, RD)); print(os.read(os.open("f", os.O_RDWR), 3), lease(a))
class Enough(Exception): pass
def enough(*_): raise Enough
signal.signal(signal.SIGALRM, enough)
fd = os.open("g", os.O_RDONLY); print(setlease(fd, RD)); fcntl.fcntl(fd, fcntl.F_SETOWN, 0); signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    os.open("g", os.O_RDWR)
except Enough:
    print("interrupted", lease(fd))
# An owner that is a thread, or another process.
block(RT)
fcntl.fcntl(fd, SETSIG, RT); setlease(fd, UN); g = os.open("g", os.O_RDONLY); fcntl.fcntl(g, SETSIG, RT)
child = Other(lambda: print(waited([RT], g), flush=True)); time.sleep(0.2)
fcntl.fcntl(g, fcntl.F_SETOWN, child.pid); print(setlease(g, RD)); other = Other(os.open, "g", os.O_WRONLY); print(child.end(), setlease(g, UN), other.end())
P
