//! Asynchronous I/O (io_submit(2)): on virtual files it is done at once, as the kernel's FUSE does what needs its cache.
//!
//! The event that tells of it must be the kernel's own, and name the guest's control block. So while the kernel looks at
//! the block, it says to write as much to /dev/null.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use fsmodules::api::{Errno, OpenFlags, errno};
use rustix::fs::{Mode, OFlags};

use crate::abi::Iocb;
use crate::task::OpenFile;
use crate::trap::Reply;

use super::install::reopen;
use super::{Ctx, io};

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;

/// No context takes more at once.
const MOST: i64 = 1 << 16;

/// io_submit(2): (context, how many, pointers to control blocks).
pub async fn io_submit(cx: &Ctx) -> Result<Reply, Errno> {
    let count = (cx.arg(1) as i64).clamp(0, MOST) as usize;
    if count == 0 || cx.task.files().is_empty() {
        return Ok(Reply::Passthrough);
    }
    let mut done = Done::default();
    let result = async {
        let ready = serve_all(cx, cx.arg(2), count, &mut done).await?;
        let args = [cx.arg(0), ready as u64, cx.arg(2), 0, 0, 0];
        cx.run(libc::SYS_io_submit, args).await
    }
    .await;
    done.restore(cx).await;
    Ok(Reply::Return(result?))
}

/// What has been changed in the guest for the kernel to see.
#[derive(Default)]
struct Done {
    /// Control blocks as they were, with their addresses.
    blocks: Vec<(u64, Iocb)>,
    /// /dev/null, in the guest.
    null: Option<i32>,
}

impl Done {
    /// The kernel shall find that the block's work is to give this result.
    async fn replace(&mut self, cx: &Ctx, address: u64, block: Iocb, result: u64) -> Result<(), Errno> {
        let null = match self.null {
            Some(null) => null,
            None => open_null(cx).await?,
        };
        self.null = Some(null);
        let simple = Iocb {
            aio_rw_flags: 0,
            aio_lio_opcode: PWRITE,
            aio_reqprio: 0,
            aio_fildes: null as u32,
            aio_buf: address,
            aio_nbytes: result,
            aio_offset: 0,
            ..block
        };
        cx.write_value(address, &simple)?;
        self.blocks.push((address, block));
        Ok(())
    }

    async fn restore(self, cx: &Ctx) {
        for (address, block) in self.blocks {
            // The kernel has left a mark of its own there. A guest that has unmapped the block meanwhile has no use
            // for it.
            let key = cx.read_value(address + Iocb::KEY).unwrap_or(block.aio_key);
            let _ = cx.write_value(address, &Iocb { aio_key: key, ..block });
        }
        if let Some(null) = self.null {
            let _ = cx.close(null).await;
        }
    }
}

async fn open_null(cx: &Ctx) -> Result<i32, Errno> {
    let opened = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let null: OwnedFd = opened.map_err(errno)?;
    reopen(cx, null.as_fd(), OpenFlags::WRONLY | OpenFlags::CLOEXEC).await
}

/// Does what the blocks say of virtual files, up to the first that fails; how many the kernel may look at. The error is
/// the first one's: that of a later block is told when it is submitted again.
async fn serve_all(cx: &Ctx, pointers: u64, count: usize, done: &mut Done) -> Result<usize, Errno> {
    for n in 0..count {
        let served = async {
            let address: u64 = cx.read_value(pointers + n as u64 * 8)?;
            let block: Iocb = cx.read_value(address)?;
            match cx.data_file(block.aio_fildes as i32) {
                Some(open) => match serve(cx, &open, &block).await? {
                    Some(result) => done.replace(cx, address, block, result).await,
                    None => Ok(()),
                },
                None => Ok(()),
            }
        };
        match served.await {
            Ok(()) => {}
            // The kernel finds the same where it cannot read, or another error with the ones before.
            Err(Errno::EFAULT) => return Ok(count),
            Err(_) if n > 0 => return Ok(n),
            Err(errno) => return Err(errno),
        }
    }
    Ok(count)
}

/// The result of one block; `None` if that is for the kernel to say.
async fn serve(cx: &Ctx, open: &Rc<OpenFile>, block: &Iocb) -> Result<Option<u64>, Errno> {
    let at = || u64::try_from(block.aio_offset).map_err(|_| Errno::EINVAL);
    let one = || io::one_buffer(block.aio_buf, block.aio_nbytes);
    let many = || io::buffers(cx, block.aio_buf, block.aio_nbytes);
    let flags = || io::checked_flags(block.aio_rw_flags);
    let reply = match block.aio_lio_opcode {
        PREAD => io::read_from(cx, open, Some(at()?), one()).await?,
        PREADV => io::read_from(cx, open, Some(at()?), many()?).await?,
        PWRITE => io::write_to(cx, open, Some(at()?), one(), flags()?).await?,
        PWRITEV => io::write_to(cx, open, Some(at()?), many()?, flags()?).await?,
        FSYNC | FDSYNC => io::sync_file(cx, open, block.aio_lio_opcode == FDSYNC).await?,
        _ => return Ok(None),
    };
    match reply {
        Reply::Return(result) => Ok(u64::try_from(result).ok()),
        _ => Ok(None),
    }
}
