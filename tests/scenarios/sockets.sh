# Unix sockets and FIFOs on the mount.
python3 - <<'P'
import os, errno, socket, stat, select, threading
def attempt(f, *args, **kw):
    try: return f(*args, **kw)
    except OSError as e: return errno.errorcode.get(e.errno, e.errno)
def p(*a): print(*a, flush=True)
s = socket.socket(socket.AF_UNIX); s.bind("sock"); p(stat.S_ISSOCK(os.stat("sock").st_mode), oct(os.stat("sock").st_mode & 0o777), s.getsockname())
c = socket.socket(socket.AF_UNIX); p(attempt(c.connect, "sock")); s.listen(5); p(attempt(c.connect, "sock")); d, peer = s.accept(); c.send(b"hi"); p(d.recv(10), peer, c.getpeername(), d.getsockname())
p(attempt(open, "sock"), attempt(socket.socket(socket.AF_UNIX).bind, "sock"), attempt(socket.socket(socket.AF_UNIX).connect, "nope"), attempt(socket.socket(socket.AF_UNIX).bind, "no/such"))
open("f", "w").close(); p(attempt(socket.socket(socket.AF_UNIX).connect, "f"), attempt(socket.socket(socket.AF_UNIX).bind, "f"))
os.mkdir("d"); os.rename("sock", "d/moved"); c2 = socket.socket(socket.AF_UNIX); p(attempt(c2.connect, "d/moved")); os.symlink("d/moved", "l"); c3 = socket.socket(socket.AF_UNIX); p(attempt(c3.connect, "l")); os.link("d/moved", "hard"); p(attempt(socket.socket(socket.AF_UNIX).connect, "hard"))
os.chmod("d/moved", 0); p(attempt(socket.socket(socket.AF_UNIX).connect, "d/moved")); os.unlink("d/moved"); p(attempt(socket.socket(socket.AF_UNIX).connect, "d/moved"))
g = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); g.bind("dgram"); h = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); h.bind("other"); p(h.sendmsg([b"datagram"], [], 0, "dgram"), g.recvfrom(20)[0]); h.connect("dgram"); h.send(b"again"); p(g.recv(10), attempt(socket.socket(socket.AF_UNIX).connect, "dgram"), h.sendmsg([b"msg"]), g.recv(10))
p(h.sendto(b"to", "dgram"), g.recv(10), [attempt(h.sendto, b"x", path) for path in ("nope", "f", "hard", "d")], h.sendto(b"", "dgram"), g.recv(10))
p(h.sendto(b"whose", "dgram"), g.recvfrom(10), h.sendto(b"whose", "dgram"), g.recvmsg(10), h.sendto(b"whose", "dgram"), g.recvfrom_into(bytearray(9)), h.getpeername())
u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); p(u.sendto(b"nobody", "dgram"), g.recvfrom(10), u.sendto(b"nobody", "dgram"), g.recvmsg(10))
g.close(); p(attempt(h.send, b"x")); s.close(); p(attempt(socket.socket(socket.AF_UNIX).connect, "hard"))
v = socket.socket(socket.AF_UNIX); v.bind("server"); v.listen(); k = socket.socket(socket.AF_UNIX); k.bind("client"); k.connect("server"); d, peer = v.accept(); p(peer, d.getpeername(), d.getsockname(), k.getpeername(), k.getsockname())
p(attempt(os.chdir, "d")); e = socket.socket(socket.AF_UNIX); e.bind("../rel"); e.listen(); p(attempt(socket.socket(socket.AF_UNIX).connect, "../rel")); os.chdir(".."); p(sorted(os.listdir(".")))
os.mkfifo("fifo", 0o600); p(stat.S_ISFIFO(os.stat("fifo").st_mode), attempt(os.open, "fifo", os.O_WRONLY | os.O_NONBLOCK))
r = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK); p(attempt(os.read, r, 10)); w = os.open("fifo", os.O_WRONLY); p(os.write(w, b"through"), os.read(r, 20), attempt(os.read, r, 1)); os.close(w); p(os.read(r, 5)); os.close(r)
def writer():
    with open("fifo", "w") as f: f.write("from a thread\n")
t = threading.Thread(target=writer); t.start(); p(open("fifo").read()); t.join()
if os.fork() == 0:
    with open("fifo", "w") as f: f.write("from a child\n")
    os._exit(0)
p(open("fifo").read()); os.wait()
rw = os.open("fifo", os.O_RDWR); os.write(rw, b"self"); p(os.read(rw, 10), attempt(os.lseek, rw, 0, 1), stat.S_ISFIFO(os.fstat(rw).st_mode), os.fstat(rw).st_ino == os.stat("fifo").st_ino); po = select.poll(); po.register(rw, select.POLLIN); p(po.poll(0)); os.write(rw, b"x"); p(len(po.poll(0)))
os.unlink("fifo"); p(attempt(os.open, "fifo", os.O_RDONLY))
P
mkfifo q; (echo shell > q) & cat q; wait
