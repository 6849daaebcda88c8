# Changes of every kind, for another overlayfs to find.
echo more >>m/only; rm m/f; rm -r m/d; mkdir m/d; echo z >m/d/z; mv m/link m/renamed; mkdir m/new; rm m/pipe; mkfifo m/pipe2
setfattr -n user.colour -v red m/hard; chmod 600 m/low/z; rm -r m/low/in; touch -d 2003-03-03 m/e; mv m/only m/new/moved
ln m/new/moved m/new/again; umount m
