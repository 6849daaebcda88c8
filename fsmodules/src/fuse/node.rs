//! An inode and the names below it: what is known of a file without asking, and how it is refreshed
//! (`fs/fuse/inode.c`, `fs/fuse/dir.c`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use async_lock::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};
use bytes::Bytes;
use fuse_compat::kernel::{Client, Entry, Lookup, expiry};
use fuse_compat::wire::abi::{Attr, InitFlags, ROOT_ID};

use super::content::Content;
use super::fs::FuseFs;
use super::locks::LockTable;
use super::perm;
use crate::api::{Access, AttrMask, Cx, Errno, FileKind, FileSystem, Name, Time};

/// What writing back changes (`FUSE_STATX_MODIFY`).
pub const MODIFIED: AttrMask = AttrMask::MTIME.union(AttrMask::CTIME).union(AttrMask::BLOCKS);
/// What a write changes (`FUSE_STATX_MODSIZE`).
pub const DATA: AttrMask = MODIFIED.union(AttrMask::SIZE);
/// What permissions depend on.
pub const PERMISSIONS: AttrMask = AttrMask::MODE.union(AttrMask::UID).union(AttrMask::GID);

/// A name in a directory, as the last LOOKUP or READDIRPLUS has told.
struct KnownName {
    /// `None`: there is no such file.
    child: Option<Rc<Node>>,
    expires: Duration,
    epoch: u64,
    used: Cell<bool>,
}

/// The directory's names are read: together with others, or alone.
pub type NamesGuard<'a> = (Option<RwLockReadGuard<'a, ()>>, Option<RwLockWriteGuard<'a, ()>>);

pub struct Node {
    pub me: Weak<Node>,
    pub fs: Rc<FuseFs>,
    pub generation: u64,
    pub kind: FileKind,
    lookup: Lookup,
    bad: Cell<bool>,
    attr: Cell<Attr>,
    attr_expires: Cell<Duration>,
    attr_version: Cell<u64>,
    /// The server has yet to be told the times of change.
    pub times_dirty: Cell<bool>,
    /// What is to be asked anew, even where the rest is fresh (`inval_mask`).
    invalid: Cell<AttrMask>,
    /// The time of birth, if STATX has told it.
    pub btime: Cell<Option<Time>>,
    names: RefCell<HashMap<Name, KnownName>>,
    pub link: RefCell<Option<Bytes>>,
    /// READDIRPLUS would have paid: a child has been looked up since the last one.
    pub plus_useful: Cell<bool>,
    /// Held alone while names change, shared while they are read; without PARALLEL_DIROPS alone for that as well.
    pub names_lock: RwLock<()>,
    /// Held while size or content change (`inode_lock`).
    pub write_lock: async_lock::Mutex<()>,
    pub locks: LockTable,
    content: RefCell<Option<Rc<Content>>>,
    /// Open files that use the content.
    pub opened: Cell<u32>,
}

impl Node {
    pub fn new(fs: Rc<FuseFs>, lookup: Lookup, generation: u64, kind: FileKind, attr: Attr) -> Rc<Node> {
        Rc::new_cyclic(|me| Node {
            me: me.clone(),
            fs,
            generation,
            kind,
            lookup,
            bad: Cell::new(false),
            attr: Cell::new(attr),
            attr_expires: Cell::new(Duration::ZERO),
            attr_version: Cell::new(0),
            times_dirty: Cell::new(false),
            invalid: Cell::new(AttrMask::BTIME),
            btime: Cell::new(None),
            names: RefCell::default(),
            link: RefCell::default(),
            plus_useful: Cell::new(false),
            names_lock: RwLock::new(()),
            write_lock: async_lock::Mutex::new(()),
            locks: LockTable::default(),
            content: RefCell::default(),
            opened: Cell::new(0),
        })
    }

    pub fn this(&self) -> Rc<Node> {
        self.me
            .upgrade()
            .unwrap_or_else(|| unreachable!("borrowed, hence alive"))
    }

