//! How a process comes to be traced: as a new command, or by asking for it.

use std::ffi::CString;
use std::os::fd::AsRawFd;

use fsmodules::api::Errno;

use super::{Error, Tid, filter, sys};
use crate::control::MAX_MESSAGE;
use crate::table::CONTROL_CALL;

/// A command to start. Without `envp` it has umvu's environment.
pub struct SpawnSpec {
    pub program: Vec<u8>,
    pub argv: Vec<Vec<u8>>,
    pub envp: Option<Vec<Vec<u8>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program cannot be executed.
    #[error("{0}")]
    Exec(Errno),
    #[error(transparent)]
    Trace(#[from] Error),
}

fn c_strings(strings: &[Vec<u8>]) -> Result<Vec<CString>, SpawnError> {
    strings
        .iter()
        .map(|s| CString::new(s.as_slice()).map_err(|_| SpawnError::Exec(Errno::EINVAL)))
        .collect()
}

fn forbidden(what: &'static str) -> impl Fn(Errno) -> SpawnError {
    move |errno| SpawnError::Trace(Error::Forbidden { what, errno })
}

fn pipe() -> Result<(std::io::PipeReader, std::io::PipeWriter), SpawnError> {
    std::io::pipe().map_err(|e| forbidden("a pipe")(Errno::from_raw(e.raw_os_error().unwrap_or(0))))
}

/// Starts a command under the filter, traced from its first instruction on.
pub fn start(spec: &SpawnSpec) -> Result<Tid, SpawnError> {
    let program = CString::new(spec.program.as_slice()).map_err(|_| SpawnError::Exec(Errno::EINVAL))?;
    let argv = c_strings(&spec.argv)?;
    let envp = spec.envp.as_deref().map(c_strings).transpose()?;
    let code = filter::program();
    // The child waits for `go` until it is traced, and says by `failed` which step failed and why.
    let (go_reader, go) = pipe()?;
    let (mut failed_reader, failed) = pipe()?;
    let tid = sys::fork(|| {
        // The child's copy of the writing end would keep the pipe open.
        sys::close(go.as_raw_fd());
        sys::read_byte(go_reader.as_raw_fd());
        let (step, errno) = match sys::install_filter(&code) {
            Err(errno) => (b'f', errno),
            Ok(()) => (b'x', sys::exec(&program, &argv, envp.as_deref())),
        };
        let mut report = vec![step];
        report.extend_from_slice(&errno.raw().to_ne_bytes());
        let _ = std::io::Write::write_all(&mut &failed, &report);
    })
    .map_err(forbidden("a new process"))?;
    drop((go_reader, failed));
    let seized = sys::seize(tid);
    drop(go);
    if let Err(errno) = seized {
        let _ = sys::wait_for(tid);
        return Err(forbidden("ptrace")(errno));
    }
    if until_exec(tid) {
        return Ok(tid);
    }
    let mut report = Vec::new();
    let _ = std::io::Read::read_to_end(&mut failed_reader, &mut report);
    match report.split_first() {
        Some((b'f', errno)) => Err(forbidden("seccomp filters")(errno_of(errno))),
        Some((_, errno)) => Err(SpawnError::Exec(errno_of(errno))),
        None => Err(SpawnError::Exec(Errno::EIO)),
    }
}

fn errno_of(bytes: &[u8]) -> Errno {
    Errno::from_raw(bytes.try_into().map_or(libc::EIO, i32::from_ne_bytes))
}

/// Lets it go as far as its exec, and leaves it running there; `false` if it ended before.
fn until_exec(tid: Tid) -> bool {
    loop {
        let Ok(status) = sys::wait_for(tid) else { return false };
        if !libc::WIFSTOPPED(status) {
            return false;
        }
        let event = status >> 16;
        let deliver = event == 0 && libc::WSTOPSIG(status) != libc::SIGTRAP;
        let _ = sys::cont(tid, if deliver { libc::WSTOPSIG(status) } else { 0 });
        if event == libc::PTRACE_EVENT_EXEC {
            return true;
        }
    }
}

/// Makes this very process a tracee: `ask` tells a hypervisor its id, and succeeds when it is traced.
pub fn be_traced(ask: impl FnOnce(i32) -> Result<(), String>) -> Result<(), String> {
    sys::allow_tracing();
    ask(std::process::id() as i32)?;
    sys::install_filter(&filter::program())
        .map_err(|errno| format!("this host does not allow seccomp filters ({errno})"))
}

/// Executes a command found in PATH. Returns only on failure.
pub fn exec_path(argv: &[Vec<u8>]) -> Errno {
    let Ok(strings) = c_strings(argv) else {
        return Errno::EINVAL;
    };
    let Some(name) = argv.first() else { return Errno::ENOENT };
    if name.contains(&b'/') {
        return sys::exec(&strings[0], &strings, None);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut worst = Errno::ENOENT;
    for directory in std::env::split_paths(&path) {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let candidate = directory
            .join(std::ffi::OsStr::from_bytes(name))
            .into_os_string()
            .into_vec();
        let Ok(candidate) = CString::new(candidate) else {
            return Errno::EINVAL;
        };
        match sys::exec(&candidate, &strings, None) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            errno => worst = errno,
        }
    }
    worst
}

/// Asks the hypervisor of the view that this process runs in. `None` outside of any.
pub fn control_call(request: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut answer = vec![0; MAX_MESSAGE];
    match sys::control(CONTROL_CALL, request, &mut answer) {
        Ok(len) => {
            answer.truncate(len);
            Ok(Some(answer))
        }
        Err(Errno::ENOSYS) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Tells in one line when this host cannot run a view, before anything is started.
pub fn probe() -> Result<(), Error> {
    let Ok(limit) = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") else {
        return Ok(());
    };
    if limit.trim() == "3" {
        return Err(Error::Forbidden {
            what: "ptrace (kernel.yama.ptrace_scope is 3)",
            errno: Errno::EPERM,
        });
    }
    Ok(())
}
