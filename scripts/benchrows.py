"""The rows of scripts/bench: what is measured, where, and what is aimed at."""
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Callable, Optional

HOST, FUSE = "On the host's own files", "On FUSE mounts"
REAL = ("native", "no mount", "ptrace", "notify", "proot")
VIEWS = ("native", "ptrace", "notify", "proot")
SERVED = ("native", "kernel", "ptrace", "notify")
# Names and attributes of bindfs and passthrough_ll stay true for a second.
STALE = 1.1


@dataclass
class Row:
    name: str
    title: str
    places: tuple
    measure: Callable
    unit: str = "time"
    #: how many operations the warm-up does; 0: the row has a count of its own
    first: int = 0
    #: (place it is compared with, factor, amount more in ns)
    target: Optional[tuple] = None
    #: by how much it may grow (`benchscale.Growth`)
    growth: Optional[float] = None
    warm_up: bool = True
    #: the title of its table
    table: str = ""

    def __post_init__(self):
        self.table = self.table or (FUSE if "kernel" in self.places else HOST)


def guest(place, words, limit=120):
    return float(place.ask(f"{place.bench.guest} {words}", limit).splitlines()[-1])


def loop(name, title, what, places=REAL, path="", first=200, target=None):
    """A loop whose length is found by the warm-up."""

    def measure(bench, place, count, _round):
        where = path.replace("DATA", bench.data).replace("MNT", place.mnt)
        if place.name == "native" and place.mnt in where:
            where = f"{bench.data}/big"
        return guest(place, f"{what} {count} {where}")

    return Row(name, title, places, measure, first=first, target=target)


def once(name, title, words, mount=None, places=REAL, target=None, stale=False, limit=300):
    """Something with a length of its own. In its words, {d} is the data as this place sees it."""

    def measure(bench, place, _count, round_):
        seen = bench.data if mount is None or place.name == "native" else f"{place.mnt}/{mount}"
        if mount == "bind" and not shutil.which("bindfs"):
            raise ValueError("bindfs is not installed")
        if mount == "pass" and not bench.passthrough_ll:
            raise ValueError("passthrough_ll cannot be built: libfuse3-dev, gcc or pkg-config is missing")
        new = f"new-{place.name.replace(' ', '-')}-{round_}"
        if stale and mount and place.name != "native":
            time.sleep(STALE)
        try:
            return guest(place, words.format(d=seen, new=f"{seen}/{new}", guest=bench.guest), limit)
        finally:
            real = f"{bench.data}/{new}"
            if os.path.isdir(real):
                shutil.rmtree(real)
            elif os.path.exists(real):
                os.unlink(real)

    return Row(name, title, places, measure, target=target)


def program(command):
    """One run of a shell command."""
    return f"spawn 1 /bin/sh -c '{command}'"


def start(name, title):
    """umvu itself, started and ended; proot likewise."""

    def measure(bench, place, count, _round):
        umvu = f"{bench.bin}/umvu"
        engine = f" --engine {place.name}" if place.name in ("ptrace", "notify") and place.prefix[1:] else ""
        words = {"native": "", "no mount": umvu, "proot": shutil.which("proot")}.get(place.name, umvu + engine)
        shell = bench.native
        shell.start()
        return guest(shell, f"spawn {count} {words} {shutil.which('true')}".replace("  ", " "))

    return Row(name, title, REAL, measure, first=3, target=("native", 1, 4e6))


def as_root(name, title, what, overlay=False):
    """The loop in a root tree, as virtual root: proot likewise; fakeroot, which has no trees, outside of one."""

    def measure(bench, place, count, _round):
        tree, file = f"{bench.work}/tree", "files/f00001"
        root = f"--mount type=overlay,lowerdir={tree},upperdir={tree}.up,workdir={tree}.work,target=/" if overlay else f"--root {tree}"
        outside, inside = f"{bench.guest} {what} {count} {bench.data}/{file}", f"/guest {what} {count} /{file}"
        words = {
            "native": outside,
            "fakeroot": f"fakeroot {outside}",
            "proot": f"proot -0 -r {tree} {inside}",
        }.get(place.name, f"{bench.bin}/umvu --engine {place.name} {root} --as-root -- {inside}")
        bench.native.start()
        return float(bench.native.ask(words).splitlines()[-1])

    places = ("native", "ptrace", "notify") if overlay else ("native", "ptrace", "notify", "proot", "fakeroot")
    return Row(name, title, places, measure, first=200)


