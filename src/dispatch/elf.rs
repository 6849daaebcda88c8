//! The program interpreter of ELF files (elf(5)): the kernel looks for it at the host's root, a view may have it
//! elsewhere.
//!
//! A program whose interpreter the kernel would not find is executed from a copy in memory, which differs in one
//! program header: where the file has the interpreter's path. What is mapped into the process is the same, so the
//! interpreter and the program see the path that the program was built with.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::Rc;

const HEADER: usize = 64;
const PROGRAM_HEADER: u64 = 56;
const MAX_PROGRAM_HEADERS: u16 = 512;
const EM_X86_64: u16 = 62;
const PT_INTERP: u32 = 3;
const PATH_MAX: u64 = 4096;

/// Where a file says what its interpreter is.
pub struct Interpreter {
    /// As it stands in the file, without the NUL.
    pub path: Vec<u8>,
    /// The offset of its program header.
    header: u64,
}

/// The interpreter of a program for x86-64; `None` if it needs none, or is nothing that the kernel would execute.
pub fn interpreter(file: &File) -> Option<Interpreter> {
    let mut head = [0; HEADER];
    file.read_exact_at(&mut head, 0).ok()?;
    let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    if &head[..6] != b"\x7fELF\x02\x01" || half(18) != EM_X86_64 || u64::from(half(54)) != PROGRAM_HEADER {
        return None;
    }
    let first = u64::from_le_bytes(head[32..40].try_into().ok()?);
    let count = half(56).min(MAX_PROGRAM_HEADERS);
    for n in 0..u64::from(count) {
        let header = first.checked_add(n * PROGRAM_HEADER)?;
        let mut entry = [0; PROGRAM_HEADER as usize];
        file.read_exact_at(&mut entry, header).ok()?;
        let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap_or_default());
        if word(0) as u32 == PT_INTERP {
            let (offset, len) = (word(8), word(32));
            if !(2..=PATH_MAX).contains(&len) {
                return None;
            }
            let mut path = vec![0; len as usize];
            file.read_exact_at(&mut path, offset).ok()?;
            path.truncate(path.iter().position(|&b| b == 0)?);
            return Some(Interpreter { path, header });
        }
    }
    None
}

/// The program with another path to its interpreter, as a memory file.
pub fn copy(mut file: &File, old: &Interpreter, path: &[u8]) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("program", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut copy = File::from(memory);
    file.seek(SeekFrom::Start(0))?;
    io::copy(&mut file.take(file.metadata()?.size()), &mut copy)?;
    let at = copy.stream_position()?;
    copy.write_all(path)?;
    copy.write_all(&[0])?;
    copy.write_all_at(&at.to_le_bytes(), old.header + 8)?;
    copy.write_all_at(&(path.len() as u64 + 1).to_le_bytes(), old.header + 32)?;
    Ok(copy.into())
}

/// What a copy was made of.
#[derive(Clone, PartialEq, Eq)]
struct Origin {
    dev: u64,
    ino: u64,
    size: u64,
    modified: (i64, i64),
    interpreter: Vec<u8>,
}

/// Copies that may be needed again, the oldest first.
#[derive(Default)]
pub struct Copies(VecDeque<(Origin, Rc<OwnedFd>)>);

/// How many copies are kept, and how large they may be together.
const MAX_COPIES: usize = 64;
const MAX_BYTES: u64 = 256 << 20;

impl Copies {
    /// As [`copy`], an earlier one if nothing has changed.
    pub fn with_interpreter(&mut self, file: &File, old: &Interpreter, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        let meta = file.metadata()?;
        let origin = Origin {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            interpreter: path.to_vec(),
        };
        if let Some((_, copy)) = self.0.iter().find(|(known, _)| *known == origin) {
            return Ok(copy.clone());
        }
        let copy = Rc::new(copy(file, old, path)?);
        self.0.push_back((origin, copy.clone()));
        while self.0.len() > MAX_COPIES || self.bytes() > MAX_BYTES && self.0.len() > 1 {
            self.0.pop_front();
        }
        Ok(copy)
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(origin, _)| origin.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> File {
        File::open("/bin/sh").unwrap()
    }

    #[test]
    fn a_copy_differs_in_its_interpreter_only() {
        let Some(found) = interpreter(&shell()) else {
            eprintln!("/bin/sh has no interpreter here: nothing to test");
            return;
        };
        assert!(
            found.path.starts_with(b"/lib"),
            "{found:?}",
            found = String::from_utf8_lossy(&found.path)
        );
        let mut copies = Copies::default();
        let copy = copies.with_interpreter(&shell(), &found, b"/elsewhere/ld.so").unwrap();
        let patched = File::from(copy.try_clone().unwrap());
        assert_eq!(interpreter(&patched).unwrap().path, b"/elsewhere/ld.so");
        let again = copies.with_interpreter(&shell(), &found, b"/elsewhere/ld.so").unwrap();
        assert!(Rc::ptr_eq(&copy, &again));
        let (mut old, mut new) = (Vec::new(), Vec::new());
        shell().read_to_end(&mut old).unwrap();
        (&patched).seek(SeekFrom::Start(0)).unwrap();
        (&patched).read_to_end(&mut new).unwrap();
        let differing = old.iter().zip(&new).filter(|(a, b)| a != b).count();
        assert!(differing <= 16, "{differing}");
    }

    #[test]
    fn what_is_no_program_has_none() {
        assert!(interpreter(&File::open("/etc/passwd").unwrap()).is_none());
        assert!(interpreter(&File::open("/dev/null").unwrap()).is_none());
    }
}
