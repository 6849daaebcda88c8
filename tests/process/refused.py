# Ways around the filter are closed.
import ctypes, errno, mmap
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    result = libc.syscall(*args)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "done"
print("io_uring_setup", call(425, 8, ctypes.create_string_buffer(120)))
print("x32 getpid", call(0x40000000 + 39))
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000" "cd80" "c3"))  # getpid by int 0x80
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
print("i386 getpid", ctypes.CFUNCTYPE(ctypes.c_int)(address)() == -errno.ENOSYS)
