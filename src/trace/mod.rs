//! The trace: one line a call, for people.
//!
//! `[12 cat] openat(AT_FDCWD, "mnt/a", O_RDONLY) = 768  fuse.memfs:/tmp/mnt  LOOKUP OPEN  64us`: who called, what came
//! of it, which mount answered, by which FUSE requests, in how long. It goes to a file or to a copy of umvu's stderr, and
//! never disturbs what the guest writes.

mod names;

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use crate::abi::RawCall;
use crate::control::io_text;
use crate::dispatch::Ctx;
use crate::table::{self, Arg, Entry};
use crate::trap::Reply;

/// So much of a text or of data is shown.
const SHOWN: usize = 32;

#[derive(Default)]
pub struct Trace {
    calls: Cell<bool>,
    requests: Cell<bool>,
    sink: RefCell<Option<File>>,
}

/// A call as it came.
pub struct Shown {
    name: &'static str,
    args: Vec<String>,
    /// The argument that shows what the call has given, and where that is.
    gives: Option<(usize, u64)>,
}

impl Trace {
    /// Starts or stops tracing `what` (`call`, `fuse`, both by a comma), to a file or to stderr.
    pub fn switch(&self, what: Option<&str>, file: Option<&str>) -> Result<(), String> {
        let (mut calls, mut requests) = (false, false);
        for word in what.unwrap_or("").split(',').filter(|word| !word.is_empty()) {
            match word {
                "call" => calls = true,
                "fuse" => requests = true,
                other => return Err(format!("cannot trace `{other}`: it is call, fuse or both")),
            }
        }
        if calls || requests {
            let sink = match file {
                Some(path) => create(path).map_err(|e| format!("cannot write the trace to {path}: {}", io_text(&e)))?,
                None => stderr().map_err(|e| format!("cannot write the trace to stderr: {}", io_text(&e)))?,
            };
            self.sink.replace(Some(sink));
        }
        self.calls.set(calls);
        self.requests.set(requests);
        Ok(())
    }

    pub fn is_on(&self) -> bool {
        self.calls.get() || self.requests.get()
    }

    /// Describes a call as it comes, while its arguments are still there to be read.
    pub fn begin(&self, cx: &Ctx) -> Option<Shown> {
        self.is_on().then(|| describe(cx, &cx.call))
    }

    /// Writes the line of a call that is done. With `fuse` alone, only calls that sent requests have one.
    pub fn end(&self, cx: &Ctx, mut shown: Shown, reply: &Reply, took: Duration) {
        let requests = cx.requests.borrow();
        if !self.calls.get() && requests.is_empty() {
            return;
        }
        if let (Some((n, at)), Reply::Return(len @ 0..)) = (shown.gives, reply) {
            shown.args[n] = data(cx, at, *len as u64);
        }
        let result = match reply {
            Reply::Return(n) if *n > 0xff_ffff => format!("{n:#x}"),
            Reply::Return(n) => n.to_string(),
            Reply::Error(errno) => format!("-1 {errno}"),
            Reply::Restart => "? restarted".into(),
            Reply::Passthrough => "host".into(),
        };
        let tid = cx.task.tid.get();
        let comm = std::fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
        let mut line = format!("[{tid} {}] {} = {result}", comm.trim_end(), text(&shown));
        if let Some(mount) = &*cx.answered_by.borrow() {
            let _ = write!(line, "  {mount}");
        }
        if !requests.is_empty() {
            let _ = write!(line, "  {}", requests.join(" "));
        }
        let _ = write!(line, "  {}us", took.as_micros());
        self.line(&line);
    }

    fn line(&self, line: &str) {
        if let Some(sink) = &mut *self.sink.borrow_mut() {
            // A trace that cannot be written must not disturb the guest.
            let _ = sink.write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// A pipe without a reader is refused, and one that is full loses lines: the view does not wait for it.
fn create(path: &str) -> std::io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

fn stderr() -> std::io::Result<File> {
    Ok(std::os::fd::AsFd::as_fd(&std::io::stderr())
        .try_clone_to_owned()?
        .into())
}

/// A call that has not been answered, for people.
pub fn show(cx: &Ctx, call: &RawCall) -> String {
    text(&describe(cx, call))
}

fn text(shown: &Shown) -> String {
    format!("{}({})", shown.name, shown.args.join(", "))
}

fn describe(cx: &Ctx, call: &RawCall) -> Shown {
    let Some(entry) = table::entry(call.nr) else {
        return Shown {
            name: "unknown",
            args: vec![call.nr.to_string()],
            gives: None,
        };
    };
    let read = entry.args.len() - usize::from(!names::has_mode(entry.name, &call.args));
    let args = (0..read).map(|n| argument(cx, entry, call, n)).collect();
    let gives = names::gives(entry.name).map(|n| (n, call.args[n]));
    Shown {
        name: entry.name,
        args,
        gives,
    }
}

fn argument(cx: &Ctx, entry: &Entry, call: &RawCall, n: usize) -> String {
    let value = call.args[n];
    if let Some(named) = names::of(entry.name, n) {
        return named.show(value);
    }
    match entry.args[n] {
        Arg::Path | Arg::Str => match cx.string(value) {
            Ok(text) => quoted(&text, libc::PATH_MAX as usize),
            Err(_) => format!("{value:#x}"),
        },
        Arg::DirFd if value as i32 == libc::AT_FDCWD => "AT_FDCWD".into(),
        Arg::Fd | Arg::DirFd | Arg::Int => (value as i32).to_string(),
        Arg::Mode => format!("0{:o}", value as u32),
        Arg::Size => (value as i64).to_string(),
        Arg::Buf if names::takes(entry.name) == Some(n) => data(cx, value, call.args[n + 1]),
        _ => format!("{value:#x}"),
    }
}

fn data(cx: &Ctx, at: u64, len: u64) -> String {
    let read = cx.read(at, len.min(SHOWN as u64 + 1) as usize);
    read.map_or_else(|_| format!("{at:#x}"), |bytes| quoted(&bytes, SHOWN))
}

fn quoted(bytes: &[u8], limit: usize) -> String {
    let cut = bytes.len().min(limit);
    let more = if bytes.len() > cut { "..." } else { "" };
    format!("\"{}\"{more}", bytes[..cut].escape_ascii())
}
