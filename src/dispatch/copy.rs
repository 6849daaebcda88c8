//! Moving data between descriptors: sendfile, splice, copy_file_range.
//!
//! Where one side is the guest's own (a socket, a file of the host), the data goes through a buffer that is mapped in the
//! guest for the length of the call, and the guest's kernel does the reading or writing there. A pipe is reached from
//! here, as long as that need not wait: FUSE servers splice their replies.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use fsmodules::api::{Errno, File, FileKind, OpenFlags};
use rustix::fs::{Mode, OFlags};

use crate::task::OpenFile;
use crate::trap::{GuestMemory, Reply};
use crate::view::Events;

use super::install::PAGE;
use super::io::{known_size, served};
use super::{Ctx, inotify};

/// At most this much at once; a device's message goes in one piece, so it is larger than any.
const BUFFER: u64 = 2 << 20;

/// One side of a transfer.
enum End {
    /// A virtual file at a given offset, or at its own.
    Virtual(Rc<OpenFile>, Rc<dyn File>, Option<u64>),
    /// A descriptor that is the kernel's, likewise.
    Real(i32, Option<u64>),
}

impl End {
    /// The descriptor in argument `fd`, with the offset that argument `offset` points to unless that is null.
    fn new(cx: &Ctx, fd: usize, offset: Option<usize>) -> Result<End, Errno> {
        let at = match offset.map(|n| cx.arg(n)).filter(|&address| address != 0) {
            Some(address) => Some(u64::try_from(cx.read_value::<i64>(address)?).map_err(|_| Errno::EINVAL)?),
            None => None,
        };
        match cx.data_file(cx.fd(fd)) {
            Some(open) => {
                let file = served(&open)?;
                if at.is_some() && !file.seekable() {
                    return Err(Errno::ESPIPE);
                }
                Ok(End::Virtual(open, file, at))
            }
            None => Ok(End::Real(cx.fd(fd), at)),
        }
    }

    fn is_real(&self) -> bool {
        matches!(self, End::Real(..))
    }

    /// So much has been moved: tells the caller how far an offset of its own has come, and who watches the file.
    fn advance(&self, cx: &Ctx, offset: Option<usize>, by: u64, events: Events) -> Result<(), Errno> {
        if let End::Virtual(open, ..) = self
            && by > 0
        {
            open.place.happened(events);
        }
        let (End::Virtual(_, _, Some(at)) | End::Real(_, Some(at))) = self else {
            return Ok(());
        };
        match offset.map(|n| cx.arg(n)) {
            Some(address) if address != 0 => cx.write_value(address, &((at + by) as i64)),
            _ => Ok(()),
        }
    }

    /// Some bytes, `done` bytes after the start. They stay in the guest's buffer if they come from there.
    async fn read(&self, cx: &Ctx, buffer: &Buffer, done: u64, len: u64) -> Result<Bytes, Errno> {
        match self {
            End::Real(fd, at) => {
                if let Some(data) = read_pipe(cx, *fd, len) {
                    return Ok(data);
                }
                let address = buffer.address(cx).await?;
                let got = match at {
                    Some(at) => {
                        cx.run(libc::SYS_pread64, [*fd as u64, address, len, at + done, 0, 0])
                            .await?
                    }
                    None => cx.run(libc::SYS_read, [*fd as u64, address, len, 0, 0, 0]).await?,
                };
                Ok(cx.read(address, got as usize)?.into())
            }
            End::Virtual(open, file, at) => {
                let mut own = if at.is_none() && file.seekable() {
                    Some(open.pos.lock().await)
                } else {
                    None
                };
                let from = at.map(|at| at + done).or(own.as_deref().copied()).unwrap_or(0);
                let chunks = file.read(cx.cx(), from, len as usize).await?;
                let data: Bytes = if chunks.len() == 1 {
                    chunks[0].clone()
                } else {
                    chunks.concat().into()
                };
                if let Some(pos) = &mut own {
                    **pos += data.len() as u64;
                }
                Ok(data)
            }
        }
    }