    pub fn nodeid(&self) -> u64 {
        self.lookup.nodeid()
    }

    pub fn absorb(&self, lookup: Lookup) {
        self.lookup.absorb(lookup);
    }

    /// The server contradicts itself about this file: nothing works on it any more.
    pub fn turn_bad(&self) {
        self.bad.set(true);
    }

    pub fn check(&self) -> Result<(), Errno> {
        if self.bad.get() { Err(Errno::EIO) } else { Ok(()) }
    }

    /// A reply gives it this mode: its type never changes.
    pub fn check_kind(&self, mode: u32) -> Result<(), Errno> {
        if FileKind::from_mode(mode) == Some(self.kind) {
            return Ok(());
        }
        self.turn_bad();
        Err(Errno::EIO)
    }

    // Attributes.

    /// What is known, however old.
    pub fn known(&self) -> Attr {
        self.attr.get()
    }

    pub fn set_known(&self, attr: Attr) {
        self.attr.set(attr);
    }

    /// Can these be told without asking?
    pub fn knows(&self, asked: AttrMask) -> bool {
        self.fs.now() < self.attr_expires.get() && !asked.intersects(self.invalid.get() - self.own())
    }

    /// These are to be asked anew (`fuse_invalidate_attr_mask`).
    pub fn invalidate(&self, changed: AttrMask) {
        self.invalid.set(self.invalid.get() | changed);
    }

    /// The server has told these.
    pub fn told(&self, told: AttrMask) {
        self.invalid.set(self.invalid.get() - told);
    }

    /// All are to be asked anew.
    pub fn expire(&self) {
        self.invalidate(AttrMask::BASIC);
    }

    /// A read has changed the time of access (`fuse_invalidate_atime`).
    pub fn accessed(&self) {
        if !self.fs.read_only {
            self.invalidate(AttrMask::ATIME);
        }
    }

    /// Takes the attributes of a reply, unless a change has overtaken it since `version` was noted.
    pub fn learn(&self, attr: Attr, expires: Duration, version: u64) {
        if self.attr_version.get() > version {
            return;
        }
        let attr = self.corrected(attr);
        let old = self.attr.replace(attr);
        self.attr_version.set(self.fs.next_attr_version());
        self.attr_expires.set(expires);
        self.told(AttrMask::BASIC);
        if let Some(content) = self.content().filter(|_| !self.owns_size()) {
            if old.size != attr.size {
                content.resize(attr.size);
                if !self.fs.negotiated(InitFlags::EXPLICIT_INVAL_DATA) {
                    content.invalidate(0..u64::MAX);
                }
            } else if self.fs.negotiated(InitFlags::AUTO_INVAL_DATA)
                && (old.mtime, old.mtimensec) != (attr.mtime, attr.mtimensec)
            {
                content.invalidate(0..u64::MAX);
            }
        }
    }

    /// As [`Node::learn`], but the change is ours: the content is right as it is.
    pub fn changed(&self, attr: Attr, expires: Duration) {
        self.attr.set(attr);
        self.attr_version.set(self.fs.next_attr_version());
        self.attr_expires.set(expires);
        if let Some(content) = self.content() {
            content.resize(attr.size);
        }
    }

    /// Somebody here has written up to `end`.
    pub fn grown_to(&self, end: u64) {
        self.resized(self.known().size.max(end));
    }

    /// Something here has changed its data, and this is its size now.
    pub fn resized(&self, size: u64) {
        let attr = Attr { size, ..self.known() };
        self.changed(attr, self.attr_expires.get());
        self.invalidate(DATA);
    }

    /// It has been written to up to there, of which the server has yet to hear.
    pub fn wrote_until(&self, size: u64) {
        self.attr.set(Attr { size, ..self.known() });
    }

