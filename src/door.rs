//! The way into a running view from other terminals: a socket with the view's name.
//!
//! Its address is abstract (unix(7)): nothing lies in any directory, and nothing stays behind however umvu ends.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use crate::control::{MAX_MESSAGE, Request, Response};
use crate::dispatch::control::simple;
use crate::hypervisor::Hypervisor;
use crate::trap::Tid;

/// A visitor says all it has to say within this time, or is sent away: it must not hold up the view.
const PATIENCE: Duration = Duration::from_millis(200);

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("umvu/{}/{name}", uid()))
}

/// The names of this user's running views (`/proc/net/unix`).
pub fn names() -> Vec<String> {
    let prefix = format!("@umvu/{}/", uid());
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut names: Vec<String> = table
        .lines()
        .filter_map(|line| {
            line.split_ascii_whitespace()
                .nth(7)?
                .strip_prefix(&prefix)
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Asks the view of that name. `NotFound` if there is none.
pub fn ask(name: &str, request: &Request) -> io::Result<Response> {
    let mut stream = UnixStream::connect_addr(&address(name)?).map_err(|_| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no view is called `{name}`; `umvu ps` lists them"),
        )
    })?;
    stream.write_all(&serde_json::to_vec(request)?)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::other(format!("view `{name}` did not answer")));
    }
    Ok(serde_json::from_slice(&answer)?)
}

pub struct Door {
    listener: UnixListener,
}

impl Door {
    /// `AddrInUse` if a view has that name already.
    pub fn open(name: &str) -> io::Result<Door> {
        let listener = UnixListener::bind_addr(&address(name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Door { listener })
    }

    /// Whoever knocks, if it is the same user.
    pub fn accept(&self) -> Option<Visitor> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        (peer.uid.as_raw() == uid()).then_some(Visitor { stream })
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// One question from outside.
pub struct Visitor {
    stream: UnixStream,
}

impl Visitor {
    /// Answers it. The process that has entered the view, if that was the question.
    pub fn serve(mut self, hv: &Rc<Hypervisor>) -> Option<Tid> {
        let mut entered = None;
        let response = match self.question() {
            Ok(Request::Enter { pid, .. }) => match hv.tracer.borrow_mut().adopt(Tid::from_raw(pid)) {
                Ok(()) => {
                    entered = Some(Tid::from_raw(pid));
                    Response::Done
                }
                Err(error) => Response::Failed(error.to_string()),
            },
            Ok(request) => simple(hv, request),
            Err(error) => Response::Failed(format!("unreadable request: {error}")),
        };
        // A visitor who has left needs no answer.
        if let Ok(bytes) = serde_json::to_vec(&response) {
            let _ = self.stream.write_all(&bytes);
        }
        entered
    }

    fn question(&mut self) -> io::Result<Request> {
        let mut bytes = Vec::new();
        (&mut self.stream).take(MAX_MESSAGE as u64).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}
