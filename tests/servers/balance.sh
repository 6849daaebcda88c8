# What is granted is given back: opens and releases, flushes and closes, lookups and forgets.
for flags in "" "--init-flags 24576" "--init-flags 8192 --ttl 0" "--ttl 0" "--threads 3" "--splice" "--nonblock" "--splice --threads 2"; do
    echo "# $flags"
    serve $flags
    mkdir mnt/d
    for n in 1 2 3 4 5 6 7 8 9; do echo $n > mnt/d/$n; done
    cat mnt/d/*
    ls -l mnt/d | wc -l
    find mnt -type f -name '[0-9]' | wc -l
    say counts | sed 's/opened.*flushed/flushed/; s/released.*//'
    python3 -c '
import os
fd = os.open("mnt/d/2", os.O_RDWR)
if os.fork() == 0: os.close(fd); os._exit(0)
os.wait(); os.dup2(fd, 900); os.close(900); os.close(fd)
os.open("mnt/d/3", os.O_PATH)
fd = os.open("mnt/d/4", os.O_RDONLY)
os.execvp("true", ["true"])
'
    say counts | sed 's/opened.*flushed/flushed/; s/released.*//'
    rm -r mnt/d
    for name in d; do say entry $name > /dev/null; done
    balanced
    unserve
done
echo "# files that are forgotten by the hundred"
serve
mkdir mnt/many; for n in $(seq 300); do : > mnt/many/$n; done; ls mnt/many | wc -l
say entry many > /dev/null; balanced
unserve
echo "# what has lost its name is not kept, though its content could be"
serve --open-flags 2
for n in a b c; do echo $n > mnt/$n; cat mnt/$n; done
rm mnt/a
until say known | grep -qv ' a'; do sleep 0.02; done
say known
rm mnt/b mnt/c; balanced
unserve
