//! Reading, writing and positioning: calls on a descriptor of a virtual file.

use std::rc::Rc;

use bytes::Bytes;
use fsmodules::api::{AttrQuery, Errno, File, FileKind, OpenFlags, SetAttr};

use zerocopy::FromBytes;

use crate::abi::Iovec;
use crate::task::OpenFile;
use crate::trap::{GuestMemory, Reply};
use crate::view::Events;

use super::{Ctx, inotify};

/// A transfer moves at most this much at once, to bound umvu's memory.
const PIECE: usize = 1 << 20;
/// No message to a device is longer: of what exceeds it, the device gets so much, and finds that its length is wrong.
const MAX_MESSAGE: usize = 16 << 20;
/// `MAX_RW_COUNT`: no call moves more.
const MAX_TRANSFER: usize = 0x7fff_f000;
const IOV_MAX: u64 = 1024;

const RWF_DSYNC: u32 = 2;
const RWF_SYNC: u32 = 4;
const RWF_APPEND: u32 = 16;
const RWF_NOAPPEND: u32 = 32;
const RWF_NOSIGNAL: u32 = 256;
/// What the kernel's FUSE accepts: RWF_HIPRI and the above, but not RWF_NOWAIT.
const RWF_SERVED: u32 = 1 | RWF_DSYNC | RWF_SYNC | RWF_APPEND | RWF_NOAPPEND | RWF_NOSIGNAL;

/// The file behind a descriptor; `EBADF` for `O_PATH`.
pub fn served(open: &OpenFile) -> Result<Rc<dyn File>, Errno> {
    open.file.clone().ok_or(Errno::EBADF)
}

/// What is known of a file's size, without asking for it (`i_size_read`).
pub async fn known_size(cx: &Ctx, open: &OpenFile) -> Result<u64, Errno> {
    Ok(open.place.node().attr(cx.cx(), AttrQuery::KNOWN).await?.size)
}

/// `EBADF` for `O_PATH`.
pub fn not_path_only(open: &OpenFile) -> Result<(), Errno> {
    if open.flags.get().contains(OpenFlags::PATH) {
        Err(Errno::EBADF)
    } else {
        Ok(())
    }
}

/// The guest buffers of a call, in order.
pub type Buffers = Vec<(u64, usize)>;

pub fn one_buffer(address: u64, len: u64) -> Buffers {
    vec![(address, (len as usize).min(MAX_TRANSFER))]
}

/// From an array of `struct iovec`.
pub fn buffers(cx: &Ctx, array: u64, count: u64) -> Result<Buffers, Errno> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut total = 0usize;
    let mut buffers = Vec::with_capacity(count as usize);
    let array = cx.read(array, count as usize * size_of::<Iovec>())?;
    for iov in array.chunks_exact(size_of::<Iovec>()) {
        let iov = Iovec::read_from_bytes(iov).map_err(|_| Errno::EFAULT)?;
        if iov.len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let len = (iov.len as usize).min(MAX_TRANSFER - total);
        total += len;
        buffers.push((iov.base, len));
    }
    Ok(buffers)
}

/// The next piece of the buffers from byte `done` on, at most `room` bytes.
fn piece(buffers: &Buffers, mut done: usize, mut room: usize) -> Buffers {
    let mut piece = Vec::new();
    for &(address, len) in buffers {
        if done >= len {
            done -= len;
            continue;
        }
        let take = (len - done).min(room);
        piece.push((address + done as u64, take));
        room -= take;
        done = 0;
        if room == 0 {
            break;
        }
    }
    piece
}

fn total(buffers: &Buffers) -> usize {
    buffers.iter().map(|(_, len)| len).sum()
}

pub async fn read(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    read_from(cx, &open, None, one_buffer(cx.arg(1), cx.arg(2))).await
}

pub async fn readv(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    read_from(cx, &open, None, buffers(cx, cx.arg(1), cx.arg(2))?).await
}

