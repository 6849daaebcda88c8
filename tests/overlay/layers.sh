mkdir -p l1/d/sub l2/d up w m; echo one > l1/f; echo two > l2/f; echo low > l2/only; echo x > l2/d/x; echo y > l1/d/y; ln -s f l2/link; chmod 640 l2/only; touch -d 2001-01-01 l2/only
ln l2/only l2/hard; mkdir l2/low l2/low/in; echo z > l2/low/z; mkfifo l2/pipe; mkdir l1/e
mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr m || exit 1
