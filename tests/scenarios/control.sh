# fcntl, ioctl, splice and its relatives, poll, handles, xattrs by *at calls, what FUSE refuses.
python3 - <<'P'
import os, errno, ctypes, struct, fcntl, mmap, select, socket, stat, sys, array, signal, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(f, *args, **kw):
    try: return f(*args, **kw)
    except OSError as e: return errno.errorcode.get(e.errno, e.errno)
def call(nr, *args):
    r = libc.syscall(nr, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return r if r >= 0 else errno.errorcode.get(ctypes.get_errno())
def p(*a): print(*a, flush=True)
open("f", "wb").write(b"0123456789" * 1000); os.mkdir("d"); os.symlink("f", "s")
fd = os.open("f", os.O_RDWR)
# leases, fcntl
p("lease", attempt(fcntl.fcntl, fd, 1025), attempt(fcntl.fcntl, fd, 1024, 0), attempt(fcntl.fcntl, os.open("f", 0), 1024, 0), attempt(fcntl.fcntl, fd, 1024, 2), attempt(fcntl.fcntl, fd, 1024, 7))
ro = os.open("f", 0); p(attempt(fcntl.fcntl, ro, 1024, 0), attempt(fcntl.fcntl, ro, 1025), attempt(fcntl.fcntl, ro, 1024, 2))
p("notify", attempt(fcntl.fcntl, fd, 1026, 1))
p("pipesz", attempt(fcntl.fcntl, fd, 1032), attempt(fcntl.fcntl, fd, 1031, 4096), "seals", attempt(fcntl.fcntl, fd, 1034), attempt(fcntl.fcntl, fd, 1033, 1), "hint", attempt(fcntl.fcntl, fd, 1035, b"\0" * 8), attempt(fcntl.fcntl, fd, 1036, b"\2" + b"\0" * 7), attempt(fcntl.fcntl, fd, 1035, b"\0" * 8), attempt(fcntl.fcntl, fd, 9999), attempt(fcntl.fcntl, fd, 1027, fd) , attempt(fcntl.fcntl, fd, 1028))
p("getfl", [oct(fcntl.fcntl(os.open("f", x), 3)) for x in (0, 1, 2, os.O_APPEND | 1, os.O_NONBLOCK, os.O_SYNC | 1, os.O_DSYNC | 1, os.O_NOATIME, os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, os.O_NOFOLLOW)], oct(fcntl.fcntl(os.open("d", os.O_DIRECTORY), 3)))
open("f", "wb").write(b"0123456789" * 1000)
p("setfl", fcntl.fcntl(fd, 4, os.O_APPEND | os.O_NONBLOCK | os.O_CREAT), oct(fcntl.fcntl(fd, 3)), attempt(fcntl.fcntl, fd, 4, os.O_DIRECT), oct(fcntl.fcntl(fd, 3)), attempt(fcntl.fcntl, fd, 4, 0o20000), attempt(fcntl.fcntl, fd, 4, 0))
p("owner", fcntl.fcntl(fd, 9), attempt(fcntl.fcntl, fd, 8, os.getpid()), fcntl.fcntl(fd, 9) == os.getpid(), fcntl.fcntl(fd, 11), fcntl.fcntl(fd, 10, 12), fcntl.fcntl(fd, 11))
# OFD locks
def lk(t, s=0, l=0, w=0, pid=0): return struct.pack("hhqqi4x", t, w, s, l, pid)
p("ofd", attempt(fcntl.fcntl, fd, 37, lk(1, 0, 10)), attempt(fcntl.fcntl, ro, 37, lk(0, 5, 1)), struct.unpack("hhqqi4x", fcntl.fcntl(ro, 36, lk(1, 0, 100)))[:5], attempt(fcntl.fcntl, fd, 37, lk(1, 0, 1, 0, 5)), attempt(fcntl.fcntl, ro, 37, lk(1, 50, 1)), attempt(fcntl.fcntl, fd, 37, lk(9, 50, 1)), attempt(fcntl.fcntl, fd, 37, lk(1, 50, -60)), attempt(fcntl.fcntl, fd, 37, lk(1, 50, -20)), attempt(fcntl.fcntl, fd, 37, lk(1, -5, 2, 2)), attempt(fcntl.fcntl, fd, 6, lk(2)), attempt(fcntl.fcntl, fd, 37, lk(2)), attempt(fcntl.fcntl, fd, 5, lk(2)), attempt(fcntl.fcntl, fd, 5, lk(1, (1<<63)-1, 5)))
d = os.open("d", 0); p("dir locks", attempt(fcntl.flock, d, 2), attempt(fcntl.fcntl, d, 6, lk(0)), attempt(fcntl.fcntl, d, 6, lk(1)), attempt(fcntl.flock, fd, 99), attempt(fcntl.flock, fd, 0))
# ioctl
p("ioctl", attempt(fcntl.ioctl, fd, 0x5401, b"x" * 60), attempt(fcntl.ioctl, fd, 0x541b, b"\0" * 4), attempt(fcntl.ioctl, fd, 0x5421, b"\0" * 4), attempt(fcntl.ioctl, fd, 0x80086601, b"\0" * 8), attempt(fcntl.ioctl, fd, 0x40086602, b"\0" * 8), attempt(fcntl.ioctl, fd, 0x40049409, ro), attempt(fcntl.ioctl, fd, 2, b"\0" * 4), attempt(fcntl.ioctl, fd, 1, b"\0" * 4), attempt(fcntl.ioctl, fd, 0xC020660B, b"\0" * 32), attempt(fcntl.ioctl, fd, 0x80087601, b"\0" * 8), attempt(fcntl.ioctl, fd, 0x1234, 0), attempt(fcntl.ioctl, d, 0x5401, b"x" * 60), attempt(fcntl.ioctl, d, 0x541b, b"x" * 4), attempt(fcntl.ioctl, fd, 0xC0045877), attempt(fcntl.ioctl, fd, 0x5452, b"\0"*4), attempt(fcntl.ioctl, d, 0x80086601, b"\0" * 8))
po = select.poll(); po.register(fd, 0xffff); p("poll", [hex(x) for _, x in po.poll(0)], [len(x) for x in select.select([fd, d], [fd], [fd], 0)])
# splice, tee, vmsplice, sendfile
r, w = os.pipe()
hostfd = os.open("/tmp/parity-host-%d" % os.getpid(), os.O_RDWR | os.O_CREAT | os.O_EXCL); os.unlink("/tmp/parity-host-%d" % os.getpid())
p("splice", attempt(os.splice, fd, w, 10, 5), os.read(r, 20), attempt(os.splice, fd, ro, 10), attempt(os.splice, w, fd, 10), attempt(os.splice, d, w, 10), attempt(os.splice, fd, w, 10, -1), call(275, fd, 0, w, 0, 5, 0x80), call(275, fd, 0, w, 0, 0, 0), os.write(w, b"SPLICED"), attempt(os.splice, r, fd, 7, None, 3), os.pread(fd, 12, 0), attempt(os.splice, r, ro, 7), call(276, fd, w, 5, 0), call(276, r, fd, 5, 0), call(278, fd, 0, 0, 0), attempt(os.splice, os.open("f", 1), w, 5), attempt(os.splice, fd, w, 5, 0, 0), attempt(os.splice, w, fd, 5, 0), attempt(os.splice, r, fd, 5, 0), attempt(os.splice, hostfd, fd, 5), attempt(os.splice, fd, hostfd, 5), attempt(os.splice, fd, r, 5), attempt(os.splice, w, fd, 5))
ap = os.open("f", os.O_WRONLY | os.O_APPEND); os.write(w, b"x"); p(attempt(os.splice, r, ap, 1), attempt(os.read, r, 1) if 0 else "")
fcntl.fcntl(r, 4, os.O_NONBLOCK); p(attempt(os.read, r, 10)); p(attempt(os.splice, r, fd, 10))
p("sendfile", attempt(os.sendfile, hostfd, fd, 0, 10), attempt(os.sendfile, fd, hostfd, 0, 10), attempt(os.sendfile, fd, ro, 0, 4), attempt(os.sendfile, ap, ro, 0, 4), attempt(os.sendfile, ro, fd, 0, 4), attempt(os.sendfile, fd, d, 0, 4), attempt(os.sendfile, d, fd, 0, 4), attempt(os.sendfile, fd, ro, -1, 4), attempt(os.sendfile, hostfd, fd, 1 << 40, 4), attempt(os.sendfile, fd, r, None, 4), attempt(os.sendfile, w, fd, 0, 5), attempt(os.sendfile, 99, fd, 1 << 40, 4))
p("cfr", attempt(os.copy_file_range, fd, hostfd, 10, 0, 0), attempt(os.copy_file_range, hostfd, fd, 10, 0, 0), attempt(os.copy_file_range, ro, fd, 10, 0, 100), attempt(os.copy_file_range, fd, fd, 10, 0, 5), attempt(os.copy_file_range, fd, fd, 10, 0, 50), attempt(os.copy_file_range, fd, ro, 10), attempt(os.copy_file_range, fd, d, 10), attempt(os.copy_file_range, d, fd, 10), attempt(os.copy_file_range, fd, ap, 10), attempt(os.copy_file_range, fd, fd, 10, 1 << 40, 50), call(326, fd, 0, fd, 0, 10, 1), attempt(os.copy_file_range, r, fd, 10), attempt(os.copy_file_range, fd, w, 10), attempt(os.copy_file_range, fd, fd, 0, 0, 50))
h = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + b"\0" * 128); m = ctypes.c_int()
p("handle", call(303, -100, b"f", h, ctypes.byref(m), 0), call(303, -100, b"f", h, ctypes.byref(m), 0x200), call(303, fd, b"", h, ctypes.byref(m), 0x1000), call(304, fd, h, 0))
hh = ctypes.create_string_buffer(struct.pack("Ii", 0, 0) + b"\0" * 128); p(call(303, -100, b"f", hh, ctypes.byref(m), 0), struct.unpack("Ii", hh[:8])[0])
# xattrat, file_getattr
args = ctypes.create_string_buffer(struct.pack("QII", ctypes.addressof(ctypes.create_string_buffer(b"v")), 1, 0))
p("xattrat", call(463, -100, b"f", 0, b"user.q", args, 16), call(465, -100, b"f", 0, ctypes.create_string_buffer(100), 100), call(464, -100, b"f", 0, b"user.q", args, 16), call(464, fd, b"", 0x1000, b"user.q", args, 16), call(466, -100, b"f", 0, b"user.q"), call(466, -100, b"f", 0, b"user.q"), call(464, -100, b"f", 0x8000, b"user.q", args, 16), call(464, -100, b"f", 0, b"user.q", args, 8), call(464, -100, b"f", 0, b"user.q", args, 100000))
fa = ctypes.create_string_buffer(24); p("fattr", call(468, -100, b"f", fa, 24, 0), call(469, -100, b"f", fa, 24, 0), call(468, -100, b"nope", fa, 24, 0))
p("quota", call(179, 0x80000100 - (1<<32), b"f", 0, 0), call(443, fd, 0, 0, 0), call(163, b"f"), call(167, b"f", 0))
p("landlock", attempt(os.chdir, "f"), attempt(os.fchdir, fd), attempt(os.chdir, "s"))
P
