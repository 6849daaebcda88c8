//! Everything a view can contain, and the interface it is written against.
//!
//! - [`api`]: the boundary. All that a module sees of the hypervisor, and all the hypervisor sees of a module.
//! - [`fuse`]: unmodified FUSE servers.
//! - [`hostfs`]: the host's own files as vnodes.
//! - [`ids`]: virtual users.
//! - [`overlay`]: layered trees.
//!
//! A module never sees registers, ptrace or guest pointers.
#![forbid(unsafe_code)]

pub mod api;
pub mod fuse;
pub mod hostfs;
pub mod ids;
pub mod overlay;
