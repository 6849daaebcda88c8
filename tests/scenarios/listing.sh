# Directories with many entries, rewinding, seeking, removing while reading.
mkdir d; i=0; while [ $i -lt 700 ]; do true > "d/a-rather-long-name-$i"; i=$((i+1)); done
ls d | wc -l; ls -a d | head -2; find d -type f | sort | sha256sum
python3 - <<'P'
import os
names = sorted(e.name for e in os.scandir("d")); print(len(names), names[0], names[-1])
kinds = {e.is_file(follow_symlinks=False) for e in os.scandir("d")}; print(kinds)
fd = os.open("d", os.O_RDONLY); a = os.listdir(fd); os.lseek(fd, 0, 0); b = os.listdir(fd); print(len(a), a == b)
n = 0
for e in os.scandir("d"):
    os.unlink("d/" + e.name); n += 1
print(n, os.listdir("d"))
P
rmdir d; echo $?; rmdir d; echo $?; mkdir p; true > p/q; rmdir p; echo $?; mkdir t/; echo $?; ls
