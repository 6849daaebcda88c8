# Watches (inotify) make nothing busy, hear nothing of what the server does, and end with the mount.
serve
echo text > mnt/f; mkdir mnt/d
python3 -c '
import ctypes, os, struct
from served import *
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(os.O_NONBLOCK)
def events():
    try: data = os.read(fd, 10000)
    except BlockingIOError: return []
    found = []
    while data:
        watch, mask, cookie, length = struct.unpack_from("iIII", data)
        found.append((watch, hex(mask), data[16:16 + length].rstrip(bytes(1))))
        data = data[16 + length:]
    return found
print([libc.inotify_add_watch(fd, path, 0xfff) for path in (b"mnt", b"mnt/f", b"mnt/d")])
m = open("mnt/f"); print(events(), umount()); m.close(); print(events())
print(umount(), sorted(events()), [libc.inotify_rm_watch(fd, n) for n in (1, 2, 3)])
print(libc.inotify_add_watch(fd, b"mnt", 0xfff), events())
'
wait $server; echo "server: $?"
