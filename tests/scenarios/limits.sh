# Limits on file sizes (setrlimit(2)): what goes beyond fails, and the caller gets a signal. And on descriptors.
python3 -c '
import ctypes, errno, os, resource, signal
libc = ctypes.CDLL(None, use_errno=True)
seen = []
signal.signal(signal.SIGXFSZ, lambda *_: seen.append("SIGXFSZ"))
def call(what, f, *args):
    try: result = f(*args)
    except OSError as error: result = errno.errorcode[error.errno]
    size = os.path.getsize("f")
    print(what, result, size, *seen)
    seen.clear()
fd = os.open("f", os.O_RDWR | os.O_CREAT)
os.write(fd, b"x" * 9000)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
def limit(to): resource.setrlimit(resource.RLIMIT_FSIZE, (to, unlimited))
limit(8192)
call("write far behind it", os.pwrite, fd, b"y", 10000)
call("write at it", os.pwrite, fd, b"y", 8192)
call("write across it", os.pwrite, fd, b"y" * 100, 8190)
call("write nothing", os.pwrite, fd, b"", 10000)
call("write below it", os.pwrite, fd, b"y", 4000)
call("shrink beyond it", os.ftruncate, fd, 8500)
call("grow", os.ftruncate, fd, 8600)
call("grow by name", os.truncate, "f", 8600)
call("allocate", os.posix_fallocate, fd, 8000, 1000)
call("shrink below it", os.ftruncate, fd, 100)
call("grow to it", os.ftruncate, fd, 8192)
call("allocate below it", os.posix_fallocate, fd, 0, 8192)
append = os.open("f", os.O_WRONLY | os.O_APPEND)
call("append", os.write, append, b"z")
call("vector", os.pwritev, fd, [b"a" * 8000, b"b" * 8000], 100)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
call("ignored", os.write, append, b"z")
limit(unlimited)
call("without a limit", os.write, append, b"z")
'
rm f; (ulimit -f 8; head -c 20000 /dev/zero > f; echo $?) 2>&1; stat -c %s f
# The highest descriptor comes last.
python3 -c '
import errno, fcntl, os, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
def fails(make):
    try: return make()
    except OSError as error: return errno.errorcode[error.errno]
for limit in 40, 900, 1024, 1100:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    for make in lambda: os.open("f", os.O_RDONLY), lambda: os.dup(first), lambda: fcntl.fcntl(first, fcntl.F_DUPFD, 0):
        first = os.open("f", os.O_RDONLY)
        opened = [first]
        while opened[-1] < limit - 1: opened.append(make())
        print(limit, limit - len(opened) < 20, fails(make), fails(os.pipe))
        os.close(opened.pop(5))
        opened[-1:] = [make(), opened[-1]]
        print(fails(make), [os.pread(fd, 1, 0) for fd in opened[-2:]])
        os.closerange(3, limit)
    fd = os.open("f", os.O_RDONLY)
    print(fcntl.fcntl(fd, fcntl.F_DUPFD, limit - 1) == limit - 1, fails(lambda: fcntl.fcntl(fd, fcntl.F_DUPFD, limit)), fails(lambda: fcntl.fcntl(fd, fcntl.F_DUPFD, limit - 1)))
    os.closerange(3, limit)
'
