# Programs, scripts and interpreters on the mount.
cp /bin/echo e; ./e hello; "$PWD/e" again | sed "s:$PWD:DIR:"
printf '#!/bin/sh\necho "$# $1"\n' > s; chmod +x s; ./s a b
printf '#!%s/e from\n' "$PWD" > i; chmod +x i; ./i x | sed "s:$PWD:DIR:"
chmod -x e; ./e no; echo $?
echo text > t; chmod +x t; ./t 2>/dev/null; echo $?
printf '#!/no/such\n' > n; chmod +x n; ./n 2>/dev/null; echo $?
mkdir d; ./d 2>/dev/null; echo $?
cp "$(readlink -f "$(command -v python3)")" py && ./py -c 'import os,sys; print(os.path.basename(os.readlink("/proc/self/exe")))'
