# The agent: code in a guest's own address space that lets calls on paths pass which can touch nothing virtual.
#
# A patched call site jumps to a slot (see site.rs), and the slot calls `entry` with the number of the call in eax, its
# arguments where the kernel expects them, and the red zone skipped. Back there, rcx tells: not 0, and the call has been
# made, with its result in rax; 0, and it is to be made as ever, with its number in rax. All else is as it was.
#
# A path may pass if no step of it can enter a mount: none of its names is that of a mountpoint (`names`), and no
# directory on its way is a symlink, if there are mounts. What cannot be told at once is left to umvu, so every doubt
# leads to `slow`. Nothing is kept from one call to the next.
#
# A bad pointer faults here and not in the kernel, and a signal may interrupt the agent's call: umvu then puts the thread
# back to its own call (see rollback.rs), which is why the frame has a fixed form from `framed` to `unframed`.

    .pushsection .rodata.umvu_agent, "a", @progbits
    .balign 16
    .globl umvu_agent, umvu_agent_end
umvu_agent:
    .ascii "umvu agent"
    .org umvu_agent + {HEADER}
.Lknows:
    .long 0
.Lgeneration:
    .long 0
    .long .Lframed - umvu_agent
    .long .Lunframed - umvu_agent
.Lnames:
    .fill {NAMES_LEN}, 1, 0

    .org umvu_agent + {ENTRY}
.Lentry:
    push rbp
    mov rbp, rsp
    push rax
    push rdi
    push rsi
    push rdx
    push r10
    push r8
    push r9
    push rbx
    push r12
    push r13
    push r14
    push r15
    # The path's copy, and 24 bytes for what a call needs.
    sub rsp, {PATH_MAX} + 24
.Lframed:

# Old forms become new ones: r13d the number, ebx the directory, r12 the path, r14 and r15 what follows.
    cmp eax, {OPENAT}
    je .Lat_form
    cmp eax, {NEWFSTATAT}
    je .Lat_form
    cmp eax, {READLINKAT}
    je .Lat_form
    cmp eax, {FACCESSAT}
    je .Lat_form
    cmp eax, {FACCESSAT2}
    je .Lat_form
    cmp eax, {STATX}
    je .Lat_form
    cmp eax, {UNLINKAT}
    je .Lat_form
    cmp eax, {MKDIRAT}
    je .Lat_form
    cmp eax, {FCHMODAT}
    je .Lat_form
    cmp eax, {UTIMENSAT}
    je .Lat_form
    mov ebx, {FDCWD}
    mov r12, rdi
    mov r14, rsi
    mov r15, rdx
    mov r13d, {OPENAT}
    cmp eax, {OPEN}
    je .Lscan
    mov r13d, {READLINKAT}
    cmp eax, {READLINK}
    je .Lscan
    mov r13d, {FACCESSAT}
    cmp eax, {ACCESS}
    je .Lscan
    mov r13d, {MKDIRAT}
    cmp eax, {MKDIR}
    je .Lscan
    mov r13d, {FCHMODAT}
    cmp eax, {CHMOD}
    je .Lscan
    mov r13d, {NEWFSTATAT}
    xor r15d, r15d
    cmp eax, {STAT}
    je .Lscan
    mov r15d, {NOFOLLOW}
    cmp eax, {LSTAT}
    je .Lscan
    mov r13d, {UNLINKAT}
    xor r14d, r14d
    cmp eax, {UNLINK}
    je .Lscan
    mov r14d, {REMOVEDIR}
    cmp eax, {RMDIR}
    je .Lscan
    jmp .Lslow
.Lat_form:
    mov r13d, eax
    mov ebx, edi
    mov r12, rsi
    mov r14, rdx
    mov r15, r10

# Where does the path start? eax: the basis of its names' hashes, kept below the copy.
.Lscan:
    test r12, r12
    jz .Lslow
    mov r8d, [rip + .Lknows]
    mov rdi, rsp
    lea r11, [rsp + {PATH_MAX}]
    mov eax, {BASIS}
    movzx edx, byte ptr [r12]
    cmp dl, '/'
    je .Labsolute
    cmp ebx, {FDCWD}
    je .Lrelative
    mov ecx, ebx
    call .Lis_hosts
    jc .Lslow
    test dl, dl
    jz .Lempty
    mov eax, {BELOW_BASIS}
    jmp .Lcopy
