# rename(2) and renameat2(2).
echo 1 > a; echo 2 > b; mv a c; ls; mv c b; cat b; mkdir d e; true > e/f; mv -T d e; mv -T e d; ls d
mv d b; echo $?; mv -T b d; echo $?; mv d d/x; echo $?; mv nothing z
exec 3< b; mv b q; cat <&3; echo new > r; mv r q; cat q
python3 - <<'P'
import ctypes, os, errno
libc = ctypes.CDLL(None, use_errno=True)
def rename2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags): return errno.errorcode[ctypes.get_errno()]
    return "ok"
open("m", "w").write("m"); open("n", "w").write("n")
print(rename2("m", "n", 1), rename2("m", "free", 1), rename2("free", "n", 2), open("n").read(), open("free").read())
print(rename2("n", "nope", 2), rename2("n", "free", 3), rename2("n", "free", 64))
os.rename("n", "d/n"); print(sorted(os.listdir("d")))
open("/tmp/umvu-rename-test-%d" % os.getpid(), "w").close()
for pair in (("d/n", "/tmp/other"), ("/tmp/umvu-rename-test-%d" % os.getpid(), "here")):
    try: os.rename(*pair)
    except OSError as e: print(errno.errorcode[e.errno])
os.unlink("/tmp/umvu-rename-test-%d" % os.getpid())
P
