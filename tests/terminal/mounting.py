# Mounting at a terminal: the program that is to mount has it until it has done so.
script = "#!/bin/sh\nstty -echo </dev/tty; printf 'Pass''word: ' >/dev/tty; read -r word </dev/tty; stty echo </dev/tty\n"
with open("asks", "w") as file:
    file.write(script + '[ "$word" = secret ] && exec umvu-memfs "$@"\nexit 5\n')
# It is ready when it has the terminal: who does not have it is stopped for setting it.
never = """#!/usr/bin/env python3
import signal, termios
terminal = open("/dev/tty")
termios.tcsetattr(terminal, termios.TCSANOW, termios.tcgetattr(terminal))
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCONT])
print("ready", flush=True)
while signal.sigwait([signal.SIGCONT]):
    print("onward", flush=True)
"""
with open("never", "w") as file:
    file.write(never)
os.chmod("asks", 0o755)
os.chmod("never", 0o755)

# A view of its own for the mount.
terminal.type("umvu vumount -t fuse ./asks x mnt\n")
terminal.wait_for("Password: ")
terminal.type("secret\n")
terminal.wait_for("is served in view")
terminal.type("\x03")
terminal.status_is(130)
terminal.type("umvu vumount -t fuse ./never x mnt\n")
terminal.wait_for("ready\r\n")
terminal.type("\x03")
terminal.wait_for("did not mount")
terminal.status_is(130)

# In a view; what comes after has the terminal again.
terminal.type("umvu sh -c 'vumount -t fuse ./asks x mnt && echo no''w && cat > mnt/f && cat mnt/f'\n")
terminal.wait_for("Password: ")
terminal.type("secret\n")
terminal.wait_for("now\r\n")
terminal.type("a line\n\x04")
terminal.wait_for("a line\r\n", "a line\r\n")
terminal.status_is(0)
terminal.type("umvu sh -c 'vumount -t fuse ./asks x mnt; echo mounted=$?'\n")
terminal.wait_for("Password: ")
terminal.type("wrong\n")
terminal.wait_for("it ended with status 5", "mounted=1")
terminal.status_is(0)
terminal.type("umvu --mount type=fuse,program=./asks,source=x,target=mnt -- sh -c 'echo x > mnt/f && ls mnt'\n")
terminal.wait_for("Password: ")
terminal.type("secret\n")
terminal.wait_for("f\r\n")
terminal.status_is(0)

# Ctrl-Z stops both; each goes on with the other.
terminal.type("umvu sh -c 'vumount -t fuse ./never x mnt'\n")
terminal.wait_for("ready\r\n")
terminal.type("\x1a")
terminal.wait_for("Stopped", "@@ ")
terminal.type("fg\n")
terminal.wait_for("onward")
terminal.type("\x03")
terminal.wait_for("did not mount")
terminal.status_is(130)
print("all seen")
