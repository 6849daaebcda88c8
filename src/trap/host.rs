//! Filters that are in force before umvu's own, as in a container.
//!
//! Of all filters' verdicts the strictest counts, and an error is stricter than any that lets umvu catch a call
//! (seccomp(2)). So a call that the host refuses is made to raise SIGSYS instead, which is stricter still, and which a
//! tracer sees.

use std::io::{PipeReader, Read, Write};

use fsmodules::api::Errno;

use super::filter::{self, Delivery};
use super::sys;
use crate::table::{Catch, Entry, PLACEHOLDERS, TABLE, Treat};

/// The served calls that the host refuses, with its errors.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Vec<(u32, Errno)>);

impl Refusals {
    /// Finds out, by a child that makes the calls and ends.
    pub fn of_host() -> Refusals {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if status.lines().any(|line| line == "Seccomp:\t0") {
            return Refusals::default();
        }
        // A host that allows no child or pipe will be reported when the command is started.
        ask().unwrap_or_default()
    }

    pub fn error(&self, nr: u32) -> Option<Errno> {
        self.0
            .iter()
            .find(|(refused, _)| *refused == nr)
            .map(|&(_, errno)| errno)
    }
}

/// Without a tracer a caught call fails with `ENOSYS` and is not made. Any other error is the host's.
fn ask() -> std::io::Result<Refusals> {
    let code = filter::program(Delivery::Trace, &Refusals::default());
    let (reader, mut writer) = std::io::pipe()?;
    let child = sys::fork_with_shared_files(|| {
        if sys::install_filter(&code).is_err() {
            return;
        }
        // Those that this filter always catches, with this argument.
        let caught = |entry: &&Entry| matches!(entry.treat, Treat::Serve(catch) if catch != Catch::Ids);
        for nr in TABLE.iter().filter(caught).map(|entry| entry.nr) {
            let errno = sys::caught_call(nr, PLACEHOLDERS[0].start);
            if errno != Errno::ENOSYS {
                let answer = [nr.to_ne_bytes(), errno.raw().to_ne_bytes()].concat();
                let _ = writer.write_all(&answer);
            }
        }
    })
    .map_err(|errno| std::io::Error::from_raw_os_error(errno.raw()))?;
    // A pipe holds all that it may say.
    let _ = sys::status_of(child, true);
    drop(writer);
    read(reader)
}

impl FromIterator<(u32, Errno)> for Refusals {
    fn from_iter<I: IntoIterator<Item = (u32, Errno)>>(refused: I) -> Refusals {
        Refusals(refused.into_iter().collect())
    }
}

fn read(mut reader: PipeReader) -> std::io::Result<Refusals> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    Ok(pairs
        .iter()
        .map(|&[nr, errno]| (u32::from_ne_bytes(nr), Errno::from_raw(i32::from_ne_bytes(errno))))
        .collect())
}
