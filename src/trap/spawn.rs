//! How a process comes to be traced: as a new command, or by asking for it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use fsmodules::api::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::filter::{self, Delivery};
use super::host::Refusals;
use super::notify::Listener;
use super::sys::News;
use super::{Engine, Error, Reply, Tid, sys};
use crate::control::MAX_MESSAGE;

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
    /// It was ended by this signal before it could be executed.
    #[error("killed by signal {0}")]
    Killed(i32),
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
    std::io::pipe().map_err(|e| forbidden("a pipe")(e.into()))
}

/// Starts a command under the filter, traced from its first instruction on. With the notify engine, its listener too.
/// `signals` shows changes of children and requests to end ([`sys::signals`]); these are put into `news`.
pub fn start(
    spec: &SpawnSpec,
    engine: Engine,
    refusals: &Refusals,
    signals: BorrowedFd<'_>,
    news: &mut News,
) -> Result<(Tid, Option<Listener>), SpawnError> {
    let program = CString::new(spec.program.as_slice()).map_err(|_| SpawnError::Exec(Errno::EINVAL))?;
    let argv = c_strings(&spec.argv)?;
    let envp = spec.envp.as_deref().map(c_strings).transpose()?;
    let filters = Filters::new(engine, refusals);
    let limit = raise_fd_limit();
    // The child waits for `go` until it is traced, and says by `report` what it has and what has failed. It shares our
    // descriptors, so neither of us may close any before it has executed the command.
    let (go_reader, mut go) = pipe()?;
    let (mut report_reader, report) = pipe()?;
    let tid = sys::fork_with_shared_files(|| {
        sys::read_byte(go_reader.as_raw_fd());
        let say = |what: u8, number: i32| {
            let message = [&[what][..], &number.to_ne_bytes()].concat();
            let _ = std::io::Write::write_all(&mut &report, &message);
        };
        match filters.install() {
            Ok(listener) => say(FILTERED, listener.unwrap_or(NO_LISTENER)),
            Err(errno) => return say(NO_FILTER, errno.raw()),
        }
        let _ = setrlimit(Resource::Nofile, limit);
        say(NO_EXEC, sys::exec(&program, &argv, envp.as_deref()).raw());
    })
    .map_err(forbidden("a new process"))?;
    if let Err(errno) = sys::seize(tid) {
        sys::kill(tid);
        let _ = sys::status_of(tid, true);
        return Err(forbidden("ptrace")(errno));
    }
    let _ = std::io::Write::write_all(&mut go, b"g");
    let listener = match next_word(&mut report_reader) {
        Some((FILTERED, NO_LISTENER)) => None,
        Some((FILTERED, number)) => Some(Listener::new(sys::adopt_fd(number))),
        Some((_, errno)) => {
            let _ = sys::status_of(tid, true);
            return Err(forbidden("seccomp filters")(Errno::from_raw(errno)));
        }
        None => return Err(SpawnError::Exec(Errno::EIO)),
    };
    match until_exec(tid, listener.as_ref(), signals, news) {
        Ok(()) => return Ok((tid, listener)),
        Err(Some(signal)) => return Err(SpawnError::Killed(signal)),
        Err(None) => drop(report),
    }
    Err(SpawnError::Exec(match next_word(&mut report_reader) {
        Some((_, errno)) => Errno::from_raw(errno),
        None => Errno::EIO,
    }))
}

/// umvu has a descriptor or two for each open virtual file of each guest: it takes as many as it may. What the limit
/// was, for the command.
fn raise_fd_limit() -> Rlimit {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without it, guests meet umvu's limit before theirs.
    let _ = setrlimit(Resource::Nofile, most);
    limit
}

fn next_word(report: &mut std::io::PipeReader) -> Option<(u8, i32)> {
    let mut word = [0; 5];
    std::io::Read::read_exact(report, &mut word).ok()?;
    let [what, number @ ..] = word;
    Some((what, i32::from_ne_bytes(number)))
}

// What a child says on its way to exec, each followed by a number.
/// Its filter is there; the number is that of the listener.
const FILTERED: u8 = b'l';
const NO_LISTENER: i32 = -1;
const NO_FILTER: u8 = b'f';
const NO_EXEC: u8 = b'x';

/// The filter programs to try, the first one first.
struct Filters {
    notifying: Option<Vec<libc::sock_filter>>,
    tracing: Option<Vec<libc::sock_filter>>,
}

impl Filters {
    fn new(engine: Engine, refusals: &Refusals) -> Filters {
        let program = |delivery| filter::program(delivery, refusals);
        Filters {
            notifying: (engine != Engine::Ptrace).then(|| program(Delivery::Notify)),
            tracing: (engine != Engine::Notify).then(|| program(Delivery::Trace)),
        }
    }

    /// Installs one; the number of its listener, if it has one.
    fn install(&self) -> Result<Option<i32>, Errno> {
        let mut result = Err(Errno::ENOSYS);
        if let Some(program) = &self.notifying {
            // EINVAL: a kernel before 5.19. EBUSY: somebody else listens already.
            result = sys::install_notifying_filter(program).map(Some);
        }
        match &self.tracing {
            Some(program) if result.is_err() => sys::install_filter(program).map(|()| None),
            _ => result,
        }
    }
}

/// Lets it go as far as its exec, and leaves it running there. The error is the signal, if any, that ended it before.
fn until_exec(
    tid: Tid,
    listener: Option<&Listener>,
    signals: BorrowedFd<'_>,
    news: &mut News,
) -> Result<(), Option<i32>> {
    // The exec itself may be caught.
    let mut awaited = listener;
    loop {
        if let Some(listener) = awaited
            && sys::poll(&[listener.as_fd(), signals], None)[0] != 0
        {
            if let Some((_, exec, _)) = listener.receive() {
                listener.answer(exec, Reply::Passthrough);
            }
            awaited = None;
        }
        news.add(sys::take_signals(signals));
        let status = match sys::status_of(tid, awaited.is_none()) {
            Ok(Some(status)) => status,
            Ok(None) => continue,
            Err(_) => return Err(None),
        };
        if !libc::WIFSTOPPED(status) {
            return Err(libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)));
        }
        let event = status >> 16;
        let deliver = event == 0 && libc::WSTOPSIG(status) != libc::SIGTRAP;
        let _ = sys::cont(tid, if deliver { libc::WSTOPSIG(status) } else { 0 });
        if event == libc::PTRACE_EVENT_EXEC {
            return Ok(());
        }
    }
}

/// Makes this very process a tracee: `ask` tells a hypervisor its id, and succeeds when it is traced.
pub fn be_traced(ask: impl FnOnce(i32) -> Result<(), String>) -> Result<(), String> {
    let refusals = Refusals::of_host();
    sys::allow_tracing();
    ask(std::process::id() as i32)?;
    sys::install_filter(&filter::program(Delivery::Trace, &refusals))
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
    match sys::control(request, &mut answer) {
        Ok(len) => {
            answer.truncate(len);
            Ok(Some(answer))
        }
        Err(Errno::EINVAL) => Ok(None),
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
