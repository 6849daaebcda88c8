//! Errors of writes that nobody waited for, until somebody asks (`lib/errseq.c`, `mm/filemap.c`).

use std::cell::Cell;

use crate::api::Errno;

/// The last failure of a file's write-back. Each open file hears of it once, by fsync(2); whoever closes the file next,
/// too.
#[derive(Default)]
pub struct Failure {
    last: Cell<Option<Errno>>,
    /// How many failures there were, of which those count as one that nobody has seen between.
    count: Cell<u64>,
    seen: Cell<bool>,
    /// For who closes next.
    untold: Cell<Option<Errno>>,
}

impl Failure {
    pub fn set(&self, errno: Errno) {
        if self.last.get().is_none() || self.seen.get() {
            self.count.set(self.count.get() + 1);
        }
        self.last.set(Some(errno));
        self.seen.set(false);
        self.untold.set(Some(match errno {
            Errno::ENOSPC => Errno::ENOSPC,
            _ => Errno::EIO,
        }));
    }

    /// What a file that is opened now need not hear of: what somebody has heard.
    pub fn sample(&self) -> u64 {
        match self.last.get().is_some() && !self.seen.get() {
            true => self.count.get() - 1,
            false => self.count.get(),
        }
    }

    /// The failure since `heard`, if there was one.
    pub fn since(&self, heard: &Cell<u64>) -> Result<(), Errno> {
        self.untold.set(None);
        if heard.replace(self.count.get()) == self.count.get() {
            return Ok(());
        }
        self.seen.set(true);
        self.last.get().map_or(Ok(()), Err)
    }

    /// The failure that nobody has been told of by closing or fsync(2).
    pub fn tell(&self) -> Result<(), Errno> {
        self.untold.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_hears_once() {
        let failure = Failure::default();
        let (one, other) = (Cell::new(failure.sample()), Cell::new(failure.sample()));
        assert_eq!(failure.since(&one), Ok(()));
        failure.set(Errno::ENOSPC);
        failure.set(Errno::EDQUOT);
        let late = Cell::new(failure.sample());
        assert_eq!(failure.since(&one), Err(Errno::EDQUOT));
        assert_eq!(failure.since(&one), Ok(()));
        assert_eq!(failure.since(&other), Err(Errno::EDQUOT));
        assert_eq!(
            failure.since(&late),
            Err(Errno::EDQUOT),
            "it was opened before anybody heard"
        );
        let later = Cell::new(failure.sample());
        assert_eq!(failure.since(&later), Ok(()));
        failure.set(Errno::EDQUOT);
        assert_eq!(failure.since(&later), Err(Errno::EDQUOT), "it failed again");
    }

    #[test]
    fn one_close_hears_of_it() {
        let failure = Failure::default();
        assert_eq!(failure.tell(), Ok(()));
        failure.set(Errno::EDQUOT);
        assert_eq!(failure.tell(), Err(Errno::EIO), "closing knows two errors");
        assert_eq!(failure.tell(), Ok(()));
        failure.set(Errno::ENOSPC);
        assert_eq!(failure.since(&Cell::new(0)), Err(Errno::ENOSPC));
        assert_eq!(failure.tell(), Ok(()), "fsync(2) has told");
    }
}
