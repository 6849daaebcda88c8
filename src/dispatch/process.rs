//! Calls that change who the caller is.

use fsmodules::api::Errno;

use crate::table::CONTROL_OPTION;
use crate::trap::{self, Reply};

use super::{Ctx, control};

/// The kernel keeps the umask for host files; we apply it to virtual ones.
pub async fn umask(cx: &Ctx) -> Result<Reply, Errno> {
    cx.task.fs().umask.set(cx.int(0) & 0o777);
    Ok(Reply::Passthrough)
}

/// seccomp(2) and landlock_restrict_self(2): what a process may do no longer, neither its agent nor umvu may do for it.
pub async fn confine(cx: &Ctx) -> Result<Reply, Errno> {
    cx.task.process().confined.set(true);
    Ok(Reply::Passthrough)
}

/// Who has changed its ids is not dumpable any more: what [`prctl`] says of that holds here too.
pub async fn stay_in_reach(cx: &Ctx) -> Result<(), Errno> {
    if trap::others_are_out_of_reach() {
        let args = [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0];
        cx.run(libc::SYS_prctl, args).await?;
    }
    Ok(())
}

/// A process that forbids tracing (`PR_SET_DUMPABLE`, as sftp-server and ssh-agent do) would lock us out of its memory:
/// the kernel lets an unprivileged tracer read it only as long as it is dumpable. It is told what it expects.
pub async fn prctl(cx: &Ctx) -> Result<Reply, Errno> {
    let mm = cx.task.mm();
    match (cx.int(0) as i32, cx.int(1)) {
        (libc::PR_SET_DUMPABLE, value @ (0 | 1)) => {
            mm.dumpable.set(value == 1);
            Ok(Reply::Return(0))
        }
        (libc::PR_GET_DUMPABLE, _) => Ok(Reply::Return(mm.dumpable.get().into())),
        (CONTROL_OPTION, _) => control::call(cx).await,
        (libc::PR_SET_SECCOMP, _) => confine(cx).await,
        _ => super::ids::prctl(cx).await,
    }
}
