//! Error numbers as a guest sees them.

use std::fmt;
use std::num::NonZeroU16;

/// An error number of the Linux ABI, never zero: success cannot be an error.
///
/// Not an enum, because FUSE servers send any number from 1 to 511 and it must reach the caller unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(NonZeroU16);

macro_rules! errnos {
    ($($name:ident = $value:literal),* $(,)?) => {
        impl Errno {
            $(pub const $name: Errno = Errno(NonZeroU16::new($value).unwrap());)*

            /// The symbolic name (`"ENOENT"`), if this number has one.
            pub fn name(self) -> Option<&'static str> {
                match self.0.get() {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8, EBADF = 9, ECHILD = 10,
    EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, ENOTBLK = 15, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19,
    ENOTDIR = 20, EISDIR = 21, EINVAL = 22, ENFILE = 23, EMFILE = 24, ENOTTY = 25, ETXTBSY = 26, EFBIG = 27, ENOSPC = 28,
    ESPIPE = 29, EROFS = 30, EMLINK = 31, EPIPE = 32, EDOM = 33, ERANGE = 34, EDEADLK = 35, ENAMETOOLONG = 36,
    ENOLCK = 37, ENOSYS = 38, ENOTEMPTY = 39, ELOOP = 40, ENODATA = 61, EPROTO = 71, EOVERFLOW = 75, ENOTSOCK = 88,
    EPROTOTYPE = 91,
    EOPNOTSUPP = 95, EADDRINUSE = 98, ECONNABORTED = 103, ECONNRESET = 104, ENOBUFS = 105, ENOTCONN = 107,
    ETIMEDOUT = 110, ECONNREFUSED = 111, EALREADY = 114, ESTALE = 116, EDQUOT = 122,
    // Kernel-internal: the call is to be restarted if the signal's handler allows it (signal(7)).
    ERESTARTSYS = 512,
}

impl Errno {
    /// The error with this number, or `EIO` if it is not a valid one (0 or beyond 4095).
    pub fn from_raw(raw: i32) -> Errno {
        match u16::try_from(raw).ok().and_then(NonZeroU16::new) {
            Some(n) if n.get() < 4096 => Errno(n),
            _ => Errno::EIO,
        }
    }

    /// The positive number.
    pub fn raw(self) -> i32 {
        i32::from(self.0.get())
    }
}

/// What the kernel has told; `EIO` where the error is not the kernel's.
impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Errno::from_raw(error.raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bounds() {
        assert_eq!(Errno::ENOENT.to_string(), "ENOENT");
        assert_eq!(Errno::from_raw(2), Errno::ENOENT);
        assert_eq!(Errno::from_raw(0), Errno::EIO);
        assert_eq!(Errno::from_raw(-5), Errno::EIO);
        assert_eq!(Errno::from_raw(70_000), Errno::EIO);
        assert_eq!(Errno::from_raw(300).to_string(), "errno 300");
    }
}