    /// One name less.
    pub fn unlinked(&self) {
        let mut attr = self.known();
        attr.nlink = match self.kind {
            FileKind::Directory => 0,
            _ => attr.nlink.saturating_sub(1),
        };
        self.changed(attr, self.attr_expires.get());
    }

    /// The server has delivered less than the known size promised (`fuse_read_update_size`).
    pub fn shrunk_to(&self, size: u64, version: u64) {
        let mut attr = self.attr.get();
        if self.attr_version.get() <= version && size < attr.size {
            attr.size = size;
            self.changed(attr, self.attr_expires.get());
        }
    }

    /// Asks for the attributes.
    pub async fn refresh(&self, client: &dyn Client, fh: Option<u64>) -> Result<Attr, Errno> {
        self.check()?;
        let version = self.fs.attr_version();
        let out = self.fs.connection.by(client).getattr(self.nodeid(), fh).await?;
        self.check_kind(out.attr.mode)?;
        self.learn(
            out.attr,
            expiry(self.fs.now(), out.attr_valid, out.attr_valid_nsec),
            version,
        );
        Ok(self.corrected(out.attr))
    }

    /// Attributes of which these are valid, asked for if need be.
    pub async fn valid(&self, client: &dyn Client, fh: Option<u64>, asked: AttrMask) -> Result<Attr, Errno> {
        self.check()?;
        if self.knows(asked) {
            Ok(self.known())
        } else {
            self.refresh(client, fh).await
        }
    }

    // Permissions.

