"""Servers killed at random moments: no client hangs, and what was synced is in the backing directory.

    kills.py -n KILLS -s SEED -c CLIENTS SERVED SERVER...

SERVED prints a server's command (scripts/suites/served -p). Works in the current directory, which must be on a disk,
and prints one line that begins with "ok" or "not ok".
"""
import argparse, errno, mmap, os, random, signal, subprocess, sys, time

LARGEST = 1 << 16
# A client that meets a dead server, none at all, or the directory below the mount.
EXPECTED = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EACCES, errno.ENOENT, errno.EINTR, errno.ENODEV}
# A directory that a killed server left, or what was hidden there.
EXPECTED |= {errno.EEXIST, errno.ENOTEMPTY}
# Seconds after which something hangs.
PATIENCE = 300


def content(client, generation):
    return random.Random(f"{client} {generation}").randbytes(LARGEST)


class Client:
    """Writes a file piece by piece, and notes on the side how much of it is synced."""

    def __init__(self, number, seed):
        self.number = number
        self.random = random.Random(f"{seed} {number}")
        self.note = os.open(f"synced.{number}", os.O_RDWR | os.O_CREAT)
        self.start(0)

    def start(self, generation):
        self.generation, self.synced = generation, 0
        self.data = content(self.number, generation)
        self.tell()

    def tell(self):
        os.pwrite(self.note, b"%20d %20d\n" % (self.generation, self.synced), 0)

    def run(self):
        while not os.path.exists("stop"):
            try:
                self.work()
            except OSError as error:
                if error.errno not in EXPECTED:
                    print(f"not ok client {self.number}: {error}", flush=True)
                    os._exit(1)
                time.sleep(0.001)

    def work(self):
        name = f"mnt/f{self.number}"
        if self.synced == LARGEST:
            self.start(self.generation + 1)
        fd = os.open(name, os.O_RDWR | os.O_CREAT | (0 if self.synced else os.O_TRUNC))
        try:
            for _ in range(self.random.randrange(1, 5)):
                end = min(self.synced + self.random.randrange(1, 9000), LARGEST)
                self.write(fd, end)
                self.synced = end
                self.tell()
        finally:
            os.close(fd)
        os.listdir("mnt")
        directory = f"mnt/d{self.number}"
        os.makedirs(directory, exist_ok=True)
        open(directory + "/x", "w").close()
        os.rename(directory + "/x", directory + "/y")
        os.unlink(directory + "/y")
        os.rmdir(directory)

    def write(self, fd, end):
        piece = self.data[self.synced : end]
        if piece and self.random.randrange(4) == 0:
            os.ftruncate(fd, end)
            start = self.synced // mmap.PAGESIZE * mmap.PAGESIZE
            with mmap.mmap(fd, end - start, offset=start) as memory:
                memory[self.synced - start :] = piece
                memory.flush()
        else:
            done = 0
            while done < len(piece):
                done += os.pwrite(fd, piece[done:], self.synced + done)
        os.fsync(fd)


def wrong(client):
    """What is wrong with a client's file, while no server runs."""
    with open(f"synced.{client}", "rb") as note:
        generation, synced = (int(word) for word in note.read().split())
    if synced == 0:
        return None
    with open(f"back/f{client}", "rb") as file:
        data = file.read(synced)
    if data != content(client, generation)[:synced]:
        return f"client {client}: generation {generation}, {synced} bytes were synced and are not there"
    return None


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.002)


def mounted():
    with open("/proc/self/mounts") as table:
        return f" {os.getcwd()}/mnt " in table.read()


def unmounted():
    return subprocess.run(["umount", "mnt"], stderr=subprocess.DEVNULL).returncode == 0 or not mounted()


def kill_one(command, rng):
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: mounted() or server.poll() is not None, "the mount")
    time.sleep(rng.random() ** 3 * 0.2)
    server.send_signal(signal.SIGKILL)
    server.wait(PATIENCE)
    until(unmounted, "unmounting")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("-s", type=int, default=1)
    parser.add_argument("-c", type=int, default=3)
    parser.add_argument("served")
    parser.add_argument("servers", nargs="+")
    arguments = parser.parse_args()
    rng = random.Random(arguments.s)
    os.mkdir("back")
    # Nothing can be written below the mount.
    os.mkdir("mnt", 0o555)
    commands = [
        subprocess.check_output([arguments.served, "-p", server, os.getcwd()], text=True).split()
        for server in arguments.servers
    ]
    clients = []
    for number in range(arguments.c):
        pid = os.fork()
        if pid == 0:
            Client(number, arguments.s).run()
            os._exit(0)
        clients.append(pid)
    kills, failure = 0, None
    until(lambda: all(os.path.exists(f"synced.{n}") for n in range(arguments.c)), "the clients")
    try:
        while kills < arguments.n and failure is None:
            kill_one(rng.choice(commands), rng)
            kills += 1
            failure = next(filter(None, map(wrong, range(arguments.c))), None)
    except TimeoutError as hang:
        failure = f"{hang} hangs"
    open("stop", "w").close()
    deadline = time.monotonic() + PATIENCE
    while clients and time.monotonic() < deadline:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in clients:
            clients.remove(pid)
            failure = failure or (f"a client ended with {status}" if status else None)
        time.sleep(0.01)
    if clients:
        failure = failure or "a client hangs"
        for pid in clients:
            os.kill(pid, signal.SIGKILL)
    generations = [open(f"synced.{n}").read().split()[0] for n in range(arguments.c)]
    print(f"{'not ok' if failure else 'ok'} {kills} kills, seed {arguments.s}" + (f": {failure}" if failure else ""))
    print(f"files written: {' '.join(generations)}", file=sys.stderr)
    sys.exit(failure is not None)


main()
