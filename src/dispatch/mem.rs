//! Mapping virtual files. The mapping itself is the kernel's, of the placeholder's memory file.

use fsmodules::api::{Errno, MapRequest, MountFlags};

use crate::trap::Reply;

use super::Ctx;
use super::install::PAGE;
use super::io::served;

pub async fn mmap(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.fd(3);
    if flags & libc::MAP_ANONYMOUS != 0 {
        return Ok(Reply::Passthrough);
    }
    let Some(open) = cx.data_file(cx.fd(4)) else {
        return Ok(Reply::Passthrough);
    };
    let file = served(&open)?;
    let shared = matches!(flags & libc::MAP_TYPE, libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE);
    let writable = shared && open.flags.get().writable();
    let protection = cx.fd(2);
    let refused = shared && protection & libc::PROT_WRITE != 0 && !writable || !open.flags.get().readable();
    if refused || cx.arg(1) == 0 || !cx.arg(5).is_multiple_of(PAGE) {
        // The placeholder is open for the same: the kernel says what is wrong.
        return Ok(Reply::Passthrough);
    }
    if protection & libc::PROT_EXEC != 0 && open.place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EPERM);
    }
    let request = MapRequest {
        offset: cx.arg(5),
        len: cx.arg(1),
        shared,
        writable,
    };
    file.map(cx.cx(), request).await?;
    if writable {
        let mm = cx.task.mm();
        let mut mapped = mm.mapped.borrow_mut();
        if !mapped.iter().any(|other| other.id == open.id) {
            mapped.push(open.clone());
        }
    }
    Ok(Reply::Passthrough)
}

/// msync(2): what shared mappings of the process have changed goes to the servers.
pub async fn msync(cx: &Ctx) -> Result<Reply, Errno> {
    if cx.fd(2) & libc::MS_SYNC == 0 {
        return Ok(Reply::Passthrough);
    }
    let mapped = cx.task.mm().mapped.borrow().clone();
    for open in mapped {
        served(&open)?.fsync(cx.cx(), false).await?;
    }
    Ok(Reply::Passthrough)
}
