//! Open files and directories of the host.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use bytes::Bytes;
use rustix::fs::{Dir, FallocateFlags, SeekFrom, fallocate, fdatasync, fstat, fsync, ftruncate, seek};
use rustix::io::{pread, pwrite};

use super::HostNode;
use crate::api::{
    Backing, Chunks, Cx, DirEntry, Errno, File, Lock, LockOwner, MapRequest, Op, Vnode, done, errno, fail,
};

/// As much as one read gives.
const MAX_READ: usize = 1 << 20;

pub struct HostFile {
    node: Rc<HostNode>,
    vnode: Rc<dyn Vnode>,
    fd: OwnedFd,
    /// The open file description that holds locks of its own.
    description: Cell<Option<u64>>,
}

impl HostFile {
    pub fn new(node: Rc<HostNode>, fd: OwnedFd) -> HostFile {
        HostFile {
            vnode: node.clone(),
            node,
            fd,
            description: Cell::new(None),
        }
    }

    pub fn truncate(&self, size: u64) -> Result<(), Errno> {
        ftruncate(&self.fd, size).map_err(errno)
    }

    fn put(&self, mut at: u64, append: bool, data: &[u8]) -> Result<(usize, u64), Errno> {
        if append {
            at = fstat(&self.fd).map_err(errno)?.st_size as u64;
        }
        let mut rest = data;
        while !rest.is_empty() {
            match pwrite(&self.fd, rest, at) {
                Ok(0) => break,
                Ok(n) => {
                    rest = &rest[n..];
                    at += n as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) if rest.len() == data.len() => return Err(errno(e)),
                Err(_) => break,
            }
        }
        Ok((data.len() - rest.len(), at))
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        if let Some(id) = self.description.get() {
            self.node.locks.release(LockOwner::Description(id));
        }
    }
}

impl File for HostFile {
    fn vnode(&self) -> Option<&Rc<dyn Vnode>> {
        Some(&self.vnode)
    }
    /// The file itself: mappings of it and its execution are native.
    fn backing(&self) -> Backing<'_> {
        Backing::Memory(self.fd.as_fd())
    }
    fn read<'a>(&'a self, _cx: Cx<'a>, at: u64, len: usize) -> Op<'a, Chunks> {
        let mut buffer = vec![0; len.min(MAX_READ)];
        match pread(&self.fd, &mut buffer, at) {
            Ok(got) => {
                buffer.truncate(got);
                done(Chunks::from_iter([Bytes::from(buffer)]))
            }
            Err(e) => fail(errno(e)),
        }
    }
    fn write<'a>(&'a self, cx: Cx<'a>, at: u64, append: bool, data: Bytes) -> Op<'a, (usize, u64)> {
        let written = self.node.written(cx).and_then(|()| self.put(at, append, &data));
        Box::pin(std::future::ready(written))
    }
    fn end<'a>(&'a self, _cx: Cx<'a>) -> Op<'a, u64> {
        Box::pin(async { Ok(fstat(&self.fd).map_err(errno)?.st_size as u64) })
    }
    fn seek_data<'a>(&'a self, _cx: Cx<'a>, from: u64, hole: bool) -> Op<'a, u64> {
        let from = if hole {
            SeekFrom::Hole(from)
        } else {
            SeekFrom::Data(from)
        };
        Box::pin(async move { seek(&self.fd, from).map_err(errno) })
    }
    fn flush<'a>(&'a self, cx: Cx<'a>) -> Op<'a, ()> {
        self.node.locks.release(LockOwner::Files(cx.caller.files_id()));
        done(())
    }
    fn fsync<'a>(&'a self, _cx: Cx<'a>, data_only: bool) -> Op<'a, ()> {
        Box::pin(async move {
            if data_only {
                fdatasync(&self.fd)
            } else {
                fsync(&self.fd)
            }
            .map_err(errno)
        })
    }
    fn fallocate<'a>(&'a self, _cx: Cx<'a>, mode: u32, offset: u64, len: u64) -> Op<'a, ()> {
        let mode = FallocateFlags::from_bits_retain(mode);
        Box::pin(async move { fallocate(&self.fd, mode, offset, len).map_err(errno) })
    }
    fn test_lock<'a>(&'a self, _cx: Cx<'a>, lock: Lock) -> Op<'a, Option<Lock>> {
        done(self.node.locks.test(&lock))
    }
    fn set_lock<'a>(&'a self, cx: Cx<'a>, lock: Lock, wait: bool) -> Op<'a, ()> {
        if let LockOwner::Description(id) = lock.owner {
            self.description.set(Some(id));
        }
        Box::pin(self.node.locks.set(cx.caller, lock, wait))
    }
    fn map<'a>(&'a self, _cx: Cx<'a>, _request: MapRequest) -> Op<'a, ()> {
        done(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open directory: what it held when it was last read from the start.
pub struct HostDir {
    node: Rc<HostNode>,
    vnode: Rc<dyn Vnode>,
    fd: OwnedFd,
    entries: RefCell<Vec<DirEntry>>,
}

impl HostDir {
    pub fn new(node: Rc<HostNode>, fd: OwnedFd) -> HostDir {
        HostDir {
            vnode: node.clone(),
            node,
            fd,
            entries: RefCell::default(),
        }
    }

    fn read(&self) -> Result<Vec<DirEntry>, Errno> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(errno)? {
            let entry = entry.map_err(errno)?;
            entries.push(DirEntry {
                ino: entry.ino(),
                off: entries.len() as u64 + 1,
                kind: kind_number(entry.file_type()),
                name: entry.file_name().to_bytes().into(),
            });
        }
        Ok(entries)
    }
}

/// `DT_*`
fn kind_number(kind: rustix::fs::FileType) -> u8 {
    use rustix::fs::FileType;
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}

impl File for HostDir {
    fn vnode(&self) -> Option<&Rc<dyn Vnode>> {
        Some(&self.vnode)
    }
    fn readdir<'a>(&'a self, _cx: Cx<'a>, from: u64, _room: usize) -> Op<'a, Vec<DirEntry>> {
        if from == 0 {
            match self.read() {
                Ok(entries) => self.entries.replace(entries),
                Err(errno) => return fail(errno),
            };
        }
        done(self.entries.borrow().iter().skip(from as usize).cloned().collect())
    }
    fn fsync<'a>(&'a self, _cx: Cx<'a>, _data_only: bool) -> Op<'a, ()> {
        Box::pin(async { fsync(&self.fd).map_err(errno) })
    }
    fn test_lock<'a>(&'a self, _cx: Cx<'a>, lock: Lock) -> Op<'a, Option<Lock>> {
        done(self.node.locks.test(&lock))
    }
    fn set_lock<'a>(&'a self, cx: Cx<'a>, lock: Lock, wait: bool) -> Op<'a, ()> {
        Box::pin(self.node.locks.set(cx.caller, lock, wait))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
