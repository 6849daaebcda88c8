# Threads: exec from one that is not the leader, shared descriptors and directories, many at once.
cat > t.py <<'P'
import os, sys, threading, errno
if sys.argv[1] == "exec":
    def run(): os.execv("/bin/echo", ["echo", "executed by a thread"])
    t = threading.Thread(target=run); t.start(); t.join()
elif sys.argv[1] == "own":
    def run(): os.execv("./echo", ["echo", "executed by a thread, from the mount"])
    fd = os.open("t.py", 0); os.set_inheritable(fd, True); t = threading.Thread(target=run); t.start(); t.join()
elif sys.argv[1] == "many":
    def work(n):
        for k in range(40):
            name = "w%d-%d" % (n, k)
            with open(name, "w+") as f: f.write(name); f.flush(); f.seek(0); assert f.read() == name
            os.rename(name, name + "x"); os.unlink(name + "x")
    ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]; [t.start() for t in ts]; [t.join() for t in ts]
    print(sorted(os.listdir(".")))
elif sys.argv[1] == "shared":
    fd = os.open("count", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    def work(n):
        for _ in range(100): os.write(fd, b"line %d\n" % n)
    ts = [threading.Thread(target=work, args=(n,)) for n in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]
    print(os.fstat(fd).st_size, sorted(set(open("count").read().split("\n"))))
    os.mkdir("sub")
    def move(): os.chdir("sub")
    t = threading.Thread(target=move); t.start(); t.join(); print(os.path.basename(os.getcwd()))
elif sys.argv[1] == "procs":
    pids = []
    for n in range(12):
        pid = os.fork()
        if pid == 0:
            for k in range(20):
                with open("p%d" % n, "a") as f: f.write("x")
                os.stat("p%d" % n)
            os._exit(0)
        pids.append(pid)
    print([os.waitpid(pid, 0)[1] for pid in pids], sum(os.stat("p%d" % n).st_size for n in range(12)))
P
cp /bin/echo echo
python3 t.py exec; python3 t.py own; python3 t.py many; python3 t.py shared; python3 t.py procs