pub async fn pread(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let at = offset(&open, cx.arg(3))?;
    read_from(cx, &open, Some(at), one_buffer(cx.arg(1), cx.arg(2))).await
}

/// preadv(2) and preadv2(2), whose offset −1 means the file offset.
pub async fn preadv(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let at = vector_offset(cx, &open)?;
    vector_flags(cx)?;
    read_from(cx, &open, at, buffers(cx, cx.arg(1), cx.arg(2))?).await
}

fn offset(open: &OpenFile, at: u64) -> Result<u64, Errno> {
    if at > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    if !served(open)?.seekable() {
        return Err(Errno::ESPIPE);
    }
    Ok(at)
}

fn is_v2(cx: &Ctx) -> bool {
    matches!(i64::from(cx.call.nr), libc::SYS_preadv2 | libc::SYS_pwritev2)
}

fn vector_offset(cx: &Ctx, open: &OpenFile) -> Result<Option<u64>, Errno> {
    if is_v2(cx) && cx.arg(3) == u64::MAX {
        Ok(None)
    } else {
        offset(open, cx.arg(3)).map(Some)
    }
}

fn vector_flags(cx: &Ctx) -> Result<u32, Errno> {
    checked_flags(if is_v2(cx) { cx.int(5) } else { 0 })
}

/// `RWF_*`, if the kernel's FUSE takes them.
pub fn checked_flags(flags: u32) -> Result<u32, Errno> {
    if flags & !RWF_SERVED != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & RWF_APPEND != 0 && flags & RWF_NOAPPEND != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

pub async fn read_from(cx: &Ctx, open: &OpenFile, at: Option<u64>, buffers: Buffers) -> Result<Reply, Errno> {
    let file = served(open)?;
    if !open.flags.get().readable() {
        return Err(Errno::EBADF);
    }
    if open.place.node().kind() == FileKind::Directory {
        return Err(Errno::EISDIR);
    }
    let done = match at {
        Some(at) => read_at(cx, &file, at, &buffers).await?,
        // No position to guard: readers of a device wait side by side.
        None if !file.seekable() => {
            let done = read_at(cx, &file, 0, &buffers).await?;
            super::stream::refresh(open);
            done
        }
        None => {
            let mut pos = open.pos.lock().await;
            let done = read_at(cx, &file, *pos, &buffers).await?;
            *pos += done as u64;
            done
        }
    };
    if done > 0 {
        open.place.happened(Events::ACCESS);
    }
    Ok(Reply::Return(done as i64))
}

async fn read_at(cx: &Ctx, file: &Rc<dyn File>, at: u64, buffers: &Buffers) -> Result<usize, Errno> {
    let whole = total(buffers);
    // A stream's message must not be cut in pieces.
    let stream = !file.seekable();
    let mut done = 0;
    loop {
        let piece = if stream {
            buffers.clone()
        } else {
            piece(buffers, done, PIECE)
        };
        let room = total(&piece);
        let chunks = match file.read(cx.cx(), at + done as u64, room).await {
            Ok(chunks) => chunks,
            Err(_) if done > 0 => return Ok(done),
            Err(errno) => return Err(errno),
        };
        let parts: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk[..]).collect();
        let got = cx.memory().write_vectored(&piece, &parts)?;
        done += got;
        if got < room || done >= whole || stream {
            return Ok(done);
        }
    }
}

pub async fn write(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    write_to(cx, &open, None, one_buffer(cx.arg(1), cx.arg(2)), 0).await
}

pub async fn writev(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    write_to(cx, &open, None, buffers(cx, cx.arg(1), cx.arg(2))?, 0).await
}

pub async fn pwrite(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let at = offset(&open, cx.arg(3))?;
    write_to(cx, &open, Some(at), one_buffer(cx.arg(1), cx.arg(2)), 0).await
}

pub async fn pwritev(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let at = vector_offset(cx, &open)?;
    let flags = vector_flags(cx)?;
    write_to(cx, &open, at, buffers(cx, cx.arg(1), cx.arg(2))?, flags).await
}

