# What descriptors that were opened through a read-only mount (bound) and not (x) allow, whichever way they came.
import ctypes
import errno
import fcntl
import os
import socket
import struct

libc = ctypes.CDLL(None, use_errno=True)
BENEATH = 0x8


def tried(what, call, *args, **named):
    try:
        call(*args, **named)
        print(what, "done")
    except OSError as e:
        print(what, errno.errorcode[e.errno])


def openat2(path, flags, resolve=0):
    how = struct.pack("QQQ", flags, 0, resolve)
    fd = libc.syscall(437, -100, path.encode(), how, len(how))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "openat2")
    return fd


def changes(what, fd):
    tried(what + " chmod", os.fchmod, fd, 0o755)
    tried(what + " chown", os.fchown, fd, -1, -1)
    tried(what + " times", os.utime, fd)
    tried(what + " xattr", os.setxattr, fd, "user.colour", b"red")
    tried(what + " no xattr", os.removexattr, fd, "user.colour")


for base in ("bound", "x"):
    file = base + "/f"
    fd = os.open(file, os.O_RDONLY)
    changes(base + " dup", os.dup(fd))
    os.dup2(fd, 100)
    changes(base + " dup2", 100)
    changes(base + " F_DUPFD", fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 200))
    os.close(fd)
    changes(base + " after close", 100)
    changes(base + " openat2", openat2(file, os.O_RDONLY))
    changes(base + " beneath", openat2(file, os.O_RDONLY, BENEATH))
    changes(base + " reopened", os.open("/proc/self/fd/100", os.O_RDONLY))
    directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    changes(base + " directory", os.dup(directory))
    tried(base + " open at", os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
    tried(base + " mkdir at", os.mkdir, "made", dir_fd=os.dup(directory))
    named = os.open(file, os.O_PATH)
    tried(base + " chmod of a link", os.chmod, f"/proc/self/fd/{named}", 0o600)
    tried(base + " write to a link", os.open, f"/proc/self/fd/{named}", os.O_WRONLY)
    tried(base + " truncate", os.truncate, file, 0)
    child = os.fork()
    if child == 0:
        changes(base + " inherited", 100)
        os._exit(0)
    os.waitpid(child, 0)
    here, there = socket.socketpair()
    socket.send_fds(here, [b"x"], [100])
    changes(base + " received", socket.recv_fds(there, 10, 1)[1][0])
