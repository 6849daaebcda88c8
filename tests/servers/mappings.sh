# A mapping that is gone keeps nothing, neither its file nor the mount.
serve
python3 - << 'END'
import mmap, os, subprocess, time

def say(command):
    for text in command, None, "clear":
        if text is None:
            said = open("mnt/.control").read()
        else:
            with open("mnt/.control", "w") as control:
                control.write(text)
    return said

def mapped(name):
    with open("mnt/" + name, "w+b") as file:
        file.truncate(8192)
        memory = mmap.mmap(file.fileno(), 0)
    memory[:5] = b"hello"
    return memory

def umount():
    return subprocess.run(["umount", "mnt"], stderr=subprocess.DEVNULL).returncode

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
