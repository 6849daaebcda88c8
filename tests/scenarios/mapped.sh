# mmap(2): private, shared, coherent with read and write, after close, across processes.
python3 - <<'P'
import mmap, os
with open("f", "wb") as f: f.write(bytes(range(256)) * 64)
f = open("f", "r+b"); size = 16384
m = mmap.mmap(f.fileno(), size); p = mmap.mmap(f.fileno(), size, access=mmap.ACCESS_COPY)
print(m[0:4], m[size-1])
m[0:5] = b"HELLO"; print(open("f", "rb").read(8), p[:5])
p[100:103] = b"xyz"; print(m[100:103] == b"xyz")
os.pwrite(f.fileno(), b"WRITE", 4096); print(m[4096:4101], p[4096:4101])
m.flush(); print(open("f", "rb").read()[:5])
if os.fork() == 0:
    m[8192:8197] = b"child"; os._exit(0)
os.wait(); print(m[8192:8197], os.pread(f.fileno(), 5, 8192))
f.close(); m[1:3] = b"__"; m.close(); print(open("f", "rb").read(5))
g = open("g", "w+b"); g.truncate(10000)
m = mmap.mmap(g.fileno(), 10000); m[9990:] = b"0123456789"; m.close(); g.close()
print(os.stat("g").st_size, open("g", "rb").read()[-12:])
try: mmap.mmap(os.open("f", os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_WRITE | mmap.PROT_READ)
except OSError as e: print(e.errno)
r = mmap.mmap(os.open("f", os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_READ); print(r[:5])
P
cksum f g
