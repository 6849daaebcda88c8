# Modes, umask, ownership, access.
umask 027; true > f; mkdir d; stat -c '%a %F' f d; umask 0; true > g; stat -c %a g; umask 022
chmod 4755 f; stat -c %a f; echo x > f; stat -c %a f; chmod 2755 d; mkdir d/s; stat -c %a d/s
chmod 000 f; cat f; cat < f; echo x > f; test -r f; echo $?; chmod 600 f; cat f
chmod 500 d; true > d/x; rmdir d/s; chmod 600 d; ls d/s; cd d; chmod 700 d
chown 0 f; echo $?; chgrp 0 f; echo $?; chown "$(id -u)" f; echo $?
mkfifo p; stat -c %F p; mknod q c 1 3; echo $?
python3 -c '
import os
print([os.access("f", m) for m in (os.R_OK, os.W_OK, os.X_OK)])
fd = os.open("new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o400); print(os.write(fd, b"x"), oct(os.fstat(fd).st_mode))
try: os.open("new", os.O_CREAT | os.O_EXCL)
except OSError as e: print(e.errno)'
