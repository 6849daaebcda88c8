# dnotify (F_NOTIFY): a signal for each change in a directory; and the signals of inotify (O_ASYNC).
cat > notified.py <<'P'
import ctypes, errno, fcntl, functools, os, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
print = functools.partial(print, flush=True)
SETSIG, GETSIG, NOTIFY = 10, 11, 1026
ACCESS, MODIFY, CREATE, DELETE, RENAME, ATTRIB, MULTISHOT = 1, 2, 4, 8, 16, 32, -(1 << 31)
ALL = 63
RT = signal.SIGRTMIN + 4
signal.pthread_sigmask(signal.SIG_BLOCK, [RT, RT + 1, signal.SIGIO])

def attempt(function, *args):
    try:
        return function(*args)
    except OSError as e:
        return errno.errorcode[e.errno]

def notify(fd, what):
    return attempt(fcntl.fcntl, fd, NOTIFY, what)

def signals(*descriptors):
    """What has been told since."""
    wanted = struct.pack("Q", sum(1 << (number - 1) for number in (RT, RT + 1, signal.SIGIO)))
    info = ctypes.create_string_buffer(128)
    told = []
    while (got := libc.syscall(128, wanted, info, bytes(16), 8)) > 0:
        code, band, fd = struct.unpack_from("i4xqi", info, 8)
        told.append((got, "kernel") if code == 128 else (got, code, hex(band), descriptors.index(fd) if fd in descriptors else fd))
    return told

def write(path, flags=os.O_WRONLY | os.O_CREAT):
    fd = os.open(path, flags, 0o644)
    os.write(fd, b"text")
    os.close(fd)

def read(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 100)
    os.close(fd)
P
export PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1
mkdir d e
python3 - <<'P'
# What is told of each kind.
from notified import *
d = os.open("d", os.O_RDONLY); fcntl.fcntl(d, SETSIG, RT)
def show(title, function, *args):
    told = []
    for kind in (ACCESS, MODIFY, CREATE, DELETE, RENAME, ATTRIB, ALL):
        notify(d, kind | MULTISHOT); function(*args); told.append(len(signals(d))); notify(d, 0)
    print(title, told)
write("d/f")
show("read", read, "d/f")
show("write", write, "d/f")
show("truncate", os.truncate, "d/f", 2)
show("truncating open", write, "d/f", os.O_WRONLY | os.O_TRUNC)
def create(): write("d/n"); os.unlink("d/n")
show("create and remove", create)
def directory(): os.mkdir("d/s"); os.rmdir("d/s")
show("directory", directory)
def renames(): os.rename("d/f", "d/g"); os.rename("d/g", "d/f")
show("rename", renames)
def moves(): os.rename("d/f", "e/f"); os.rename("e/f", "d/f")
show("move", moves)
def links(): os.link("d/f", "d/h"); os.symlink("f", "d/l"); os.unlink("d/h"); os.unlink("d/l")
show("links", links)
show("chmod", os.chmod, "d/f", 0o600)
show("utime", os.utime, "d/f")
show("chmod of the directory", os.chmod, "d", 0o700)
show("listing", os.listdir, "d")
def positioned():
    fd = os.open("d/f", os.O_RDWR); os.pwrite(fd, b"x", 0); os.pread(fd, 1, 0); os.ftruncate(fd, 3); os.posix_fallocate(fd, 0, 5); os.fsync(fd); os.close(fd)
show("positioned", positioned)
def below(): os.mkdir("d/s/t"); write("d/s/f"); os.unlink("d/s/f"); os.rmdir("d/s/t")
os.mkdir("d/s"); show("below", below); os.rmdir("d/s")
write("d/x"); write("d/y")
def exchange(): libc.renameat2(-100, b"d/x", -100, b"d/y", 2)
show("exchange", exchange)
def over(): write("d/x"); os.rename("d/x", "d/y")
show("rename over", over)
P
python3 - <<'P'
# How it is told, and how often.
from notified import *
d = os.open("d", os.O_RDONLY)
print(notify(d, CREATE), fcntl.fcntl(d, fcntl.F_GETOWN) == os.getpid(), fcntl.fcntl(d, GETSIG))
write("d/a"); write("d/b"); print(signals(d))
fcntl.fcntl(d, SETSIG, RT); print(notify(d, CREATE)); write("d/c"); write("d/e"); print(signals(d))
print(notify(d, CREATE | MULTISHOT)); write("d/g"); write("d/h"); print(signals(d))
print(notify(d, DELETE)); os.unlink("d/g"); write("d/g"); print(signals(d))
print(notify(d, MULTISHOT)); os.unlink("d/g"); write("d/g"); print(signals(d))
print(notify(d, CREATE), notify(d, DELETE)); os.unlink("d/g"); write("d/g"); print(signals(d))
print(notify(d, 0), notify(d, 0), notify(d, 64)); os.unlink("d/g"); write("d/g"); print(signals(d))
copy = os.dup(d); print(notify(d, CREATE), notify(copy, CREATE)); write("d/i"); print(signals(d, copy))
two = os.open("d", os.O_RDONLY); fcntl.fcntl(two, SETSIG, RT + 1)
print(notify(d, CREATE | MULTISHOT), notify(two, CREATE | MULTISHOT)); write("d/j"); print(sorted(signals(d, two)))
os.close(copy); write("d/k"); print(signals(d, two))
print(notify(d, CREATE | MULTISHOT))
if os.fork() == 0:
    os.close(d); os.close(two); os._exit(0)
os.wait(); write("d/l"); print(sorted(signals(d, two)))
# A child's own wish, which ends with it; the signals are the owner's.
if os.fork() == 0:
    notify(d, DELETE | MULTISHOT); os.unlink("d/l"); print("child", signals(d)); os._exit(0)
os.wait(); print(signals(d)); os.unlink("d/k"); print(signals(d))
if os.fork() == 0:
    write("d/m"); os._exit(0)
os.wait(); print(sorted(signals(d, two)))
os.close(two); write("d/n"); print(signals(d))
f, p = os.open("d/a", os.O_RDONLY), os.open("d", os.O_PATH)
print(notify(f, CREATE), notify(f, 0), notify(p, CREATE))
e = os.open("e", os.O_RDONLY); fcntl.fcntl(e, SETSIG, RT); print(notify(e, ALL | MULTISHOT)); os.rmdir("e"); print(signals(e), notify(e, ALL))
# Interrupted by it.
signal.signal(RT, lambda *_: print("handled")); signal.pthread_sigmask(signal.SIG_UNBLOCK, [RT])
write("d/o"); os.mkdir("d/p"); r, w = os.pipe()
fcntl.fcntl(d, fcntl.F_SETOWN, 0); write("d/q"); print("nobody")
P
python3 - <<'P'
# inotify's.
from notified import *
i = libc.inotify_init1(os.O_NONBLOCK); libc.inotify_add_watch(i, b"d", 0x100)
flags = lambda: bool(fcntl.fcntl(i, fcntl.F_GETFL) & os.O_ASYNC)
print(flags(), fcntl.fcntl(i, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC), flags(), fcntl.fcntl(i, fcntl.F_GETOWN)); write("d/r"); print(signals(i))
fcntl.fcntl(i, fcntl.F_SETOWN, os.getpid()); write("d/s"); print(signals(i))
fcntl.fcntl(i, SETSIG, RT); write("d/t"); write("d/u"); print(signals(i), len(os.read(i, 1000)))
write("d/v"); print(signals(i)); fcntl.fcntl(i, fcntl.F_SETFL, os.O_NONBLOCK); write("d/w"); print(flags(), signals(i))
P
