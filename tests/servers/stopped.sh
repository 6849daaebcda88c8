# A server that is stopped for a while.
serve
echo data > mnt/f
kill -STOP $server
cat mnt/g 2>/dev/null & a=$!; ls mnt > out & b=$!
sleep 0.3
kill -0 $a && kill -0 $b && echo both wait
kill -9 $b; wait $b 2>/dev/null; echo "killed: $?"
kill -CONT $server
wait $a; echo "went on: $?"
cat mnt/f
unserve
