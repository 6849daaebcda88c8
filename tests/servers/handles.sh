# File handles of a server that does not find files again by them, and of one that does.
for flags in 0 $((1 << 38)); do
    serve --init-flags $flags
    python3 - <<'P'
import ctypes, errno, struct
libc = ctypes.CDLL(None, use_errno=True)
def handle(path, room, flags, buffer=True):
    data = ctypes.create_string_buffer(struct.pack("Ii", room, 0), 8 + 128) if buffer else None
    result = libc.name_to_handle_at(-100, path, data, ctypes.byref(ctypes.c_int64()), flags)
    print(errno.errorcode[ctypes.get_errno()] if result else struct.unpack_from("Ii", data), end=" ")
for flags in 0, 0x200, 2, 0x202:
    for room in 0, 128, 129: handle(b"mnt", room, flags)
    handle(b"mnt", 128, flags, False)
    handle(b"mnt/nope", 128, flags)
    print()
P
    unserve
done
