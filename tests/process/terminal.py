# A shell at a terminal: what the keys do. The arguments are what the shell is run by.
import os, pty, re, select, sys, termios, time

pid, terminal = pty.fork()
if pid == 0:
    # What is typed is not shown, as it may come before or after the prompt.
    mode = termios.tcgetattr(0)
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, mode)
    os.environ.update(PS1="prompt> ", TERM="dumb", HISTFILE="")
    os.execvp((sys.argv[1:] + ["bash"])[0], sys.argv[1:] + ["bash", "--norc", "--noprofile", "--noediting", "-i"])

seen = b""
def until(what):
    global seen
    limit = time.monotonic() + 30
    while what not in seen:
        if not select.select([terminal], [], [], max(0, limit - time.monotonic()))[0]:
            sys.exit(f"{what!r} does not come, but {seen!r}")
        seen += os.read(terminal, 4096)
    before, _, seen = seen.partition(what)
    text = (before + what).decode(errors="replace").replace("\r", "")
    # When bash begins a new line after a key depends on who sees the key first.
    text = re.sub(r"\n+", "\n", text)
    print(re.sub(r"\b\d{2,}\b", "N", text), end="")

def line(text, answer=b"prompt> "):
    os.write(terminal, text.encode() + b"\n")
    until(answer)

READY = "sh -c 'echo re''ady; exec "
until(b"prompt> ")
line("tty > /dev/null && echo a terminal")
line(READY + "cat'", b"ready")
os.write(terminal, b"\x03")
until(b"prompt> ")
line("echo $?")
line(READY + "sleep 60'", b"ready")
os.write(terminal, b"\x1a")
until(b"prompt> ")
line("jobs")
line("fg", b"\n")
# It is continued before the shell waits for it; a key that came sooner would find nobody.
time.sleep(0.5)
os.write(terminal, b"\x1a")
until(b"prompt> ")
# Whether the shell tells of the end depends on who is first; `jobs` is told in any case.
line("bg > /dev/null; kill %1; while kill -0 %1 2> /dev/null; do :; done; jobs > /dev/null; wait; echo $?")
line(READY + "sleep 60'", b"ready")
os.write(terminal, b"\x1c")
until(b"prompt> ")
line("sleep 0.1 & wait $!; echo done $?")
termios.tcsetwinsize(terminal, (33, 77))
line("stty size")
os.write(terminal, b"exit 3\n")
print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