pub async fn write_to(cx: &Ctx, open: &OpenFile, at: Option<u64>, buffers: Buffers, rwf: u32) -> Result<Reply, Errno> {
    let file = served(open)?;
    let flags = open.flags.get();
    if !flags.writable() {
        return Err(Errno::EBADF);
    }
    let append = (flags.contains(OpenFlags::APPEND) && rwf & RWF_NOAPPEND == 0) || rwf & RWF_APPEND != 0;
    let done = match at {
        Some(at) => write_at(cx, &file, at, append, &buffers).await?.0,
        None if !file.seekable() => write_at(cx, &file, 0, false, &buffers).await?.0,
        None => {
            let mut pos = open.pos.lock().await;
            let (done, end) = write_at(cx, &file, *pos, append, &buffers).await?;
            *pos = end;
            done
        }
    };
    if done > 0 {
        open.place.happened(Events::MODIFY);
    }
    if done > 0 && (flags.contains(OpenFlags::DSYNC) || rwf & (RWF_DSYNC | RWF_SYNC) != 0) {
        let whole = flags.contains(OpenFlags::SYNC) || rwf & RWF_SYNC != 0;
        file.fsync(cx.cx(), !whole).await?;
    }
    Ok(Reply::Return(done as i64))
}

/// How much was written, and the offset behind it.
async fn write_at(
    cx: &Ctx,
    file: &Rc<dyn File>,
    at: u64,
    append: bool,
    buffers: &Buffers,
) -> Result<(usize, u64), Errno> {
    let whole = total(buffers);
    let stream = !file.seekable();
    let (mut done, mut end) = (0, at);
    if whole == 0 && !stream {
        return Ok((0, at));
    }
    loop {
        let piece = piece(buffers, done, if stream { MAX_MESSAGE } else { PIECE });
        let mut data = vec![0; total(&piece)];
        let got = match cx.memory().read_vectored(&piece, &mut data) {
            Ok(got) => got,
            Err(_) if done > 0 => return Ok((done, end)),
            Err(errno) => return Err(errno),
        };
        data.truncate(got);
        let (put, behind) = match file.write(cx.cx(), end, append, Bytes::from(data)).await {
            Ok(result) => result,
            Err(_) if done > 0 => return Ok((done, end)),
            Err(errno) => return Err(errno),
        };
        done += put;
        end = behind;
        if put < got || done >= whole || stream || put == 0 {
            return Ok((done, end));
        }
    }
}

pub async fn lseek(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    if !file.seekable() {
        return Err(Errno::ESPIPE);
    }
    let offset = cx.arg(1) as i64;
    let mut pos = open.pos.lock().await;
    let base = match cx.fd(2) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => *pos as i64,
        libc::SEEK_END => file.end(cx.cx()).await? as i64,
        whence @ (libc::SEEK_DATA | libc::SEEK_HOLE) => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            *pos = file.seek_data(cx.cx(), from, whence == libc::SEEK_HOLE).await?;
            return Ok(Reply::Return(*pos as i64));
        }
        _ => return Err(Errno::EINVAL),
    };
    let new = base.checked_add(offset).ok_or(Errno::EINVAL)?;
    *pos = u64::try_from(new).map_err(|_| Errno::EINVAL)?;
    Ok(Reply::Return(new))
}

pub async fn ftruncate(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    if cx.arg(1) > i64::MAX as u64 || !open.flags.get().writable() {
        return Err(Errno::EINVAL);
    }
    let change = SetAttr {
        size: Some(cx.arg(1)),
        file: Some(&*file),
        ..SetAttr::default()
    };
    open.place.node().setattr(cx.cx(), change).await?;
    open.place.happened(Events::MODIFY);
    Ok(Reply::Return(0))
}

