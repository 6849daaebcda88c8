//! File locks: POSIX and open file description locks by fcntl(2), and flock(2).

use fsmodules::api::{Errno, FileKind, Lock, LockKind, LockOwner, LockRange};

use crate::abi::Flock;
use crate::task::OpenFile;
use crate::trap::Reply;

use super::Ctx;
use super::io::{known_size, served};

pub async fn flock(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.data_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    /// Mandatory locks, which the kernel has given up: it says yes, and does nothing.
    const LOCK_MAND: i32 = 32;
    let operation = cx.fd(1);
    if operation & LOCK_MAND != 0 {
        return Ok(Reply::Return(0));
    }
    let file = served(&open)?;
    let kind = match operation & !libc::LOCK_NB {
        libc::LOCK_SH => LockKind::Read,
        libc::LOCK_EX => LockKind::Write,
        libc::LOCK_UN => LockKind::Unlock,
        _ => return Err(Errno::EINVAL),
    };
    let range = LockRange {
        start: 0,
        end: i64::MAX as u64,
    };
    let owner = LockOwner::Description(open.id);
    let lock = Lock {
        kind,
        range,
        owner,
        pid: cx.task.tgid().as_raw() as u32,
        flock: true,
    };
    file.set_lock(cx.cx(), lock, operation & libc::LOCK_NB == 0).await?;
    Ok(Reply::Return(0))
}

/// `F_GETLK`, `F_SETLK`, `F_SETLKW` and their `F_OFD_` forms.
pub async fn fcntl_lock(cx: &Ctx, open: &OpenFile, command: i32) -> Result<Reply, Errno> {
    let file = served(open)?;
    let mut asked: Flock = cx.read_value(cx.arg(2))?;
    let ofd = matches!(command, libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW);
    if ofd && asked.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = match i32::from(asked.l_type) {
        libc::F_RDLCK => LockKind::Read,
        libc::F_WRLCK => LockKind::Write,
        libc::F_UNLCK => LockKind::Unlock,
        _ => return Err(Errno::EINVAL),
    };
    let base = match i32::from(asked.l_whence) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => *open.pos.lock().await as i64,
        libc::SEEK_END if open.place.node().kind() == FileKind::Regular => known_size(cx, open).await? as i64,
        _ => return Err(Errno::EINVAL),
    };
    let range = range(base, asked.l_start, asked.l_len)?;
    let owner = if ofd {
        LockOwner::Description(open.id)
    } else {
        LockOwner::Files(cx.task.files().id)
    };
    let lock = Lock {
        kind,
        range,
        owner,
        pid: cx.task.tgid().as_raw() as u32,
        flock: false,
    };
    match command {
        libc::F_GETLK | libc::F_OFD_GETLK => {
            if kind == LockKind::Unlock {
                return Err(Errno::EINVAL);
            }
            report(&mut asked, file.test_lock(cx.cx(), lock).await?);
            cx.write_value(cx.arg(2), &asked)?;
        }
        _ => {
            let flags = open.flags.get();
            if kind == LockKind::Read && !flags.readable() || kind == LockKind::Write && !flags.writable() {
                return Err(Errno::EBADF);
            }
            let wait = matches!(command, libc::F_SETLKW | libc::F_OFD_SETLKW);
            file.set_lock(cx.cx(), lock, wait).await?;
        }
    }
    Ok(Reply::Return(0))
}

/// The bytes that (whence, start, len) of `struct flock` mean: a length of 0 is to the end, a negative one counts back.
fn range(base: i64, start: i64, len: i64) -> Result<LockRange, Errno> {
    let start = base.checked_add(start).ok_or(Errno::EOVERFLOW)?;
    let (first, last) = match len {
        0 => (start, i64::MAX),
        1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        _ => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
    };
    let first = u64::try_from(first).map_err(|_| Errno::EINVAL)?;
    Ok(LockRange {
        start: first,
        end: last as u64,
    })
}

fn report(flock: &mut Flock, conflict: Option<Lock>) {
    let Some(lock) = conflict else {
        flock.l_type = libc::F_UNLCK as i16;
        return;
    };
    flock.l_type = if lock.kind == LockKind::Write {
        libc::F_WRLCK
    } else {
        libc::F_RDLCK
    } as i16;
    flock.l_whence = libc::SEEK_SET as i16;
    flock.l_start = lock.range.start as i64;
    flock.l_len = if lock.range.end >= i64::MAX as u64 {
        0
    } else {
        (lock.range.end - lock.range.start + 1) as i64
    };
    flock.l_pid = if matches!(lock.owner, LockOwner::Description(_)) {
        -1
    } else {
        lock.pid as i32
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let end = i64::MAX as u64;
        assert_eq!(range(0, 10, 5), Ok(LockRange { start: 10, end: 14 }));
        assert_eq!(range(100, 0, 0), Ok(LockRange { start: 100, end }));
        assert_eq!(range(0, 10, -4), Ok(LockRange { start: 6, end: 9 }));
        assert_eq!(range(0, 2, -4), Err(Errno::EINVAL));
        assert_eq!(range(0, -1, 5), Err(Errno::EINVAL));
        assert_eq!(range(0, i64::MAX, 5), Err(Errno::EOVERFLOW));
    }
}
