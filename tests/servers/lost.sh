# Descriptors in messages: which is which, and what becomes of those that nobody receives.
serve
mkdir mnt/a mnt/b; echo in a > mnt/a/f; echo in b > mnt/b/f
python3 -c '
import os, socket, time
from served import *
def send(to, *paths, flags=os.O_RDONLY):
    fds = [os.open(path, flags) for path in paths]
    socket.send_fds(to, [b"x"], fds)
    for fd in fds: os.close(fd)
def receive(at, flags=0): return socket.recv_fds(at, 1, 9, flags)[1]
one, two = socket.socketpair(), socket.socketpair()
send(one[0], "mnt/a"); send(two[0], "mnt/b"); send(one[0], "mnt/a/f"); send(two[0], "mnt/b/f", "mnt/a/f")
send(one[0], "mnt/a", "mnt/b", flags=os.O_PATH)
for at in two[1], one[1]:
    fd, = receive(at)
    print(open(f"/proc/self/fd/{fd}/f").read(), os.get_inheritable(fd))
    os.close(fd)
files, paths = receive(two[1]) + receive(one[1]), receive(one[1])
print([os.read(fd, 9) for fd in files], [os.stat("f", dir_fd=fd).st_size for fd in paths])
for fd in files + paths: os.close(fd)
print(released())
# Both ends are closed, or the process ends.
send(one[0], "mnt/a/f", "mnt/b"); time.sleep(0.6)
print(counts(), umount())
for end in one: end.close()
print(released())
if os.fork() == 0:
    pair = socket.socketpair(); send(pair[0], "mnt/a/f"); os._exit(0)
os.wait(); print(released())
w, fd = two[0], os.open("mnt/b/f", os.O_RDWR)
try: print(w.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little") + 999999 .to_bytes(4, "little"))]))
except OSError as error: print(error.strerror)
os.close(fd); print(released())
send(w, "mnt/b/f"); two[0].close(); two[1].close(); print(umount())
'
wait $server; echo "server: $?"
