# A mapping of a file that is larger than any memory, and nearly empty.
serve
python3 -c '
import mmap, os
G = 1 << 30
fd = os.open("mnt/vast", os.O_RDWR)
print(os.fstat(fd).st_size // G, os.lseek(fd, 5000, os.SEEK_DATA) // G, os.lseek(fd, 5, os.SEEK_HOLE))
private = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
shared = mmap.mmap(fd, 0)
last = len(shared) - 4096
for m in private, shared: print(m[:8], m[50 * G : 50 * G + 4], m[last : last + 8])
shared[50 * G : 50 * G + 3] = b"new"
print(os.pread(fd, 4, 50 * G), private[50 * G : 50 * G + 4])
shared[last + 9] = 66
shared.flush()
'
cat mnt/.control
unserve
