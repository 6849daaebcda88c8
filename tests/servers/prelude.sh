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