    async fn write(&self, cx: &Ctx, buffer: &Buffer, done: u64, data: Bytes) -> Result<u64, Errno> {
        match self {
            End::Real(fd, at) => {
                let quick = write_pipe(cx, *fd, &data);
                let rest = &data[quick..];
                if rest.is_empty() {
                    return Ok(quick as u64);
                }
                let address = buffer.address(cx).await?;
                cx.memory().write(address, rest)?;
                let len = rest.len() as u64;
                let put = match at {
                    Some(at) => {
                        cx.run(libc::SYS_pwrite64, [*fd as u64, address, len, at + done, 0, 0])
                            .await
                    }
                    None => cx.run(libc::SYS_write, [*fd as u64, address, len, 0, 0, 0]).await,
                };
                match put {
                    Ok(put) => Ok(quick as u64 + put as u64),
                    Err(_) if quick > 0 => Ok(quick as u64),
                    Err(errno) => Err(errno),
                }
            }
            End::Virtual(open, file, at) => {
                let append = open.flags.get().contains(OpenFlags::APPEND);
                let mut own = if at.is_none() && file.seekable() {
                    Some(open.pos.lock().await)
                } else {
                    None
                };
                let to = at.map(|at| at + done).or(own.as_deref().copied()).unwrap_or(0);
                let (put, end) = file.write(cx.cx(), to, append, data).await?;
                if let Some(pos) = &mut own {
                    **pos = end;
                }
                Ok(put as u64)
            }
        }
    }

