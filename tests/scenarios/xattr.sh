# Extended attributes.
python3 - <<'P'
import os, errno
def attempt(f, *args, **kw):
    try: return f(*args, **kw)
    except OSError as e: return errno.errorcode[e.errno]
open("f", "w").close(); os.symlink("f", "s")
print(attempt(os.setxattr, "f", "user.a", b"value"), os.getxattr("f", "user.a"), os.listxattr("f"), os.getxattr("s", "user.a"))
print(attempt(os.setxattr, "f", "user.a", b"x", os.XATTR_CREATE), attempt(os.setxattr, "f", "user.b", b"x", os.XATTR_REPLACE))
print(attempt(os.getxattr, "f", "user.none"), attempt(os.removexattr, "f", "user.none"), attempt(os.setxattr, "f", "nons", b""))
os.setxattr("f", "user.big", b"z" * 10000); print(len(os.getxattr("f", "user.big")), sorted(os.listxattr("f")))
print(attempt(os.setxattr, "f", "user.huge", b"z" * 70000), attempt(os.setxattr, "f", "user." + "n" * 300, b""))
fd = os.open("f", os.O_RDONLY); print(os.getxattr(fd, "user.a"), os.removexattr(fd, "user.a"), os.listxattr(fd))
P
