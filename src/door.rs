//! The way into a running view from other terminals: a socket with the view's name.
//!
//! Its address is abstract (unix(7)): nothing lies in any directory, and nothing stays behind however umvu ends.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use crate::control::{MAX_MESSAGE, Request, Response};

/// A visitor says all it has to say within this time, or is sent away: it must not hold up the view.
const PATIENCE: Duration = Duration::from_millis(200);

/// A view that runs answers within this time.
const ANSWER: Duration = Duration::from_secs(5);

/// The real user, whoever the view says that this process is: so the kernel has it of sockets.
fn uid() -> u32 {
    let real = UnixStream::pair().and_then(|(end, _)| Ok(rustix::net::sockopt::socket_peercred(&end)?));
    real.map_or_else(|_| rustix::process::getuid(), |real| real.uid)
        .as_raw()
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

/// Asks the view of that name. `NotFound` if there is none (any more), `TimedOut` if it is stopped.
pub fn ask(name: &str, request: &Request) -> io::Result<Response> {
    let failed = |kind, text: &str| io::Error::new(kind, text.replace("NAME", name));
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => failed(io::ErrorKind::TimedOut, "view `NAME` does not answer; is it stopped?"),
        _ => failed(io::ErrorKind::NotFound, "view `NAME` has just ended"),
    };
    let none = |_| {
        failed(
            io::ErrorKind::NotFound,
            "no view is called `NAME`; `umvu ps` lists them",
        )
    };
    let mut stream = UnixStream::connect_addr(&address(name)?).map_err(none)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&serde_json::to_vec(request)?).map_err(gone)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(gone)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(gone)?;
    if answer.is_empty() {
        return Err(gone(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// What a view may be called: something that a shell and `/proc/net/unix` show as one word.
fn check(name: &str) -> io::Result<()> {
    let plain = |c: char| c.is_alphanumeric() || "-_.:@+".contains(c);
    if !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.chars().all(plain) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("`{name}` cannot be a view's name: it takes up to 64 letters, digits and any of -_.:@+"),
    ))
}

pub struct Door {
    listener: UnixListener,
}

impl Door {
    /// `AddrInUse` if a view has that name already, `InvalidInput` if none can have it.
    pub fn open(name: &str) -> io::Result<Door> {
        check(name)?;
        let listener = UnixListener::bind_addr(&address(name)?).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("a view called `{name}` is running already; choose another name"),
            ),
            _ => error,
        })?;
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
    pub fn question(&mut self) -> io::Result<Request> {
        let mut bytes = Vec::new();
        (&mut self.stream).take(MAX_MESSAGE as u64).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    pub fn answer(mut self, response: &Response) {
        // A visitor who has left needs no answer.
        if let Ok(bytes) = serde_json::to_vec(response) {
            let _ = self.stream.write_all(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for name in ["1234", "ci-job.7", "a:b@c+d", "été"] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a/b", "-x", "a\nb", &"x".repeat(65)] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
