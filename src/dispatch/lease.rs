//! Leases (`F_SETLEASE`), and what breaks them.

use std::time::Duration;

use fsmodules::api::{Access, AttrQuery, Caller, Errno, OpenFlags};

use crate::task::OpenFile;
use crate::trap::{FileOwner, Happening};
use crate::view::{Holder, LeaseKind, OpenCount, VirtualPlace};

use super::settings::setting;
use super::{Ctx, owners, signals, upkeep};

impl Holder for FileOwner {
    fn broken(&self, descriptor: i32) {
        self.tell(descriptor, Happening::Message);
    }

    fn lost(&self) {
        self.clear();
    }
}

/// `F_GETLEASE`
pub fn get(cx: &Ctx, open: &OpenFile) -> i32 {
    match open.count.as_ref().and_then(|count| count.lease(cx.hv.now())) {
        Some(LeaseKind::Read) => libc::F_RDLCK,
        Some(LeaseKind::Write) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    }
}

/// `F_SETLEASE`
pub async fn set(cx: &Ctx, open: &OpenFile, descriptor: i32, kind: i32) -> Result<(), Errno> {
    let kind = match kind {
        libc::F_RDLCK => Some(LeaseKind::Read),
        libc::F_WRLCK => Some(LeaseKind::Write),
        libc::F_UNLCK => None,
        _ => return Err(Errno::EINVAL),
    };
    let attr = open.place.node().attr(cx.cx(), AttrQuery::KNOWN).await?;
    if attr.uid != cx.ids().fsuid && !cx.is_root() {
        return Err(Errno::EACCES);
    }
    let count = open.count.as_ref().ok_or(Errno::EINVAL)?;
    let Some(kind) = kind else {
        return count.end_lease(cx.hv.now());
    };
    if setting("leases-enable") == Some(0) {
        return Err(Errno::EINVAL);
    }
    // Who has a file no more may not have been missed yet.
    upkeep::close_unused(&cx.hv).await;
    let holder = open.owner()?;
    count.set_lease(kind, descriptor, holder.clone(), cx.hv.now())?;
    signals::own_by_default(cx, &holder)
}

/// The file is about to be opened, and counts as open until the result is dropped. `ETXTBSY` if it is a program that
/// runs, and vice versa. Waits until no lease is in the way, or fails if it must not wait.
pub async fn opening(cx: &Ctx, place: &VirtualPlace, flags: OpenFlags) -> Result<Option<OpenCount>, Errno> {
    let count = place.count_open(flags);
    let is_busy = place.is_text_busy(flags);
    if is_busy || place.is_leased() {
        let mask = match flags.contains(OpenFlags::EXEC) {
            true => Access::EXECUTE,
            false => owners::wanted(flags),
        };
        place.node().permission(cx.cx(), mask).await?;
    }
    if is_busy {
        // Who has a file no more may not have been missed yet.
        upkeep::close_unused(&cx.hv).await;
        if place.is_text_busy(flags) {
            return Err(Errno::ETXTBSY);
        }
    }
    if place.is_leased() {
        wait(cx, place, flags).await?;
    }
    Ok(count)
}

async fn wait(cx: &Ctx, place: &VirtualPlace, flags: OpenFlags) -> Result<(), Errno> {
    /// How long a holder has, where the host does not say.
    const BREAK_TIME: u64 = 45;
    loop {
        let now = cx.hv.now();
        let time = match setting("lease-break-time").unwrap_or(BREAK_TIME) {
            // For ever.
            0 => u32::MAX.into(),
            time => time,
        };
        let until = now + Duration::from_secs(time);
        let Some((changed, ends)) = place.break_leases(flags.writable(), now, until) else {
            return Ok(());
        };
        if flags.contains(OpenFlags::NONBLOCK) {
            return Err(Errno::EAGAIN);
        }
        let change = futures_lite::future::or(changed.raised(), cx.hv.timers.until(ends));
        cx.until(change).await?;
    }
}
