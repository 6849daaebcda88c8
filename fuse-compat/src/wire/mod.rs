//! Bytes: what travels between the kernel side and a server.
//!
//! The structures are those of `<linux/fuse.h>`, in host byte order. A request goes out as a [`Request`], a reply
//! comes in through the checked readers of [`reply`], and what a server says unasked is a [`Notification`].

pub mod abi;
mod notify;
pub mod reply;
mod request;

pub use notify::Notification;
pub use request::{Expect, Message, Request};
