//! Meaning: the half of FUSE that Linux plays.
//!
//! A [`Connection`] lies between the calls of a mount and the [`Device`]s through which a server answers them. Typed
//! calls start at [`Connection::by`].

mod calls;
mod client;
mod connection;
mod device;
mod expiry;
mod init;
mod owned;
mod queue;

pub use calls::{Calls, Listed, LockCall, NewMode};
pub use client::{Client, Clock};
pub use connection::{Connection, Listener};
pub use device::{Device, DeviceState};
pub use expiry::expiry;
pub use init::Negotiated;
pub use owned::{Entry, Handle, Lookup};

#[cfg(test)]
mod tests;
