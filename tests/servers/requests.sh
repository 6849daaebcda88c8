# What a server is asked, and when: with the write-back cache (65536) and without it, with fresh attributes and without.
asked() { echo "- $1"; say asked; sleep 0.02; }
for mode in "--init-flags 65536" "--init-flags 65536 --ttl 0 --protocol 7.22" "" "--ttl 0"; do
echo "= $mode"; serve $mode
touch mnt/f; say asked > /dev/null
python3 - << 'END'
import mmap
from served import *
def asked(what):
    print("-", what, say("asked"), sep="\n", end="")
    time.sleep(0.02) # Times are those of the last tick.
def quick(path):
    s = os.stat(path); return s.st_size, abs(time.time() - s.st_mtime) < 5, abs(time.time() - s.st_ctime) < 5
fd = os.open("mnt/f", os.O_RDWR)
asked("open")
os.write(fd, b"0123456789"); asked("write"); print(quick("mnt/f")); asked("stat")
os.pread(fd, 10, 0); os.write(fd, b"x" * 10000); print(os.pread(fd, 20, 5)); asked("more")
os.fsync(fd); asked("fsync")
os.fsync(fd); asked("again")
os.pwrite(fd, b"mid", 5000); os.fdatasync(fd); asked("fdatasync")
os.pwrite(fd, b"end", 20000); asked("hole"); print(os.pread(fd, 5, 12000)); asked("hole read")
d = os.dup(fd); os.close(d); asked("close")
os.pwrite(fd, b"abc", 100); os.ftruncate(fd, 102); asked("ftruncate"); print(quick("mnt/f"))
os.pwrite(fd, b"abc", 100); os.truncate("mnt/f", 5000); asked("truncate"); print(quick("mnt/f"))
os.pwrite(fd, b"abc", 100); os.truncate("mnt/f", 5000); asked("truncate to the same")
os.chmod("mnt/f", 0o600); asked("chmod")
os.pwrite(fd, b"abc", 100); os.utime("mnt/f", (1, 2)); asked("utime"); print(os.stat("mnt/f").st_mtime, os.stat("mnt/f").st_atime)
os.pwrite(fd, b"abc", 100); os.utime("mnt/f"); asked("utime now")
os.pwrite(fd, b"abc", 100); os.close(os.open("mnt/f", os.O_RDONLY)); asked("another reader")
os.pwrite(fd, b"abc", 100); print(os.lseek(fd, 0, os.SEEK_END)); asked("seek")
os.pwrite(fd, b"abc", 100); o = os.open("mnt/f", os.O_WRONLY | os.O_TRUNC); asked("open to truncate"); os.close(o); asked("close")
print(quick("mnt/f"))
os.pwrite(fd, b"abc", 9000); s = os.open("mnt/f", os.O_WRONLY | os.O_SYNC | os.O_APPEND); asked("a third"); os.write(s, b"abc"); asked("O_SYNC"); os.close(s); asked("close")
os.pwrite(fd, b"abc", 9000); os.sync(); asked("sync")
w = os.open("mnt/f", os.O_WRONLY); os.pwrite(w, b"abc", 5); asked("write-only"); os.close(w); asked("close")
os.fstat(fd); m = mmap.mmap(fd, 4096); m[0] = 65; m.flush(); asked("msync"); m[0] = 66; m.close(); os.close(fd); asked("unmapped, closed")
END
echo 1 > mnt/g; asked made
mv mnt/g mnt/h; asked rename; ln mnt/h mnt/i; asked link; rm mnt/i; asked unlink; rm mnt/h; asked "last unlink"
chown $(id -u) mnt/f; asked chown
unserve
done
