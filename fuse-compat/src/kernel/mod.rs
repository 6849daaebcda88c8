//! Meaning: the half of FUSE that Linux plays.

mod client;

pub use client::{Client, Clock};
