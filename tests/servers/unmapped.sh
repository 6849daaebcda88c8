# A mapping keeps its file open, and the mount busy, as long as it lasts and no longer.
serve
head -c 5000 /dev/zero > mnt/f; say counts > /dev/null
python3 -c '
import mmap, os, time
from served import *
def mapped():
    fd = os.open("mnt/f", os.O_RDWR)
    m = mmap.mmap(fd, 5000); os.close(fd)
    return m
m = mapped(); n = mapped()
m[0:5] = b"first"; n[10:15] = b"other"
time.sleep(0.6); print(counts(), umount())
m.close(); time.sleep(0.6); print(counts() > 0, umount())
n.close(); print(released(), open("mnt/f", "rb").read(15))
m = mapped()
if os.fork() == 0: time.sleep(1); os._exit(m[0] != ord("f"))
m.close(); time.sleep(0.5); print(counts(), umount())
print(os.wait()[1], released())
# Private and read-only mappings are no different. (The object of Python has a descriptor of its own.)
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype, libc.munmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
for flags in 1, 2:
    fd = os.open("mnt/f", os.O_RDONLY); at = libc.mmap(None, 5000, 1, flags, fd, ctypes.c_long(0)); os.close(fd)
    time.sleep(0.6); print(counts(), umount(), ctypes.string_at(at, 15))
    libc.munmap(at, 5000); print(released())
m = mapped(); m[20:25] = b"again"; m.close(); print(umount())
time.sleep(1)
'
wait $server; echo "server: $?"
