//! Who asks, and what time it is: the two things the kernel side cannot know by itself.

use std::task::{Context, Poll};
use std::time::Duration;

/// The thread on whose behalf a request is sent.
pub trait Client {
    /// File-system user id (fsuid), as the server is to see it.
    fn uid(&self) -> u32;
    /// File-system group id (fsgid).
    fn gid(&self) -> u32;
    /// The *thread* id, which is what Linux puts into the header's `pid`.
    fn pid(&self) -> u32;
    /// Ready as soon as a signal waits for this thread; the waker is kept until then.
    /// A request that is pending then sends INTERRUPT and goes on waiting for its reply.
    fn poll_signal(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// Told the name (`"LOOKUP"`) of every request sent on this client's behalf, for the trace.
    fn sent(&self, _request: &'static str) {}
}

/// A monotonic clock.
pub trait Clock {
    /// Time since an arbitrary fixed moment.
    fn now(&self) -> Duration;
}
