//! The raw calls of ptrace, seccomp and wait that no safe crate offers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::time::Duration;

use fsmodules::api::Errno;

use super::Tid;
use super::owner::{F_GETOWN_EX, F_SETOWN_EX, Target};
use crate::abi::Regs;
use crate::table::CONTROL_OPTION;

pub type Result<T> = std::result::Result<T, Errno>;

fn last_errno() -> Errno {
    std::io::Error::last_os_error().into()
}

fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

fn ptrace(request: libc::c_uint, tid: Tid, address: usize, data: usize) -> Result<()> {
    // SAFETY: every caller passes what ptrace(2) wants for its request; pointers are to live values of the right type.
    check(unsafe { libc::ptrace(request, tid.as_raw(), address, data) }).map(drop)
}

const OPTIONS: i32 = libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEEXIT
    | libc::PTRACE_O_TRACESECCOMP;

pub fn seize(tid: Tid) -> Result<()> {
    ptrace(libc::PTRACE_SEIZE, tid, 0, OPTIONS as usize)
}

/// Continues, delivering `signal` unless it is 0.
pub fn cont(tid: Tid, signal: i32) -> Result<()> {
    ptrace(libc::PTRACE_CONT, tid, 0, signal as usize)
}

/// Continues to the end of the present call.
pub fn cont_to_exit(tid: Tid) -> Result<()> {
    ptrace(libc::PTRACE_SYSCALL, tid, 0, 0)
}

/// Leaves it in its group stop, until SIGCONT.
pub fn listen(tid: Tid) -> Result<()> {
    ptrace(libc::PTRACE_LISTEN, tid, 0, 0)
}

pub fn interrupt(tid: Tid) -> Result<()> {
    ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0)
}

pub fn regs(tid: Tid) -> Result<Regs> {
    let mut regs = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    ptrace(libc::PTRACE_GETREGS, tid, 0, regs.as_mut_ptr() as usize)?;
    // SAFETY: all bytes zero are valid registers, and the kernel has filled them in.
    Ok(Regs(unsafe { regs.assume_init() }))
}

pub fn set_regs(tid: Tid, regs: &Regs) -> Result<()> {
    ptrace(libc::PTRACE_SETREGS, tid, 0, &raw const regs.0 as usize)
}

/// Of whom the event (`PTRACE_EVENT_*`) tells at which a thread is stopped. Killed since then, it stands at its exit, whose
/// message is a status.
pub fn event_thread(tid: Tid, event: i32) -> Option<Tid> {
    let mut message: libc::c_ulong = 0;
    ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, &raw mut message as usize).ok()?;
    // What has been read was this event's if it still is the last one.
    let SignalInfo(info) = signal_info(tid)?;
    (info.si_code >> 8 == event).then(|| Tid::from_raw(message as i32))
}

/// Sets the mask of blocked signals; what it was.
pub fn swap_signal_mask(tid: Tid, mask: u64) -> Result<u64> {
    let mut old = 0u64;
    ptrace(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), &raw mut old as usize)?;
    ptrace(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), &raw const mask as usize)?;
    Ok(old)
}

/// Ends a process at once; it may be gone already.
pub fn kill(tid: Tid) {
    // SAFETY: no pointers.
    unsafe { libc::kill(tid.as_raw(), libc::SIGKILL) };
}

/// Sends a signal to one thread of a process; it may be gone already.
pub fn signal_thread(tgid: Tid, tid: Tid, signal: i32) {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_tgkill, tgid.as_raw(), tid.as_raw(), signal) };
}

/// A process's soft limit on a resource (`RLIMIT_*`). The kernel tells it to nobody of another user: then there is none.
pub fn soft_limit(tid: Tid, resource: u32) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: nothing is set, and `limit` is live.
    unsafe { libc::prlimit(tid.as_raw(), resource, std::ptr::null(), &raw mut limit) };
    limit.rlim_cur
}

/// Does something with the rights of a user, and no others, in what concerns files (setfsuid(2)). For root only.
pub fn as_user<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> T {
    // SAFETY: no pointers.
    let (own_gid, own_uid) = unsafe { (libc::setfsgid(gid), libc::setfsuid(uid)) };
    let result = work();
    // SAFETY: likewise.
    unsafe { (libc::setfsuid(own_uid as u32), libc::setfsgid(own_gid as u32)) };
    result
}

