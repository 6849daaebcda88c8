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
# For Python: commands to the server and what it reports, what fails with which error, how many files the server has open,
# when they are released, and whether the mount is busy.
cat > served.py <<'P'
import errno, os, subprocess, time
def tell(command):
    with open("mnt/.control", "w") as control: control.write(command)
def say(command):
    fd = os.open("mnt/.control", os.O_RDWR); os.write(fd, command.encode())
    text = os.pread(fd, 100000, 0).decode(); os.write(fd, b"clear"); os.close(fd)
    return text
def tried(what, *args):
    try: return what(*args)
    except OSError as error: return errno.errorcode[error.errno]
def counts():
    text = say("counts").split()
    return int(text[1]) - int(text[5])
def released():
    end = time.time() + 10
    while counts(): assert time.time() < end; time.sleep(0.02)
    return "released"
def umount(): return subprocess.run(["umount", "mnt"], stderr=subprocess.DEVNULL).returncode
P
