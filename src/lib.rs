//! umvu runs ordinary programs in a *view* of their own: private mounts, served by unmodified FUSE programs.
//!
//! The folders are the journey of a system call:
//!
//! 1. [`trap`] catches it. The only place that knows ptrace, seccomp and `waitpid`.
//! 2. [`agent`] is code in guests that spares them catches.
//! 3. [`table`] says what it is: every call number of the kernel, served, passed through or refused.
//! 4. [`abi`] is what differs per machine: registers, legacy calls, structure layouts.
//! 5. [`task`] is who calls: ids, descriptors, working directory.
//! 6. [`view`] is what the caller sees: mounts, and the walk from a path to a file.
//! 7. [`dispatch`] serves it, by a module ([`fsmodules`]) where the file is virtual.
//!
//! A layer never imports upwards. [`session`] ties them together: one thread, one loop, one future per caught call.

pub mod abi;
pub mod agent;
pub mod commands;
pub mod control;
pub mod dispatch;
pub mod door;
pub mod hypervisor;
pub mod rt;
pub mod session;
pub mod table;
pub mod task;
pub mod trace;
pub mod trap;
pub mod view;
