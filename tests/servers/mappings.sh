# A mapping that is gone keeps nothing, neither its file nor the mount.
serve
python3 - << 'END'
import mmap
from served import *

def mapped(name):
    with open("mnt/" + name, "w+b") as file:
        file.truncate(8192)
        memory = mmap.mmap(file.fileno(), 0)
    memory[:5] = b"hello"
    return memory

mapped("one").close()
print(open("mnt/one").read(5))
os.unlink("mnt/one")
while "one" in say("known"):
    time.sleep(0.02)
memory = mapped("two")
print("busy" if umount() else "unmounted")
print(memory[:5])
memory.close()
print("busy" if umount() else "unmounted")
END
wait $server; echo "server: $?"
