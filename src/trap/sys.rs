//! The raw calls of ptrace, seccomp and wait that no safe crate offers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use fsmodules::api::Errno;

use super::Tid;
use crate::abi::Regs;

pub type Result<T> = std::result::Result<T, Errno>;

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
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

pub fn event_message(tid: Tid) -> Result<u64> {
    let mut message: libc::c_ulong = 0;
    ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, &raw mut message as usize)?;
    Ok(message)
}

/// Sets the mask of blocked signals; what it was.
pub fn swap_signal_mask(tid: Tid, mask: u64) -> Result<u64> {
    let mut old = 0u64;
    ptrace(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), &raw mut old as usize)?;
    ptrace(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), &raw const mask as usize)?;
    Ok(old)
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

/// Waits for one process; its raw status.
pub fn wait_for(tid: Tid) -> Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live integer.
        match check(unsafe { libc::waitpid(tid.as_raw(), &raw mut status, libc::__WALL) }.into()) {
            Ok(_) => return Ok(status),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Closes a descriptor of a child, whose owner is in the parent.
pub fn close(fd: RawFd) {
    // SAFETY: used between fork and exec only, on descriptors that nobody uses there any more.
    unsafe { libc::close(fd) };
}

/// A signal by which somebody asks umvu to end.
static ASKED: AtomicI32 = AtomicI32::new(0);

extern "C" fn nothing(_: libc::c_int) {}

/// Ctrl-C and Ctrl-\ at the terminal reach the guests by themselves; what kill(2) sends is for the command.
extern "C" fn ask(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure.
    let from_terminal = unsafe { (*info).si_code } == libc::SI_KERNEL;
    if !(from_terminal && matches!(signal, libc::SIGINT | libc::SIGQUIT)) {
        ASKED.store(signal, Ordering::Relaxed);
    }
}

/// The signal with which umvu was asked to end, if that has happened since the last time.
pub fn asked_to_end() -> Option<i32> {
    Some(ASKED.swap(0, Ordering::Relaxed)).filter(|&signal| signal != 0)
}

const ENDING: [libc::c_int; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];

/// The signals that interrupt [`poll`] and nothing else.
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

/// A child's change, or a request to end, interrupts [`poll`] and nothing else. What umvu was told to ignore (nohup)
/// stays ignored.
pub fn prepare_signals() {
    // SAFETY: the structures are fully initialised, and the handlers touch nothing but an atomic.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGCHLD, &raw const action, null_mut());
        for signal in ENDING {
            let mut former: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut former);
            if former.sa_sigaction != libc::SIG_IGN {
                action.sa_sigaction =
                    ask as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
                action.sa_flags = libc::SA_SIGINFO;
                libc::sigaction(signal, &raw const action, null_mut());
            }
        }
        let set = awaited();
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, null_mut());
    }
}

/// In a new child: signals as the command is to find them. exec(2) resets the handlers.
fn restore_signals() {
    // SAFETY: the set is fully initialised.
    unsafe {
        // Rust's runtime ignores it.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let set = awaited();
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, null_mut());
    }
}

/// Blocks until a descriptor is readable, a child changes, umvu is asked to end or the time is over. The indices of readable ones.
pub fn poll(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<usize> {
    use std::os::fd::AsRawFd;
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
    // SAFETY: the array, the time and the mask live for the call. The mask is the present one without SIGCHLD.
    let count = unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
        libc::sigdelset(&raw mut mask, libc::SIGCHLD);
        for signal in ENDING {
            libc::sigdelset(&raw mut mask, signal);
        }
        libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, time, &raw const mask)
    };
    if count <= 0 {
        return Vec::new();
    }
    (0..polled.len()).filter(|&n| polled[n].revents != 0).collect()
}

/// Forks. In the child, `body` runs, and the process ends with it.
pub fn fork(body: impl FnOnce()) -> Result<Tid> {
    // SAFETY: umvu has one thread here, so the child may go on as any program does.
    match check(unsafe { libc::fork() }.into())? {
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
            0,
            &raw const program,
        ))?;
    }
    Ok(())
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

/// A call that only umvu's filter knows: a request from inside a view. The length of the answer.
pub fn control(number: u32, request: &[u8], answer: &mut [u8]) -> Result<usize> {
    // SAFETY: both buffers live for the call; the kernel itself knows no such number and touches nothing.
    let result = unsafe {
        libc::syscall(
            number.into(),
            request.as_ptr(),
            request.len(),
            answer.as_mut_ptr(),
            answer.len(),
        )
    };
    check(result).map(|len| len as usize)
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
