# inotify: what is told of files, directories and names, in which order.
mkdir d e; echo old > d/f
cat > watch.py <<'P'
import ctypes, errno, fcntl, os, select, struct, sys, termios
libc = ctypes.CDLL(None, use_errno=True)
BITS = {0x1: "ACCESS", 0x2: "MODIFY", 0x4: "ATTRIB", 0x8: "CLOSE_WRITE", 0x10: "CLOSE_NOWRITE", 0x20: "OPEN",
        0x40: "MOVED_FROM", 0x80: "MOVED_TO", 0x100: "CREATE", 0x200: "DELETE", 0x400: "DELETE_SELF",
        0x800: "MOVE_SELF", 0x2000: "UNMOUNT", 0x4000: "Q_OVERFLOW", 0x8000: "IGNORED", 0x40000000: "ISDIR"}
ALL, ONLYDIR, EXCL_UNLINK, MASK_CREATE, MASK_ADD, ONESHOT = 0xfff, 1 << 24, 1 << 26, 1 << 28, 1 << 29, 1 << 31

def call(function, *args):
    result = function(*args)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]

class Watcher:
    def __init__(self, flags=os.O_NONBLOCK):
        self.fd = libc.inotify_init1(flags)
        self.cookies = []
    def add(self, path, mask=ALL):
        return call(libc.inotify_add_watch, self.fd, path.encode(), ctypes.c_uint32(mask))
    def remove(self, watch):
        return call(libc.inotify_rm_watch, self.fd, watch)
    def read(self, size=65536):
        try:
            data = os.read(self.fd, size)
        except OSError as e:
            return [errno.errorcode[e.errno]]
        events = []
        while data:
            watch, mask, cookie, length = struct.unpack_from("iIII", data)
            name = data[16:16 + length].rstrip(b"\0").decode()
            if cookie and cookie not in self.cookies:
                self.cookies.append(cookie)
            names = "|".join(BITS[bit] for bit in BITS if mask & bit)
            events.append(f"{watch} {names} {name} {self.cookies.index(cookie) if cookie else '-'}")
            data = data[16 + length:]
        return events
    def show(self, title):
        print(f"# {title}")
        for event in self.read():
            print(event)

def write(path, text, flags=os.O_WRONLY | os.O_CREAT):
    fd = os.open(path, flags, 0o644)
    os.write(fd, text)
    os.close(fd)

def read(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 100)
    os.close(fd)
P
export PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1
python3 - <<'P'
from watch import *
w = Watcher()
print(os.readlink(f"/proc/self/fd/{w.fd}"), oct(os.fstat(w.fd).st_mode))
print(w.add("d"), w.add("d/f"), w.add("e"), w.read())
read("d/f"); w.show("read")
write("d/f", b"new"); w.show("write")
write("d/f", b"new", os.O_WRONLY | os.O_TRUNC); w.show("truncating open")
write("d/n", b"new"); w.show("create")
os.truncate("d/f", 1); w.show("truncate")
fd = os.open("d/f", os.O_RDWR); os.ftruncate(fd, 2); os.posix_fallocate(fd, 0, 10); w.show("ftruncate, fallocate")
os.pwrite(fd, b"x", 0); os.pread(fd, 1, 0); os.pwritev(fd, [b"a", b"b"], 0); w.show("positioned")
os.close(fd); w.show("close")
os.chmod("d/f", 0o600); os.utime("d/f"); w.show("chmod, utime")
os.utime("d/f", ns=(1, 2)); os.chown("d/f", -1, -1); w.show("times, chown of nothing")
os.mkdir("d/s"); os.rmdir("d/s"); w.show("mkdir, rmdir")
os.symlink("f", "d/l"); os.mknod("d/p", 0o10644); w.show("symlink, mknod")
os.link("d/f", "e/hard"); w.show("link")
os.unlink("e/hard"); w.show("unlink of one name")
os.rename("d/n", "d/m"); w.show("rename")
os.rename("d/m", "e/m"); w.show("rename elsewhere")
os.rename("e/m", "d/f"); w.show("rename over the file")
os.listdir("d"); w.show("listing")
print(w.add("d/f"), w.remove(2), w.remove(77))
os.rename("d/f", "e/f"); w.show("move of a watched file")
read("e/f"); w.show("read by its new name")
fd = os.open("e/f", os.O_RDONLY)
os.unlink("e/f"); w.show("unlink of an open file")
os.read(fd, 10); w.show("read of an unlinked file")
os.close(fd); w.show("last close")
os.rename("e", "g"); w.show("move of a directory")
os.rmdir("g"); w.show("removal of a directory")
P
python3 - <<'P'
from watch import *
w = Watcher()
write("d/f", b"0123456789")
print(w.add("nothing"), w.add("d/f", ONLYDIR | ALL), w.add("d/f/", ALL), w.add("d", 0), w.add("", ALL), w.add("d", 1 << 16))
print(w.add("d/f", 2 | MASK_ADD | MASK_CREATE), call(libc.inotify_add_watch, 0, b"d", 2), call(libc.inotify_add_watch, 99, b"d", 2))
one = w.add("d/f", 0x2); print(one, w.add("d/f", 0x20 | MASK_ADD), w.add("d/f", 0x2 | MASK_CREATE))
write("d/f", b"x"); w.show("added")
print(w.add("d/f", 0x10)); write("d/f", b"x"); read("d/f"); w.show("replaced")
print(w.remove(one), w.remove(one)); w.show("removed")
print(w.add("d/f", 0x2 | ONESHOT)); write("d/f", b"x"); write("d/f", b"x"); w.show("once")
two = w.add("d", ALL | EXCL_UNLINK)
fd = os.open("d/f", os.O_RDWR); os.unlink("d/f"); os.write(fd, b"x"); os.close(fd); w.show("only what has a name")
print(w.read(), libc.inotify_init1(1), w.add("d", 0x100))
os.mkdir("d/one"); os.mkdir("d/two")
print(struct.unpack("i", fcntl.ioctl(w.fd, termios.FIONREAD, b"    "))[0], w.read(20), w.read(40), w.read(32), w.read())
os.rmdir("d/one"); os.rmdir("d/two"); w.read()
# Two instances, a copy, a child.
v, copy = Watcher(), os.dup(w.fd)
v.add("d"); w.add("d")
if os.fork() == 0:
    os.mkdir("d/child"); os._exit(0)
