//! Whom the signals of a virtual file go to (`F_SETOWN`, `F_SETSIG` and so on).

use std::rc::Rc;

use fsmodules::api::Errno;

use crate::task::{OpenFile, read_ids};
use crate::trap::{F_GETOWN_EX, F_GETSIG, F_SETOWN_EX, F_SETSIG, FileOwner, Reply, Target};

use super::Ctx;

/// Such a command of fcntl(2).
pub fn fcntl(cx: &Ctx, open: &OpenFile, command: i32) -> Result<Reply, Errno> {
    let owner = open.owner()?;
    let done = match command {
        libc::F_GETOWN => owner.number()?,
        F_GETSIG => owner.signal()?,
        F_GETOWN_EX => {
            cx.write_value(cx.arg(2), &owner.target()?)?;
            0
        }
        libc::F_SETOWN => {
            owner.set_number(cx.fd(2), setter(cx))?;
            0
        }
        F_SETOWN_EX => {
            let target: Target = cx.read_value(cx.arg(2))?;
            owner.set_target(target, setter(cx))?;
            0
        }
        F_SETSIG => {
            owner.set_signal(cx.arg(2))?;
            0
        }
        _ => return Err(Errno::EINVAL),
    };
    Ok(Reply::Return(done.into()))
}

/// Unless somebody else is it already, the caller is the owner from now on.
pub fn own_by_default(cx: &Ctx, owner: &Rc<FileOwner>) -> Result<(), Errno> {
    match owner.number()? {
        0 => owner.set_number(cx.task.tgid().as_raw(), setter(cx)),
        _ => Ok(()),
    }
}

/// The caller's real and effective user, as the kernel knows them.
fn setter(cx: &Ctx) -> (u32, u32) {
    let ids = read_ids(cx.task.tid.get());
    (ids.ruid, ids.euid)
}
