//! Bytes: what travels between the kernel side and a server.
