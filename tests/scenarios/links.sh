# Hard and symbolic links.
echo x > a; ln a b; stat -c '%h %s' a b; ls -i a b | awk '{print $1}' | uniq | wc -l
ln -s a s; readlink s; cat s; ln -s missing m; cat m; ls -l m | awk '{print $1, $NF}'
ln -s "$PWD/a" abs; cat abs; ln -s loop loop; cat loop
mkdir -p d/e; ln -s ../a d/up; cat d/up; ln -s d dl; ls dl; cd dl/e; pwd -P | sed 's:.*/mnt::'; cd ../..
ln d dd; echo $?; ln a a; echo $?; rm a; stat -c %h b; ln -s y s; echo $?
python3 -c '
import os
try: os.open("s", os.O_RDONLY | os.O_NOFOLLOW)
except OSError as e: print(e.errno)
fd = os.open("s", os.O_PATH | os.O_NOFOLLOW); print(os.readlink("", dir_fd=fd))'
# Into the mount, and up again in it.
mkdir -p in/deep; echo inside > in/f; ln -s "$PWD/in/deep" ../link; cat ../link/../f; cat "$PWD/../link/../../in/f"; rm ../link
# Out of the mount.
touch ../taken
for new in ../taken ../free ../missing/new ../taken/ ..; do ln -T a2 $new; done 2>&1
ln b a2; for new in ../taken ../free ../missing/new ../taken/ ..; do ln -T a2 $new; done 2>&1; true
