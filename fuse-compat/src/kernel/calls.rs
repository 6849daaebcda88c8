//! The requests as functions, with the answers that Linux makes up where a server says ENOSYS
//! (`fs/fuse/dir.c`, `file.c`, `xattr.c`, `readdir.c`).

use std::rc::Rc;

use bytes::Bytes;
use zerocopy::{Immutable, IntoBytes};

use super::{Client, Connection, Entry, Handle, Lookup};
use crate::Errno;
use crate::wire::abi::*;
use crate::wire::{Expect, Request, reply};

const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const O_NOCTTY: u32 = 0o400;
const O_TRUNC: u32 = 0o1000;
const O_LARGEFILE: u32 = 0o100000;
const OPEN_KILL_SUIDGID: u32 = 1;
const MAX_PATH: usize = 4095;
const MAX_XATTR: usize = 65536;
/// The reply of COPY_FILE_RANGE has 32 bits for the length.
const MAX_COPY: u64 = 0xffff_f000;
const ANY_EVENTS: u32 = 0x1 | 0x4 | 0x40 | 0x100;

/// Requests on behalf of one client.
pub struct Calls<'a> {
    pub(super) connection: &'a Rc<Connection>,
    pub(super) client: &'a dyn Client,
}

/// The mode and umask of a new file, as the caller gave them.
#[derive(Clone, Copy, Debug)]
pub struct NewMode {
    /// With the type.
    pub mode: u32,
    pub umask: u32,
}

/// An entry of a directory; with READDIRPLUS, also the file.
pub struct Listed {
    pub ino: u64,
    pub off: u64,
    pub kind: u32,
    pub name: Bytes,
    pub entry: Option<Entry>,
}

/// Where a POSIX or flock(2) lock belongs, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct LockCall {
    pub owner: u64,
    pub lock: FileLock,
    pub flock: bool,
}

/// Is this the type of a file, and a size that one can have?
fn plausible(attr: &Attr) -> bool {
    matches!(attr.mode >> 12 & 0xf, 1 | 2 | 4 | 6 | 8 | 10 | 12) && attr.size <= i64::MAX as u64
}

