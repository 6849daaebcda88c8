# Every error that a request may fail with; ENOSYS has its own meaning for most.
for op in LOOKUP GETATTR OPEN READ WRITE FLUSH RELEASE CREATE MKNOD MKDIR UNLINK RMDIR SETATTR OPENDIR READDIR \
    RELEASEDIR ACCESS FSYNC STATFS READLINK; do for errno in 38 5; do
  echo "## $op $errno"
  serve --fail $op=$errno --ttl 0
  python3 - <<'P'
import os,errno
def t(name, f):
    try: r = f(); print(name, "ok" if r is None else r)
    except OSError as e: print(name, e.errno)
m="mnt/"
back=os.open(".",os.O_RDONLY)
fd=None
def create():
    global fd; fd=os.open(m+"f",os.O_CREAT|os.O_RDWR)
t("create",create)
if fd is not None:
    t("write",lambda:os.write(fd,b"data")); t("fsync",lambda:os.fsync(fd)); t("fdatasync",lambda:os.fdatasync(fd)); t("pread",lambda:os.pread(fd,10,0)); t("ftruncate",lambda:os.ftruncate(fd,2)); t("fstat",lambda:os.fstat(fd).st_size)
    t("close",lambda:os.close(fd))
def rd():
    f=os.open(m+"f",os.O_RDONLY)
    try: return os.read(f,5)
    finally: os.close(f)
t("read",rd)
t("stat",lambda:os.stat(m+"f").st_size)
t("mkdir",lambda:os.mkdir(m+"d"))
t("mkfifo",lambda:os.mkfifo(m+"p"))
t("access",lambda:os.access(m+"f",os.R_OK))
t("chmod",lambda:os.chmod(m+"f",0o600))
t("list",lambda:sorted(os.listdir(m)))
t("statvfs",lambda:os.statvfs(m).f_bsize)
t("readlink",lambda:os.readlink(m+"link-empty"))
t("rename",lambda:os.rename(m+"f",m+"g"))
t("link",lambda:os.link(m+"f",m+"h"))
t("symlink",lambda:os.symlink("x",m+"s"))
t("xattr",lambda:os.setxattr(m+"f","user.a",b"b"))
t("getxattr",lambda:os.getxattr(m+"f","user.a"))
t("listxattr",lambda:os.listxattr(m+"f"))
t("chdir",lambda:os.chdir("mnt")); os.fchdir(back)
t("unlink",lambda:os.unlink(m+"f"))
t("rmdir",lambda:os.rmdir(m+"d"))
P
  unserve
done; done
