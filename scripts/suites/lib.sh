# Runs third-party suites on a FUSE server's mount: by an ordinary user on the kernel's FUSE, and in a view.
# Sourced by the scripts beside it. Both sides run the same commands; only who mounts differs.
#
#   UMVU     the program to test (umvu, in PATH)
#   SERVERS  which servers (all that are installed)
#   SIDES    what to run (on_kernel in_view); of the other side, the results in WORK still count
#   RUN_AS   the ordinary user (nobody)
#   WORK     where to work (a new directory under /tmp); results stay there, one line per test
set -u
LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin
UMVU=$(command -v "${UMVU:-umvu}") || { echo "umvu is not in PATH, and UMVU does not name it" >&2; exit 2; }
SERVERS=${SERVERS:-"umvu-memfs passthrough passthrough_ll passthrough_hp bindfs simple"}
SIDES=${SIDES:-"on_kernel in_view"}
RUN_AS=${RUN_AS:-nobody}
WORK=${WORK:-$(mktemp -d /tmp/suite.XXXXXX)}
HERE=$(cd "$(dirname "$0")" && pwd -P)

[ "$(id -u)" = 0 ] || { echo "the kernel's side needs root, to give the user a /dev/fuse of their own" >&2; exit 2; }
mkdir -p "$WORK/device"
chmod 755 "$WORK"
cp "$HERE/served" "$WORK/served"
chmod 755 "$WORK/served"

as_user() {
    setpriv --reuid "$RUN_AS" --regid "$(id -g "$RUN_AS")" --init-groups "$@"
}

# on_kernel COMMAND...: the user may open /dev/fuse, and mounts by fusermount3.
on_kernel() {
    # shellcheck disable=SC2016
    unshare -m sh -c '
        mount -t tmpfs -o mode=755 fuse "$0" && mknod -m 666 "$0/fuse" c 10 229 && mount --bind "$0/fuse" /dev/fuse || exit
        umount -l "$0"
        user=$1
        shift
        exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups "$@"' "$WORK/device" "$RUN_AS" "$@"
}

# in_view COMMAND...
in_view() {
    as_user "$UMVU" "$@"
}

# A directory of the user: fresh DIR.
fresh() {
    rm -rf "$1"
    mkdir -p "$1"
    chown "$RUN_AS" "$1"
}

# compare SERVER KERNEL VIEW: files with lines "ok NAME" and "not ok NAME", maybe with more about a failure; which tests
# pass or fail on one side only, and the numbers.
compare() {
    [ -e "$2" ] && [ -e "$3" ] || return 0
    sort -o "$2" "$2"
    sort -o "$3" "$3"
    for side in "$2" "$3"; do sed 's/^\(not ok [^ ]*\) (.*/\1/' "$side" | sort >"$side.results"; done
    diff "$2.results" "$3.results" | sed -n 's/^< /  kernel: /p; s/^> /  view:   /p'
    printf '%s: kernel %s passed %s failed, view %s passed %s failed, %s differ\n' "$1" \
        "$(grep -c '^ok' "$2")" "$(grep -c '^not ok' "$2")" "$(grep -c '^ok' "$3")" "$(grep -c '^not ok' "$3")" \
        "$(comm -3 "$2.results" "$3.results" | sed 's/^\t//; s/^not //; s/^skipped /ok /' | sort -u | wc -l)"
}

# each_server COMMAND...: runs it on a mount of each server, on either side, and compares the lines it prints.
each_server() {
    for server in $SERVERS; do
        "$WORK/served" -n "$server" || { echo "$server: not installed"; continue; }
        for side in $SIDES; do
            fresh "$WORK/$server.$side.d"
            "$side" "$WORK/served" "$server" "$WORK/$server.$side.d" "$@" \
                >"$WORK/$server.$side" 2>"$WORK/$server.$side.err" </dev/null ||
                echo "$server: $side ends with status $?"
        done
        compare "$server" "$WORK/$server.on_kernel" "$WORK/$server.in_view"
    done
}