.Labsolute:
    test r8d, {ABSOLUTE}
    jz .Lslow
    jmp .Lcopy
.Lrelative:
    test r8d, {RELATIVE}
    jz .Lslow
    test dl, dl
    jz .Lslow
.Lcopy:
    mov [rsp + {PATH_MAX}], eax
    mov rsi, r12
    mov r10, rdi
    xor r9d, r9d

# rsi, rdi: from and to. r10: where the present name begins. r9d: how deep. r11: the end of the copy.
.Lnext:
    cmp rdi, r11
    jae .Lslow
    movzx edx, byte ptr [rsi]
    mov [rdi], dl
    inc rsi
    inc rdi
    cmp dl, '/'
    je .Lname
    test dl, dl
    jz .Lname
    xor eax, edx
    imul eax, eax, {PRIME}
    jmp .Lnext
.Lname:
    lea rcx, [rdi - 1]
    sub rcx, r10
    jz .Lnamed
    cmp byte ptr [r10], '.'
    jne .Lordinary
    cmp ecx, 1
    je .Lnamed
    cmp ecx, 2
    jne .Lordinary
    cmp byte ptr [r10 + 1], '.'
    jne .Lordinary
    # Above its start a path may leave what the flags speak of.
    dec r9d
    js .Lslow
    jmp .Lnamed
.Lordinary:
    shr eax, {HASH_SHIFT}
    bt dword ptr [rip + .Lnames], eax
    jc .Lblocked
    # Below a descriptor, which may be one of /proc/self/fd, a number can stand for a file.
    cmp dword ptr [rsp + {PATH_MAX}], {BELOW_BASIS}
    jne .Ldeeper
    mov rcx, r10
.Ldigit:
    movzx eax, byte ptr [rcx]
    sub eax, '0'
    cmp eax, 9
    ja .Ldeeper
    inc rcx
    lea rax, [rcx + 1]
    cmp rax, rdi
    jb .Ldigit
    jmp .Lslow
.Ldeeper:
    inc r9d
.Lnamed:
    mov r10, rdi
    mov eax, [rsp + {PATH_MAX}]
    test dl, dl
    jnz .Lnext

    test r8d, {SYMLINKS}
    jnz .Lmake
    cmp r13d, {OPENAT}
    je .Lopen

# No directory on the way may be a symlink, nor the file itself where it is followed. r8: where it
# is cut off for that, or 0.
    mov r8, rdi
    cmp r13d, {READLINKAT}
    je .Lnot_followed
    cmp r13d, {UNLINKAT}
    je .Lnot_followed
    cmp r13d, {MKDIRAT}
    je .Lnot_followed
    cmp r13d, {FACCESSAT}
    je .Lfollowed
    cmp r13d, {FCHMODAT}
    je .Lfollowed
    mov eax, r14d
    cmp r13d, {STATX}
    cmovne eax, r15d
    test eax, {NOFOLLOW}
    jnz .Lnot_followed
.Lfollowed:
    xor r8d, r8d
    jmp .Lstraight
.Lnot_followed:
    dec r8
    cmp r8, rsp
    jbe .Lmake
    cmp byte ptr [r8], '/'
    jne .Lnot_followed
    mov byte ptr [r8], 0
# An open that always fails, as directories cannot be written to; with a symlink on the way it fails with ELOOP.
.Lstraight:
    mov qword ptr [rsp + {PATH_MAX}], {O_WRONLY} | {O_DIRECTORY}
    mov qword ptr [rsp + {PATH_MAX} + 8], 0
    call .Lopen_straight
    test r8, r8
    jz .Lchecked
    mov byte ptr [r8], '/'
.Lchecked:
    cmp rax, -{EISDIR}
    je .Lmake
    cmp rax, -{ENOTDIR}
    je .Lmake
    cmp rax, -{ENOENT}
    je .Lmake
    cmp rax, -{EACCES}
    je .Lmake
    jmp .Lslow

