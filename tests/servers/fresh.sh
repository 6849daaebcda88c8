# Names that are to be made or replaced: what is remembered of them is asked for anew.
mkdir back one two
for mountpoint in one two; do bindfs --no-allow-other -o entry_timeout=100,attr_timeout=100,negative_timeout=100 back $mountpoint; done
known() { touch "one/$1"; stat -c %n "one/$1"; }
gone() { known "$1"; rm "two/$1"; }
gone a; report mkdir one/a
gone b; report ln -s x one/b; readlink two/b
gone c; known d; ln one/d one/c; stat -c %h two/c
gone e; mkfifo one/e; stat -c %F two/e
gone f; (set -C; echo new > one/f); cat two/f
known g; mv one/g one/h; mv two/h two/g; stat one/h > /dev/null; mv one/g one/h; ls two
# What is not made is believed to be there, and not to be there.
gone i; stat -c %n one/i; report stat one/j; touch two/j; report stat one/j; report touch one/j
umount one two
