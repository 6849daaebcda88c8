# A server is killed at any moment, again and again, while clients use its files.
client() {
    while [ ! -e stop ]; do
        echo $1 > mnt/f$1; cat mnt/f$1; ls mnt; mkdir mnt/d$1; mv mnt/f$1 mnt/d$1/g; rm -r mnt/d$1
    done > /dev/null 2>&1
}
rm -f stop
client 1 & a=$!; client 2 & b=$!; client 3 & c=$!
n=0; while [ $n -lt ${KILLS:-25} ]; do
    n=$((n + 1))
    umvu-testfs --threads $((n % 3 + 1)) mnt & server=$!
    until grep -q " $PWD/mnt " /proc/mounts; do kill -0 $server || exit 1; done
    sleep 0.0$((n * 7 % 10))$((n * 3 % 10))
    { kill -KILL $server; wait $server; } 2> /dev/null
    until umount mnt 2> /dev/null; do :; done
done
echo > stop; wait $a $b $c
echo "$n kills"; grep -c " $PWD/mnt " /proc/mounts; rm stop
