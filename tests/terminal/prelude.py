"""A person at a terminal: types into a shell in a pseudo-terminal, and waits for what it shows."""
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time


class Terminal:
    def __init__(self, argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(argv[0], argv)
        self.seen = b""
        self.resize(33, 101)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, *texts):
        for text in texts:
            end = time.time() + 30
            while text.encode() not in self.seen:
                ready, _, _ = select.select([self.fd], [], [], max(0, end - time.time()))
                data = os.read(self.fd, 4096) if ready else b""
                if not data:
                    sys.exit(f"{text!r} does not come: {self.seen[-1000:]!r}")
                self.seen += data
            self.seen = self.seen.split(text.encode(), 1)[1]

    def status_is(self, status):
        self.wait_for("@@ ")
        self.type("echo status=$?\n")
        self.wait_for(f"status={status}\r\n", "@@ ")


terminal = Terminal(["bash", "--norc", "--noprofile", "-i"])
terminal.type("PS1='@'@' '\n")
terminal.wait_for("@@ ")

