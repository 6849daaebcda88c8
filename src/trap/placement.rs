//! Where threads run: waking another core costs ten times a switch on the same one.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::Tid;

/// While it lives, umvu and a waiting tracee run on the core that umvu is on (sched_setaffinity(2)).
pub struct SameCore {
    tracee: Option<Pid>,
    tracees: CpuSet,
    own: CpuSet,
}

impl SameCore {
    /// `None` where there is nothing to gain, or it cannot be done.
    pub fn with(tid: Tid) -> Option<SameCore> {
        let tracee = Pid::from_raw(tid.as_raw());
        let (tracees, own) = (sched_getaffinity(tracee).ok()?, sched_getaffinity(None).ok()?);
        let here = sched_getcpu();
        if tracees.count() == 1 || here >= CpuSet::MAX_CPU || !tracees.is_set(here) {
            return None;
        }
        let mut core = CpuSet::new();
        core.set(here);
        sched_setaffinity(tracee, &core).ok()?;
        let together = SameCore { tracee, tracees, own };
        sched_setaffinity(None, &core).ok()?;
        Some(together)
    }
}

impl Drop for SameCore {
    fn drop(&mut self) {
        // A tracee that has died needs no core.
        let _ = sched_setaffinity(self.tracee, &self.tracees);
        let _ = sched_setaffinity(None, &self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn afterwards_all_is_as_before() {
        let affinity = || sched_getaffinity(None).unwrap();
        let before = affinity();
        if let Some(together) = SameCore::with(Tid::from_raw(rustix::thread::gettid().as_raw_nonzero().get())) {
            assert_eq!(affinity().count(), 1);
            drop(together);
        }
        assert!(affinity() == before);
    }
}
