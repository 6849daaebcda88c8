# What a server is asked by calls that read: when are attributes, names and data right as they are known?
for mode in "" "--ttl 0" "--init-flags 4096" "--init-flags 8192" "--open-flags 1" "--open-flags 2"; do
echo "= $mode"; serve $mode
head -c 4000 /dev/zero > mnt/f; mkdir mnt/d; echo x > mnt/d/x; chmod 755 mnt/f; tail -c 1 mnt/f > /dev/null; say asked > /dev/null
python3 - << 'END'
import ctypes
from served import *
libc = ctypes.CDLL(None)
def asked(what): print("-", what, say("asked"), sep="\n", end="")
def statx(mask):
    into = ctypes.create_string_buffer(256)
    return libc.statx(-100, b"mnt/f", 0, mask, into), hex(int.from_bytes(into.raw[:4], "little"))
SIZE, MODE, ATIME, MTIME, BTIME = 0x200, 2, 0x20, 0x40, 0x800
def masks(what):
    for mask in 0, SIZE, MODE, MTIME, ATIME, BTIME: print(statx(mask)); asked(f"{what}: statx {mask:x}")
masks("at first")
fd = os.open("mnt/f", os.O_RDWR); asked("open")
os.pread(fd, 100, 0); asked("pread"); masks("read")
os.pread(fd, 100, 0); asked("again"); masks("read again")
os.pread(fd, 100, 9000); asked("beyond"); masks("read beyond")
os.fstat(fd); asked("fstat"); os.pwrite(fd, b"x" * 5000, 0); asked("write"); masks("written")
os.access("mnt/f", os.R_OK); asked("access")
os.pread(fd, 100, 4500); os.fstat(fd); os.posix_fadvise(fd, 0, 4096, os.POSIX_FADV_DONTNEED); os.pread(fd, 10, 4500); asked("not dropped"); os.pread(fd, 10, 0); asked("dropped"); os.fstat(fd); asked("fstat")
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED); time.sleep(0.2); asked("wanted"); os.pread(fd, 10, 4990); asked("pread")
os.lseek(fd, 0, os.SEEK_END); asked("seek"); os.close(fd); asked("close")
os.listdir("mnt/d"); asked("listdir"); os.stat("mnt/d"); asked("stat"); os.stat("mnt/d/x"); asked("stat below"); os.listdir("mnt/d"); asked("listdir again"); os.scandir("mnt/d").close(); asked("opened only")
tried(os.stat, "mnt/no"); asked("no"); tried(os.open, "mnt/no", os.O_RDONLY); asked("open no"); tried(os.stat, "mnt/f/x"); asked("below a file"); os.stat("mnt/d/../f"); asked("up")
os.close(os.open("mnt/d/n", os.O_CREAT)); asked("create"); os.stat("mnt/d"); asked("stat parent"); os.unlink("mnt/d/n"); asked("unlink"); os.stat("mnt/d"); asked("stat parent"); tried(os.stat, "mnt/d/n"); asked("gone")
os.mkdir("mnt/e"); asked("mkdir"); os.stat("mnt/e"); os.stat("mnt"); asked("stat"); os.rmdir("mnt/e"); asked("rmdir"); os.stat("mnt"); asked("stat")
os.rename("mnt/d/x", "mnt/y"); os.stat("mnt/y"); os.stat("mnt/d"); os.stat("mnt"); asked("rename and stat")
os.link("mnt/f", "mnt/d/f"); asked("link"); os.stat("mnt/f"); asked("stat"); os.stat("mnt/d/f"); asked("stat the other")
os.setxattr("mnt/f", "user.x", b"1"); os.stat("mnt/f"); asked("setxattr and stat"); os.chmod("mnt/f", 0o644); asked("chmod"); os.stat("mnt/f"); asked("stat")
os.truncate("mnt/f", 10); asked("truncate"); os.stat("mnt/f"); asked("stat"); os.utime("mnt/f", (1, 2)); asked("utime"); os.stat("mnt/f"); asked("stat")
END
unserve
done