def idle_memory(name, title):
    def measure(_bench, place, _count, _round):
        # A view of its own: one that has worked is larger.
        place.stop()
        place.start()
        for line in open(f"/proc/{place.shell.pid}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ValueError("/proc does not say")

    return Row(name, title, ("no mount", "ptrace", "notify"), measure, unit="bytes")


def binary_size(name, title):
    def measure(bench, _place, _count, _round):
        copy = f"{bench.work}/tmp/stripped"
        subprocess.run(["strip", "-o", copy, f"{bench.bin}/umvu"], check=True)
        size = os.stat(copy).st_size
        os.unlink(copy)
        return size

    return Row(name, title, ("no mount",), measure, unit="bytes")


def rows(quick):
    many = 500 if quick else 10_000
    read_mib, write_mib = (16, 4) if quick else (256, 64)
    trees = 200 if quick else 5_000
    free = ("native", 1.1, 100)
    # What did only half of its work does not count.
    status = 'test -z "$(git --no-optional-locks -C {d}/tree status --porcelain 2>&1)"'
    tar = f"test $(tar -C {{d}} -cf - tree | wc -c) -gt {trees * 2048}"
    bind = dict(mount="bind", places=SERVED)
    passed = dict(mount="pass", places=SERVED, stale=True, target=("kernel", 1, 0))
    return [
        loop("getppid", "getppid", "getppid", target=free),
        loop("read", "read 4 KiB of a real file", "read", path="DATA/big", target=free),
        loop("write", "write 4 KiB to a real file", "write", path="DATA/scratch", target=free),
        loop("pread", "pread 4 KiB of a real file", "pread", path="DATA/big", target=free),
        loop("pipe", "write and read a pipe", "pipe", target=free),
        loop("socket", "write and read a socket", "socket", target=free),
        loop("futex", "futex wake", "futex", target=free),
        loop("stat", "stat of a real path", "stat", path="DATA/files/f00001", target=("native", 8, 0)),
        loop("open", "open+read+close of a real file", "open", path="DATA/files/f00001", target=("native", 4, 0)),
        once("git", f"git status, {trees:,} real files", program(status), target=("native", 4, 0)),
        once("tar", f"tar, {trees:,} real files", program(tar), target=("native", 4, 0)),
        as_root("root-stat", "stat as root in a tree", "stat"),
        as_root("root-open", "open+read+close as root in a tree", "open"),
        as_root("overlay-stat", "stat as root on an overlay", "stat", overlay=True),
        as_root("overlay-open", "open+read+close as root on an overlay", "open", overlay=True),
        loop("spawn", "fork+exec", "spawn", path="/bin/true", first=5, target=("native", 1.6, 0)),
        once("make", "make -j2 of 20 C files", program("make -s -B -j2 -C {d}/project"), target=("native", 1.3, 0)),
        loop("fuse-stat", "FUSE, cached stat", "stat", SERVED, "MNT/cached/file", target=("kernel", 8, 0)),
        loop("fuse-pread", "FUSE, cached 4 KiB pread", "pread", SERVED, "MNT/cached/file", target=("kernel", 8, 0)),
        loop("fuse-request", "FUSE, one uncached request", "fstat", SERVED, "MNT/uncached/file", target=("kernel", 0.5, 0)),
        once("bind-stat", f"bindfs, stat of {many:,} files, each", f"stat-each {many} {{d}}/files", stale=True,
             target=("kernel", 0.7, 0), **bind),
        once("bind-open", f"bindfs, open+read+close of {many:,} files, each", f"open-each {many} {{d}}/files", stale=True,
             target=("kernel", 0.7, 0), **bind),
        once("bind-pread", "bindfs, random 4 KiB pread", f"pread-scattered {many // 5} {{d}}/big",
             target=("kernel", 0.7, 0), **bind),
        once("bind-read", f"bindfs, sequential read of {read_mib} MiB", "read-all {d}/big",
             target=("kernel", 1.5, 0), **bind),
        once("bind-write", f"bindfs, write of {write_mib} MiB, 4 KiB at a time", f"write-all {write_mib} {{new}}",
             target=("kernel", 0.5, 0), **bind),
        once("bind-create", f"bindfs, create {many:,} files, each", f"create {many} {{new}}",
             target=("kernel", 0.7, 0), **bind),
        once("bind-readdir", f"bindfs, readdir of {many:,} entries", "list {d}/files", stale=True, **bind),
        once("pass-git", f"passthrough_ll, git status, {trees:,} files", program(status), **passed),
        once("pass-tar", f"passthrough_ll, tar, {trees:,} files", program(tar), **passed),
        start("true", "true, and umvu true"),
        idle_memory("memory", "resident memory of an idle view (with mounts: by engine)"),
        binary_size("size", "size of umvu, stripped"),
    ]


def make_data(bench):
    """Files as the rows need them, owned by the ordinary user."""
    many, trees, mib = (500, 200, 16) if bench.quick else (10_000, 5_000, 256)
    script = f"""
import os, random
random.seed(1)
os.chdir({bench.data!r})
os.makedirs("files")
for n in range({many}):
    open(f"files/f{{n:05}}", "wb").write(random.randbytes(1024))
block = random.randbytes(1 << 20)
with open("big", "wb") as big:
    for n in range({mib}):
        big.write(block)
open("scratch", "wb").write(block)
for n in range({trees}):
    os.makedirs(f"tree/d{{n // 100:02}}", exist_ok=True)
    open(f"tree/d{{n // 100:02}}/file{{n:04}}.txt", "wb").write(random.randbytes(2048))
    # Older than the index, so that git need not look into the file again.
    os.utime(f"tree/d{{n // 100:02}}/file{{n:04}}.txt", (1e9, 1e9))
os.makedirs("project")
for n in range(20):
    body = "\\n".join(f"int f{{n}}_{{m}}(int x) {{{{ char b[64]; snprintf(b, 64, \\"%d\\", x * {{m}}); return (int)strlen(b); }}}}" for m in range(30))
    open(f"project/part{{n}}.c", "w").write("#include <stdio.h>\\n#include <stdlib.h>\\n#include <string.h>\\n#include <unistd.h>\\n" + body + "\\n")
objects = " ".join(f"part{{n}}.o" for n in range(20))
open("project/Makefile", "w").write(f"parts.a: {{objects}}\\n\\tar rcs $@ $^\\n")
"""
    bench.run(["python3", "-c", script])
    make_tree(bench)
    git = ["git", "-C", f"{bench.data}/tree", "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    if shutil.which("git"):
        bench.run(["git", "init", "-q", f"{bench.data}/tree"])
        bench.run([*git, "add", "."])
        bench.run([*git, "commit", "-qm", "files"])


def make_tree(bench):
    """A root tree with the measuring program, the libraries it needs, and one of the files."""
    script = f"""
mkdir -p tree/files tree/dev tree/proc tree/sys tree.up tree.work
cp {bench.guest} tree/guest
cp {bench.data}/files/f00001 tree/files
ldd {bench.guest} | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "tree${{library%/*}}"
    cp -L "$library" "tree$library"
done
"""
    bench.run(["sh", "-c", f"cd {bench.work} && {script}"])


def find_passthrough_ll(bench):
    """libfuse's example passthrough_ll, where it is installed, or built from Debian's libfuse3-dev."""
    installed = shutil.which("passthrough_ll")
    if installed:
        return installed
    source = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"
    target = f"{bench.bin}/passthrough_ll"
    command = f"gcc -O2 -o {target} {source} -I$(dirname {source}) $(pkg-config --cflags --libs fuse3)"
    if os.path.exists(source) and subprocess.run(["sh", "-c", command], stderr=subprocess.DEVNULL).returncode == 0:
        os.chmod(target, 0o755)
        return target
    return None