impl Calls<'_> {
    async fn ask(&self, nodeid: u64, request: Request) -> Result<Bytes, Errno> {
        self.connection.call(self.client, nodeid, request).await
    }

    /// Asks what a server may not know; once it has said so, it is not asked again.
    async fn try_ask(&self, nodeid: u64, request: Request) -> Result<Bytes, Errno> {
        let opcode = request.opcode;
        if self.connection.lacks(opcode) {
            return Err(Errno::ENOSYS);
        }
        let result = self.ask(nodeid, request).await;
        if result.as_ref().is_err_and(|&e| e == Errno::ENOSYS) {
            self.connection.learn_lack(opcode);
        }
        result
    }

    async fn has(&self, flag: InitFlags) -> Result<bool, Errno> {
        self.connection.ready().await?;
        Ok(self.connection.negotiated().is_some_and(|n| n.has(flag)))
    }

    fn granted(&self, out: EntryOut) -> Result<Entry, Errno> {
        if out.nodeid <= ROOT_ID {
            return Err(Errno::EIO);
        }
        let lookup = Lookup::granted(self.connection, out.nodeid);
        if !plausible(&out.attr) {
            return Err(Errno::EIO);
        }
        Ok(Entry { lookup, out })
    }

    async fn new_entry(&self, dir: u64, request: Request) -> Result<Entry, Errno> {
        let payload = self
            .ask(dir, request.expect(Expect::Exactly(size_of::<EntryOut>())))
            .await?;
        self.granted(reply::parse(&payload)?)
    }

    /// `Err` with what the server said; `Ok(Err(out))` is a negative entry.
    pub async fn lookup(&self, dir: u64, name: &[u8]) -> Result<Result<Entry, EntryOut>, Errno> {
        let request = Request::new(Opcode::LOOKUP)
            .name(name)
            .expect(Expect::Exactly(size_of::<EntryOut>()));
        let out: EntryOut = reply::parse(&self.ask(dir, request).await?)?;
        if out.nodeid == 0 {
            Ok(Err(out))
        } else {
            self.granted(out).map(Ok)
        }
    }

    fn attributes(&self, payload: &[u8]) -> Result<AttrOut, Errno> {
        let out: AttrOut = reply::parse(payload)?;
        if plausible(&out.attr) { Ok(out) } else { Err(Errno::EIO) }
    }

    pub async fn getattr(&self, node: u64, fh: Option<u64>) -> Result<AttrOut, Errno> {
        let arg = GetattrIn {
            getattr_flags: if fh.is_some() { GETATTR_FH } else { 0 },
            fh: fh.unwrap_or(0),
            dummy: 0,
        };
        let request = Request::new(Opcode::GETATTR)
            .arg(&arg)
            .expect(Expect::Exactly(size_of::<AttrOut>()));
        self.attributes(&self.ask(node, request).await?)
    }

    /// Attributes with the time of birth; `ENOSYS` if the server does not know STATX.
    pub async fn statx(&self, node: u64, mask: u32) -> Result<StatxOut, Errno> {
        let arg = StatxIn {
            sx_mask: mask,
            ..StatxIn::default()
        };
        let request = Request::new(Opcode::STATX)
            .arg(&arg)
            .expect(Expect::Exactly(size_of::<StatxOut>()));
        let out: StatxOut = reply::parse(&self.try_ask(node, request).await?)?;
        let attr = Attr {
            mode: out.mode.into(),
            size: out.size,
            ..Attr::default()
        };
        if plausible(&attr) { Ok(out) } else { Err(Errno::EIO) }
    }

    pub async fn setattr(&self, node: u64, change: SetattrIn) -> Result<AttrOut, Errno> {
        let request = Request::new(Opcode::SETATTR)
            .arg(&change)
            .expect(Expect::Exactly(size_of::<AttrOut>()));
        self.attributes(&self.ask(node, request).await?)
    }

    /// The target, up to an embedded NUL.
    pub async fn readlink(&self, node: u64) -> Result<Bytes, Errno> {
        let target = self
            .ask(node, Request::new(Opcode::READLINK).expect(Expect::UpTo(MAX_PATH)))
            .await?;
        let len = target.iter().position(|&b| b == 0).unwrap_or(target.len());
        Ok(target.slice(..len))
    }

    pub async fn symlink(&self, dir: u64, name: &[u8], target: &[u8]) -> Result<Entry, Errno> {
        self.new_entry(dir, Request::new(Opcode::SYMLINK).name(name).name(target))
            .await
    }

    /// The mode as the server is to see it: masked, unless it does that itself.
    async fn masked(&self, new: NewMode) -> Result<u32, Errno> {
        Ok(if self.has(InitFlags::DONT_MASK).await? {
            new.mode
        } else {
            new.mode & !new.umask
        })
    }

    pub async fn mknod(&self, dir: u64, name: &[u8], new: NewMode, rdev: u32) -> Result<Entry, Errno> {
        let arg = MknodIn {
            mode: self.masked(new).await?,
            rdev,
            umask: new.umask,
            padding: 0,
        };
        let entry = self
            .new_entry(dir, Request::new(Opcode::MKNOD).arg(&arg).name(name))
            .await?;
        self.of_type(entry, new.mode)
    }

    pub async fn mkdir(&self, dir: u64, name: &[u8], new: NewMode) -> Result<Entry, Errno> {
        let arg = MkdirIn {
            mode: self.masked(new).await? & 0o7777,
            umask: new.umask,
        };
        let entry = self
            .new_entry(dir, Request::new(Opcode::MKDIR).arg(&arg).name(name))
            .await?;
        self.of_type(entry, 0o040000)
    }

    fn of_type(&self, entry: Entry, mode: u32) -> Result<Entry, Errno> {
        if (entry.out.attr.mode ^ mode) & 0o170000 == 0 {
            Ok(entry)
        } else {
            Err(Errno::EIO)
        }
    }

    pub async fn unlink(&self, dir: u64, name: &[u8]) -> Result<(), Errno> {
        self.ask(dir, Request::new(Opcode::UNLINK).name(name)).await.map(drop)
    }

    pub async fn rmdir(&self, dir: u64, name: &[u8]) -> Result<(), Errno> {
        self.ask(dir, Request::new(Opcode::RMDIR).name(name)).await.map(drop)
    }

    /// `flags` are those of renameat2(2).
    pub async fn rename(&self, dir: u64, name: &[u8], newdir: u64, to: &[u8], flags: u32) -> Result<(), Errno> {
        if flags == 0 {
            let request = Request::new(Opcode::RENAME)
                .arg(&RenameIn { newdir })
                .name(name)
                .name(to);
            return self.ask(dir, request).await.map(drop);
        }
        self.connection.ready().await?;
        if self.connection.negotiated().is_some_and(|n| n.minor < 23) {
            return Err(Errno::EINVAL);
        }
        let arg = Rename2In {
            newdir,
            flags,
            padding: 0,
        };
        let request = Request::new(Opcode::RENAME2).arg(&arg).name(name).name(to);
        self.try_ask(dir, request)
            .await
            .map(drop)
            .map_err(instead_of_enosys(Errno::EINVAL))
    }

    pub async fn link(&self, node: u64, dir: u64, name: &[u8]) -> Result<Entry, Errno> {
        let request = Request::new(Opcode::LINK).arg(&LinkIn { oldnodeid: node }).name(name);
        let payload = self
            .try_ask(dir, request.expect(Expect::Exactly(size_of::<EntryOut>())))
            .await;
        self.granted(reply::parse(&payload.map_err(instead_of_enosys(Errno::EPERM))?)?)
    }

    /// `kill`: the server is to clear set-id bits as it truncates.
    pub async fn open(&self, node: u64, flags: u32, kill: bool) -> Result<Handle, Errno> {
        let mut flags = flags & !(O_CREAT | O_EXCL | O_NOCTTY) | O_LARGEFILE;
        if !self.has(InitFlags::ATOMIC_O_TRUNC).await? {
            flags &= !O_TRUNC;
        }
        self.open_either(Opcode::OPEN, node, flags, kill).await
    }

    pub async fn opendir(&self, node: u64, flags: u32) -> Result<Handle, Errno> {
        let flags = flags & !(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC) | O_LARGEFILE;
        self.open_either(Opcode::OPENDIR, node, flags, false).await
    }

    async fn open_either(&self, opcode: Opcode, node: u64, flags: u32, kill: bool) -> Result<Handle, Errno> {
        let arg = OpenIn {
            flags,
            open_flags: self.kill_flag(kill, OPEN_KILL_SUIDGID),
        };
        let request = Request::new(opcode)
            .arg(&arg)
            .expect(Expect::Exactly(size_of::<OpenOut>()));
        let out = match self.try_ask(node, request).await {
            Ok(payload) => Some(reply::parse(&payload)?),
            Err(Errno::ENOSYS) => None,
            Err(errno) => return Err(errno),
        };
        Ok(Handle::opened(
            self.connection,
            node,
            flags,
            opcode == Opcode::OPENDIR,
            out,
        ))
    }

    fn kill_flag(&self, kill: bool, flag: u32) -> u32 {
        let server = self
            .connection
            .negotiated()
            .is_some_and(|n| n.has(InitFlags::HANDLE_KILLPRIV_V2));
        if kill && server { flag } else { 0 }
    }

    /// Makes and opens a file. `ENOSYS` (remembered): the caller uses MKNOD and OPEN.
    pub async fn create(&self, dir: u64, name: &[u8], new: NewMode, flags: u32) -> Result<(Entry, Handle), Errno> {
        self.create_either(Opcode::CREATE, dir, name, new, flags).await
    }

    /// A file without a name (`O_TMPFILE`).
    pub async fn tmpfile(&self, dir: u64, new: NewMode, flags: u32) -> Result<(Entry, Handle), Errno> {
        let made = self.create_either(Opcode::TMPFILE, dir, b"/", new, flags).await;
        made.map_err(instead_of_enosys(Errno::EOPNOTSUPP))
    }

    async fn create_either(
        &self,
        opcode: Opcode,
        dir: u64,
        name: &[u8],
        new: NewMode,
        flags: u32,
    ) -> Result<(Entry, Handle), Errno> {
        let mut flags = flags & !O_NOCTTY | O_LARGEFILE;
        if !self.has(InitFlags::ATOMIC_O_TRUNC).await? {
            flags &= !O_TRUNC;
        }
        let arg = CreateIn {
            flags,
            mode: self.masked(new).await?,
            umask: new.umask,
            open_flags: 0,
        };
        let request = Request::new(opcode)
            .arg(&arg)
            .name(name)
            .expect(Expect::Exactly(size_of::<CreateOut>()));
        let out: CreateOut = reply::parse(&self.try_ask(dir, request).await?)?;
        let handle = Handle::opened(
            self.connection,
            out.entry.nodeid,
            flags & !(O_CREAT | O_EXCL | O_TRUNC),
            false,
            Some(out.open),
        );
        let entry = self.of_type(self.granted(out.entry)?, 0o100000)?;
        Ok((entry, handle))
    }

    pub async fn read(&self, handle: &Handle, offset: u64, size: u32, owner: Option<u64>) -> Result<Bytes, Errno> {
        let arg = ReadIn {
            fh: handle.fh,
            offset,
            size,
            read_flags: if owner.is_some() { READ_LOCKOWNER } else { 0 },
            lock_owner: owner.unwrap_or(0),
            flags: handle.flags.get(),
            padding: 0,
        };
        self.ask(
            handle.nodeid(),
            Request::new(Opcode::READ).arg(&arg).expect(Expect::UpTo(size as usize)),
        )
        .await
    }

    /// `flags`: `WRITE_*`. How much was written, never more than there was.
    pub async fn write(
        &self,
        handle: &Handle,
        offset: u64,
        data: Bytes,
        flags: u32,
        owner: Option<u64>,
    ) -> Result<usize, Errno> {
        let size = data.len() as u32;
        let kill = self.kill_flag(flags & WRITE_KILL_SUIDGID != 0, WRITE_KILL_SUIDGID);
        let arg = WriteIn {
            fh: handle.fh,
            offset,
            size,
            write_flags: flags & !WRITE_KILL_SUIDGID | kill | if owner.is_some() { WRITE_LOCKOWNER } else { 0 },
            lock_owner: owner.unwrap_or(0),
            flags: handle.flags.get(),
            padding: 0,
        };
        let request = Request::new(Opcode::WRITE)
            .arg(&arg)
            .data(data)
            .expect(Expect::Exactly(size_of::<WriteOut>()));
        let out: WriteOut = reply::parse(&self.ask(handle.nodeid(), request).await?)?;
        if out.size > size {
            Err(Errno::EIO)
        } else {
            Ok(out.size as usize)
        }
    }

    pub async fn flush(&self, handle: &Handle, lock_owner: u64) -> Result<(), Errno> {
        let arg = FlushIn {
            fh: handle.fh,
            lock_owner,
            ..FlushIn::default()
        };
        done_without(
            self.try_ask(handle.nodeid(), Request::new(Opcode::FLUSH).arg(&arg))
                .await,
        )
    }

    pub async fn fsync(&self, handle: &Handle, data_only: bool) -> Result<(), Errno> {
        let opcode = if handle.is_directory() {
            Opcode::FSYNCDIR
        } else {
            Opcode::FSYNC
        };
        let arg = FsyncIn {
            fh: handle.fh,
            fsync_flags: if data_only { FSYNC_FDATASYNC } else { 0 },
            padding: 0,
        };
        done_without(self.try_ask(handle.nodeid(), Request::new(opcode).arg(&arg)).await)
    }

    /// `SEEK_DATA` or `SEEK_HOLE`; `ENOSYS` (remembered): the whole file is data.
    pub async fn lseek(&self, handle: &Handle, offset: u64, whence: u32) -> Result<u64, Errno> {
        let arg = LseekIn {
            fh: handle.fh,
            offset,
            whence,
            padding: 0,
        };
        let request = Request::new(Opcode::LSEEK)
            .arg(&arg)
            .expect(Expect::Exactly(size_of::<LseekOut>()));
        let out: LseekOut = reply::parse(&self.try_ask(handle.nodeid(), request).await?)?;
        if out.offset > i64::MAX as u64 {
            Err(Errno::EINVAL)
        } else {
            Ok(out.offset)
        }
    }

    pub async fn fallocate(&self, handle: &Handle, offset: u64, length: u64, mode: u32) -> Result<(), Errno> {
        let arg = FallocateIn {
            fh: handle.fh,
            offset,
            length,
            mode,
            padding: 0,
        };
        let result = self
            .try_ask(handle.nodeid(), Request::new(Opcode::FALLOCATE).arg(&arg))
            .await;
        result.map(drop).map_err(instead_of_enosys(Errno::EOPNOTSUPP))
    }

    /// `EOPNOTSUPP`: the caller copies by itself.
    pub async fn copy_file_range(
        &self,
        from: &Handle,
        off_in: u64,
        to: &Handle,
        off_out: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        let mut arg = CopyFileRangeIn {
            fh_in: from.fh,
            off_in,
            nodeid_out: to.nodeid(),
            fh_out: to.fh,
            off_out,
            len,
            flags: 0,
        };
        let long = Request::new(Opcode::COPY_FILE_RANGE_64)
            .arg(&arg)
            .expect(Expect::Exactly(size_of::<CopyFileRangeOut>()));
        let copied = match self.try_ask(from.nodeid(), long).await {
            Err(Errno::ENOSYS) => {
                arg.len = len.min(MAX_COPY);
                let short = Request::new(Opcode::COPY_FILE_RANGE)
                    .arg(&arg)
                    .expect(Expect::Exactly(size_of::<WriteOut>()));
                let payload = self.try_ask(from.nodeid(), short).await;
                reply::parse::<WriteOut>(&payload.map_err(instead_of_enosys(Errno::EOPNOTSUPP))?)?
                    .size
                    .into()
            }
            payload => reply::parse::<CopyFileRangeOut>(&payload?)?.bytes_copied,
        };
        if copied > len { Err(Errno::EIO) } else { Ok(copied) }
    }

    /// What ioctl(2) returns, and the bytes for its argument.
    pub async fn ioctl(
        &self,
        handle: &Handle,
        cmd: u32,
        arg: u64,
        input: Bytes,
        out_size: u32,
    ) -> Result<(i32, Bytes), Errno> {
        if handle.is_directory() && self.connection.negotiated().is_some_and(|n| n.minor < 18) {
            return Err(Errno::ENOTTY);
        }
        let head = IoctlIn {
            fh: handle.fh,
            flags: if handle.is_directory() { IOCTL_DIR } else { 0 },
            cmd,
            arg,
            in_size: input.len() as u32,
            out_size,
        };
        let expect = Expect::UpTo(size_of::<IoctlOut>() + out_size as usize);
        let request = Request::new(Opcode::IOCTL).arg(&head).data(input).expect(expect);
        let payload = self
            .ask(handle.nodeid(), request)
            .await
            .map_err(instead_of_enosys(Errno::ENOTTY))?;
        let out: IoctlOut = reply::parse(&payload)?;
        if out.flags & IOCTL_RETRY != 0 {
            return Err(Errno::EIO);
        }
        Ok((out.result, payload.slice(size_of::<IoctlOut>()..)))
    }

    /// Readiness as in poll(2). With `notify`, a later change of it comes as a notification for `kh`.
    pub async fn poll(&self, handle: &Handle, kh: u64, events: u32, notify: bool) -> Result<u32, Errno> {
        let flags = if notify { POLL_SCHEDULE_NOTIFY } else { 0 };
        let request = Request::new(Opcode::POLL).arg(&PollIn {
            fh: handle.fh,
            kh,
            flags,
            events,
        });
        match self
            .try_ask(handle.nodeid(), request.expect(Expect::Exactly(size_of::<PollOut>())))
            .await
        {
            Ok(payload) => reply::parse::<PollOut>(&payload).map(|out| out.revents),
            Err(Errno::ENOSYS) => Ok(ANY_EVENTS),
            Err(errno) => Err(errno),
        }
    }

    /// Some entries after the cookie `offset`; none at the end.
    pub async fn readdir(&self, handle: &Handle, offset: u64, size: u32, plus: bool) -> Result<Vec<Listed>, Errno> {
        let opcode = if plus { Opcode::READDIRPLUS } else { Opcode::READDIR };
        let arg = ReadIn {
            fh: handle.fh,
            offset,
            size,
            flags: handle.flags.get(),
            ..ReadIn::default()
        };
        let payload = self
            .ask(
                handle.nodeid(),
                Request::new(opcode).arg(&arg).expect(Expect::UpTo(size as usize)),
            )
            .await?;
        let entries = reply::dirents(&payload, plus)?;
        let listed = entries.iter().map(|dirent| {
            let counted = dirent.entry.filter(|_| dirent.name != b"." && dirent.name != b"..");
            Listed {
                ino: dirent.ino,
                off: dirent.off,
                kind: dirent.kind,
                name: payload.slice_ref(dirent.name),
                entry: counted
                    .filter(|out| out.nodeid != 0)
                    .and_then(|out| self.granted(out).ok()),
            }
        });
        Ok(listed.collect())
    }

    pub async fn statfs(&self, node: u64) -> Result<Kstatfs, Errno> {
        let request = Request::new(Opcode::STATFS).expect(Expect::Exactly(size_of::<Kstatfs>()));
        reply::parse(&self.ask(node, request).await?)
    }

    /// The whole value.
    pub async fn getxattr(&self, node: u64, name: &[u8]) -> Result<Bytes, Errno> {
        let arg = GetxattrIn {
            size: MAX_XATTR as u32,
            padding: 0,
        };
        self.xattr(
            node,
            Request::new(Opcode::GETXATTR)
                .arg(&arg)
                .name(name)
                .expect(Expect::UpTo(MAX_XATTR)),
        )
        .await
    }

    /// All names, each with its NUL.
    pub async fn listxattr(&self, node: u64) -> Result<Bytes, Errno> {
        let arg = GetxattrIn {
            size: MAX_XATTR as u32,
            padding: 0,
        };
        let names = self
            .xattr(
                node,
                Request::new(Opcode::LISTXATTR)
                    .arg(&arg)
                    .expect(Expect::UpTo(MAX_XATTR)),
            )
            .await?;
        let well_formed = names.is_empty() || names.ends_with(&[0]) && !names.starts_with(&[0]);
        if well_formed && !names.windows(2).any(|pair| pair == [0, 0]) {
            Ok(names)
        } else {
            Err(Errno::EIO)
        }
    }

    /// `flags` are those of setxattr(2).
    pub async fn setxattr(&self, node: u64, name: &[u8], value: Bytes, flags: u32) -> Result<(), Errno> {
        let size = value.len() as u32;
        let request = Request::new(Opcode::SETXATTR);
        let request = match self.has(InitFlags::SETXATTR_EXT).await? {
            true => request.arg(&SetxattrExtIn {
                size,
                flags,
                setxattr_flags: 0,
                padding: 0,
            }),
            false => request.arg(&SetxattrIn { size, flags }),
        };
        self.xattr(node, request.name(name).data(value)).await.map(drop)
    }

    pub async fn removexattr(&self, node: u64, name: &[u8]) -> Result<(), Errno> {
        self.xattr(node, Request::new(Opcode::REMOVEXATTR).name(name))
            .await
            .map(drop)
    }

    async fn xattr(&self, node: u64, request: Request) -> Result<Bytes, Errno> {
        self.try_ask(node, request)
            .await
            .map_err(instead_of_enosys(Errno::EOPNOTSUPP))
    }

    pub async fn getlk(&self, handle: &Handle, call: LockCall) -> Result<FileLock, Errno> {
        let request = Request::new(Opcode::GETLK).arg(&lock_arg(handle, call));
        reply::parse(
            &self
                .ask(handle.nodeid(), request.expect(Expect::Exactly(size_of::<FileLock>())))
                .await?,
        )
    }

    pub async fn setlk(&self, handle: &Handle, call: LockCall, wait: bool) -> Result<(), Errno> {
        let opcode = if wait { Opcode::SETLKW } else { Opcode::SETLK };
        self.ask(handle.nodeid(), Request::new(opcode).arg(&lock_arg(handle, call)))
            .await
            .map(drop)
    }

    /// `mask` is that of access(2).
    pub async fn access(&self, node: u64, mask: u32) -> Result<(), Errno> {
        let request = Request::new(Opcode::ACCESS).arg(&AccessIn { mask, padding: 0 });
        done_without(self.try_ask(node, request).await)
    }
}

fn lock_arg(handle: &Handle, call: LockCall) -> impl IntoBytes + Immutable {
    let lk_flags = if call.flock { LK_FLOCK } else { 0 };
    LkIn {
        fh: handle.fh,
        owner: call.owner,
        lk: call.lock,
        lk_flags,
        padding: 0,
    }
}

fn instead_of_enosys(other: Errno) -> impl Fn(Errno) -> Errno {
    move |errno| if errno == Errno::ENOSYS { other } else { errno }
}

/// For what a server may leave out.
fn done_without(result: Result<Bytes, Errno>) -> Result<(), Errno> {
    match result {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}
