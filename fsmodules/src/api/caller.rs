//! On whose behalf a module works, and what it may ask of the hypervisor.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use fuse_compat::Errno;
use fuse_compat::kernel::{Client, Clock};

/// The user and group ids of a thread (credentials(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub ruid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub rgid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Ids {
    /// Is the file group `gid` one of the thread's groups?
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}

/// The thread whose call is being served.
pub trait Caller: Client {
    fn ids(&self) -> &Ids;
    /// The process id (thread group id).
    fn tgid(&self) -> u32;
    fn umask(&self) -> u32;
    /// Identifies the caller's descriptor table: the owner of its POSIX locks (`fcntl(2)`).
    fn files_id(&self) -> u64;
    /// Are its ids those of the view only?
    fn has_virtual_ids(&self) -> bool {
        false
    }
    /// The soft limit on file size (`RLIMIT_FSIZE`), in bytes.
    fn file_size_limit(&self) -> u64 {
        u64::MAX
    }
    /// Its call would go beyond that limit: it gets SIGXFSZ, and this error.
    fn beyond_file_size_limit(&self) -> Errno {
        Errno::EFBIG
    }
}

/// What a module may ask of the hypervisor.
pub trait Host: Clock {
    /// Runs a future to its end, independent of the caller: RELEASE, readahead, write-back.
    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()>>>);
    /// Ready after that time.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// The context of one operation: who asks, and whom a module may ask.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    pub caller: &'a dyn Caller,
    pub host: &'a std::rc::Rc<dyn Host>,
}
