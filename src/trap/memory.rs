//! Guest memory. Every address comes from a guest and is untrusted: a bad one is `EFAULT`, never more.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::OnceLock;

use fsmodules::api::Errno;
use lru::LruCache;

use super::reach::{others_are_out_of_reach, reaching};
use super::tracer::process_of;
use super::{Tid, sys};

const PAGE: u64 = 4096;
/// As many buffers as the kernel takes at once (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// Memory of a guest, or of a test.
pub trait GuestMemory {
    /// Reads as much as is there, from `address` on; `EFAULT` if nothing is.
    fn read_some(&self, address: u64, buffer: &mut [u8]) -> Result<usize, Errno>;
    /// Writes as much as fits; `EFAULT` if nothing does.
    fn write_some(&self, address: u64, bytes: &[u8]) -> Result<usize, Errno>;

    /// Fills the buffer.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        if buffer.is_empty() || self.read_some(address, buffer)? == buffer.len() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() || self.write_some(address, bytes)? == bytes.len() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    /// A string with its NUL within `max` bytes, without the NUL; `ENAMETOOLONG` if there is none.
    fn read_cstr(&self, address: u64, max: usize) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        while text.len() < max {
            let at = address.checked_add(text.len() as u64).ok_or(Errno::EFAULT)?;
            // Up to the end of the page: the next one may not be there, nor need to be. Most paths are short.
            let to_page_end = (PAGE - at % PAGE) as usize;
            let mut piece = [0; PAGE as usize];
            let likely = if text.is_empty() { 256 } else { piece.len() };
            let len = to_page_end.min(likely).min(max - text.len());
            let got = self.read_some(at, &mut piece[..len])?;
            if let Some(end) = piece[..got].iter().position(|&b| b == 0) {
                text.extend_from_slice(&piece[..end]);
                return Ok(text);
            }
            text.extend_from_slice(&piece[..got]);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Scatters `parts` over the buffers; how much. A bad buffer ends it.
    fn write_vectored(&self, buffers: &[(u64, usize)], parts: &[&[u8]]) -> Result<usize, Errno>
    where
        Self: Sized,
    {
        piecewise::write(self, buffers, parts)
    }

    /// Gathers the buffers; how much. A bad buffer ends it.
    fn read_vectored(&self, buffers: &[(u64, usize)], out: &mut [u8]) -> Result<usize, Errno>
    where
        Self: Sized,
    {
        piecewise::read(self, buffers, out)
    }
}

/// Vectored transfers, a buffer at a time.
mod piecewise {
    use super::{Errno, GuestMemory};

    pub fn write(memory: &impl GuestMemory, buffers: &[(u64, usize)], parts: &[&[u8]]) -> Result<usize, Errno> {
        let mut done = 0;
        let mut parts = parts.iter().copied().filter(|part| !part.is_empty());
        let mut part: &[u8] = parts.next().unwrap_or_default();
        for &(mut address, mut room) in buffers {
            while room > 0 && !part.is_empty() {
                let len = room.min(part.len());
                match memory.write_some(address, &part[..len]) {
                    Ok(put) if put == len => {}
                    Ok(put) => return Ok(done + put),
                    Err(_) if done > 0 => return Ok(done),
                    Err(errno) => return Err(errno),
                }
                (done, address, room, part) = (done + len, address + len as u64, room - len, &part[len..]);
                if part.is_empty() {
                    part = parts.next().unwrap_or_default();
                }
            }
        }
        Ok(done)
    }

