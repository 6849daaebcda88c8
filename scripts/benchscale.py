"""The rows of scripts/bench on limits: the least that the kernel takes, and what becomes of calls and memory at scale."""
import contextlib
import os
import statistics
from typing import NamedTuple

from benchrows import Row

FLOOR = "The floor: what the kernel takes for its switches, outside of any view"
SCALE = "At scale, all on one core: before → then"
MEMORY = "Memory of umvu for each"
GROWN = ("kernel", "ptrace", "notify")
# A cost may grow with the logarithm of what there is, and with what the processor's caches hold of it.
ALLOWED = 1.5
NAMES = {"stat": "stat", "open": "open+close", "pread": "4 KiB pread"}


class Growth(NamedTuple):
    """What something costs, and what it costs when there is much more of something."""

    before: float
    then: float


def middle(values):
    """The median, also of growths."""
    if isinstance(values[0], Growth):
        return Growth(*(statistics.median(part) for part in zip(*values)))
    return statistics.median(values)


def half_range(values):
    """How far from each other they are."""
    if isinstance(values[0], Growth):
        return Growth(*((max(part) - min(part)) / 2 for part in zip(*values)))
    return (max(values) - min(values)) / 2


def floor(name, title):
    def measure(bench, place, count, _round):
        return float(place.ask(f"{bench.bin}/umvu-bench-floor {name} {count}"))

    return Row(f"floor-{name}", title, ("native",), measure, table=FLOOR, first=1000)


@contextlib.contextmanager
def one_core(place):
    """Keeps all threads of a place on one core: where they run counts for more than anything that grows."""
    sessions = {place.shell.pid, *(server.pid for server in place.servers)}
    everywhere = os.sched_getaffinity(0)

    def move(cores):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.getsid(int(pid)) in sessions:
                    for thread in os.listdir(f"/proc/{pid}/task"):
                        os.sched_setaffinity(int(thread), cores)

    move({min(everywhere)})
    try:
        yield
    finally:
        move(everywhere)


def found(bench, place, round_, words, fresh):
    """What a run of the measuring program said, by its names; several rows are made of one run."""
    key = (place.name, round_, words)
    if key not in bench.said:
        if fresh:
            # A view of its own: one that has worked has memory to spare.
            place.stop()
            place.start()
        words = words.format(mnt=place.mnt, bin=bench.bin, data=bench.data, tmp=f"{bench.work}/tmp")
        with one_core(place):
            lines = place.ask(f"{bench.bin}/umvu-bench-scale {words}", 300).splitlines()
        bench.said[key] = {name: [float(n) for n in numbers] for name, *numbers in map(str.split, lines)}
    return bench.said[key]


def scale(what, calls, words, places=GROWN, memory=None, allowed=ALLOWED):
    """The rows that one run of the measuring program gives: one a call, and what each of many takes in memory."""

    def row(name, title, places, pick, **more):
        def measure(bench, place, _count, round_):
            return pick(found(bench, place, round_, words, memory is not None))

        return Row(f"scale-{what}-{name}", title, places, measure, warm_up=False, **more)

    def growth(name):
        return lambda said: Growth(*said[name])

    for name, title in calls.items():
        yield row(name, title, places, growth(name), table=SCALE, growth=allowed)
    if memory:
        views = tuple(place for place in places if place != "kernel")
        yield row("memory", memory, views, lambda said: said["memory"][0], table=MEMORY, unit="bytes")


def usual(more):
    return {name: f"{title}, {more}" for name, title in NAMES.items()}


# The first of the numbers that most of a process's virtual files have.
HIGH = 16_384


def rows(quick, descriptors):
    processes, files, mounts, inodes = (20, 200, 5, 500) if quick else (1_000, 10_000, 100, 20_000)
    # Whoever may not have higher numbers than these pays for it with every call on a descriptor.
    own = max(50, min(files, (descriptors - HIGH) // 100 * 100))
    cached, uncached = "{mnt}/cached", "{mnt}/uncached"
    sparse = "sparse file of 1 → 100 GiB"
    return [
        floor("notification", "a notification that is answered at once"),
        floor("request", "a request to a server: three of them"),
        floor("socket", "the same with a socket for its device: one, and two messages"),
        *scale("processes", usual(f"1 → {processes:,} processes") | {"spawn": f"exec and wait, 1 → {processes:,} processes"},
               f"processes {processes} {cached}/file", memory="process"),
        *scale("files", usual(f"10 → {own:,} files open in one process"), f"files {own} {cached}/many",
               memory="open virtual file"),
        *scale("others", usual(f"10 → {files:,} files open in 10 others"),
               f"files {files} {cached}/many --processes 10", ("kernel", "notify")),
        *scale("mounts", {"real": f"stat of a real path, 1 → {mounts} more mounts"} | usual(f"1 → {mounts} more mounts"),
               f"mounts {mounts} {{bin}}/umvu-bench-fs {{tmp}}/mounts {{data}}/files/f00001", ("ptrace", "notify")),
        *scale("inodes", {"stat": f"stat, 1 → {inodes:,} files known"}, f"inodes {inodes} {cached}/many",
               ("kernel", "notify"), memory="cached inode, with its name"),
        *scale("directory", {"lookup": "uncached stat, directory of 1,000 → 1,000,000 entries",
                             "readdir": "readdir, each of 1,000 → 1,000,000 entries"},
               f"directory {uncached}/few {uncached}/many"),
        *scale("sparse", {"fstat": f"fstat, {sparse}", "seek": f"SEEK_DATA and SEEK_HOLE, {sparse}",
                          "pread": f"random 4 KiB pread, {sparse}"},
               f"sparse {cached}/sparse-1g {cached}/sparse-100g"),
        # It has to look at each name, as the kernel has.
        *scale("path", {"stat": "stat, short path → 17 directories in 4,095 bytes"}, f"path {cached}", allowed=None),
    ]
