# FIFOs: opening waits for the other side, signals end the wait; and names that cannot be made.
mkfifo p
(sleep 0.2; echo through >p) &
cat <p
timeout 0.3 cat p
echo "nobody writes: $?"
(exec 3<>p; echo kept >&3; read -r line <&3; echo "$line")
mkdir d
python3 -c '
import os, signal, stat
def fails(flags, path="p"):
    try: os.close(os.open(path, flags))
    except OSError as error: print(error.strerror)
fails(os.O_WRONLY | os.O_NONBLOCK)
fails(os.O_RDONLY | os.O_DIRECTORY)
fails(os.O_RDONLY | os.O_NONBLOCK, "p/")
fails(os.O_WRONLY | os.O_CREAT | os.O_EXCL)
r = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
w = os.open("p", os.O_WRONLY)
os.write(w, b"xyz")
print(os.read(r, 9), stat.S_ISFIFO(os.fstat(r).st_mode))
os.rename("p", "d/q")
v = os.open("d/q", os.O_WRONLY)
os.write(v, b"moved")
print(os.read(r, 9))
for fd in r, w, v: os.close(fd)
def stop(*_): raise InterruptedError
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try: open("d/q")
except InterruptedError: print("interrupted")
'
chmod 0 d/q
cat d/q 2>&1
for path in . .. d/. d/..; do mkdir $path; mkfifo $path; ln -s x -T $path; ln d/q -T $path; done 2>&1
mkdir / d/e/. 2>&1
ls d
