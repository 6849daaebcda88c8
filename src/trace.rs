//! The trace: one line a call, for people.
//!
//! `[12] openat(AT_FDCWD, "/mnt/a", 0x8000) = 768    /mnt  LOOKUP OPEN  64us`: who called, what came of it, which
//! mount answered, by which FUSE requests, in how long. It goes to a file or to a copy of umvu's stderr, and never
//! disturbs what the guest writes.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use crate::abi::RawCall;
use crate::dispatch::Ctx;
use crate::table::{self, Arg};
use crate::trap::Reply;

#[derive(Default)]
pub struct Trace {
    calls: Cell<bool>,
    requests: Cell<bool>,
    sink: RefCell<Option<File>>,
}

impl Trace {
    /// Starts or stops tracing `what` (`call`, `fuse`, both by a comma), to a file or to stderr.
    pub fn switch(&self, what: Option<&str>, file: Option<&str>) -> Result<(), String> {
        let (mut calls, mut requests) = (false, false);
        for word in what.unwrap_or("").split(',').filter(|word| !word.is_empty()) {
            match word {
                "call" => calls = true,
                "fuse" => requests = true,
                other => return Err(format!("--trace: `{other}` is not known; it takes call and fuse")),
            }
        }
        if calls || requests {
            let sink = match file {
                Some(path) => File::create(path).map_err(|e| format!("--trace: cannot write {path}: {e}"))?,
                None => stderr().map_err(|e| format!("--trace: no stderr: {e}"))?,
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
    pub fn begin(&self, cx: &Ctx) -> Option<String> {
        self.is_on().then(|| show(cx, &cx.call))
    }

    /// Writes the line of a call that is done. With `fuse` alone, only calls that sent requests have one.
    pub fn end(&self, cx: &Ctx, call: &str, reply: &Reply, took: Duration) {
        let requests = cx.requests.borrow();
        if !self.calls.get() && requests.is_empty() {
            return;
        }
        let result = match reply {
            Reply::Return(n) if *n > 0xffff => format!("{n:#x}"),
            Reply::Return(n) => n.to_string(),
            Reply::Error(errno) => format!("-1 {errno}"),
            Reply::Restart => "? restarted".into(),
            Reply::Passthrough => "host".into(),
        };
        let mut line = format!("[{}] {call} = {result}", cx.task.tid.get());
        if let Some(mount) = &*cx.answered_by.borrow() {
            let _ = write!(line, "    {mount}");
        }
        for request in requests.iter() {
            let _ = write!(line, " {request}");
        }
        let _ = write!(line, "    {}us", took.as_micros());
        self.line(&line);
    }

    fn line(&self, line: &str) {
        if let Some(sink) = &mut *self.sink.borrow_mut() {
            // A trace that cannot be written must not disturb the guest.
            let _ = sink.write_all(format!("{line}\n").as_bytes());
        }
    }
}

fn stderr() -> std::io::Result<File> {
    Ok(std::os::fd::AsFd::as_fd(&std::io::stderr())
        .try_clone_to_owned()?
        .into())
}

fn show(cx: &Ctx, call: &RawCall) -> String {
    let Some(entry) = table::entry(call.nr) else {
        return format!("call {}", call.nr);
    };
    let args: Vec<String> = entry
        .args
        .iter()
        .zip(call.args)
        .map(|(arg, value)| argument(cx, *arg, value))
        .collect();
    format!("{}({})", entry.name, args.join(", "))
}

fn argument(cx: &Ctx, arg: Arg, value: u64) -> String {
    match arg {
        Arg::Path => match cx.string(value) {
            Ok(text) => format!("{:?}", String::from_utf8_lossy(&text)),
            Err(_) => format!("{value:#x}"),
        },
        Arg::DirFd if value as i32 == libc::AT_FDCWD => "AT_FDCWD".into(),
        Arg::Fd | Arg::DirFd | Arg::Int => (value as i32).to_string(),
        Arg::Mode => format!("{:#o}", value as u32),
        Arg::Size => value.to_string(),
        _ => format!("{value:#x}"),
    }
}
