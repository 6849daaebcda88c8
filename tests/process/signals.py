# Signals: handlers, masks, what is interrupted and what is made again.
import ctypes, errno, os, select, signal, socket, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
log = []
signal.signal(signal.SIGUSR1, lambda *_: log.append("usr1"))
signal.signal(signal.SIGALRM, lambda *_: log.append("alarm"))

def call(what, restart, after=None):
    """A system call that waits, with signals in the middle. Where they do not end it, `after` does."""
    signal.siginterrupt(signal.SIGALRM, not restart)
    log.clear()
    ended, main = threading.Event(), threading.get_ident()
    def bother():
        sent = 0
        while not ended.is_set():
            if restart and after and sent == 5:
                return after()
            signal.pthread_kill(main, signal.SIGALRM)
            sent += 1
            time.sleep(0.03)
    thread = threading.Thread(target=bother)
    thread.start()
    ctypes.set_errno(0)
    result = what()
    error = ctypes.get_errno()
    ended.set()
    thread.join()
    print(result, errno.errorcode.get(error) if result < 0 else "", "alarm" in log)

buffer = ctypes.create_string_buffer(16)
for restart in (False, True):
    read, write = os.pipe()
    call(lambda: libc.read(read, buffer, 16), restart, lambda: os.write(write, b"four"))
    a, b = socket.socketpair()
    call(lambda: libc.recv(a.fileno(), buffer, 16, 0), restart, lambda: b.send(b"sixsix"))
    fifo, _ = os.pipe()
    call(lambda: libc.poll((ctypes.c_int * 2)(fifo, 1), 1, 60000), restart)
    call(lambda: libc.usleep(900000), restart)
    call(lambda: libc.pause(), restart)
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    call(lambda: min(libc.wait4(pid, None, 0, None), 1), restart, lambda: os.kill(pid, signal.SIGKILL))
    if not restart:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
log.clear()
os.kill(os.getpid(), signal.SIGUSR1)
print("blocked", log, signal.SIGUSR1 in signal.sigpending())
print("waited for", signal.sigwait([signal.SIGUSR1]), log)
os.kill(os.getpid(), signal.SIGUSR1)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
print("unblocked", log)

# The mask and what is ignored survive exec.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.stdout.flush()
os.system("grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status")
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])

# To one thread and to another process group; many at once.
signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
log.clear()
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    got = []
    signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    while len(got) < 3:
        time.sleep(0.01)
    os._exit(len(got))
while not os.waitpid(pid, os.WNOHANG)[0]:
    try:
        os.killpg(pid, signal.SIGUSR1)
    except ProcessLookupError:
        pass
    time.sleep(0.02)
print("group")

# SIGCHLD, and children that are not to be waited for.
signal.signal(signal.SIGCHLD, lambda *_: log.append("child"))
if (pid := os.fork()) == 0:
    os._exit(0)
while "child" not in log: time.sleep(0.01)
os.waitpid(pid, 0)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if (pid := os.fork()) == 0:
    os._exit(0)
try:
    os.waitpid(pid, 0)
except ChildProcessError:
    print("reaped by itself")
