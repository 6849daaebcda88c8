# Programs, scripts and interpreters on the mount.
cp /bin/echo e; ./e hello; "$PWD/e" again | sed "s:$PWD:DIR:"
printf '#!/bin/sh\necho "$# $1"\n' > s; chmod +x s; ./s a b
printf '#!%s/e from\n' "$PWD" > i; chmod +x i; ./i x | sed "s:$PWD:DIR:"
chmod -x e; ./e no; echo $?
echo text > t; chmod +x t; ./t 2>/dev/null; echo $?
printf '#!/no/such\n' > n; chmod +x n; ./n 2>/dev/null; echo $?
mkdir d; ./d 2>/dev/null; echo $?
cp "$(readlink -f "$(command -v python3)")" py && ./py -c 'import os,sys; print(os.path.basename(os.readlink("/proc/self/exe")))'
# What runs is not written to, and what is written to does not run.
cp /bin/sleep w; ./w 60 & child=$!
until [ "$(readlink /proc/$child/exe)" = "$PWD/w" ]; do sleep 0.02; done
{ echo > w; } 2>&1 | sed 's/.*: //'; python3 - <<'P'
import errno, os
def tried(what, *args):
    try: what(*args); print("done")
    except OSError as e: print(errno.errorcode[e.errno])
for flags in os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY: tried(os.open, "w", flags)
tried(os.truncate, "w", 1); tried(os.chmod, "w", 0o700); tried(os.rename, "w", "v"); tried(os.rename, "v", "w")
P
kill $child; wait $child 2> /dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do cp /bin/true w && ./w || echo "not $i"; done
exec 7>> w; ./w 2>&1 | sed 's/.*: //'; exec 7>&-; ./w && echo runs
printf '#!/bin/sh\necho script\n' > s; exec 7>> s; ./s 2>&1 | sed 's/.*: //'; exec 7>&-; ./s
printf '#!/bin/sh\necho changed > s; cat s\n' > s; ./s
