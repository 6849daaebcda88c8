//! What a server says unasked: messages with a unique of 0, and a code in the error field.

use bytes::Bytes;
use zerocopy::FromBytes;

use super::abi::*;
use crate::Errno;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Something may have changed for those who poll with this handle.
    Poll { kh: u64 },
    /// Attributes are stale; with `off` ≥ 0 also data from there on, `len` ≤ 0 to the end.
    InvalInode { node: u64, off: i64, len: i64 },
    /// A name is stale; with `expire_only` it is only to be looked up again.
    InvalEntry {
        parent: u64,
        name: Bytes,
        expire_only: bool,
    },
    /// Data for the page cache.
    Store { node: u64, offset: u64, data: Bytes },
    /// Asks for cached data, to be sent in a NOTIFY_REPLY with this unique.
    Retrieve {
        unique: u64,
        node: u64,
        offset: u64,
        size: u32,
    },
    /// A name is gone.
    Delete { parent: u64, child: u64, name: Bytes },
    /// All names are to be looked up again.
    IncEpoch,
    /// These nodes are not needed.
    Prune { nodes: Vec<u64> },
}

fn fixed<T: FromBytes>(payload: &[u8]) -> Result<T, Errno> {
    T::read_from_bytes(payload).map_err(|_| Errno::EINVAL)
}

fn leading<T: FromBytes>(payload: &Bytes) -> Result<(T, Bytes), Errno> {
    let (value, _) = T::read_from_prefix(payload).map_err(|_| Errno::EINVAL)?;
    Ok((value, payload.slice(size_of::<T>()..)))
}

/// A name of the announced length, followed by its NUL and nothing else.
fn name(rest: &Bytes, len: u32) -> Result<Bytes, Errno> {
    let len = len as usize;
    if len > MAX_NAME {
        return Err(Errno::ENAMETOOLONG);
    }
    if rest.len() != len + 1 || rest[len] != 0 || len == 0 {
        return Err(Errno::EINVAL);
    }
    Ok(rest.slice(..len))
}

impl Notification {
    /// `EINVAL` for what is not well-formed.
    /// The codes are those of `enum fuse_notify_code`. RESEND is not offered at INIT, hence unknown.
    pub fn parse(code: i32, payload: &Bytes) -> Result<Notification, Errno> {
        match code {
            1 => fixed::<NotifyPoll>(payload).map(|n| Notification::Poll { kh: n.kh }),
            2 => fixed::<NotifyInvalInode>(payload).map(|n| Notification::InvalInode {
                node: n.ino,
                off: n.off,
                len: n.len,
            }),
            3 => {
                let (n, rest) = leading::<NotifyInvalEntry>(payload)?;
                Ok(Notification::InvalEntry {
                    parent: n.parent,
                    name: name(&rest, n.namelen)?,
                    expire_only: n.flags & 1 != 0,
                })
            }
            4 => {
                let (n, data) = leading::<NotifyStore>(payload)?;
                if data.len() != n.size as usize {
                    return Err(Errno::EINVAL);
                }
                Ok(Notification::Store {
                    node: n.nodeid,
                    offset: n.offset,
                    data,
                })
            }
            5 => fixed::<NotifyRetrieve>(payload).map(|n| Notification::Retrieve {
                unique: n.notify_unique,
                node: n.nodeid,
                offset: n.offset,
                size: n.size,
            }),
            6 => {
                let (n, rest) = leading::<NotifyDelete>(payload)?;
                Ok(Notification::Delete {
                    parent: n.parent,
                    child: n.child,
                    name: name(&rest, n.namelen)?,
                })
            }
            8 => Ok(Notification::IncEpoch),
            9 => {
                let (n, rest) = leading::<NotifyPrune>(payload)?;
                if rest.len() != n.count as usize * 8 {
                    return Err(Errno::EINVAL);
                }
                let nodes = rest
                    .chunks_exact(8)
                    .map(|b| u64::from_ne_bytes(b.try_into().unwrap_or_default()))
                    .collect();
                Ok(Notification::Prune { nodes })
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn every_truncation_is_invalid() {
        let mut entry = NotifyInvalEntry {
            parent: 1,
            namelen: 3,
            flags: 1,
        }
        .as_bytes()
        .to_vec();
        entry.extend_from_slice(b"abc\0");
        let whole = Bytes::from(entry);
        for len in 0..whole.len() {
            assert_eq!(
                Notification::parse(3, &whole.slice(..len)),
                Err(Errno::EINVAL),
                "cut at {len}"
            );
        }
        let parsed = Notification::parse(3, &whole).unwrap();
        assert_eq!(
            parsed,
            Notification::InvalEntry {
                parent: 1,
                name: Bytes::from("abc"),
                expire_only: true
            }
        );
    }

    #[test]
    fn lengths_must_agree() {
        let store = |size: u32, len: usize| {
            let mut bytes = NotifyStore {
                nodeid: 1,
                offset: 0,
                size,
                padding: 0,
            }
            .as_bytes()
            .to_vec();
            bytes.resize(bytes.len() + len, 0);
            Notification::parse(4, &bytes.into())
        };
        assert!(store(5, 5).is_ok());
        assert_eq!(store(u32::MAX, 5), Err(Errno::EINVAL));
        assert_eq!(Notification::parse(99, &Bytes::new()), Err(Errno::EINVAL));
    }
}