pub async fn fallocate(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    let (offset, len) = (cx.arg(2), cx.arg(3));
    if offset > i64::MAX as u64 || len == 0 || len > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    if !open.flags.get().writable() {
        return Err(Errno::EBADF);
    }
    if offset + len > i64::MAX as u64 {
        return Err(Errno::EFBIG);
    }
    match open.place.node().kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR),
        FileKind::Fifo => return Err(Errno::ESPIPE),
        _ => return Err(Errno::ENODEV),
    }
    file.fallocate(cx.cx(), cx.int(1), offset, len).await?;
    open.place.happened(Events::MODIFY);
    Ok(Reply::Return(0))
}

pub async fn fsync(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    sync_file(cx, &open, i64::from(cx.call.nr) == libc::SYS_fdatasync).await
}

pub async fn sync_file(cx: &Ctx, open: &OpenFile, data_only: bool) -> Result<Reply, Errno> {
    served(open)?.fsync(cx.cx(), data_only).await?;
    Ok(Reply::Return(0))
}

pub async fn sync_file_range(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    let (offset, len) = (cx.arg(1), cx.arg(2));
    if cx.int(3) & !7 != 0 || offset > i64::MAX as u64 || len > i64::MAX as u64 - offset {
        return Err(Errno::EINVAL);
    }
    match open.place.node().kind() {
        FileKind::Regular => file.write_back(cx.cx()).await?,
        FileKind::Directory => {}
        _ => return Err(Errno::ESPIPE),
    }
    Ok(Reply::Return(0))
}

/// sync(2): the mounts' dirty data goes out before the host's.
pub async fn sync(cx: &Ctx) -> Result<Reply, Errno> {
    for fs in cx.hv.mounts.visible().iter().filter_map(|mount| mount.fs()) {
        // Nobody hears of errors.
        let _ = fs.sync(cx.cx()).await;
    }
    Ok(Reply::Passthrough)
}

pub async fn syncfs(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    served(&open)?;
    if let Some(fs) = open.place.mount.fs() {
        fs.sync(cx.cx()).await?;
    }
    Ok(Reply::Return(0))
}

pub async fn readahead(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    if !open.flags.get().readable() {
        return Err(Errno::EBADF);
    }
    if open.place.node().kind() != FileKind::Regular || inotify::instance(&open).is_some() {
        return Err(Errno::EINVAL);
    }
    file.advise(cx.cx(), advised(cx.arg(1), cx.arg(2))?, true).await?;
    Ok(Reply::Return(0))
}

/// posix_fadvise(2); what is not about the cache needs no answer.
pub async fn fadvise(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    let advice = cx.int(3) as i32;
    let range = advised(cx.arg(1), cx.arg(2))?;
    if !(libc::POSIX_FADV_NORMAL..=libc::POSIX_FADV_NOREUSE).contains(&advice) {
        return Err(Errno::EINVAL);
    }
    if let libc::POSIX_FADV_WILLNEED | libc::POSIX_FADV_DONTNEED = advice {
        file.advise(cx.cx(), range, advice == libc::POSIX_FADV_WILLNEED).await?;
    }
    Ok(Reply::Return(0))
}

/// The bytes that advice is for, as far as a file can have such; without a length, all the rest.
fn advised(from: u64, len: u64) -> Result<std::ops::Range<u64>, Errno> {
    let most = i64::MAX as u64;
    match len {
        0 => Ok(from.min(most)..most),
        len if len <= most => Ok(from.min(most)..from.saturating_add(len).min(most)),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_buffers_once() {
        let buffers = vec![(100, 10), (200, 0), (300, PIECE), (9000, 5)];
        assert_eq!(
            piece(&buffers, 0, PIECE),
            [(100, 10), (200, 0), (300, PIECE - 10)]
                .into_iter()
                .filter(|b| b.1 > 0)
                .collect::<Vec<_>>()
        );
        assert_eq!(
            piece(&buffers, PIECE, PIECE),
            [(300 + PIECE as u64 - 10, 10), (9000, 5)]
        );
        assert_eq!(piece(&buffers, PIECE + 15, PIECE), []);
    }
}
