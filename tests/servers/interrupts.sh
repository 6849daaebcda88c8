# Signals while a server takes its time.
cat > client.py <<'P'
import ctypes, os, signal, sys
how = sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.siginterrupt(signal.SIGUSR1, how != "restart")
if how == "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
if how == "ignored": signal.signal(signal.SIGUSR1, signal.SIG_IGN)
fd = libc.open(sys.argv[1].encode(), os.O_RDONLY)
print(fd >= 0 or os.strerror(ctypes.get_errno()))
P
for how in plain restart blocked ignored; do
    echo "# $how"
    serve --hold OPEN; say counts
    python3 client.py mnt/double $how > out & client=$!
    held 1
    kill -USR1 $client
    case $how in blocked | ignored) sleep 0.2; say counts; say release;; esac
    wait $client; cat out; say counts
    unserve
done
for deaf in 38 11 5; do
    echo "# the server answers INTERRUPT with $deaf"
    serve --hold OPEN --deaf $deaf; say counts
    python3 client.py mnt/double plain > out & client=$!
    held 1; kill -USR1 $client; sleep 0.2
    [ $deaf = 11 ] || { kill -USR1 $client; sleep 0.2; say counts; say release; }
    wait $client; cat out
    unserve
done
echo "# killed"
serve --hold OPEN; say counts
cat mnt/double & a=$!; held 1
kill -KILL $a; wait $a 2> /dev/null; echo "killed: $?"
held 0; say counts | cut -d' ' -f 7-
unserve
echo "# stopped and continued"
serve --hold OPEN; say counts
cat mnt/double > out 2>&1 & a=$!; held 1
kill -STOP $a; sleep 0.2; kill -CONT $a
sleep 0.1; say release; wait $a; sed 's/.*: //' out
unserve