    pub fn read(memory: &impl GuestMemory, buffers: &[(u64, usize)], out: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        for &(address, len) in buffers {
            let len = len.min(out.len() - done);
            if len == 0 {
                continue;
            }
            match memory.read_some(address, &mut out[done..done + len]) {
                Ok(got) if got == len => done += len,
                Ok(got) => return Ok(done + got),
                Err(_) if done > 0 => return Ok(done),
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }
}

/// The memory of a tracee: by process_vm_readv(2) where the host allows it, else through `/proc/TID/mem`. The kernel
/// refuses both for tracees that have become another user, unless the file was opened before (see [`Memory::keep`]).
#[derive(Clone, Copy)]
pub struct Memory {
    tid: Tid,
}

impl Memory {
    pub fn new(tid: Tid) -> Memory {
        Memory { tid }
    }

    /// The thread has exited, or has another address space since an exec: an open file stands for the former one.
    pub fn forget(tid: Tid) {
        FILES.with_borrow_mut(|files| files.pop(&tid));
        KEPT.with_borrow_mut(|kept| kept.remove(&tid));
    }

    /// A process has a new address space, and may yet become another user. Where umvu is root without the right to trace
    /// others, as in a container, this is the time to open it.
    pub fn keep(tid: Tid) {
        if !others_are_out_of_reach() {
            return;
        }
        if let Ok(file) = open(tid) {
            KEPT.with_borrow_mut(|kept| kept.insert(tid, Rc::new(file)));
        }
    }

    /// Writes to what the guest itself may not write to, such as its code.
    pub fn patch(self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let put = self.with_file(|file| file.write_at(bytes, address))?;
        if put == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// By process_vm_readv(2) or process_vm_writev(2); `None` if the host forbids that.
    fn transfer(self, write: bool, local: &[libc::iovec], remote: &[libc::iovec]) -> Result<Option<usize>, Errno> {
        if !has_vm_calls() {
            return Ok(None);
        }
        match sys::transfer(self.tid, write, local, remote) {
            Ok(moved) => Ok(Some(moved)),
            Err(Errno::EPERM) => Ok(None),
            Err(_) => Err(Errno::EFAULT),
        }
    }

    /// Uses `/proc/TID/mem`, which stays open for the next time.
    fn with_file(self, work: impl FnOnce(&File) -> std::io::Result<usize>) -> Result<usize, Errno> {
        let kept = KEPT.with_borrow(|kept| {
            if kept.is_empty() {
                return None;
            }
            let own = kept.get(&self.tid).or_else(|| kept.get(&process_of(self.tid)?));
            own.cloned()
        });
        if let Some(file) = kept {
            return work(&file).map_err(|_| Errno::EFAULT);
        }
        FILES.with_borrow_mut(|files| {
            let file = files.try_get_or_insert(self.tid, || open(self.tid));
            file.and_then(work).map_err(|_| Errno::EFAULT)
        })
    }
}

thread_local! {
    /// Opening costs several times as much as a read or write does.
    static FILES: RefCell<LruCache<Tid, File>> = RefCell::new(LruCache::new(MAX_FILES));
    /// By process, those that could not be opened again.
    static KEPT: RefCell<HashMap<Tid, Rc<File>>> = RefCell::default();
}
const MAX_FILES: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Found out once: container runtimes forbid the call even to read one's own memory.
fn has_vm_calls() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let (from, mut to) = ([7u8], [0u8]);
        let own = Tid::from_raw(std::process::id() as i32);
        let remote = [iovec(from.as_ptr() as u64, 1)];
        sys::transfer(own, false, &[iovec(to.as_mut_ptr() as u64, 1)], &remote) == Ok(1) && to == from
    })
}

fn open(tid: Tid) -> std::io::Result<File> {
    reaching(tid, || {
        File::options().read(true).write(true).open(format!("/proc/{tid}/mem"))
    })
}

/// The buffers as far as `len` bytes reach. The kernel would pin the pages of all that is named here, also of what it
/// then leaves untouched, and a server's buffer for requests is large.
fn remote(buffers: &[(u64, usize)], mut len: usize) -> Vec<libc::iovec> {
    let mut reached = Vec::with_capacity(buffers.len());
    for &(address, room) in buffers {
        if len == 0 {
            break;
        }
        let used = room.min(len);
        reached.push(iovec(address, used));
        len -= used;
    }
    reached
}

fn iovec(address: u64, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: len,
    }
}

impl GuestMemory for Memory {
    fn read_some(&self, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let local = [iovec(buffer.as_mut_ptr() as u64, buffer.len())];
        let moved = match self.transfer(false, &local, &[iovec(address, buffer.len())])? {
            Some(moved) => moved,
            None => self.with_file(|file| file.read_at(buffer, address))?,
        };
        if moved == 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }

    fn write_some(&self, address: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let local = [iovec(bytes.as_ptr() as u64, bytes.len())];
        let moved = match self.transfer(true, &local, &[iovec(address, bytes.len())])? {
            Some(moved) => moved,
            None => self.with_file(|file| file.write_at(bytes, address))?,
        };
        if moved == 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }

    /// In one call where that is allowed.
    fn read_vectored(&self, buffers: &[(u64, usize)], out: &mut [u8]) -> Result<usize, Errno> {
        if buffers.len() <= IOV_MAX {
            let local = [iovec(out.as_mut_ptr() as u64, out.len())];
            if let Some(moved) = self.transfer(false, &local, &remote(buffers, out.len()))? {
                return Ok(moved);
            }
        }
        piecewise::read(self, buffers, out)
    }

