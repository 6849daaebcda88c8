# Directories that have been removed, and which somebody still has: nothing is looked up or made there.
serve
python3 - <<'P'
import errno, os, subprocess
def say(command):
    with open("mnt/.control", "w") as control: control.write(command)
    with open("mnt/.control") as control: return control.read()
def attempt(what, f):
    try: print(what, f())
    except OSError as error: print(what, errno.errorcode[error.errno])
def use(what, fd):
    print("#", what)
    attempt("stat", lambda: os.stat("x", dir_fd=fd))
    attempt("open", lambda: os.open("x", os.O_RDONLY, dir_fd=fd))
    attempt("create", lambda: os.open("x", os.O_CREAT | os.O_RDWR, dir_fd=fd))
    attempt("mkdir", lambda: os.mkdir("x", dir_fd=fd))
    attempt("mkfifo", lambda: os.mkfifo("x", dir_fd=fd))
    attempt("symlink", lambda: os.symlink("y", "x", dir_fd=fd))
    attempt("link", lambda: os.link("mnt/f", "x", dst_dir_fd=fd))
    attempt("rename to", lambda: os.rename("mnt/f", "x", dst_dir_fd=fd))
    attempt("rename from", lambda: os.rename("x", "mnt/g", src_dir_fd=fd))
    attempt("unlink", lambda: os.unlink("x", dir_fd=fd))
    attempt("rmdir", lambda: os.rmdir("x", dir_fd=fd))
    attempt("below", lambda: os.stat("x/y", dir_fd=fd))
    attempt("up", lambda: os.stat("../f", dir_fd=fd).st_size)
    attempt("itself", lambda: oct(os.stat(".", dir_fd=fd).st_mode))
    attempt("list", lambda: os.listdir(fd))
open("mnt/f", "w").close()
os.mkdir("mnt/d")
fd = os.open("mnt/d", os.O_RDONLY)
os.rmdir("mnt/d")
use("removed", fd)
os.mkdir("mnt/d")
use("another has its name", fd)
os.mkdir("mnt/e")
new = os.open("mnt/e", os.O_RDONLY)
fd = os.open("mnt/d", os.O_RDONLY)
os.rename("mnt/e", "mnt/d")
use("replaced", fd)
attempt("the new one", lambda: os.listdir(new))
attempt("in the new one", lambda: os.mkdir("x", dir_fd=new))
P
cat mnt/.control
unserve
