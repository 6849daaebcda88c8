# flock(2), POSIX and open file description locks.
python3 - <<'P'
import fcntl, os, struct, errno
def attempt(f, *args):
    try: f(*args); return "ok"
    except OSError as e: return errno.errorcode[e.errno]
open("f", "w").write("x" * 100)
a = open("f", "r+"); b = open("f", "r+")
print("flock", attempt(fcntl.flock, a, fcntl.LOCK_EX), attempt(fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB))
fcntl.flock(a, fcntl.LOCK_UN); print("then", attempt(fcntl.flock, b, fcntl.LOCK_SH | fcntl.LOCK_NB))
fcntl.lockf(a, fcntl.LOCK_EX, 10, 20)
r, w = os.pipe()
if os.fork() == 0:
    c = open("f", "r+")
    res = [attempt(fcntl.lockf, c, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at) for at in (19, 20, 29, 30)]
    got = struct.unpack("hhqqi4x", fcntl.fcntl(c, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)))
    os.write(w, repr((res, got[0], got[2], got[3], got[4] == os.getppid())).encode()); os._exit(0)
os.wait(); print("posix", os.read(r, 1000).decode())
OFD_SETLK = 37
lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 50, 10, 0)
print("ofd", attempt(fcntl.fcntl, a, OFD_SETLK, lock), attempt(fcntl.fcntl, b, OFD_SETLK, lock))
open("f").close()
if os.fork() == 0:
    c = open("f", "r+"); os.write(w, attempt(fcntl.lockf, c, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 20).encode()); os._exit(0)
os.wait(); print("released by any close:", os.read(r, 100).decode())
P
flock f sh -c 'flock -n f true; echo inner $?'; flock -n f echo free
