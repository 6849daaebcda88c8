//! `/proc/PID/fdinfo/N` of virtual files (proc_pid_fdinfo(5)).

use std::fmt::Write;

use fsmodules::api::{AttrQuery, OpenFlags, Vnode};

use crate::task::OpenFile;
use crate::trap::Tid;

use super::{Ctx, inotify};

/// The text for a descriptor of a process, if that is a virtual file's.
pub async fn text(cx: &Ctx, pid: i32, fd: i32) -> Option<Vec<u8>> {
    let task = cx.hv.process(Tid::from_raw(pid))?;
    let entry = task.files().entry(fd)?;
    let open = &entry.file;
    if open.is_native() {
        return None;
    }
    let mut flags = open.shown_flags() | OpenFlags::LARGEFILE;
    flags.set(OpenFlags::CLOEXEC, entry.cloexec);
    let ino = inode(cx, open.place.node().as_ref()).await;
    let mut text = format!(
        "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{ino}\n",
        position(open),
        flags.bits(),
        open.place.mount.id(),
    );
    for watch in inotify::instance(open)
        .map(inotify::Instance::watched)
        .unwrap_or_default()
    {
        let ino = inode(cx, watch.node().as_ref()).await;
        let (id, device, mask) = (watch.id, libc::minor(watch.dev()), inotify::mask(&watch));
        // Writing to memory does not fail.
        let _ = writeln!(
            text,
            "inotify wd:{id:x} ino:{ino:x} sdev:{device:x} mask:{mask:x} ignored_mask:0 "
        );
    }
    if let Some(instance) = inotify::instance(open) {
        text.push_str(&instance.watched_on_host());
    }
    Some(text.into_bytes())
}

/// Where the next read(2) begins; while one is under way, nobody can tell.
fn position(open: &OpenFile) -> u64 {
    open.pos.try_lock().map_or(0, |pos| *pos)
}

async fn inode(cx: &Ctx, node: &dyn Vnode) -> u64 {
    node.attr(cx.cx(), AttrQuery::KNOWN).await.map_or(0, |attr| attr.ino)
}
