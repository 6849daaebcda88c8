# What a server says unasked.
serve
echo hello > mnt/f; cat mnt/f
say set f world
cat mnt/f; cat mnt/f
say inode f 0 0; cat mnt/f
say set f longer-than-before; stat -c %s mnt/f; say inode f -1 0; stat -c %s mnt/f; cat mnt/f
say entry f; say entry f; stat -c %s mnt/f; say known
say expire f; say expire nosuch; say inode '#999' 0 0; say entry nosuch
say raw 2 00; say raw 3 0100000000000000; say raw 77 ; say raw 1 0100000000000000; say raw 4 00; say raw 8 00
exec 4< mnt/f; say store f 0 STORED; cat <&4; exec 4<&-
exec 4< mnt/f; cat <&4; say retrieve f 0 100; exec 4<&-; say retrieve '#999' 0 1; say retrieve '#1' 0 1; say store '#1' 0 x
mkdir mnt/d; echo x > mnt/g
say delete g f; cat mnt/g; say delete g g; say delete d d; ls mnt
: > mnt/d/x; say delete d d
say epoch; cat mnt/f
say known
say entry f; say entry g; say entry d; say known
unserve
# FOPEN_KEEP_CACHE: what is closed keeps its content, until the server says that it is not needed.
serve --open-flags 2
echo hello > mnt/kept; cat mnt/kept; say known
say prune kept; say prune '#999'
while say known | grep -q kept; do sleep 0.02; done
cat mnt/kept
unserve
