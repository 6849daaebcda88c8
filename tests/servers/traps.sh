# Replies that are not right: what the kernel side says to them, and what the client sees.
serve
for t in short long badtype hugesize rootid zeroid unknown double bigerror positive loaded-error headless liar; do stat -c '%n %F' mnt/$t 2>&1; done
echo A; cat mnt/.control; echo clear > mnt/.control
for t in overlong brief open-short lseek-bad; do echo x > mnt/$t; cat mnt/$t | od -c | head -3; done 2>&1
sort mnt/.control | uniq; echo clear > mnt/.control
stat -c %s mnt/brief
echo B; echo data > mnt/boaster; echo $?; echo abcdefgh > mnt/slacker; echo $?; cat mnt/slacker
sort mnt/.control | uniq; echo clear > mnt/.control
for t in dir-slash dir-empty dir-toolong dir-cut dir-overlong; do echo $t; ls mnt/$t; done 2>&1
for t in link-long link-empty link-nul; do readlink mnt/$t; echo $?; done
python3 -c '
import os
for n in "xattr-bad","xattr-long":
    try: print(os.listxattr("mnt/"+n))
    except OSError as e: print(e)
fd=os.open("mnt/lseek-bad",os.O_RDONLY)
try: print(os.lseek(fd,0,os.SEEK_DATA))
except OSError as e: print(e)
try: print(os.lseek(fd,0,os.SEEK_HOLE))
except OSError as e: print(e)
for n in "made-other-type","made-root":
  for f in lambda p: os.mkdir(p), lambda p: os.close(os.open(p,os.O_CREAT|os.O_WRONLY)):
    try: f("mnt/"+n); print("ok")
    except OSError as e: print(e)
'
stat -c %F mnt/turncoat; stat -c %F mnt/turncoat; cat mnt/turncoat
stat -c %F mnt/reborn; cat mnt/reborn; exec 5< mnt/reborn; stat -c %F mnt/reborn; cat <&5; exec 5<&-
echo x > mnt/forget-reply; rm mnt/forget-reply; sleep 0.1
sort mnt/.control | uniq; echo clear > mnt/.control
ls mnt | wc -l
unserve
