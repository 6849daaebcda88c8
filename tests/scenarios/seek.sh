# Offsets, holes, vectors, sendfile, copy_file_range, splice.
python3 - <<'P'
import os, errno
def attempt(f, *args):
    try: return f(*args)
    except OSError as e: return errno.errorcode[e.errno]
fd = os.open("f", os.O_RDWR | os.O_CREAT)
print(os.pwrite(fd, b"end", 100_000), os.lseek(fd, 0, os.SEEK_END), os.lseek(fd, -3, os.SEEK_END), os.read(fd, 10))
print(attempt(os.lseek, fd, -1, 0), attempt(os.lseek, fd, 10, 9), attempt(os.lseek, fd, 100_003, os.SEEK_DATA), attempt(os.lseek, fd, 0, os.SEEK_HOLE))
print(os.pread(fd, 4, 50_000), os.pread(fd, 4, 200_000), attempt(os.pread, fd, 4, -1))
print(os.writev(fd, [b"ab", b"", b"cd"]), os.lseek(fd, 0, 1))
bufs = [bytearray(3), bytearray(4)]; print(os.preadv(fd, bufs, 100_000), bufs, os.pwritev(fd, [b"X", b"Y"], 0))
out = os.open("g", os.O_RDWR | os.O_CREAT)
print(os.sendfile(out, fd, 100_000, 100), os.pread(out, 100, 0), os.copy_file_range(fd, out, 2, 0, 3), os.pread(out, 100, 0))
r, w = os.pipe(); print(os.splice(fd, w, 5, offset_src=100_000), os.read(r, 10)); os.write(w, b"pipe"); print(os.splice(r, out, 4, offset_dst=1), os.pread(out, 9, 0))
d = os.dup(fd); os.lseek(d, 7, 0); print(os.lseek(fd, 0, 1)); os.close(d)
if os.fork() == 0: os.lseek(fd, 9, 0); os._exit(0)
os.wait(); print(os.lseek(fd, 0, 1))
print(attempt(os.read, os.open("f", os.O_WRONLY), 1), attempt(os.write, os.open("f", os.O_RDONLY), b"x"), attempt(os.read, os.open(".", os.O_RDONLY), 1), attempt(os.open, ".", os.O_RDWR))
print(attempt(os.posix_fallocate, fd, 0, 10), os.fsync(fd), os.fdatasync(fd), attempt(os.ftruncate, fd, -1), attempt(os.truncate, "f", 3), os.pread(fd, 10, 0))
P
dd if=f of=h bs=1 skip=1 2>/dev/null; od -An -c h
