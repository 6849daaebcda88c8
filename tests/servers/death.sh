# A server that dies, and what its clients see.
report() { "$@" 2>&1 | sed 's/.*: //'; }
for op in LOOKUP OPEN READ GETATTR READDIR; do
    echo "# dies at $op"
    serve --die $op --ttl 0
    report cat mnt/brief
    report ls mnt
    wait $server 2>/dev/null; echo "server: $?"
    report stat mnt
    report mkdir mnt/d
    grep -c " $PWD/mnt " /proc/mounts
    umount mnt; ls mnt | wc -l
done
echo "# killed while clients wait, in every kind of call"
serve --hold LOOKUP; say counts
for n in 1 2 3 4 5; do report cat mnt/f$n > out$n & eval "c$n=\$!"; done
held 1
{ kill -9 $server; wait $server; } 2> /dev/null
for c in $c1 $c2 $c3 $c4 $c5; do wait $c; done
cat out? | sort
report ls mnt
echo "# open files of a dead server"
umount mnt; serve
echo data > mnt/f; exec 3< mnt/f 4> mnt/g
{ kill -9 $server; wait $server; } 2> /dev/null
report cat <&3; (echo x >&4) 2>/dev/null || echo refused
report umount mnt
exec 3<&- 4>&-
umount mnt; ls mnt | wc -l
echo "# again at the same place"
serve; echo again > mnt/f; cat mnt/f; unserve
echo "# lazily unmounted, the open file is still served"
serve; echo lazy > mnt/f; exec 3< mnt/f; umount -l mnt; ls mnt | wc -l; cat <&3; exec 3<&-; wait $server; echo "server: $?"
echo "# busy"
serve; exec 3> mnt/f; umount mnt 2> /dev/null || echo busy; exec 3>&-; unserve
echo "# dies before it answers INIT"
serve --die INIT; report ls mnt; wait $server; umount mnt
echo "# refuses INIT"
serve --fail INIT=71; report ls mnt; report stat mnt; umount mnt; wait $server 2>/dev/null; echo "server: $?"
for version in 8.0 6.40 7.12 7.15 7.19 7.22 7.31 7.99; do
    echo "# version $version"
    serve --protocol $version; report ls -a mnt; umount mnt; wait $server
done
for len in 0 8 24 60 72; do
    echo "# INIT of $len bytes"
    serve --init-len $len --protocol 7.20; report ls -a mnt; umount mnt; wait $server
done
