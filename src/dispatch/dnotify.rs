//! dnotify (`F_NOTIFY`): signals that tell of changes in a directory.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use fsmodules::api::{Errno, FileKind, Name};

use crate::task::OpenFile;
use crate::trap::{FileOwner, Happening};
use crate::view::{Events, Listener, Watch};

use super::settings::setting;
use super::{Ctx, signals};

const DN_MULTISHOT: u32 = 0x8000_0000;

/// What each `DN_*` means (`convert_arg` of fs/notify/dnotify).
const MEANINGS: [(u32, Events); 6] = [
    (0x01, Events::ACCESS),
    (0x02, Events::MODIFY),
    (0x04, Events::CREATE.union(Events::MOVED_TO)),
    (0x08, Events::DELETE.union(Events::MOVED_FROM)),
    (0x10, Events::RENAME),
    (0x20, Events::ATTRIB),
];

/// The session's.
#[derive(Default)]
pub struct Notified(RefCell<Vec<Rc<Registration>>>);

/// What a process wants to hear by one open directory.
struct Registration {
    /// The descriptor table and the open file description.
    of: (u64, u64),
    descriptor: Cell<i32>,
    owner: Rc<FileOwner>,
    watch: Rc<Watch>,
    ended: Cell<bool>,
}

impl Listener for Registration {
    fn hear(&self, _watch: &Watch, events: Events, _cookie: u32, _name: Option<&Name>) {
        if !events.contains(Events::UNMOUNT) {
            self.owner.tell(self.descriptor.get(), Happening::Message);
        }
    }

    fn ended(&self, _watch: &Watch) {
        self.ended.set(true);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.watch.remove();
    }
}

impl Notified {
    /// A descriptor of this description is closed in this table: what was wanted by it there is over.
    pub fn close(&self, files: u64, open: u64) {
        self.0
            .borrow_mut()
            .retain(|known| known.of != (files, open) && !known.ended.get());
    }
}

/// `F_NOTIFY`
pub fn notify(cx: &Ctx, open: &OpenFile, descriptor: i32, wanted: u32) -> Result<(), Errno> {
    // Without leases there are no signals.
    if ["dir-notify-enable", "leases-enable"]
        .iter()
        .any(|name| setting(name) != Some(1))
    {
        return Err(Errno::EINVAL);
    }
    let of = (cx.task.files().id, open.id);
    if wanted & !DN_MULTISHOT == 0 {
        cx.hv.dnotify.close(of.0, of.1);
        return Ok(());
    }
    if open.place.node().kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    let owner = open.owner()?;
    signals::own_by_default(cx, &owner)?;
    let meant = MEANINGS.iter().filter(|(bit, _)| wanted & bit != 0);
    let events = meant.fold(Events::empty(), |all, (_, events)| all | *events);
    let once = wanted & DN_MULTISHOT == 0;
    let mut all = cx.hv.dnotify.0.borrow_mut();
    all.retain(|known| !known.ended.get());
    if let Some(known) = all.iter().find(|known| known.of == of) {
        known.descriptor.set(descriptor);
        let watch = &known.watch;
        watch.set(events | watch.wanted(), once && watch.is_once(), false);
        return Ok(());
    }
    let made = Rc::new_cyclic(|me: &Weak<Registration>| Registration {
        of,
        descriptor: Cell::new(descriptor),
        owner,
        watch: Watch::new(0, &open.place, me.clone()),
        ended: Cell::new(false),
    });
    made.watch.set(events, once, false);
    all.push(made);
    Ok(())
}
