//! What a server says unasked (`fs/fuse/dev.c`, `fuse_notify`). Acted on at once, never waiting.

use fuse_compat::kernel::Listener;
use fuse_compat::wire::Notification;

use super::fs::FuseFs;
use crate::api::{Errno, FileKind, Name};

impl Listener for FuseFs {
    fn notified(&self, notification: Notification) -> Result<(), Errno> {
        let node = |id| self.node(id).ok_or(Errno::ENOENT);
        match notification {
            Notification::Poll { kh } => {
                let file = self.polled.borrow().get(&kh).and_then(|file| file.upgrade());
                if let Some(file) = file {
                    file.readiness_changed();
                }
            }
            Notification::InvalInode { node: id, off, len } => node(id)?.invalidated(off, len),
            Notification::InvalEntry {
                parent,
                name,
                expire_only,
            } => {
                node(parent)?.drop_name(&Name::new(&name)?, None, expire_only)?;
            }
            Notification::Delete { parent, child, name } => {
                node(parent)?.drop_name(&Name::new(&name)?, Some(child), false)?;
            }
            Notification::Store { node: id, offset, data } => {
                let node = node(id)?;
                if node.kind != FileKind::Regular {
                    return Err(Errno::EINVAL);
                }
                node.store(offset, &data)?;
            }
            Notification::Retrieve {
                unique,
                node: id,
                offset,
                size,
            } => {
                let node = node(id)?;
                if node.kind != FileKind::Regular {
                    return Err(Errno::EINVAL);
                }
                self.connection
                    .retrieved(unique, id, offset, node.retrieve(offset, size))?;
            }
            Notification::IncEpoch => self.epoch.set(self.epoch.get() + 1),
            Notification::Prune { nodes } => self.prune(&nodes),
        }
        Ok(())
    }
}
