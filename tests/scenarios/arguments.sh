# Locks of one owner merge and split; odd arguments of mmap, linkat, name_to_handle_at, openat2, advice; no descriptor free.
python3 - <<'P'
import os, errno, ctypes, struct, fcntl, mmap
libc = ctypes.CDLL(None, use_errno=True)
def attempt(f, *args, **kw):
    try: return f(*args, **kw)
    except OSError as e: return errno.errorcode.get(e.errno, e.errno)
def call(nr, *args):
    r = libc.syscall(nr, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return ("ok" if r >= 0 and nr != 303 else r) if r >= 0 else errno.errorcode.get(ctypes.get_errno())
def p(*a): print(*a, flush=True)
open("f", "wb").write(b"x" * 10000); os.mkdir("d"); os.symlink("f", "s")
fd = os.open("f", os.O_RDWR)
def lk(t, s=0, l=0): return struct.pack("hhqqi4x", t, 0, s, l, 0)
def locks():
    """What another process sees, lock by lock."""
    r, w = os.pipe()
    if os.fork() == 0:
        c = os.open("f", os.O_RDWR); at = 0; out = []
        while at < 1000:
            t, _, s, l, pid = struct.unpack("hhqqi4x", fcntl.fcntl(c, fcntl.F_GETLK, lk(1, at, 1000 - at)))
            if t == 2: break
            out.append((t, s, l)); at = s + l if l else 1000
        os.write(w, repr(out).encode()); os._exit(0)
    os.wait(); os.close(w); d = os.read(r, 10000).decode(); os.close(r); return d
S = lambda t, s, l: fcntl.fcntl(fd, fcntl.F_SETLK, lk(t, s, l))
for seq in ([(1,10,5),(1,15,5)], [(0,10,5),(1,12,2)], [(1,10,10),(2,12,3)], [(1,10,10),(0,5,10)], [(1,10,5),(1,20,5),(1,15,5)], [(1,10,5),(1,30,5),(1,5,40)], [(0,0,0),(1,5,5)], [(1,5,5),(0,5,5)], [(1,10,5),(2,8,4),(2,13,9)]):
    S(2, 0, 0)
    for a in seq: S(*a)
    p("locks", seq, locks())
S(2, 0, 0)
# mmap
wo = os.open("f", os.O_WRONLY); ro = os.open("f", os.O_RDONLY)
libc.syscall.restype = ctypes.c_long
for name, d in (("rw", fd), ("wo", wo), ("ro", ro)):
    out = []
    for length in (0, 4096, -1, 1 << 46):
        for prot in (0, 1, 2, 4):
            for flags in (0, 1, 2, 3, 0x22, 4):
                for off in (0, 1):
                    r = libc.syscall(9, 0, ctypes.c_long(length), prot, flags, d, ctypes.c_long(off)); out.append("ok" if r != -1 else errno.errorcode[ctypes.get_errno()])
    p("mmap", name, out)
p(call(9, 0, 4096, 1, 1 | 0x80000, fd, 0), call(9, 0, 4096, 1, 3 | 0x80000, fd, 0), call(9, 0, 4096, 1, 3 | 0x8000000, fd, 0), call(9, 0, 4096, 1, 2, fd, 1 << 62), call(9, 0, 4096, 1, 2, fd, (1 << 63) - 4096), call(9, 0, 4096, 1, 2, 999, 0), call(9, 1, 4096, 1, 0x12, fd, 0))
# linkat
n = [0]
def ln(od, o, nd, flags):
    n[0] += 1; return call(265, od, o, nd, b"l%d" % n[0], flags)
d = os.open("d", 0); dp = os.open("d", os.O_PATH); sp = os.open("s", os.O_PATH | os.O_NOFOLLOW); fp = os.open("f", os.O_PATH)
here = os.getcwd().encode()
p("linkat", ln(-100, b"f", -100, 0), ln(d, b"../f", -100, 0), ln(d, b"../f", d, 0), ln(fd, b"f", -100, 0), ln(99, b"f", -100, 0), ln(-100, b"f", 99, 0), ln(-100, b"f", fd, 0), ln(fd, b"", -100, 0x1000), ln(fp, b"", -100, 0x1000), ln(-100, b"", -100, 0), ln(-100, b"f", -100, 1), ln(-100, b"s", -100, 0), ln(-100, b"s", -100, 0x400), ln(sp, b"", -100, 0x1000), ln(99, here + b"/f", -100, 0), ln(-100, b"/proc/self/fd/%d" % fd, -100, 0x400), ln(-100, b"/proc/self/fd/%d" % fd, -100, 0), ln(d, b"", -100, 0x1000), ln(-100, 0, -100, 0), ln(-100, b"x" * 300, -100, 0), ln(-100, b"d", -100, 0), ln(-100, b"/etc/passwd", -100, 0), ln(-100, b"f/", -100, 0))
# handles
def h(size, path=b"f", dfd=-100, flags=0, mid=None):
    b = ctypes.create_string_buffer(struct.pack("Ii", size, 0) + b"\0" * 300); m = ctypes.c_int(); r = call(303, dfd, path, b, ctypes.byref(m) if mid is None else mid, flags); return r, struct.unpack("I", b[:4])[0]
p("handle", h(0), h(11), h(12), h(128), h(129), h(12, b""), h(12, b"nope"), h(12, b"f", 99), h(12, b"f", fd), h(12, flags=0xff00), h(12, mid=0), call(303, -100, b"f", 0, 0, 0), h(12, b"", fd), h(12, b"s"), h(12, 0))
import platform
if tuple(map(int, platform.release().split(".")[:2])) >= (6, 13):
    p("connectable", h(12, flags=2), h(24, flags=2), h(24, flags=0x202), h(24, b"d", flags=2), h(128, b"s", flags=2), h(128, b"f", 99, 0x202))
# openat2
def o2(how, size=24, path=b"f", dfd=-100): return call(437, dfd, path, ctypes.create_string_buffer(how, 5000) if how is not None else 0, size)
H = lambda f=0, m=0, r=0: struct.pack("QQQ", f, m, r)
p("openat2", o2(H()), o2(None), o2(H(), 0), o2(H(), 23), o2(H(), 4096), o2(H(), 4097), o2(H(), 5000), o2(H(), path=0), o2(H(), dfd=99), o2(H(), dfd=fd), o2(H(0o4), path=b"f"), o2(H(3)), o2(H(1 << 31)), o2(H(0o100, 0o100000), path=b"n"), o2(H(0, 0, 0x18)), o2(H(0, 0, 0x40)), o2(H(0, 0, 0x60)), o2(H(0o100, 0o600, 0x20)), o2(H(0, 1 << 40)), o2(H(0o20000000)), o2(H(0o20200000)), o2(H(0o20200002, 0o600), path=b"."), o2(H(0o10000000 | 0o2)), o2(H(0o10000000)), o2(H(0, 0, 4), path=b"s"), o2(H(0o400000), path=b"s"))
# RLIMIT_NOFILE
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (900, 900)); got = []
try:
    while True: got.append(os.open("f", 0))
except OSError as e: p("limit", errno.errorcode[e.errno], len(got) > 700)
p(attempt(os.dup, fd), attempt(os.open, "f", 0), attempt(os.open, "new2", os.O_CREAT))
for g in got: os.close(g)
ends = 0, 5000, 1 << 62, (1 << 63) - 1, -1, -(1 << 63)
for nr, hows in (221, (3, 4, 9)), (187, (0,)): p("advice", nr, [call(nr, fd, at, n, how) for at in ends for n in ends for how in hows])
p(os.pread(fd, 3, 0))
P
