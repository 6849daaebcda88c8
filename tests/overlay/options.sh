# What the kernel accepts and shows, as far as unprivileged layers can have it.
umount m
for option in redirect_dir=on redirect_dir=off redirect_dir=follow redirect_dir=nofollow metacopy=on metacopy=off index=off \
    xino=on xino=auto xino=off uuid=auto verity=off nfs_export=off nonsense userxattr=1 xino=maybe lowerdir=; do
    mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr,$option m 2>/dev/null; echo $option $?
    grep overlay /proc/mounts | sed "s,$PWD,,g; s/rw,relatime,//; s/xino=[a-z]*,//"; umount m 2>/dev/null
done
mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr,volatile m && echo x >m/new && umount m
mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr m 2>/dev/null || echo refused
rm -r w/work/incompat && mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr m && cat m/new && umount m
