# What is open while it is copied up or removed, attributes, opaque directories, odd names.
python3 - <<'P'
import os, errno
libc=__import__('ctypes').CDLL(None, use_errno=True)
fd=os.open('m/d', os.O_TMPFILE|os.O_RDWR, 0o640); os.write(fd,b'tmp')
print(libc.linkat(-100,b'/proc/self/fd/%d'%fd,-100,b'm/d/named',0x400)); print(open('m/d/named').read(), os.stat('m/d/named').st_nlink, oct(os.stat('m/d/named').st_mode))
def tr(f,*a,**k):
    try: return f(*a,**k)
    except OSError as e: return errno.errorcode[e.errno]
# open before copy-up sees old
r=open('m/only'); w=open('m/only','a'); w.write('new'); w.flush(); print(repr(r.read()), repr(open('m/only').read()))
print(tr(os.listxattr,'m/only'), tr(os.setxattr,'m/only','user.x',b'1'), tr(os.getxattr,'m/only','user.x'), tr(os.listxattr,'m/only'), tr(os.setxattr,'m/only','user.overlay.z',b'1'),tr(os.getxattr,'m/only','user.overlay.origin'), tr(os.removexattr,'m/only','user.y'), tr(os.removexattr,'m/only','user.x'))
os.setxattr('m/d/x','user.keep',b'v') ; os.truncate('m/d/x',0) ; print(os.getxattr('m/d/x','user.keep'))
print(tr(os.mknod,'m/wh',0o20000|0o600,0))
st=os.statvfs('m'); print(st.f_namemax)
print(tr(os.rmdir,'m/low'), tr(os.rename,'m/low','m/low2'), tr(os.unlink,'m/low'), tr(os.rename,'m/only','m/low'), tr(os.rename,'m/low','m/only'))
# listing while removing
os.mkdir('m/many')
for i in range(300): open('m/many/%d'%i,'w').close()
n=0
with os.scandir('m/many') as it:
    for e in it: os.unlink('m/many/'+e.name); n+=1
print(n, os.listdir('m/many')); os.rmdir('m/many')
# directory fd stays after removal
os.mkdir('m/gone'); g=os.open('m/gone',os.O_RDONLY); os.rmdir('m/gone'); print(tr(os.listdir,g), tr(os.open,'x',os.O_CREAT|os.O_WRONLY,dir_fd=g), os.fstat(g).st_nlink)
g=os.open('m/e',os.O_RDONLY); os.rmdir('m/e'); print(tr(os.listdir,g), tr(os.open,'x',os.O_CREAT|os.O_WRONLY,dir_fd=g))
f=os.open('m/d/y',os.O_RDWR); os.unlink('m/d/y'); os.write(f,b'abc'); print(os.fstat(f).st_nlink,os.fstat(f).st_size); os.fchmod(f,0o600); print(oct(os.fstat(f).st_mode))
f=os.open('m/low/z',os.O_RDONLY); os.unlink('m/low/z'); print(os.read(f,9), os.fstat(f).st_nlink)
# opaque
__import__('shutil').rmtree('m/d'); os.mkdir('m/d'); print(os.listdir('m/d'), os.path.exists('m/d/sub')); os.mkdir('m/d/sub'); print(os.listdir('m/d/sub'))
print(tr(os.link,'m/f','m/f2'), os.stat('m/f').st_nlink, os.stat('m/f').st_ino==os.stat('m/f2').st_ino); os.unlink('m/f'); print(open('m/f2').read()); os.rename('m/f2','m/f')
print(tr(os.symlink,'a'*300,'m/sl'), len(os.readlink('m/sl')), os.lstat('m/sl').st_size); os.chown('m/sl',-1,-1,follow_symlinks=False); os.utime('m/link',(1,2),follow_symlinks=False); print(os.lstat('m/link').st_mtime)
print(tr(os.open,'m/pipe',os.O_WRONLY|os.O_NONBLOCK), tr(os.open,'m/low',os.O_RDWR), tr(os.open,'m/link',os.O_RDONLY|os.O_NOFOLLOW))
P
find m -printf '%P %y %m %s %n\n' | sort; umount m; find up -printf '%P %y %m %s\n' | sort