    /// Is it open for that?
    fn check_mode(&self, cx: &Ctx, write: bool) -> Result<(), Errno> {
        let allowed = match self {
            End::Virtual(open, ..) if write => open.flags.get().writable(),
            End::Virtual(open, ..) => open.flags.get().readable(),
            End::Real(fd, _) => {
                // The link's own mode tells. A pipe's end would be reached through the link whichever it is.
                let link = cx
                    .task
                    .look_at_fd(*fd, std::fs::symlink_metadata)
                    .map_err(|_| Errno::EBADF)?;
                let bit = if write { libc::S_IWUSR } else { libc::S_IRUSR };
                link.mode() & bit != 0
            }
        };
        if allowed { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// Is it something that data can be moved from, or to?
    fn check(&self, write: bool) -> Result<(), Errno> {
        let End::Virtual(open, ..) = self else { return Ok(()) };
        let unfit = match write {
            true => open.flags.get().contains(OpenFlags::APPEND),
            // Events are only read.
            false => inotify::instance(open).is_some(),
        };
        if unfit || open.place.node().kind() == FileKind::Directory {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// The last bytes that were read have not found a place.
    async fn unread(&self, len: u64) {
        if let End::Virtual(open, file, None) = self
            && file.seekable()
        {
            *open.pos.lock().await -= len;
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self, End::Virtual(_, file, _) if !file.seekable())
    }

    /// What kind of file it is; `None` for what has no place in a file system.
    fn kind(&self, cx: &Ctx) -> Result<Option<FileKind>, Errno> {
        match self {
            End::Virtual(open, ..) if inotify::instance(open).is_some() => Ok(None),
            End::Virtual(open, ..) => Ok(Some(open.place.node().kind())),
            End::Real(fd, _) => {
                let meta = cx.task.look_at_fd(*fd, std::fs::metadata).map_err(|_| Errno::EBADF)?;
                Ok(FileKind::from_mode(meta.mode()))
            }
        }
    }
}

/// The guest's end of a pipe, opened anew so that nothing waits for it; `None` for any other file.
fn pipe(cx: &Ctx, fd: i32, mode: OFlags) -> Option<OwnedFd> {
    let meta = cx.task.look_at_fd(fd, std::fs::metadata).ok()?;
    if FileKind::from_mode(meta.mode()) != Some(FileKind::Fifo) {
        return None;
    }
    let flags = mode | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |link| Ok(rustix::fs::open::<std::path::PathBuf>(link, flags, Mode::empty())?);
    cx.task.look_at_fd(fd, open).ok()
}

/// What is in a pipe, up to `len` bytes; `None` if that is nothing, or it is none.
fn read_pipe(cx: &Ctx, fd: i32, len: u64) -> Option<Bytes> {
    let pipe = pipe(cx, fd, OFlags::RDONLY)?;
    let there = rustix::io::ioctl_fionread(&pipe).ok()?.min(len);
    let mut data = BytesMut::zeroed(there as usize);
    let mut done = 0;
    while done < data.len() {
        match rustix::io::read(&pipe, &mut data[done..]) {
            Ok(got @ 1..) => done += got,
            _ => break,
        }
    }
    data.truncate(done);
    (done > 0).then(|| data.freeze())
}

/// Puts as much into a pipe as it has room for; how much.
fn write_pipe(cx: &Ctx, fd: i32, data: &[u8]) -> usize {
    let Some(pipe) = pipe(cx, fd, OFlags::WRONLY) else {
        return 0;
    };
    let mut done = 0;
    while done < data.len() {
        match rustix::io::write(&pipe, &data[done..]) {
            Ok(put @ 1..) => done += put,
            _ => break,
        }
    }
    done
}

/// Memory in the guest for one transfer, mapped when it is first needed.
struct Buffer {
    len: u64,
    mapped: Cell<Option<u64>>,
}

impl Buffer {
    fn new(len: u64) -> Buffer {
        Buffer {
            len,
            mapped: Cell::new(None),
        }
    }

    async fn address(&self, cx: &Ctx) -> Result<u64, Errno> {
        if let Some(address) = self.mapped.get() {
            return Ok(address);
        }
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let args = [0, self.len, protection, kind, u64::MAX, 0];
        let address = cx.run(libc::SYS_mmap, args).await? as u64;
        self.mapped.set(Some(address));
        Ok(address)
    }

    async fn unmap(self, cx: &Ctx) {
        if let Some(address) = self.mapped.get() {
            // Unmapping what was just mapped cannot fail.
            let _ = cx.run(libc::SYS_munmap, [address, self.len, 0, 0, 0, 0]).await;
        }
    }
}

/// Moves up to `len` bytes; how many.
async fn transfer(cx: &Ctx, from: &End, to: &End, len: u64) -> Result<u64, Errno> {
    from.check(false)?;
    to.check(true)?;
    if len == 0 {
        return Ok(0);
    }
    let chunk = len.min(BUFFER);
    let buffer = Buffer::new(chunk);
    let result = pump(cx, from, to, len, chunk, &buffer).await;
    buffer.unmap(cx).await;
    result
}

async fn pump(cx: &Ctx, from: &End, to: &End, len: u64, chunk: u64, buffer: &Buffer) -> Result<u64, Errno> {
    let mut done = 0;
    while done < len {
        let wanted = chunk.min(len - done);
        let data = match from.read(cx, buffer, done, wanted).await {
            Ok(data) => data,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        };
        let got = data.len() as u64;
        if got == 0 {
            break;
        }
        match to.write(cx, buffer, done, data).await {
            Ok(put) => {
                done += put;
                if put < got {
                    from.unread(got - put).await;
                    break;
                }
            }
            Err(errno) => {
                from.unread(got).await;
                if done > 0 {
                    break;
                }
                return Err(errno);
            }
        }
        // Files are read to their end, pipes and devices only as far as they have something now.
        if got < wanted && (from.is_real() || from.is_stream()) {
            break;
        }
    }
    Ok(done)
}

/// sendfile(2): (out, in, offset, count).
pub async fn sendfile(cx: &Ctx) -> Result<Reply, Errno> {
    let from = End::new(cx, 1, Some(2))?;
    let to = End::new(cx, 0, None)?;
    if from.is_real() && to.is_real() {
        return Ok(Reply::Passthrough);
    }
    // From files only: pipes and sockets are for splice(2).
    from.check_mode(cx, false)?;
    to.check_mode(cx, true)?;
    if !matches!(from.kind(cx)?, Some(FileKind::Regular | FileKind::BlockDevice)) {
        return Err(Errno::EINVAL);
    }
    let done = transfer(cx, &from, &to, cx.arg(3).min(0x7fff_f000)).await?;
    from.advance(cx, Some(2), done, Events::ACCESS)?;
    to.advance(cx, None, done, Events::MODIFY)?;
    Ok(Reply::Return(done as i64))
}

/// splice(2): (in, offset, out, offset, length, flags). One side is a pipe, which has no offset.
pub async fn splice(cx: &Ctx) -> Result<Reply, Errno> {
    /// SPLICE_F_MOVE, NONBLOCK, MORE and GIFT.
    const KNOWN: u32 = 15;
    if cx.arg(4) == 0 {
        return Ok(Reply::Return(0));
    }
    if cx.int(5) & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let from = End::new(cx, 0, Some(1))?;
    let to = End::new(cx, 2, Some(3))?;
    if from.is_real() && to.is_real() {
        return Ok(Reply::Passthrough);
    }
    let real = if from.is_real() { &from } else { &to };
    let is_pipe = real.is_real() && real.kind(cx)? == Some(FileKind::Fifo);
    if is_pipe && matches!(real, End::Real(_, Some(_))) {
        return Err(Errno::ESPIPE);
    }
    from.check_mode(cx, false)?;
    to.check_mode(cx, true)?;
    if !is_pipe {
        return Err(Errno::EINVAL);
    }
    // One piece: a pipe that runs empty or full in the middle must not make the caller wait for more.
    let mut len = cx.arg(4).min(BUFFER);
    if let End::Real(pipe, _) = to
        && !from.is_stream()
    {
        len = len.min(room_in_pipe(cx, pipe).await?);
    }
    let done = transfer(cx, &from, &to, len).await?;
    from.advance(cx, Some(1), done, Events::ACCESS)?;
    to.advance(cx, Some(3), done, Events::MODIFY)?;
    Ok(Reply::Return(done as i64))
}

/// How much a pipe takes without waiting; if it is full, as much as is worth waiting for.
async fn room_in_pipe(cx: &Ctx, pipe: i32) -> Result<u64, Errno> {
    let not_a_pipe = |_| Errno::EINVAL;
    let args = [pipe as u64, libc::F_GETPIPE_SZ as u64, 0, 0, 0, 0];
    let size = cx.run(libc::SYS_fcntl, args).await.map_err(not_a_pipe)?;
    let slot = cx.scratch().await?;
    cx.run(libc::SYS_ioctl, [pipe as u64, libc::FIONREAD, slot.address, 0, 0, 0])
        .await?;
    let used: i32 = cx.read_value(slot.address)?;
    let room = (size as u64).saturating_sub(used as u64) / PAGE * PAGE;
    if room == 0 && cx.int(5) & libc::SPLICE_F_NONBLOCK != 0 {
        return Err(Errno::EAGAIN);
    }
    Ok(room.max(PAGE))
}

/// tee(2) works on pipes only.
pub async fn tee(cx: &Ctx) -> Result<Reply, Errno> {
    if cx.data_file(cx.fd(0)).is_none() && cx.data_file(cx.fd(1)).is_none() {
        return Ok(Reply::Passthrough);
    }
    Err(Errno::EINVAL)
}

/// vmsplice(2): likewise, but nothing is nothing.
pub async fn vmsplice(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    served(&open)?;
    match cx.arg(2) {
        0 => Ok(Reply::Return(0)),
        _ => Err(Errno::EBADF),
    }
}

/// copy_file_range(2): (in, offset, out, offset, length, flags).
pub async fn copy_file_range(cx: &Ctx) -> Result<Reply, Errno> {
    let from = End::new(cx, 0, Some(1))?;
    let to = End::new(cx, 2, Some(3))?;
    if from.is_real() && to.is_real() {
        return Ok(Reply::Passthrough);
    }
    if cx.int(5) != 0 {
        return Err(Errno::EINVAL);
    }
    let kinds = [from.kind(cx)?, to.kind(cx)?];
    if kinds.contains(&Some(FileKind::Directory)) {
        return Err(Errno::EISDIR);
    }
    if kinds != [Some(FileKind::Regular); 2] {
        return Err(Errno::EINVAL);
    }
    from.check_mode(cx, false)?;
    to.check_mode(cx, true)?;
    // Where others say EINVAL to a file that is appended to.
    to.check(true).map_err(|_| Errno::EBADF)?;
    let (End::Virtual(source, file, at), End::Virtual(target, other, to_at)) = (&from, &to) else {
        return Err(Errno::EXDEV);
    };
    let mut len = cx.arg(4).min(0x7fff_f000);
    let start = match at {
        Some(at) => *at,
        None => *source.pos.lock().await,
    };
    let end = match to_at {
        Some(at) => *at,
        None => *target.pos.lock().await,
    };
    len = len.min(known_size(cx, source).await?.saturating_sub(start));
    if source.place.node().id() == target.place.node().id()
        && start < end.saturating_add(len)
        && end < start.saturating_add(len)
    {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(Reply::Return(0));
    }
    let done = match file.copy_range(cx.cx(), start, other, end, len).await {
        Ok(done) => {
            if at.is_none() {
                *source.pos.lock().await = start + done;
            }
            if to_at.is_none() {
                *target.pos.lock().await = end + done;
            }
            done
        }
        // Between mounts too, if both are of one kind.
        Err(Errno::EXDEV | Errno::EOPNOTSUPP) if file.as_any().type_id() == other.as_any().type_id() => {
            transfer(cx, &from, &to, len).await?
        }
        Err(Errno::EOPNOTSUPP) => return Err(Errno::EXDEV),
        Err(errno) => return Err(errno),
    };
    from.advance(cx, Some(1), done, Events::ACCESS)?;
    to.advance(cx, Some(3), done, Events::MODIFY)?;
    Ok(Reply::Return(done as i64))
}
