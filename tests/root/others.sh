# A mount for all, and one for its owner alone, as seen by others than the user who has made the view.
at() { until [ "$(stat -c %d "$1")" != "$(stat -c %d .)" ]; do sleep 0.05; done; }
mkdir own
umvu-memfs memory own & umvu-memfs -o allow_other,default_permissions memory mnt &
at own; at mnt
chmod 777 mnt
cp /bin/true /bin/sh mnt
printf '#!%s/mnt/sh -e\necho "script $0"\n' "$PWD" > mnt/script
chmod 755 mnt/script
setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '
    cd mnt && basename "$PWD" && cd "$OLDPWD" && cd mnt && id -u || exit
    echo text > file && cat file && echo more >> file && cat < file
    ./true && ./script && cp true mine && ./mine && echo executed
    mkdir dir && ls && rm -r dir
    mkfifo fifo && { echo through > fifo & cat fifo; wait; rm fifo; }
    stat -c "%u %a %n" *
    python3 -c "
import mmap, os, socket
f = open(\"file\", \"r+b\")
m = mmap.mmap(f.fileno(), 0); m[:4] = b\"TEXT\"; m.flush()
print(open(\"file\").read())
a, b = socket.socketpair()
socket.send_fds(a, [b\"x\"], [f.fileno()])
print(os.pread(socket.recv_fds(b, 1, 1)[1][0], 4, 0))
d = os.open(\".\", os.O_RDONLY); os.chdir(\"/\"); os.fchdir(d); print(os.path.basename(os.getcwd()))
s = socket.socket(socket.AF_UNIX); s.bind(\"socket\"); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect(\"socket\"); print(c.getpeername()); os.unlink(\"socket\")
"
    cd ..; stat -c %n own; stat -c %a own; ls own; cd own
' 2>&1
setpriv --bounding-set=-all --inh-caps=-all sh -c 'cd mnt && cat file && ./true && ./script && echo root without capabilities'
umount own mnt
wait
