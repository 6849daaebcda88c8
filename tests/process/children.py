# Children made in every way, and how they end.
import os, signal, subprocess, sys, threading, time

def status(pid):
    _, code = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(code)

for code in (0, 1, 77, 255):
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    print("fork", status(pid))
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT):
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), number)
        time.sleep(60)
    print("signal", status(pid))
print("posix_spawn", status(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], os.environ)))
print("vfork", subprocess.run(["sh", "-c", "exit 9"]).returncode)
print("system", os.system("exit 5") >> 8)
try:
    subprocess.run(["/nonexistent"])
except FileNotFoundError as error:
    print("exec", error.errno)
print("pipes", subprocess.run("seq 1000 | sort -n | tail -1", shell=True, capture_output=True, text=True).stdout)
print("environment", subprocess.run(["sh", "-c", "echo $A"], env={"A": "b", **os.environ}, capture_output=True).stdout)

# A child that ends while its parent does not look, then waitid without reaping.
pid = os.fork()
if pid == 0:
    os._exit(3)
seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print("waitid", seen.si_code, seen.si_status, status(pid))
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no more children")

# Stopped and continued, as its parent sees it.
pid = os.fork()
if pid == 0:
    time.sleep(60)
    os._exit(0)
os.kill(pid, signal.SIGSTOP)
_, code = os.waitpid(pid, os.WUNTRACED)
print("stopped", os.WIFSTOPPED(code), os.WSTOPSIG(code))
os.kill(pid, signal.SIGCONT)
_, code = os.waitpid(pid, os.WCONTINUED)
print("continued", os.WIFCONTINUED(code))
os.kill(pid, signal.SIGKILL)
print("killed", status(pid))

# An orphan goes on, and becomes somebody else's child.
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.close(read)
        os.setsid()
        parent = os.getppid()
        while os.getppid() == parent and parent != 1:
            time.sleep(0.01)
        os.write(write, b"adopted")
        os._exit(0)
    time.sleep(0.05)
    os._exit(0)
os.wait()
os.close(write)
print(os.read(read, 100))

# As many as there may be, one after the other and at once.
print("storm", sum(status(os.posix_spawn("/bin/true", ["true"], {})) for _ in range(60)))
pids = []
for n in range(40):
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/sh", ["sh", "-c", f"exit {n}"])
    pids.append(pid)
print("at once", [status(pid) for pid in reversed(pids)] == list(reversed(range(40))))
sys.exit(42)
