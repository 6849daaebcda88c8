# Where a file ends, and when the server is asked for that; nothing beyond is copied.
for ttl in 3600 0; do
serve --ttl $ttl
touch mnt/f; printf 0123456789 > mnt/f; say asked > /dev/null; printf 0123456789 > mnt/g
python3 - << 'END'
import array, fcntl, struct, termios
from served import *
def asked(what, result): print("-", what, result, say("asked").split("\n"))
def left(fd):
    n = array.array("i", [0]); fcntl.ioctl(fd, termios.FIONREAD, n); return n[0]
def lock(fd, start):
    held = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_END, start, 1, 0)); return struct.unpack("hhqqi", held)[:4]
f, g = os.open("mnt/f", os.O_RDWR), os.open("mnt/g", os.O_RDWR)
asked("open", "")
asked("end", os.lseek(f, 0, os.SEEK_END))
asked("again", os.lseek(f, -1, os.SEEK_END))
asked("left", left(f))
asked("lock", lock(f, -3))
os.fchmod(g, 0o4755); asked("mode", "")
for at, to, size in (10, 0, 5), (1 << 40, 3, 5), ((1 << 63) - 9, 0, 100), (0, 20, 0):
    asked(f"copy {at} {size} to {to}", tried(os.copy_file_range, f, g, size, at, to))
print(oct(os.fstat(g).st_mode)); os.fchmod(g, 0o755); asked("mode", "")
for at, to, size in (8, 0, 5), (9, 12, 1 << 60), (0, 0, 5):
    asked(f"copy {at} {size} to {to}", tried(os.copy_file_range, f, g, size, at, to))
    print(os.pread(g, 30, 0)); asked("read", "")
asked("overlap", tried(os.copy_file_range, f, f, 100, 2, 11))
asked("no overlap", tried(os.copy_file_range, f, f, 100, 8, 10))
os.lseek(f, 8, 0); os.lseek(g, 0, 0); asked("own offsets", os.copy_file_range(f, g, 5)); asked("end", os.copy_file_range(f, g, 50))
END
unserve
done
