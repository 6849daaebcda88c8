# Names of all kinds and lengths.
true > 'a b'; true > '*'; true > "$(printf 'new\nline')"; true > -dash; true > ünï; ls -b
n=$(printf '%0255d' 7); true > "$n"; ls | awk '{print length($0)}' | sort -n | tail -1; true > "x$n"
true > 'f'; cat f/; cat f/x; mkdir -p a/b/c; cat a/./b/../b/c/../../../f; ls a//b///
cd a/b/c; cat ../../../f; true > ../here; cd ../../..; ls a/b; rmdir a/b/c/; ls nothere; ls ''
mkdir f; mkdir a; rmdir a/b/.; rmdir a/..; true > a/; python3 -c '
import os, errno
for path in ("x" * 256, "a/" * 2100, "f/..", "nope/..", ""):
    try: os.stat(path); print("ok")
    except OSError as e: print(errno.errorcode[e.errno])'