/// The next change of any child or tracee, if there is one: its id and raw status.
pub fn next_status() -> Option<(Tid, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live integer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
        match pid {
            0 => return None,
            1.. => return Some((Tid::from_raw(pid), status)),
            _ if last_errno() == Errno::EINTR => {}
            _ => return None,
        }
    }
}

/// The next change of one process, its raw status. Without `block`, `None` if there is none yet.
pub fn status_of(tid: Tid, block: bool) -> Result<Option<i32>> {
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live integer.
        match check(unsafe { libc::waitpid(tid.as_raw(), &raw mut status, flags) }.into()) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(status)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

const ENDING: [libc::c_int; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];

/// The signals that umvu takes from a descriptor.
fn awaited() -> libc::sigset_t {
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        for signal in ENDING {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// From here on children's changes and requests to end come through this descriptor (signalfd(2)). What umvu was told to
/// ignore (nohup) stays ignored.
pub fn signals() -> Result<OwnedFd> {
    let set = awaited();
    // SAFETY: the set is initialised; the new descriptor is ours alone.
    unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, null_mut());
        // A limit on file sizes (ulimit -f) counts for umvu's caches too: that is an error of a call, not umvu's end.
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let fd = check(libc::signalfd(-1, &raw const set, flags).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// What signals have come to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// `waitpid` has something to say.
    pub children: bool,
    /// The signal by which somebody asks umvu to end.
    pub asked_to_end: Option<EndSignal>,
}

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndSignal {
    pub signal: i32,
    /// It comes from a key at the terminal, and so reaches the guests there by itself.
    pub from_terminal: bool,
}

impl News {
    pub fn add(&mut self, later: News) {
        self.children |= later.children;
        self.asked_to_end = later.asked_to_end.or(self.asked_to_end);
    }
}

/// Takes all signals that have come.
pub fn take_signals(signals: BorrowedFd<'_>) -> News {
    let mut news = News::default();
    loop {
        // SAFETY: all bytes zero are a valid structure, and the kernel writes no more than its length.
        let info = unsafe {
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            let len = size_of::<libc::signalfd_siginfo>();
            if libc::read(signals.as_raw_fd(), (&raw mut info).cast(), len) != len as isize {
                return news;
            }
            info
        };
        let signal = info.ssi_signo as i32;
        let from_terminal = info.ssi_code == libc::SI_KERNEL && matches!(signal, libc::SIGINT | libc::SIGQUIT);
        match signal {
            libc::SIGCHLD => news.children = true,
            _ => news.asked_to_end = Some(EndSignal { signal, from_terminal }),
        }
    }
}

/// From here on this process may act on its terminal from the background.
pub fn ignore_background_stops() {
    // SAFETY: no handler is set.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
}

/// In a new child: signals as the command is to find them. exec(2) resets the handlers.
fn restore_signals() {
    // SAFETY: the set is fully initialised.
    unsafe {
        // Rust's runtime ignores the one, umvu the other.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
        let set = awaited();
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, null_mut());
    }
}

/// Blocks until a descriptor is readable or the time is over; what each of them shows (`POLLIN`, `POLLHUP`).
pub fn poll(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<i16> {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let time = timeout.map(|t| libc::timespec {
        tv_sec: t.as_secs() as i64,
        tv_nsec: t.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the array and the time live for the call.
    unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            time,
            std::ptr::null(),
        )
    };
    polled.iter().map(|fd| fd.revents).collect()
}

/// Makes a child that shares umvu's descriptors until it executes a program, so that what it opens umvu has too. In
/// the child, `body` runs, and the process ends with it.
pub fn fork_with_shared_files(body: impl FnOnce()) -> Result<Tid> {
    let flags = (libc::CLONE_FILES | libc::SIGCHLD) as libc::c_long;
    // SAFETY: umvu has one thread here, so the child, which gets a copy of all memory, may go on as any program does.
    match check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? {
        0 => {
            body();
            exit_now(127)
        }
        pid => Ok(Tid::from_raw(pid as i32)),
    }
}

/// Ends the process at once, without destructors.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: no pointers, no return.
    unsafe { libc::_exit(status) }
}

/// From here on this process and all it starts run under the filter, and can gain no privileges.
pub fn install_filter(program: &[libc::sock_filter]) -> Result<()> {
    set_filter(program, 0).map(drop)
}

/// As [`install_filter`]; gives the number of the listener for its user notifications.
pub fn install_notifying_filter(program: &[libc::sock_filter]) -> Result<RawFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    set_filter(program, flags).map(|fd| fd as RawFd)
}

fn set_filter(program: &[libc::sock_filter], flags: libc::c_ulong) -> Result<libc::c_long> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program lives for the call, and the kernel copies it.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        check(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        ))
    }
}

