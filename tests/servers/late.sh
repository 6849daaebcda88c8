# What was written fails when the server is told of it: each open file hears of that once, and who closes or changes it.
serve --init-flags 65536
python3 - << 'END'
from served import *
def opened(): return os.open("mnt/f", os.O_RDWR | os.O_CREAT)
one, other, third = opened(), opened(), opened()
for failure in 28, 122, 5:
    print("=", errno.errorcode[failure])
    tell(f"fail WRITE={failure}")
    print(os.write(one, b"text"), tried(os.fsync, one), tried(os.fsync, one), tried(os.fsync, other))
    late = opened(); print(tried(os.fsync, late), tried(os.close, os.dup(late)), tried(os.close, late))
    print(os.write(one, b"more"), tried(os.close, os.dup(other)), tried(os.close, os.dup(one)), tried(os.fsync, one))
    print(os.write(one, b"mode"), tried(os.fchmod, one, 0o600), tried(os.fchmod, one, 0o600), tried(os.fsync, one))
    print(os.write(one, b"time"), tried(os.utime, "mnt/f", (1, 1)), tried(os.utime, "mnt/f"), tried(os.fdatasync, one))
    print(os.write(one, b"size"), tried(os.ftruncate, one, 100), tried(os.fsync, one), os.fstat(one).st_size)
    print(os.write(one, b"sync"), os.sync(), tried(os.fsync, one), tried(os.fsync, third))
    sync = os.open("mnt/f", os.O_RDWR | os.O_SYNC); print(tried(os.write, sync, b"text"), tried(os.write, sync, b"text")); tried(os.close, sync)
    tell("fail")
    print(os.pread(one, 4, 0), os.write(one, b"good"), tried(os.fsync, one), tried(os.fsync, other), tried(os.fsync, third), tried(os.close, os.dup(one)))
print("= attributes")
tell("fail SETATTR=5")
time.sleep(0.02) # Times are those of the last tick.
print(os.write(one, b"text"), tried(os.fsync, one), tried(os.fsync, one), tried(os.close, os.dup(one)))
time.sleep(0.02)
print(os.write(one, b"text"), tried(os.close, os.dup(one)), tried(os.fsync, one))
os.link("mnt/f", "mnt/g"); print(tried(os.fsync, one), tried(os.fsync, other))
print("= reading what is changed in part")
tell("fail READ=5"); os.close(os.open("mnt/f", os.O_RDONLY))
print(tried(os.pwrite, one, b"text", 10), tried(os.pwrite, one, b"t" * 4096, 0), tried(os.fsync, one))
tell("fail"); os.ftruncate(one, 20000); os.fsync(one)
tell("fail READ=5"); os.close(os.open("mnt/f", os.O_RDONLY))
print(*(tried(os.pwrite, one, b"t" * size, at) for at, size in ((10, 9000), (0, 9000), (8192, 100), (4096, 4097), (12000, 9000), (12288, 8000), (8000, 9000))))
tell("fail"); print(os.fsync(one), [os.pread(one, 1, at) for at in range(0, 21000, 1000)], os.fstat(one).st_size)
print("= a server that dies")
tell("fail WRITE=5"); print(os.write(one, b"text"))
END
kill -KILL $server; wait $server 2> /dev/null
umount mnt; echo $?
