# Calls on paths, so many that they take the quick way, and what can happen to them on it.
import ctypes, errno, os, signal, stat, subprocess, threading

libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(256)

def said(result):
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "fine"

os.makedirs("tree/d", exist_ok=True)
open("tree/d/file", "w").close()
os.symlink("d", "tree/link")
top = os.open("tree", os.O_RDONLY)
for _ in range(30):
    os.stat("/etc/passwd"), os.lstat("tree/link"), os.access("tree/d/file", os.R_OK), os.readlink("tree/link")
    os.mkdir("tree/x"), os.chmod("tree/x", 0o711), os.utime("tree/x", (1, 2)), os.rmdir("tree/x"), os.listdir("tree")
    libc.syscall(4, b"/etc/passwd", buffer), libc.syscall(39)
    os.stat("d/file", dir_fd=top), os.close(os.open("tree/d/file", os.O_RDONLY)), os.fstat(top)
print(stat.S_ISLNK(os.lstat("tree/link").st_mode), stat.S_ISDIR(os.stat("tree/link").st_mode))
print(os.path.samestat(os.stat("tree/link/file"), os.stat("d/file", dir_fd=top)))
print(os.path.samestat(os.fstat(top), os.stat("tree/d/..")))
for _ in range(30):
    held = os.open("file", os.O_PATH | os.O_NOFOLLOW, dir_fd=os.open("tree/d", os.O_PATH))
    os.fstat(held), os.open(f"/proc/self/fd/{held}", os.O_RDONLY)
again = os.open(f"/proc/self/fd/{held}", os.O_WRONLY)
print(os.path.samestat(os.fstat(again), os.stat("tree/d/file")), os.path.exists(f"/proc/self/fd/{again + 1}"))
os.closerange(top + 1, again + 1)

os.mkdir("x", 0o777, dir_fd=top), os.utime("x", (1, 2), dir_fd=top), os.chmod("tree/x", 0o1711)
print(oct(os.stat("tree/x").st_mode), os.stat("tree/x").st_mtime, os.listdir("tree/x"))
os.utime("tree/link", (3, 4), follow_symlinks=False), os.chmod("tree/link/file", 0o444), os.rmdir("x", dir_fd=top)
print(os.lstat("tree/link").st_mtime, oct(os.stat("d/file", dir_fd=top).st_mode), os.path.exists("tree/x"))
os.symlink("none", "tree/x"), os.unlink("tree/x")
print(os.path.lexists("tree/x"), said(libc.rmdir(b"tree")), said(libc.mkdir(b"tree/link", 0)), said(libc.unlink(b"tree/d")))

# What is wrong with a path or a buffer is an error.
for bad in (0, 8, -1, 1 << 62):
    bad = ctypes.c_void_p(bad)
    for path in (b"/etc/passwd", bad):
        stated = [said(call(path, bad)) for call in (libc.stat, libc.lstat)]
        print(stated, said(libc.access(path, 0)), said(libc.open(path, os.O_DIRECTORY)))
print(said(libc.stat(b"", buffer)), said(libc.stat(b"a/" * 3000, buffer)), said(libc.open(b"tree/none", 0)))
print(said(libc.stat(b"tree/d/file/x", buffer)), said(libc.open(b"tree/d", os.O_WRONLY)), said(libc.access(b"/etc/shadow", 2)))
print(said(libc.open(b"tree/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o100640)), oct(os.stat("tree/new").st_mode))
print(said(libc.open(b"tree/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)))

print(said(libc.syscall(21, b"/etc/passwd", 0)), said(libc.syscall(2, b"/etc/none", 0)), said(libc.syscall(4, 8, buffer)))
print(libc.syscall(39) == os.getpid(), said(libc.syscall(5000)), said(libc.syscall(-1)))

# Signals in the middle.
ticks = 0
def tick(*_):
    global ticks
    ticks += 1
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while ticks < 50:
    assert os.stat("tree/d/file").st_size == 0
    os.close(os.open("/etc/passwd", os.O_RDONLY))
signal.setitimer(signal.ITIMER_REAL, 0)
os.mkfifo("tree/fifo")
libc.siginterrupt(signal.SIGALRM, 1)
signal.setitimer(signal.ITIMER_REAL, 0.1)
print(said(libc.open(b"tree/fifo", os.O_RDONLY)))
libc.siginterrupt(signal.SIGALRM, 0)
signal.setitimer(signal.ITIMER_REAL, 0.1)
writer = subprocess.Popen(["sh", "-c", "sleep 0.3; echo hello > tree/fifo"])
print(os.read(libc.open(b"tree/fifo", os.O_RDONLY), 9), writer.wait())

# Children, whether or not they share the memory.
pid = os.fork()
if pid == 0:
    os.chdir("tree")
    os._exit(0 if os.stat("d/file").st_size == 0 and not os.path.exists("tree") else 1)
print("forked", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.path.exists("tree/d"))
print("spawned", subprocess.run(["ls"], cwd="tree/d", capture_output=True).stdout, os.path.exists("tree/d"))

# Threads, of which one moves them all.
def look():
    for _ in range(300):
        os.stat("/etc/passwd"), os.stat("d/file", dir_fd=top), os.close(os.open("/etc/passwd", os.O_RDONLY))
threads = [threading.Thread(target=look) for _ in range(4)]
[thread.start() for thread in threads]
os.chdir("tree/d")
[thread.join() for thread in threads]
print(os.path.exists("file"), os.path.exists("tree"), os.listdir())
os.chdir("../..")
subprocess.run(["rm", "-r", "tree"])
