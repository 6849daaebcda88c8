//! Calls that change who the caller is.

use fsmodules::api::Errno;

use crate::trap::Reply;

use super::Ctx;

/// The kernel keeps the umask for host files; we apply it to virtual ones.
pub async fn umask(cx: &Ctx) -> Result<Reply, Errno> {
    cx.task.fs().umask.set(cx.int(0) & 0o777);
    Ok(Reply::Passthrough)
}

/// The ids are read anew when they are next needed.
pub async fn set_ids(cx: &Ctx) -> Result<Reply, Errno> {
    let reply = cx.finish_run(cx.call).await;
    cx.task.forget_ids();
    reply
}