os.wait()
print(len(os.read(copy, 100)), w.read(), v.read())
os.close(w.fd); os.rmdir("d/child"); print(len(os.read(copy, 100)), v.read())
P
python3 - <<'P'
# Waiting: read(2), poll(2), edges, and a signal.
from watch import *
import signal, threading, time
w = Watcher(0); w.add("d", 0x100)
threading.Timer(0.3, lambda: os.mkdir("d/later")).start()
print(w.read())
poll = select.poll(); poll.register(w.fd, select.POLLIN)
print(poll.poll(50))
threading.Timer(0.3, lambda: os.mkdir("d/polled")).start()
print([event for _, event in poll.poll(5000)], w.read(), poll.poll(50))
epoll = select.epoll(); epoll.register(w.fd, select.EPOLLIN | select.EPOLLET)
for name in "ab":
    os.mkdir(f"d/{name}"); print([event for _, event in epoll.poll(5)], w.read(), epoll.poll(0.05))
def interrupted(*_): raise KeyError
signal.signal(signal.SIGALRM, interrupted); signal.setitimer(signal.ITIMER_REAL, 0.3)
try: w.read()
except KeyError: print("interrupted")
P
python3 - <<'P'
# Copies, programs, sockets and FIFOs, nameless files.
from watch import *
import shutil, socket, subprocess
shutil.copy("/bin/true", "d/true"); write("d/f", b"0123456789")
w = Watcher(); w.add("d")
i, o = os.open("d/f", os.O_RDONLY), os.open("d/o", os.O_WRONLY | os.O_CREAT); w.show("open")
os.copy_file_range(i, o, 5); w.show("copy_file_range")
os.sendfile(o, i, 0, 5); w.show("sendfile")
r, p = os.pipe()
os.splice(i, p, 2, offset_src=0); w.show("splice out"); os.splice(r, o, 2); w.show("splice in")
os.setxattr("d/f", "user.a", b"b"); os.removexattr("d/f", "user.a"); w.show("xattr")
os.close(i); os.close(o); w.read()
print(subprocess.run(["d/true"]).returncode); w.show("exec")
s = socket.socket(socket.AF_UNIX); s.bind("d/s"); w.show("bind")
os.mkfifo("d/q"); fd = os.open("d/q", os.O_RDWR); w.show("fifo"); os.write(fd, b"x"); os.close(fd); w.show("fifo closed")
os.close(os.open("d/f", os.O_PATH)); w.show("only a path")
os.rename("d/f", "d/g"); os.rename("d/g", "d/o"); w.show("renames")
P
python3 - <<'P'
# The host's own files, in the same instance.
from watch import *
import tempfile
w, host = Watcher(), tempfile.mkdtemp()
print(w.add(host), w.add("d"), w.add(host))
write(f"{host}/x", b"x"); os.mkdir("d/here"); os.rename(f"{host}/x", f"{host}/y"); w.show("both")
os.unlink(f"{host}/y"); print(w.remove(1)); w.show("removed")
v = Watcher(); v.add("d", 0x2 | ONESHOT); v.add(host, 0x4 | EXCL_UNLINK)
print(sorted(line.split(" ")[1] + line.split(" ")[4] for line in open(f"/proc/self/fdinfo/{v.fd}") if line.startswith("inotify")))
print(w.remove(1), w.add(host, 0x200 | ONESHOT)); os.mkdir(f"{host}/z"); os.rmdir(f"{host}/z"); w.show("once")
os.rmdir(host); w.show("gone"); print(w.add(host), w.read())
P
# What an instance is not: a source of data for splice(2) and its relatives, or a file to be read ahead.
python3 -c '
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(fd, b".", 0xfff)
r, w = os.pipe()
out = os.open("copy", os.O_RDWR | os.O_CREAT)
def call(f, *args):
    result = f(*args)
    print(f.__name__, errno.errorcode[ctypes.get_errno()] if result < 0 else result)
call(libc.splice, fd, None, w, None, 10, 0)
call(libc.splice, r, None, fd, None, 10, 0)
call(libc.sendfile, out, fd, None, 10)
call(libc.sendfile, fd, out, None, 10)
call(libc.copy_file_range, fd, None, out, None, 10, 0)
call(libc.copy_file_range, out, None, fd, None, 10, 0)
call(libc.readahead, fd, 0, 10)
call(libc.posix_fadvise, fd, 0, 10, 0)
'
