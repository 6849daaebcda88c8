# Signals whose handlers are not to restart calls, while calls are made that never wait for others.
import ctypes, errno, fcntl, os, signal, time

libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
failed = set()

def call(name, *args):
    result = getattr(libc, name)(*args)
    if result < 0:
        failed.add((name, errno.errorcode[ctypes.get_errno()]))
    return result

open("interrupted", "w").close()
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
end = time.time() + 1.5
while time.time() < end:
    call("access", b"interrupted", 0)
    fd = call("open", b"interrupted", os.O_RDWR)
    call("dup2", fd, 900)
    call("fcntl", fd, fcntl.F_GETFL)
    call("pwrite", fd, b"x", 1, 0)
    call("chmod", b"interrupted", 0o600)
    call("close", 900)
    call("close", fd)
signal.setitimer(signal.ITIMER_REAL, 0)
print("failed:", *sorted(failed))
os.unlink("interrupted")

# Calls that wait are ended, whenever the signal comes.
class Stop(Exception):
    pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGALRM, stop)
os.mkfifo("fifo")
ended = 0
for n in range(20):
    try:
        # Once more, should it come before the call is made.
        signal.setitimer(signal.ITIMER_REAL, 0.003 + n * 0.002, 0.2)
        open("fifo")
    except Stop:
        signal.setitimer(signal.ITIMER_REAL, 0)
        ended += 1
print("ended:", ended)
os.unlink("fifo")
