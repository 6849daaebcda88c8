//! Requests that nobody waits for: readahead and write-back.

use std::task::{Context, Poll};

use fuse_compat::kernel::Client;

use crate::api::Caller;

/// On behalf of somebody who may be gone by now. No signal reaches it.
#[derive(Clone, Copy, Debug)]
pub struct Background {
    uid: u32,
    gid: u32,
    pid: u32,
}

impl Background {
    /// What a cache writes, it writes in nobody's name.
    pub const NOBODY: Background = Background { uid: 0, gid: 0, pid: 0 };

    pub fn of(caller: &dyn Caller) -> Background {
        Background {
            uid: caller.uid(),
            gid: caller.gid(),
            pid: caller.pid(),
        }
    }
}

impl Client for Background {
    fn uid(&self) -> u32 {
        self.uid
    }

    fn gid(&self) -> u32 {
        self.gid
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn poll_signal(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
