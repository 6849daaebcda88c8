//! Reading what a server has sent. Nothing of it is trusted.

use zerocopy::FromBytes;

use super::abi::{DirentHeader, EntryOut, MAX_NAME};
use crate::Errno;

/// A structure at the start of the bytes; `EIO` if they are too few.
pub fn parse<T: FromBytes>(bytes: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .map_err(|_| Errno::EIO)
}

/// An entry of a READDIR reply; with `entry`, of a READDIRPLUS reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    pub entry: Option<EntryOut>,
    pub ino: u64,
    pub off: u64,
    pub kind: u32,
    pub name: &'a [u8],
}

/// The whole entries of a READDIR (or READDIRPLUS) reply. A record that is cut off at the end is left out: it is asked
/// for again. So is one whose name cannot be one, with all that follows; where it comes first, it is `EIO`.
pub fn dirents(mut bytes: &[u8], plus: bool) -> Result<Vec<Dirent<'_>>, Errno> {
    let mut all = Vec::new();
    loop {
        let prefix = if plus { size_of::<EntryOut>() } else { 0 };
        let Some(rest) = bytes.get(prefix..) else {
            return Ok(all);
        };
        let Ok((header, names)) = DirentHeader::read_from_prefix(rest) else {
            return Ok(all);
        };
        let len = header.namelen as usize;
        if len == 0 || len > MAX_NAME {
            return spoilt(all);
        }
        let record = prefix + (size_of::<DirentHeader>() + len).next_multiple_of(8);
        if bytes.len() < record {
            return Ok(all);
        }
        let name = &names[..len];
        if name.iter().any(|&b| b == b'/' || b == 0) {
            return spoilt(all);
        }
        let entry = if plus { Some(parse(bytes)?) } else { None };
        all.push(Dirent {
            entry,
            ino: header.ino,
            off: header.off,
            kind: header.kind,
            name,
        });
        bytes = &bytes[record..];
    }
}

fn spoilt(before: Vec<Dirent<'_>>) -> Result<Vec<Dirent<'_>>, Errno> {
    if before.is_empty() { Err(Errno::EIO) } else { Ok(before) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn record(off: u64, name: &[u8]) -> Vec<u8> {
        let mut bytes = DirentHeader {
            ino: 9,
            off,
            namelen: name.len() as u32,
            kind: 8,
        }
        .as_bytes()
        .to_vec();
        bytes.extend_from_slice(name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn whole_records_only() {
        let bytes = [record(1, b"a"), record(2, b"long-name")].concat();
        for len in 0..=bytes.len() {
            let got = dirents(&bytes[..len], false).unwrap();
            let whole = usize::from(len >= 32) + usize::from(len >= bytes.len());
            assert_eq!(got.len(), whole, "cut at {len}");
        }
        assert_eq!(dirents(&bytes, false).unwrap()[1].name, b"long-name");
    }

    #[test]
    fn impossible_names_are_refused() {
        for name in [&b"a/b"[..], b"a\0b", &[b'x'; 1025]] {
            assert_eq!(dirents(&record(1, name), false), Err(Errno::EIO));
        }
        assert_eq!(dirents(&record(1, b""), false), Err(Errno::EIO));
        assert_eq!(dirents(&[0xff; 24], false), Err(Errno::EIO));
        let bytes = [record(1, b"good"), record(2, b"a/b"), record(3, b"lost")].concat();
        assert_eq!(dirents(&bytes, false).unwrap().len(), 1);
    }
}
