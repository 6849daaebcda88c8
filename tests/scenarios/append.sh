# O_APPEND, O_TRUNC and concurrent writers.
echo one > f; echo two >> f; cat f
for i in 1 2 3 4; do (n=0; while [ $n -lt 50 ]; do echo "$i" >> many; n=$((n+1)); done) & done; wait
wc -l < many; sort many | uniq -c | awk '{print $1, $2}'
true > f; stat -c %s f
dd if=/dev/zero of=f bs=1000 count=3 oflag=append conv=notrunc 2>/dev/null; stat -c %s f
truncate -s 5 many; cat many | wc -c; truncate -s 5000 many; tail -c 10 many | od -An -tx1
python3 - <<'P'
import os
fd = os.open("g", os.O_RDWR | os.O_CREAT | os.O_APPEND)
os.write(fd, b"abc"); os.lseek(fd, 0, 0); os.write(fd, b"def")
print(os.lseek(fd, 0, os.SEEK_CUR), os.pread(fd, 10, 0))
os.ftruncate(fd, 1); os.write(fd, b"Z"); print(os.pread(fd, 10, 0))
P
