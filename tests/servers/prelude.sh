# What all scripts start with: they work in the directory of `mnt`.
set -u
# Serves mnt.
serve() {
    umvu-testfs "$@" mnt & server=$!
    until grep -q " $PWD/mnt " /proc/mounts; do sleep 0.02; done
}
# A command to the server, and what it reports.
say() { echo "$*" > mnt/.control; cat mnt/.control; echo clear > mnt/.control; }
unserve() { umount mnt; wait $server; echo "server: $?"; }
# Until so many requests wait in the server.
held() { until [ "$(say held)" = "held $1" ]; do sleep 0.02; done; }
# The last words of an error message.
report() { "$@" 2>&1 | sed 's/.*: //'; }
# Until everything that was opened is released, and everything that was looked up is forgotten.
balanced() {
    until [ "$(say known)" = "known: " ] && say counts | (read -r _ opened _ _ _ released _ && [ $opened = $released ]); do
        sleep 0.02
    done
    echo balanced
}
# For Python: how many files the server has open, when they are released, and whether the mount is busy.
cat > served.py <<'P'
import os, subprocess, time
def counts():
    open("mnt/.control", "w").write("counts")
    text = open("mnt/.control").read().split()
    open("mnt/.control", "w").write("clear")
    return int(text[1]) - int(text[5])
def released():
    end = time.time() + 10
    while counts(): assert time.time() < end; time.sleep(0.02)
    return "released"
def umount(): return subprocess.run(["umount", "mnt"], stderr=subprocess.DEVNULL).returncode
P