# openat2(2) looks for symlinks itself. It is stricter with its arguments than openat(2).
.Lopen:
    mov eax, r14d
    test eax, {OPEN_OTHER}
    jnz .Lslow
    xor ecx, ecx
    test eax, {O_CREAT}
    jz .Lopen_mode
    mov ecx, r15d
    and ecx, 0xfff
.Lopen_mode:
    mov [rsp + {PATH_MAX}], rax
    mov [rsp + {PATH_MAX} + 8], rcx
    call .Lopen_straight
    cmp rax, -{ELOOP}
    je .Lslow
    cmp rax, -{EINVAL}
    je .Lslow
    cmp rax, -{ENOSYS}
    je .Lslow
    jmp .Lmade

# What is barred may still be /proc/self/fd/N, by which servers open again what they hold, if that is
# the host's. r10: what the path must begin with.
.Lblocked:
    mov rsi, r12
    mov rdi, rsp
    xor ecx, ecx
    lea r10, [rip + .Lown_descriptors]
.Lown:
    cmp rdi, r11
    jae .Lslow
    movzx edx, byte ptr [rsi]
    mov [rdi], dl
    inc rsi
    inc rdi
    cmp byte ptr [r10], 0
    je .Lnumber
    cmp dl, [r10]
    jne .Lslow
    inc r10
    jmp .Lown
.Lnumber:
    test dl, dl
    jz .Lown_descriptor
    sub edx, '0'
    cmp edx, 9
    ja .Lslow
    imul ecx, ecx, 10
    add ecx, edx
    cmp ecx, {PLACEHOLDERS_HIGH}
    jb .Lown
    jmp .Lslow
.Lown_descriptor:
    call .Lis_hosts
    jc .Lslow
    jmp .Lmake

# The file that a descriptor stands for.
.Lempty:
    mov byte ptr [rsp], 0
    mov eax, r15d
    cmp r13d, {NEWFSTATAT}
    je .Lempty_flags
    mov eax, r14d
    cmp r13d, {STATX}
    jne .Lslow
.Lempty_flags:
    test eax, {EMPTY_PATH}
    jz .Lslow

.Lmake:
    call .Linvoke
.Lmade:
    mov ecx, 1
    jmp .Lout
.Lslow:
    xor ecx, ecx
    mov rax, [rbp - 8]
.Lout:
    mov rdi, [rbp - 16]
    mov rsi, [rbp - 24]
    mov rdx, [rbp - 32]
    mov r10, [rbp - 40]
    mov r8, [rbp - 48]
    mov r9, [rbp - 56]
    mov rbx, [rbp - 64]
    mov r12, [rbp - 72]
    mov r13, [rbp - 80]
    mov r14, [rbp - 88]
    mov r15, [rbp - 96]
    jmp .Lunframed

# The call itself, on the copy of the path.
.Linvoke:
    mov edi, ebx
    lea rsi, [rsp + 8]
    mov rdx, r14
    mov r10, r15
    mov r8, [rbp - 48]
    movabs r9, {PASS}
    mov eax, r13d
    syscall
    ret

# Is ecx a descriptor of the host's? Carry: no.
.Lis_hosts:
    test r8d, {DESCRIPTORS}
    jz .Lis_not
    cmp ecx, 3
    jb .Lis_not
    cmp ecx, {PLACEHOLDERS}
    jb .Lis
    cmp ecx, {PLACEHOLDERS_END}
    jb .Lis_not
    cmp ecx, {PLACEHOLDERS_HIGH}
    jae .Lis_not
.Lis:
    clc
    ret
.Lis_not:
    stc
    ret

# openat2(2) of the copy, without symlinks, as the two words behind it say.
.Lopen_straight:
    mov qword ptr [rsp + 8 + {PATH_MAX} + 16], {RESOLVE_NO_SYMLINKS}
    mov edi, ebx
    lea rsi, [rsp + 8]
    lea rdx, [rsp + 8 + {PATH_MAX}]
    mov r10d, 24
    movabs r9, {PASS}
    mov eax, {OPENAT2}
    syscall
    ret

.Lunframed:
    leave
    ret

.Lown_descriptors:
    .asciz "/proc/self/fd/"
umvu_agent_end:
    .popsection
