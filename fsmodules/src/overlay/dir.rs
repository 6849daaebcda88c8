//! Listings of merged directories.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use super::node::{OverlayNode, is_impure, is_whiteout};
use crate::api::{Cx, DirEntry, Errno, File, FileKind, Name, Op, OpenFlags, Vnode, done};

/// `DT_CHR` and `DT_REG`, which a whiteout can be.
const MAYBE_WHITEOUT: [u8; 2] = [2, 8];
/// `DT_DIR` and `DT_REG`, which can have the number of the lower layer's.
const MAYBE_RENUMBERED: [u8; 2] = [4, 8];

pub struct OverlayDir {
    node: Rc<OverlayNode>,
    vnode: Rc<dyn Vnode>,
    /// What was there when it was last read from the start; cookies count its entries.
    entries: RefCell<Vec<DirEntry>>,
}

impl OverlayDir {
    pub fn new(node: Rc<OverlayNode>) -> OverlayDir {
        OverlayDir {
            vnode: node.clone(),
            node,
            entries: RefCell::default(),
        }
    }
}

/// All entries of a directory of a layer.
pub async fn list(cx: Cx<'_>, node: &Rc<dyn Vnode>) -> Result<Vec<DirEntry>, Errno> {
    let file = node.clone().open(cx, OpenFlags::DIRECTORY).await?;
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let some = file.readdir(cx, from, 32768).await?;
        let Some(last) = some.last() else { return Ok(all) };
        from = last.off;
        all.extend(some);
    }
}

impl OverlayNode {
    /// The names in it, with the number that each shows; neither "." nor "..".
    pub async fn merged(&self, cx: Cx<'_>) -> Result<Vec<DirEntry>, Errno> {
        let parts = self.parts.borrow().clone();
        let layers = parts.upper.iter().map(|upper| (0, upper));
        let layers: Vec<_> = layers
            .chain(parts.lower.iter().map(|(layer, node)| (*layer, node)))
            .collect();
        let renumbered = match &parts.upper {
            Some(upper) => !parts.lower.is_empty() || is_impure(cx, upper).await,
            None => false,
        };
        let mut merged: Vec<DirEntry> = Vec::new();
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        for (n, (layer, node)) in layers.iter().enumerate() {
            for mut entry in list(cx, node).await? {
                if matches!(&entry.name[..], b"." | b"..") || !seen.insert(entry.name.to_vec()) {
                    continue;
                }
                let name = Name::new(&entry.name)?;
                if self.shows_not(&name) {
                    continue;
                }
                // Marked files are whiteouts only in the upper layers of a merge, devices everywhere.
                let suspicious =
                    entry.kind == MAYBE_WHITEOUT[0] || entry.kind == MAYBE_WHITEOUT[1] && n + 1 < layers.len();
                if suspicious && is_whiteout(cx, &node.lookup(cx, &name).await?).await? {
                    continue;
                }
                entry.ino = if renumbered && *layer == 0 && MAYBE_RENUMBERED.contains(&entry.kind) {
                    self.child(cx, &name).await?.ino.get()
                } else {
                    self.fs.ino(*layer, entry.ino)
                };
                merged.push(entry);
            }
        }
        Ok(merged)
    }

    async fn listing(&self, cx: Cx<'_>) -> Result<Vec<DirEntry>, Errno> {
        let parent = self
            .place
            .borrow()
            .as_ref()
            .map_or(self.ino.get(), |(parent, _)| parent.ino.get());
        let dots = [(&b"."[..], self.ino.get()), (b"..", parent)].map(|(name, ino)| DirEntry {
            ino,
            off: 0,
            kind: FileKind::Directory.dirent_type(),
            name: name.into(),
        });
        let mut entries: Vec<DirEntry> = dots.into_iter().chain(self.merged(cx).await?).collect();
        for (n, entry) in entries.iter_mut().enumerate() {
            entry.off = n as u64 + 1;
        }
        Ok(entries)
    }
}

impl File for OverlayDir {
    fn vnode(&self) -> Option<&Rc<dyn Vnode>> {
        Some(&self.vnode)
    }
    fn readdir<'a>(&'a self, cx: Cx<'a>, from: u64, _room: usize) -> Op<'a, Vec<DirEntry>> {
        Box::pin(async move {
            if from == 0 {
                let entries = self.node.listing(cx).await?;
                self.entries.replace(entries);
            }
            Ok(self.entries.borrow().iter().skip(from as usize).cloned().collect())
        })
    }
    fn fsync<'a>(&'a self, _cx: Cx<'a>, _data_only: bool) -> Op<'a, ()> {
        done(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