    /// `fuse_permission`
    pub async fn may(&self, cx: Cx<'_>, mask: Access) -> Result<(), Errno> {
        self.fs.permits(cx)?;
        let test = |attr: &Attr| match self.fs.options.default_permissions {
            true => perm::allows(cx.caller.ids(), attr, mask),
            false => attr.mode & 0o111 != 0,
        };
        let concerned =
            self.fs.options.default_permissions || mask.contains(Access::EXECUTE) && self.kind == FileKind::Regular;
        if !concerned {
            return self.check();
        }
        let was_fresh = self.knows(PERMISSIONS);
        let mut allowed = test(&self.valid(cx.caller, None, PERMISSIONS).await?);
        if !allowed && was_fresh {
            allowed = test(&self.refresh(cx.caller, None).await?);
        }
        if allowed { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// May names be added to or removed from this directory?
    pub async fn may_change_names(&self, cx: Cx<'_>) -> Result<(), Errno> {
        self.may(cx, Access::WRITE | Access::EXECUTE).await
    }

    // Names.

    /// `Some(Some(node))` is a file, `Some(None)` is known not to exist.
    fn known_name(&self, name: &Name) -> Option<Option<Rc<Node>>> {
        let names = self.names.borrow();
        let known = names.get(name)?;
        let bad = known.child.as_ref().is_some_and(|child| child.check().is_err());
        if bad || known.epoch != self.fs.epoch.get() || self.fs.now() >= known.expires {
            return None;
        }
        known.used.set(true);
        Some(known.child.clone())
    }

    pub fn remember(&self, name: &Name, child: Option<Rc<Node>>, expires: Duration) {
        let known = KnownName {
            child,
            expires,
            epoch: self.fs.epoch.get(),
            used: Cell::new(false),
        };
        let before = self.names.borrow_mut().insert(name.clone(), known);
        if before.is_none() {
            self.fs.name_remembered(self, name);
        }
        // Dropped only now: a dying child sends FORGET.
        drop(before);
    }

    /// Nobody changes names of this directory as long as this lives.
    pub async fn reading_names(&self) -> NamesGuard<'_> {
        match self.fs.negotiated(InitFlags::PARALLEL_DIROPS) {
            true => (Some(self.names_lock.read().await), None),
            false => (None, Some(self.names_lock.write().await)),
        }
    }

    /// Has the last reply that spoke of this name given it to a file?
    pub fn is_named(&self, name: &Name) -> bool {
        self.names.borrow().get(name).is_some_and(|known| known.child.is_some())
    }

    /// Forgets a name. Gives what it was.
    pub fn forget_name(&self, name: &Name) -> Option<Rc<Node>> {
        let known = self.names.borrow_mut().remove(name);
        known.and_then(|known| known.child)
    }

    pub fn forget_names(&self) {
        let names = self.names.take();
        drop(names);
    }

    /// Was the name used since this was asked last? If not, it is forgotten.
    pub fn spare_used(&self, name: &Name) -> bool {
        let used = self.names.borrow().get(name).map(|known| known.used.replace(false));
        if used == Some(false) {
            self.forget_name(name);
        }
        used == Some(true)
    }

    /// A name moves here with its time of validity.
    pub fn take_name(&self, name: &Name) -> Option<(Option<Rc<Node>>, Duration)> {
        let known = self.names.borrow_mut().remove(name)?;
        Some((known.child, known.expires))
    }

    /// What is known of the name is to be confirmed.
    pub fn doubt_name(&self, name: &Name) {
        if let Some(known) = self.names.borrow_mut().get_mut(name) {
            known.expires = Duration::ZERO;
        }
    }

    /// NOTIFY_INVAL_ENTRY and NOTIFY_DELETE.
    pub fn drop_name(&self, name: &Name, child: Option<u64>, expire_only: bool) -> Result<(), Errno> {
        self.expire();
        let known = self.names.borrow_mut().remove(name).ok_or(Errno::ENOENT)?;
        if let Some(child) = child
            && known.child.as_ref().is_none_or(|node| node.nodeid() != child)
        {
            self.names.borrow_mut().insert(name.clone(), known);
            return Err(Errno::ENOENT);
        }
        if let Some(node) = &known.child {
            node.expire();
        }
        if expire_only {
            self.names.borrow_mut().insert(
                name.clone(),
                KnownName {
                    expires: Duration::ZERO,
                    ..known
                },
            );
        }
        Ok(())
    }

    /// Forgets the names of these nodes.
    pub fn prune(&self, nodes: &[u64]) {
        let unwanted = |known: &KnownName| known.child.as_ref().is_some_and(|node| nodes.contains(&node.nodeid()));
        let pruned: Vec<_> = self.names.borrow_mut().extract_if(|_, known| unwanted(known)).collect();
        drop(pruned);
    }

    /// The file with this name, from memory or by LOOKUP.
    pub async fn child(&self, cx: Cx<'_>, name: &Name) -> Result<Rc<Node>, Errno> {
        self.check()?;
        check_name(name)?;
        if let Some(known) = self.known_name(name) {
            self.plus_useful.set(true);
            return known.ok_or(Errno::ENOENT);
        }
        let _unchanged = self.reading_names().await;
        // Somebody may have asked for it meanwhile.
        if let Some(known) = self.known_name(name) {
            return known.ok_or(Errno::ENOENT);
        }
        self.plus_useful.set(true);
        let version = self.fs.attr_version();
        match self
            .fs
            .connection
            .by(cx.caller)
            .lookup(self.nodeid(), name.as_bytes())
            .await
        {
            Ok(Ok(entry)) => self.adopt_child(name, entry, version),
            Ok(Err(negative)) => {
                let expires = expiry(self.fs.now(), negative.entry_valid, negative.entry_valid_nsec);
                self.remember(name, None, expires);
                Err(Errno::ENOENT)
            }
            Err(errno) => {
                self.forget_name(name);
                Err(errno)
            }
        }
    }

    /// A reply has told who bears this name.
    pub fn adopt_child(&self, name: &Name, entry: Entry, version: u64) -> Result<Rc<Node>, Errno> {
        let expires = expiry(self.fs.now(), entry.out.entry_valid, entry.out.entry_valid_nsec);
        let node = self.fs.adopt(entry, version)?;
        if node.nodeid() == self.nodeid() {
            return Err(Errno::ELOOP);
        }
        self.remember(name, Some(node.clone()), expires);
        Ok(node)
    }

    // Content.

    pub fn content(&self) -> Option<Rc<Content>> {
        self.content.borrow().clone()
    }

    /// The page cache, made now if there is none.
    pub fn make_content(&self) -> Result<Rc<Content>, Errno> {
        if let Some(content) = self.content() {
            return Ok(content);
        }
        let content = Rc::new(Content::new(self.known().size)?);
        self.content.replace(Some(content.clone()));
        Ok(content)
    }

    pub fn drop_content_if_closed(&self) {
        if self.opened.get() == 0 {
            self.content.replace(None);
        }
    }

    /// An open file is gone, with all its mappings. `keep`: the content may serve the next one.
    pub fn closed(self: &Rc<Self>, keep: bool) {
        self.opened.set(self.opened.get().saturating_sub(1));
        let Some(content) = self.content().filter(|_| self.opened.get() == 0) else {
            return;
        };
        content.unshare();
        match keep && self.known().nlink > 0 {
            true => self.fs.keep_closed(self.clone()),
            false => self.drop_content_if_closed(),
        }
    }

    /// Writes back changed data. Who waits for it may be killed: it goes on.
    pub async fn write_back_data(&self) -> Result<(), Errno> {
        let Some(content) = self.content().filter(|content| content.is_changed(self)) else {
            return Ok(());
        };
        let (node, result) = (self.this(), Rc::new(OnceCell::new()));
        let told = result.clone();
        self.fs.host.spawn(Box::pin(async move {
            // Nobody else sets it.
            let _ = told.set(content.write_back(&node).await).await;
        }));
        *result.wait().await
    }

    /// Writes back data and times.
    pub async fn write_back(&self, client: &dyn Client) -> Result<(), Errno> {
        let written = self.write_back_data().await;
        written.and(self.write_times(client).await)
    }

    /// Writes back data and times for who is to hear of earlier failures, too (`write_inode_now`).
    pub async fn settle(&self, client: &dyn Client) -> Result<(), Errno> {
        let _ = self.write_back_data().await;
        let stamped = self.write_times(client).await;
        let failed = self.content().map_or(Ok(()), |content| content.failure.tell());
        stamped.and(failed)
    }

    /// NOTIFY_INVAL_INODE
    pub fn invalidated(&self, off: i64, len: i64) {
        self.expire();
        self.attr_version.set(self.fs.next_attr_version());
        self.link.replace(None);
        if let (Some(content), Ok(start)) = (self.content(), u64::try_from(off)) {
            let end = if len <= 0 {
                u64::MAX
            } else {
                start.saturating_add(len as u64)
            };
            content.invalidate(start..end);
        }
    }

    /// NOTIFY_STORE
    pub fn store(self: &Rc<Self>, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|&end| end <= i64::MAX as u64)
            .ok_or(Errno::EINVAL)?;
        let content = self.make_content()?;
        if end > self.known().size {
            let mut attr = self.known();
            attr.size = end;
            self.changed(attr, self.attr_expires.get());
        }
        content.store(offset, data, self.known().size)?;
        if self.opened.get() == 0 {
            self.fs.keep_closed(self.clone());
        }
        Ok(())
    }

    /// NOTIFY_RETRIEVE: what is cached from there on without a gap.
    pub fn retrieve(&self, offset: u64, size: u32) -> Bytes {
        let most = size.min(self.fs.connection.max_write());
        let end = offset.saturating_add(most.into()).min(self.known().size);
        self.content()
            .map_or(Bytes::new(), |content| content.cached(offset..end))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.fs.gone(self.lookup.nodeid());
        debug_assert!(self.lookup.nodeid() >= ROOT_ID);
    }
}

/// Names that are too long are refused without asking.
pub fn check_name(name: &Name) -> Result<(), Errno> {
    if name.as_bytes().len() > fuse_compat::wire::abi::MAX_NAME {
        Err(Errno::ENAMETOOLONG)
    } else {
        Ok(())
    }
}
