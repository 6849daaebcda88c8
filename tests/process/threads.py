# Threads, and processes that end while they have some.
import ctypes, os, subprocess, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)

def many():
    done = []
    threads = [threading.Thread(target=lambda n=n: done.append((n, os.getpid()))) for n in range(50)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print("threads", sorted(done) == [(n, os.getpid()) for n in range(50)])

def forked(what, body):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        body()
        os._exit(99)
    _, code = os.waitpid(pid, 0)
    print(what, os.waitstatus_to_exitcode(code))

def sleepers(count):
    for _ in range(count):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

def exec_from_a_thread():
    sleepers(3)
    code = "import os, threading; print('executed', os.getpid() == threading.get_native_id(), len(os.listdir('/proc/self/task')))"
    thread = threading.Thread(target=os.execv, args=(sys.executable, [sys.executable, "-c", code]))
    thread.start()
    thread.join()

def failing_exec_from_a_thread():
    sleepers(2)
    def attempt():
        try:
            os.execv("/nonexistent", ["x"])
        except FileNotFoundError:
            os._exit(21)
    threading.Thread(target=attempt).start()
    time.sleep(60)

def exit_from_a_thread():
    sleepers(3)
    threading.Thread(target=os._exit, args=(11,)).start()
    time.sleep(60)

def leader_ends_first():
    def later():
        time.sleep(0.1)
        os._exit(12)
    threading.Thread(target=later).start()
    libc.syscall(60, 0)

def killed_with_threads():
    sleepers(5)
    os.kill(os.getpid(), 9)

def abort_with_threads():
    sleepers(5)
    libc.setrlimit(4, (ctypes.c_ulong * 2)(0, 0))
    os.abort()

def fork_from_a_thread():
    sleepers(2)
    def fork():
        pid = os.fork()
        if pid == 0:
            os._exit(5)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) + 10)
    threading.Thread(target=fork).start()
    time.sleep(60)

many()
forked("exec from a thread", exec_from_a_thread)
forked("failing exec from a thread", failing_exec_from_a_thread)
forked("exit from a thread", exit_from_a_thread)
forked("the leader ends first", leader_ends_first)
forked("killed", killed_with_threads)
forked("aborted", abort_with_threads)
forked("fork from a thread", fork_from_a_thread)

# Threads that start programs all the time.
def start(n):
    for _ in range(8):
        results.append(subprocess.run(["sh", "-c", f"exit {n}"]).returncode == n)
results = []
threads = [threading.Thread(target=start, args=(n,)) for n in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("programs from threads", len(results), all(results))
