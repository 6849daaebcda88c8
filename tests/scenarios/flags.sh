# What flags and odd arguments do: open, read, write, seek, stat, access, mknod, fallocate, sync.
python3 - <<'P'
import os, errno, ctypes, struct, fcntl, mmap, select, socket, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(f, *args, **kw):
    try: return f(*args, **kw)
    except OSError as e: return errno.errorcode.get(e.errno, e.errno)
def call(nr, *args):
    r = libc.syscall(nr, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return r if r >= 0 else errno.errorcode.get(ctypes.get_errno())
def p(*a): print(*a, flush=True)
open("f", "wb").write(b"0123456789" * 100); os.mkdir("d"); os.symlink("f", "s")
fd = os.open("f", os.O_RDWR)
# O_TMPFILE
t = attempt(os.open, ".", os.O_TMPFILE | os.O_RDWR, 0o600); p("tmpfile", type(t) == int or t)
if type(t) == int:
    os.write(t, b"tmp"); p(os.fstat(t).st_nlink, os.fstat(t).st_size)
    p(attempt(os.link, "/proc/self/fd/%d" % t, "linked", follow_symlinks=True)); p(os.path.exists("linked") and open("linked").read())
# O_PATH
o = os.open("f", os.O_PATH)
p("path", attempt(os.read, o, 1), attempt(os.write, o, b"x"), attempt(os.fchmod, o, 0o600), attempt(os.ftruncate, o, 1), os.fstat(o).st_size, attempt(os.fsync, o), attempt(os.lseek, o, 0, 0))
p(attempt(fcntl.fcntl, o, fcntl.F_GETFL), attempt(fcntl.flock, o, fcntl.LOCK_EX), attempt(mmap.mmap, o, 10), attempt(os.getxattr, o, "user.x"), attempt(fcntl.ioctl, o, 0x541b, b"1234"))
p(attempt(os.listdir, os.open("d", os.O_PATH)), attempt(os.chmod, "/proc/self/fd/%d" % o, 0o640), oct(os.stat("f").st_mode), attempt(os.open, "/proc/self/fd/%d" % o, os.O_RDONLY) and 1)
so = os.open("s", os.O_PATH | os.O_NOFOLLOW); p(stat.S_ISLNK(os.fstat(so).st_mode), attempt(os.open, "/proc/self/fd/%d" % so, os.O_RDONLY), attempt(os.readlink, "", dir_fd=so), attempt(os.chmod, "/proc/self/fd/%d" % so, 0o600))
# O_DIRECT
dfd = attempt(os.open, "f", os.O_RDWR | os.O_DIRECT); p("direct", type(dfd) == int or dfd)
if type(dfd) == int:
    m = mmap.mmap(-1, 4096); p(attempt(os.readv, dfd, [m]), m[:10]); p(attempt(os.pread, dfd, 7, 3))
    p(attempt(os.pwrite, dfd, b"DIRECT", 5), os.pread(fd, 12, 0))
p("odd open", attempt(os.open, "d", os.O_CREAT), attempt(os.open, "f", os.O_DIRECTORY), attempt(os.open, "s", os.O_DIRECTORY | os.O_NOFOLLOW), attempt(os.open, "nd", os.O_CREAT | os.O_DIRECTORY), attempt(os.open, "f/", os.O_RDONLY), attempt(os.open, "x/", os.O_CREAT), attempt(os.open, "d/", os.O_CREAT | os.O_WRONLY), attempt(os.open, "d", os.O_RDONLY | os.O_TRUNC))
p("mode3", attempt(lambda: os.close(os.open("f", 3))))
# preadv2 flags
for flags in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
    b = [bytearray(4)]; p("rwf", flags, attempt(os.preadv, fd, b, 0, flags), attempt(os.pwritev, fd, [b"abcd"], 0, flags))
p(os.fstat(fd).st_size, attempt(os.pwritev, fd, [b"zz"], -1, 0), os.lseek(fd, 0, 1))
iov = (ctypes.c_void_p * 2)(0, 5); p("badiov", call(19, fd, ctypes.byref(iov), 1), call(20, fd, ctypes.byref(iov), 1), call(0, fd, 0, 5), call(1, fd, 0, 5), call(0, fd, 0, 0), call(19, fd, ctypes.byref(iov), -1), call(19, fd, ctypes.byref(iov), 2000), call(17, fd, 0, 0, -1))
# seeks
hole = os.open("hole", os.O_RDWR | os.O_CREAT); os.ftruncate(hole, 1 << 20); os.pwrite(hole, b"x" * 4096, 512 << 10); os.fsync(hole)
p("seek", [attempt(os.lseek, hole, a, w) for a, w in ((0, 3), (0, 4), (512 << 10, 4), (600 << 10, 3), (1 << 20, 3), (1 << 20, 4), (-1, 3), (-1, 4), (5, 5), (-1, 6))], os.lseek(hole, 0, 1))
p(attempt(os.lseek, fd, (1 << 63) - 1, 1), attempt(os.lseek, fd, (1 << 63) - 1, 0), attempt(os.lseek, fd, -5000, 2))
# seek on dir
dd = os.open("d", os.O_RDONLY); p("dir", attempt(os.lseek, dd, 0, 2) , attempt(os.lseek, dd, 5, 0), attempt(os.lseek, dd, 1, 1), attempt(os.lseek, dd, 0, 3), attempt(os.read, dd, 1), attempt(os.pread, dd, 1, 0), attempt(os.write, dd, b"x"), attempt(os.fsync, dd), attempt(os.ftruncate, dd, 0), attempt(mmap.mmap, dd, 4096), attempt(os.posix_fallocate, dd, 0, 1), attempt(os.pread, dd, 0, 0), attempt(os.readv, dd, [bytearray(1)]))
p("getdents", call(217, fd, ctypes.create_string_buffer(100), 100), call(217, dd, ctypes.create_string_buffer(100), 10), call(78, fd, ctypes.create_string_buffer(100), 100))
# statx
buf = ctypes.create_string_buffer(256)
for flags in (0, 0x100, 0x800, 0x1000, 0x2000, 0x4000, 0x6000, 0x8000, 0x200): p("statx", hex(flags), call(332, -100, b"s", flags, 0xfff, buf), hex(struct.unpack("I", buf[:4])[0]), oct(struct.unpack("H", buf[28:30])[0]) )
p(call(332, -100, b"f", 0, 0x80000000, buf), call(332, fd, b"", 0x1000, 0x7ff, buf), call(332, fd, b"", 0, 0x7ff, buf), call(332, -100, b"", 0x1000, 0x7ff, buf), call(332, -100, b"f", 0, 0xffff, buf), hex(struct.unpack("I", buf[:4])[0]), [hex(x) for x in struct.unpack("QQ", buf[8:16]+buf[56:64])])
p(call(332, 77, b"f", 0, 0x7ff, buf), call(332, fd, b"f", 0, 0x7ff, buf), call(332, -100, 0, 0, 0x7ff, buf), call(332, -100, b"f", 0, 0x7ff, 0))
# faccessat2
for flags in (0, 0x100, 0x200, 0x1000, 0x400): p("faccessat2", [call(439, -100, b"f", m, flags) for m in (0, 1, 2, 4, 7, 8)], call(439, -100, b"s", 0, flags), call(439, fd, b"", 4, flags))
# fchmodat2
p("fchmodat2", [(call(452, -100, n, 0o600, f)) for n, f in ((b"f", 0), (b"s", 0x100), (b"f", 0x100), (b"s", 0), (b"f", 0x200))], call(452, fd, b"", 0o644, 0x1000), call(452, o, b"", 0o644, 0x1000))
p("fchownat", call(260, -100, b"s", -1, -1, 0x100), call(260, fd, b"", -1, -1, 0x1000), call(260, fd, b"", -1, -1, 0), call(260, -100, b"f", os.getuid(), os.getgid(), 0), call(260, -100, b"f", 0, 0, 0))
# mknod
for m in (0o600, stat.S_IFREG | 0o600, stat.S_IFIFO | 0o600, stat.S_IFSOCK | 0o600, stat.S_IFCHR | 0o600, stat.S_IFBLK | 0o600, stat.S_IFDIR | 0o600, stat.S_IFLNK | 0o600, 0o030000): p("mknod", oct(m), call(259, -100, b"n%o" % m, m, 0x103), os.path.lexists("n%o" % m) and oct(os.lstat("n%o" % m).st_mode))
# fallocate
for mode in (0, 1, 2, 3, 4, 8, 16, 17, 32, 64, 65, 128): p("falloc", mode, call(285, hole, mode, 4096, 8192), os.fstat(hole).st_size)
p(call(285, hole, 0, -1, 5), call(285, hole, 0, 0, 0), call(285, hole, 0, (1 << 63) - 1, 1), call(285, hole, 1, 2 << 20, 10), os.fstat(hole).st_size, call(285, hole, 0, 2 << 20, 10), os.fstat(hole).st_size, call(285, os.open("f", 0), 0, 0, 10))
p("sync", call(306, fd), call(306, dd), call(306, o), call(277, fd, 0, 0, 7), call(277, fd, 0, 0, 8), call(277, fd, -1, 0, 7), call(277, dd, 0, 0, 1), call(187, fd, 0, 100), call(187, dd, 0, 100), call(221, fd, 0, 0, 3), call(221, fd, 0, 0, 9), call(221, fd, 0, -1, 3), call(187, os.open("f", os.O_WRONLY), 0, 1))
P
