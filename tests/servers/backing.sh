# Backing files: a server that agrees to them has to ask for each, and cannot name one that it was not given.
for flags in 0 $((1 << 37)); do
    serve --open-flags 128 --init-flags $flags
    touch mnt/file 2>&1; report cat mnt/file; report truncate -s 3 mnt/file; stat -c %s mnt/file
    say asked
    rm mnt/file; balanced
    unserve
done
