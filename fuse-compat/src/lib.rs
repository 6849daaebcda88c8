//! FUSE without a kernel: the half of the protocol that Linux plays.
//!
//! - [`wire`]: bytes. The C structs, requests out, replies and notifications in, all bounds-checked.
//! - [`kernel`]: meaning. The queue and in-flight table of a connection, INIT negotiation, the typed
//!   operations with their ENOSYS fallbacks, node table, dentry and attribute caches.
//!
//! Nothing here owns a file descriptor, reads a clock or blocks: time and waiting come in as arguments,
//! so all of it is tested without processes. Everything a server sends is untrusted.
#![forbid(unsafe_code)]

mod errno;
pub mod kernel;
pub mod wire;

pub use errno::Errno;