/// Takes over a descriptor that a child has opened in the table it shares with us.
pub fn adopt_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: the child says that it is open, and has left it to us by executing another program.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS`, which the libc crate does not name: `_IOW('!', 4, __u64)`.
const NOTIF_SET_FLAGS: libc::Ioctl = 0x4008_2104;
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// Wake callers and umvu on the core that the other one runs on.
pub fn notify_sync_wake_up(listener: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the flags are passed by value.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SET_FLAGS, SYNC_WAKE_UP) }.into()).map(drop)
}

/// Takes one notification, and blocks if there is none; `ENOENT` if its caller has died.
pub fn notify_receive(listener: BorrowedFd<'_>) -> Result<libc::seccomp_notif> {
    // SAFETY: all bytes zero are a valid notification, which the kernel demands and then fills in.
    unsafe {
        let mut received: libc::seccomp_notif = std::mem::zeroed();
        check(libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut received).into())?;
        Ok(received)
    }
}

pub fn notify_send(listener: BorrowedFd<'_>, id: u64, val: i64, error: i32, flags: u32) -> Result<()> {
    let mut response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the response lives for the call.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) }.into())
        .map(drop)
}

pub fn notify_add_fd(listener: BorrowedFd<'_>, place: &libc::seccomp_notif_addfd) -> Result<i32> {
    // SAFETY: the structure lives for the call.
    check(
        unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                std::ptr::from_ref(place),
            )
        }
        .into(),
    )
    .map(|number| number as i32)
}

/// Lets any process of this user trace us, where the Yama module would restrict that to ancestors.
pub fn allow_tracing() {
    // SAFETY: no pointers. Without Yama the call fails, and there is nothing to allow.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
}

/// execve(2); returns only on failure. Without `envp`, the present environment.
pub fn exec(path: &CString, argv: &[CString], envp: Option<&[CString]>) -> Errno {
    restore_signals();
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let argv = pointers(argv);
    let envp = envp.map(pointers);
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    // SAFETY: null-terminated arrays of C strings that live for the call; `environ` is one too.
    unsafe {
        let envp = envp.as_ref().map_or(environ, |envp| envp.as_ptr());
        libc::execve(path.as_ptr(), argv.as_ptr(), envp);
    }
    last_errno()
}

/// A request from inside a view. The length of the answer; `EINVAL` outside.
pub fn control(request: &[u8], answer: &mut [u8]) -> Result<usize> {
    // SAFETY: both buffers live for the call; the kernel itself knows no such option and touches nothing.
    let result = unsafe {
        libc::prctl(
            CONTROL_OPTION,
            request.as_ptr(),
            request.len(),
            answer.as_mut_ptr(),
            answer.len(),
        )
    };
    check(result.into()).map(|len| len as usize)
}

/// Under umvu's filter, but without a tracer: how a call fails that is caught whatever its arguments are.
pub fn caught_call(nr: u32, argument: u32) -> Errno {
    let argument = libc::c_ulong::from(argument);
    // SAFETY: a filter answers, and the kernel does not make the call.
    let result = unsafe { libc::syscall(nr.into(), argument, argument, argument, argument, argument, argument) };
    check(result).err().unwrap_or(Errno::EIO)
}

/// fcntl(2), of the commands that take a number.
pub fn fcntl(fd: BorrowedFd<'_>, command: i32, argument: u64) -> Result<i32> {
    // SAFETY: its callers pass no command that takes a pointer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) }.into()).map(|result| result as i32)
}

/// `F_GETOWN_EX`
pub fn file_owner(fd: BorrowedFd<'_>) -> Result<Target> {
    let mut target = Target::default();
    // SAFETY: `target` is live, and as large as `struct f_owner_ex`.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, &raw mut target) }.into())?;
    Ok(target)
}

/// `F_SETOWN_EX`
pub fn set_file_owner(fd: BorrowedFd<'_>, target: Target) -> Result<()> {
    // SAFETY: `target` is live, and as large as `struct f_owner_ex`.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, &raw const target) }.into()).map(drop)
}

/// From here on this thread has a descriptor table of its own, which is empty if the kernel can make it so.
pub fn leave_descriptors() -> Result<()> {
    // SAFETY: no pointers; this thread has no descriptor in use.
    unsafe {
        let made = libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE);
        check(made).or_else(|_| check(libc::unshare(libc::CLONE_FILES).into()))
    }
    .map(drop)
}

/// Makes that the descriptor's number, and closes what has it now.
pub fn move_descriptor(fd: OwnedFd, number: RawFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() == number {
        return Ok(fd);
    }
    // SAFETY: the table is this thread's own, and no other owner of the number uses it.
    unsafe {
        check(libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC).into())?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// What the kernel says of a signal (`siginfo_t`).
pub struct SignalInfo(libc::siginfo_t);

impl SignalInfo {
    /// Was it sent to a whole process, by kill(2) or at the terminal?
    pub fn is_for_a_process(&self) -> bool {
        let fault = matches!(
            self.0.si_signo,
            libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP | libc::SIGSYS
        );
        !fault && matches!(self.0.si_code, libc::SI_USER | libc::SI_KERNEL)
    }

    /// Does it come from what the thread has just done, and not from anybody else?
    pub fn is_fault(&self) -> bool {
        self.0.si_code > 0
    }
}

/// Of the signal at whose delivery a thread is stopped.
pub fn signal_info(tid: Tid) -> Option<SignalInfo> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    ptrace(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr() as usize).ok()?;
    // SAFETY: all bytes zero are a valid structure, and the kernel has filled it in.
    Some(SignalInfo(unsafe { info.assume_init() }))
}

pub fn set_signal_info(tid: Tid, info: &SignalInfo) -> Result<()> {
    ptrace(libc::PTRACE_SETSIGINFO, tid, 0, &raw const info.0 as usize)
}

/// Is a SIGSYS at its delivery stop from umvu's filter?
pub fn is_trap(tid: Tid, mark: u16) -> bool {
    const SYS_SECCOMP: libc::c_int = 1;
    signal_info(tid).is_some_and(|SignalInfo(info)| {
        (info.si_signo, info.si_code, info.si_errno) == (libc::SIGSYS, SYS_SECCOMP, mark.into())
    })
}

/// One process_vm_readv(2) or process_vm_writev(2); bytes moved.
pub fn transfer(tid: Tid, write: bool, local: &[libc::iovec], remote: &[libc::iovec]) -> Result<usize> {
    let call = if write {
        libc::process_vm_writev
    } else {
        libc::process_vm_readv
    };
    // SAFETY: `local` describes live buffers of the caller (memory.rs), writable ones for reading.
    let moved = unsafe {
        call(
            tid.as_raw(),
            local.as_ptr(),
            local.len() as libc::c_ulong,
            remote.as_ptr(),
            remote.len() as libc::c_ulong,
            0,
        )
    };
    check(moved as libc::c_long).map(|n| n as usize)
}

/// Reads one byte from a pipe, blocking. `false` at its end.
pub fn read_byte(fd: RawFd) -> bool {
    let mut byte = 0u8;
    loop {
        // SAFETY: the byte is live.
        match unsafe { libc::read(fd, (&raw mut byte).cast(), 1) } {
            1 => return true,
            0 => return false,
            _ if last_errno() == Errno::EINTR => {}
            _ => return false,
        }
    }
}
