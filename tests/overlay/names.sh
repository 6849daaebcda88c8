# Inode numbers, hard links, directories and exchanges.
n() { stat -c '%i' "$@"; }
same() { [ "$1" = "$2" ] && echo same || echo other; }
a=$(n m/f); same $a $(n l1/f); echo more >> m/f; same $a $(n m/f); same $a $(ls -i m/f | cut -d' ' -f1); sync; same $a $(ls -ai m | awk '$2=="f"{print $1}')
same $(n m/only) $(n m/hard); echo x >> m/only; same $(n m/only) $(n m/hard); cat m/only m/hard; stat -c '%h' m/only m/hard
a=$(n m/d); touch m/d/new; same $a $(n m/d); same $a $(ls -ai m | awk '$2=="d"{print $1}'); ls -ai m/d | awk '{print $2}'
mv m/f m/d/g; same $(n m/d/g) $(ls -ai m/d | awk '$2=="g"{print $1}')
mkdir m/pure; mv m/d/g m/pure/g;  same $(n m/pure/g) $(ls -ai m/pure | awk '$2=="g"{print $1}'); same $(n l1/f) $(n m/pure/g)
stat -c '%n %h' m/d m/pure m/low m/e m
umount m;mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr m
same $(n l1/f) $(n m/pure/g); same $(n m/d) $(n l1/d);
python3 - <<'P'
import os, ctypes, errno
libc=ctypes.CDLL(None, use_errno=True)
def ren(a,b,fl):
    r=libc.renameat2(-100,a.encode(),-100,b.encode(),fl)
    return 'ok' if r==0 else errno.errorcode[ctypes.get_errno()]
print(ren('m/only','m/hard',2), open('m/only').read(), open('m/hard').read())
print(ren('m/only','m/pure',2), os.path.isdir('m/only'), open('m/pure').read())
print(ren('m/only','m/pure',2))
print(ren('m/low','m/pure',2), ren('m/pure','m/low',2), ren('m/low','m/moved',0), ren('m/only','m/hard',1), ren('m/only', 'm/nothere',2), ren('m/only','m/x',4))
os.mkdir('m/new'); open('m/new/q','w').write('q')
print(ren('m/new','m/pure/g',2), sorted(os.listdir('m/pure')), sorted(os.listdir('m/pure/g')), open('m/new').read())
print(ren('m/new','m/e',0), ren('m/pure','m/e',0), sorted(os.listdir('m/e')))
print(ren('m/e','m/low',0), ren('m/e', 'm/e/x', 0))
fd=os.open('m/d', os.O_TMPFILE|os.O_RDWR, 0o640); os.write(fd,b'tmp'); print(oct(os.fstat(fd).st_mode), os.fstat(fd).st_nlink)
fd=os.open('m/low', os.O_TMPFILE|os.O_RDWR, 0o640); os.close(fd)
P
mkfifo m/p2; (echo hi > m/pipe & cat m/pipe; wait); ls -l m/p2 m/pipe | cut -c1-10; rm -r m/low; mkdir m/low; ls m/low; mkdir m/low/in; rmdir m/low/in m/low
ln m/link m/link2; stat -c %h m/link m/link2; readlink m/link2; rm m/link; mv m/link2 m/link
find m | sort; umount m; find up -printf '%P %y %m\n' | sort
