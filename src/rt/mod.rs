//! Waiting: what the futures of the loop wait with. No ptrace, no FUSE.

mod slot;
mod timers;

pub use slot::{Flag, Slot};
pub use timers::Timers;
