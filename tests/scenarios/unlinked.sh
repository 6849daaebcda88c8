# Files that are open after their last name is gone.
echo data > f; exec 3<> f; rm f; cat <&3; echo more >&3; stat -L -c '%h %s' /proc/self/fd/3
cat /proc/self/fd/3; readlink /proc/self/fd/3 | sed 's:.*/mnt::'
mkdir d; cd d; rmdir ../d; ls; true > x; echo $?; cd ..
python3 - <<'P'
import os, tempfile, errno
fd = os.open("t", os.O_RDWR | os.O_CREAT); os.unlink("t"); os.write(fd, b"abc")
print(os.pread(fd, 9, 0), os.fstat(fd).st_nlink, os.path.exists("t")); os.fchmod(fd, 0o600); os.ftruncate(fd, 1); print(os.fstat(fd).st_size)
try: os.open(".", os.O_TMPFILE | os.O_RDWR)
except OSError as e: print(errno.errorcode[e.errno])
with tempfile.TemporaryFile(dir=".") as t: t.write(b"x"); t.flush(); print(os.fstat(t.fileno()).st_size)
P
ls