    fn write_vectored(&self, buffers: &[(u64, usize)], parts: &[&[u8]]) -> Result<usize, Errno> {
        if buffers.len() <= IOV_MAX && parts.len() <= IOV_MAX {
            let local: Vec<_> = parts
                .iter()
                .map(|part| iovec(part.as_ptr() as u64, part.len()))
                .collect();
            let len = parts.iter().map(|part| part.len()).sum();
            if let Some(moved) = self.transfer(true, &local, &remote(buffers, len))? {
                return Ok(moved);
            }
        }
        piecewise::write(self, buffers, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from address 0x1000 on.
    struct Fake(RefCell<Vec<u8>>);

    impl GuestMemory for Fake {
        fn read_some(&self, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
            let bytes = self.0.borrow();
            let from = address
                .checked_sub(0x1000)
                .filter(|&n| n < bytes.len() as u64)
                .ok_or(Errno::EFAULT)? as usize;
            let len = buffer.len().min(bytes.len() - from);
            buffer[..len].copy_from_slice(&bytes[from..from + len]);
            Ok(len)
        }

        fn write_some(&self, address: u64, data: &[u8]) -> Result<usize, Errno> {
            let mut bytes = self.0.borrow_mut();
            let from = address
                .checked_sub(0x1000)
                .filter(|&n| n < bytes.len() as u64)
                .ok_or(Errno::EFAULT)? as usize;
            let len = data.len().min(bytes.len() - from);
            bytes[from..from + len].copy_from_slice(&data[..len]);
            Ok(len)
        }
    }

    #[test]
    fn strings_end_at_their_nul_or_are_too_long() {
        let fake = Fake(RefCell::new(b"hello\0world".to_vec()));
        assert_eq!(fake.read_cstr(0x1000, 100), Ok(b"hello".to_vec()));
        assert_eq!(fake.read_cstr(0x1000, 5), Err(Errno::ENAMETOOLONG));
        assert_eq!(fake.read_cstr(0x1006, 100), Err(Errno::EFAULT));
        assert_eq!(fake.read_cstr(0, 100), Err(Errno::EFAULT));
    }

    #[test]
    fn vectors_stop_at_a_bad_buffer() {
        let fake = Fake(RefCell::new(vec![0; 16]));
        let buffers = [(0x1000, 3), (0x1008, 4), (0x9000, 4)];
        assert_eq!(fake.write_vectored(&buffers, &[b"abcd", b"efghij"]), Ok(7));
        assert_eq!(&fake.0.borrow()[..12], b"abc\0\0\0\0\0defg");
        let mut out = [0; 11];
        assert_eq!(fake.read_vectored(&buffers, &mut out), Ok(7));
        assert_eq!(&out[..7], b"abcdefg");
        assert_eq!(fake.write_vectored(&[(0x9000, 4)], &[b"x"]), Err(Errno::EFAULT));
    }

    #[test]
    fn a_file_is_kept_until_it_is_forgotten() {
        let bytes = *b"umvu";
        let tid = Tid::from_raw(std::process::id() as i32);
        let mut out = [0; 4];
        let read = Memory::new(tid).with_file(|file| file.read_at(&mut out, bytes.as_ptr() as u64));
        assert_eq!((read, out), (Ok(4), bytes));
        assert!(FILES.with_borrow(|files| files.contains(&tid)));
        Memory::forget(tid);
        assert!(FILES.with_borrow(|files| files.is_empty()));
        assert_eq!(Memory::new(Tid::from_raw(-1)).with_file(|_| Ok(0)), Err(Errno::EFAULT));
    }

    #[test]
    fn no_more_is_named_than_is_moved() {
        let named = |len| -> Vec<usize> {
            remote(&[(1, 4), (2, 4), (3, 4)], len)
                .iter()
                .map(|i| i.iov_len)
                .collect()
        };
        assert_eq!(named(6), [4, 2]);
        assert_eq!(named(4), [4]);
        assert_eq!(named(99), [4, 4, 4]);
        assert!(named(0).is_empty());
    }

    #[test]
    fn own_memory_is_readable() {
        let bytes = *b"umvu";
        let memory = Memory::new(Tid::from_raw(std::process::id() as i32));
        let mut out = [0; 4];
        memory.read(bytes.as_ptr() as u64, &mut out).unwrap();
        assert_eq!(out, bytes);
        assert_eq!(memory.read(8, &mut out), Err(Errno::EFAULT));
    }
}
