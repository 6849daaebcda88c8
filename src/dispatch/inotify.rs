//! inotify(7). A guest's instance is umvu's: it hears of virtual files from the view, and of the host's from an
//! instance of the kernel's that umvu keeps for it.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use fsmodules::api::{
    Access, Attr, AttrQuery, Backing, Chunks, Cx, Errno, File, FileKind, Name, Op, OpenFlags, Readiness, Vnode, done,
    errno,
};
use rustix::event::epoll;
use rustix::fs::inotify;

use crate::task::OpenFile;
use crate::trap::{FileOwner, Happening, Reply};
use crate::view::{Events, Listener, Place, VirtualPlace, WalkFlags, Watch};

use super::Ctx;
use super::context::{CWD, host_file};
use super::install::install;
use super::settings::setting;

const IN_ONLYDIR: u32 = 0x0100_0000;
const IN_DONT_FOLLOW: u32 = 0x0200_0000;
const IN_EXCL_UNLINK: u32 = 0x0400_0000;
const IN_MASK_CREATE: u32 = 0x1000_0000;
const IN_MASK_ADD: u32 = 0x2000_0000;
const IN_ONESHOT: u32 = 0x8000_0000;
/// `IN_ALL_EVENTS`
const ALL_EVENTS: u32 = 0xfff;
/// `ALL_INOTIFY_BITS`
const ALL_BITS: u32 =
    Events::all().bits() | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_CREATE | IN_MASK_ADD | IN_ONESHOT;

/// `sizeof(struct inotify_event)`, and what names are filled up to a multiple of.
const HEADER: usize = 16;

/// The session's instances.
#[derive(Default)]
pub struct Instances {
    all: RefCell<Vec<Weak<Instance>>>,
    /// Readable when the kernel has events for one of them.
    kernel: OnceCell<OwnedFd>,
    /// Where their descriptors lead.
    place: OnceCell<VirtualPlace>,
}

impl Instances {
    /// To be waited for.
    pub fn kernel(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.get().map(|fd| fd.as_fd())
    }

    /// Takes the kernel's events.
    pub fn take_events(&self) {
        let all: Vec<_> = self.all.borrow().iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|instance| instance.take_events());
    }

    fn make(&self, flags: OpenFlags) -> Result<Rc<Instance>, Errno> {
        let mut all = self.all.borrow_mut();
        all.retain(|instance| instance.strong_count() > 0);
        if all.len() >= limit("max_user_instances") {
            return Err(Errno::EMFILE);
        }
        let instance = Rc::new_cyclic(|me| Instance {
            me: me.clone(),
            flags: Cell::new(flags),
            most: limit("max_queued_events"),
            kernel: OnceCell::new(),
            last: Cell::new(0),
            watches: RefCell::default(),
            queue: RefCell::default(),
            wakers: RefCell::default(),
            told: RefCell::default(),
        });
        all.push(Rc::downgrade(&instance));
        Ok(instance)
    }

    /// An instance of the kernel's, of whose events [`Instances::kernel`] tells.
    fn make_kernels(&self) -> Result<OwnedFd, Errno> {
        if self.kernel.get().is_none() {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(errno)?;
            // Nobody else has set it in between.
            let _ = self.kernel.set(epoll);
        }
        let instance = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(errno)?;
        if let Some(kernel) = self.kernel.get() {
            epoll::add(kernel, &instance, epoll::EventData::new_u64(0), epoll::EventFlags::IN).map_err(errno)?;
        }
        Ok(instance)
    }
}

/// One of the host's limits (`/proc/sys/fs/inotify`).
fn limit(name: &str) -> usize {
    setting(&format!("inotify/{name}")).map_or(128, |limit| limit as usize)
}

/// What a watch is of.
enum Watched {
    Virtual(Rc<Watch>),
    /// A file of the host: the kernel's number for it.
    Host(i32),
}

#[derive(PartialEq, Eq)]
struct Event {
    watch: i32,
    events: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    fn padded_name(&self) -> usize {
        match self.name.len() {
            0 => 0,
            // At least one NUL.
            len => (len + 1).next_multiple_of(HEADER),
        }
    }

    fn len(&self) -> usize {
        HEADER + self.padded_name()
    }

    fn put(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.len();
        let name = self.padded_name() as u32;
        for word in [self.watch as u32, self.events, self.cookie, name] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&self.name);
        out.resize(end, 0);
    }

    /// As the kernel's `event_compare`: not told twice in a row.
    fn repeats(&self, last: &Event) -> bool {
        last.events & Events::IGNORED.bits() == 0
            && (self.watch, self.events, &self.name) == (last.watch, last.events, &last.name)
    }
}

/// An instance, as `inotify_init(2)` makes it.
pub struct Instance {
    me: Weak<Instance>,
    flags: Cell<OpenFlags>,
    /// More events than that are not kept.
    most: usize,
    /// For files of the host, once there are any.
    kernel: OnceCell<OwnedFd>,
    /// The number that was given out last.
    last: Cell<i32>,
    watches: RefCell<BTreeMap<i32, Watched>>,
    queue: RefCell<VecDeque<Event>>,
    wakers: RefCell<Vec<Waker>>,
    /// Who hears of each event by a signal (`O_ASYNC`), and of which descriptor.
    told: RefCell<Option<(Rc<FileOwner>, i32)>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        for watched in self.watches.get_mut().values() {
            if let Watched::Virtual(watch) = watched {
                watch.remove();
            }
        }
    }
}

impl Instance {
    fn push(&self, event: Event) {
        let mut queue = self.queue.borrow_mut();
        if queue.back().is_some_and(|last| event.repeats(last)) {
            return;
        }
        match queue.len().cmp(&self.most) {
            Ordering::Less => queue.push_back(event),
            Ordering::Equal => queue.push_back(Event {
                watch: -1,
                events: Events::Q_OVERFLOW.bits(),
                cookie: 0,
                name: Vec::new(),
            }),
            Ordering::Greater => return,
        }
        drop(queue);
        for waker in self.wakers.take() {
            waker.wake();
        }
        if let Some((owner, descriptor)) = &*self.told.borrow() {
            owner.tell(*descriptor, Happening::Input);
        }
    }

    /// From now on this owner hears of each event, or nobody.
    pub fn set_async(&self, owner: Option<Rc<FileOwner>>, descriptor: i32) {
        self.told.replace(owner.map(|owner| (owner, descriptor)));
    }

    fn next_id(&self) -> i32 {
        let mut id = self.last.get();
        let watches = self.watches.borrow();
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if !watches.contains_key(&id) {
                self.last.set(id);
                return id;
            }
        }
    }

    /// The events that fit, in the form in which read(2) gives them; `None` if there is none.
    fn take(&self, room: usize) -> Result<Option<Vec<u8>>, Errno> {
        let mut queue = self.queue.borrow_mut();
        let mut out = Vec::new();
        while let Some(event) = queue.front() {
            if out.len() + event.len() > room {
                if out.is_empty() {
                    return Err(Errno::EINVAL);
                }
                break;
            }
            event.put(&mut out);
            queue.pop_front();
        }
        Ok((!out.is_empty()).then_some(out))
    }

    /// Its watches of virtual files.
    pub fn watched(&self) -> Vec<Rc<Watch>> {
        let watches = self.watches.borrow();
        let of_view = watches.values().filter_map(|watched| match watched {
            Watched::Virtual(watch) => Some(watch.clone()),
            Watched::Host(_) => None,
        });
        of_view.collect()
    }

    /// Its watches of the host's files, as the kernel lists them, with its numbers for them.
    pub fn watched_on_host(&self) -> String {
        let Some(kernel) = self.kernel.get() else {
            return String::new();
        };
        let listed = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", kernel.as_raw_fd())).unwrap_or_default();
        let own = |line: &str| {
            let (number, rest) = line.strip_prefix("inotify wd:")?.split_once(' ')?;
            let id = self.of_host(i32::from_str_radix(number, 16).ok()?)?;
            Some(format!("inotify wd:{id:x} {rest}\n"))
        };
        listed.lines().filter_map(own).collect()
    }

    /// How much read(2) would give (`FIONREAD`).
    pub fn waiting(&self) -> usize {
        self.take_events();
        self.queue.borrow().iter().map(Event::len).sum()
    }

    /// Takes what the kernel has to say of the host's files.
    fn take_events(&self) {
        let Some(kernel) = self.kernel.get() else { return };
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(kernel, &mut space);
        while let Ok(event) = reader.next() {
            let events = event.events().bits();
            let watch = self.of_host(event.wd());
            if events & Events::Q_OVERFLOW.bits() == 0 && watch.is_none() {
                continue;
            }
            if events & Events::IGNORED.bits() != 0 {
                watch.map(|watch| self.watches.borrow_mut().remove(&watch));
            }
            self.push(Event {
                watch: watch.unwrap_or(-1),
                events,
                cookie: event.cookie(),
                name: event
                    .file_name()
                    .map(|name| name.to_bytes().to_vec())
                    .unwrap_or_default(),
            });
        }
    }

    fn of_host(&self, number: i32) -> Option<i32> {
        let watches = self.watches.borrow();
        let known = |watched: &Watched| matches!(watched, Watched::Host(known) if *known == number);
        watches
            .iter()
            .find(|(_, watched)| known(watched))
            .map(|(watch, _)| *watch)
    }

    fn watch_host(&self, cx: &Ctx, path: &[u8], mask: u32) -> Result<i32, Errno> {
        let kernel = match self.kernel.get() {
            Some(kernel) => kernel,
            None => {
                let made = cx.hv.inotify.make_kernels()?;
                self.kernel.get_or_init(|| made)
            }
        };
        let flags = inotify::WatchFlags::from_bits_retain(mask | IN_DONT_FOLLOW);
        let number = inotify::add_watch(kernel, path, flags).map_err(errno)?;
        // What is still to be told is of an earlier watch, if the number has been used before.
        self.take_events();
        if let Some(watch) = self.of_host(number) {
            return Ok(watch);
        }
        let id = self.next_id();
        self.watches.borrow_mut().insert(id, Watched::Host(number));
        Ok(id)
    }

    fn watch(&self, place: &VirtualPlace, mask: u32) -> Result<i32, Errno> {
        let known = self.watches.borrow().values().find_map(|watched| match watched {
            Watched::Virtual(watch) if watch.is_of(place) => Some(watch.clone()),
            _ => None,
        });
        if known.is_some() && mask & IN_MASK_CREATE != 0 {
            return Err(Errno::EEXIST);
        }
        let wanted = Events::from_bits_truncate(mask & ALL_EVENTS);
        let (watch, before) = match known {
            Some(watch) if mask & IN_MASK_ADD != 0 => (watch.clone(), watch.wanted()),
            Some(watch) => (watch, Events::empty()),
            None => {
                if self.watches.borrow().len() >= limit("max_user_watches") {
                    return Err(Errno::ENOSPC);
                }
                let listener: Weak<dyn Listener> = self.me.clone();
                let watch = Watch::new(self.next_id(), place, listener);
                let added = Watched::Virtual(watch.clone());
                self.watches.borrow_mut().insert(watch.id, added);
                (watch, Events::empty())
            }
        };
        watch.set(wanted | before, mask & IN_ONESHOT != 0, mask & IN_EXCL_UNLINK != 0);
        Ok(watch.id)
    }

    fn unwatch(&self, id: i32) -> Result<(), Errno> {
        let watches = self.watches.borrow();
        match watches.get(&id).ok_or(Errno::EINVAL)? {
            Watched::Host(number) => {
                let Some(kernel) = self.kernel.get() else { return Ok(()) };
                // Its last event, which it has from the kernel, ends it.
                inotify::remove_watch(kernel, *number).map_err(errno)
            }
            Watched::Virtual(watch) => {
                let watch = watch.clone();
                drop(watches);
                watch.remove();
                self.ended(&watch);
                Ok(())
            }
        }
    }

    async fn next_events(&self, cx: Cx<'_>, room: usize) -> Result<Chunks, Errno> {
        poll_fn(|context| {
            self.take_events();
            match self.take(room) {
                Ok(Some(events)) => return Poll::Ready(Ok(std::iter::once(events.into()).collect())),
                Ok(None) => {}
                Err(errno) => return Poll::Ready(Err(errno)),
            }
            if self.flags.get().contains(OpenFlags::NONBLOCK) {
                return Poll::Ready(Err(Errno::EAGAIN));
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            cx.caller.poll_signal(context).map(|()| Err(Errno::ERESTARTSYS))
        })
        .await
    }
}

impl Listener for Instance {
    fn hear(&self, watch: &Watch, events: Events, cookie: u32, name: Option<&Name>) {
        // What the kernel has to tell was before.
        self.take_events();
        let told = if events.intersects(Events::DELETE_SELF | Events::MOVE_SELF) {
            events - Events::ISDIR
        } else {
            events
        };
        self.push(Event {
            watch: watch.id,
            events: told.bits(),
            cookie,
            name: name.map(|name| name.as_bytes().to_vec()).unwrap_or_default(),
        });
    }

    fn ended(&self, watch: &Watch) {
        self.watches.borrow_mut().remove(&watch.id);
        self.push(Event {
            watch: watch.id,
            events: Events::IGNORED.bits(),
            cookie: 0,
            name: Vec::new(),
        });
    }
}

impl File for Instance {
    fn backing(&self) -> Backing<'_> {
        Backing::Stream
    }

    fn seekable(&self) -> bool {
        false
    }

    fn set_flags(&self, flags: OpenFlags) {
        self.flags.set(flags);
    }

    fn read<'a>(&'a self, cx: Cx<'a>, _at: u64, len: usize) -> Op<'a, Chunks> {
        Box::pin(self.next_events(cx, len))
    }

    fn ready(&self, waker: Option<&Waker>) -> Readiness {
        self.wakers.borrow_mut().extend(waker.cloned());
        match self.queue.borrow().is_empty() {
            true => Readiness::empty(),
            false => Readiness::IN,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What fstat(2) finds behind an instance (the kernel's `anon_inode`).
struct Nameless;

impl Vnode for Nameless {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn id(&self) -> u64 {
        1
    }

    fn attr<'a>(&'a self, _cx: Cx<'a>, _query: AttrQuery) -> Op<'a, Attr> {
        done(Attr {
            ino: 1,
            mode: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: Default::default(),
            mtime: Default::default(),
            ctime: Default::default(),
            btime: None,
        })
    }
}

/// What `/proc/PID/fd` shows of an instance.
const LINK: &[u8] = b"anon_inode:inotify";

/// The link of a descriptor, if it is of an instance.
pub fn link_text(place: &VirtualPlace) -> Option<&'static [u8]> {
    place.node().as_any().is::<Nameless>().then_some(LINK)
}

/// What a watch was asked for.
pub fn mask(watch: &Watch) -> u32 {
    let mut mask = watch.wanted().bits() & ALL_EVENTS;
    mask |= if watch.is_once() { IN_ONESHOT } else { 0 };
    mask | if watch.is_only_named() { IN_EXCL_UNLINK } else { 0 }
}

/// The instance behind an open file.
pub fn instance(open: &OpenFile) -> Option<&Instance> {
    open.file.as_ref()?.as_any().downcast_ref()
}

/// inotify_init(2) and inotify_init1(2).
pub async fn inotify_init(cx: &Ctx) -> Result<Reply, Errno> {
    let asked = match i64::from(cx.call.nr) {
        libc::SYS_inotify_init1 => OpenFlags::from_bits_retain(cx.int(0)),
        _ => OpenFlags::empty(),
    };
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(asked) {
        return Err(Errno::EINVAL);
    }
    let instances = &cx.hv.inotify;
    let instance = instances.make(asked)?;
    let place = instances
        .place
        .get_or_init(|| cx.hv.mounts.place_nowhere(Rc::new(Nameless)));
    install(cx, OpenFile::new(Some(instance), place.clone(), asked)).await
}

/// inotify_add_watch(2): (instance, path, mask).
pub async fn inotify_add_watch(cx: &Ctx) -> Result<Reply, Errno> {
    let mask = cx.int(2);
    if mask & !ALL_BITS != 0 || mask & ALL_BITS == 0 {
        return Err(Errno::EINVAL);
    }
    let Some(open) = cx.open_file(cx.fd(0)) else {
        // At most an instance from outside the view, which hears of the host only.
        let link = cx
            .task
            .look_at_fd(cx.fd(0), std::fs::read_link)
            .map_err(|_| Errno::EBADF)?;
        return match link.as_os_str().as_bytes() == LINK {
            true => cx.elsewhere().await,
            false => Err(Errno::EINVAL),
        };
    };
    let instance = instance(&open).ok_or(Errno::EINVAL)?;
    if mask & IN_MASK_ADD != 0 && mask & IN_MASK_CREATE != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = mask & IN_DONT_FOLLOW == 0;
    let flags = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
    let found = cx.walk(CWD, &cx.path(1)?, flags).await?;
    if let Some(Place::Virtual(place)) = &found.place {
        cx.answered(place);
        if (mask & IN_ONLYDIR != 0 || found.slash) && place.node().kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        place.node().permission(cx.cx(), Access::READ).await?;
        return Ok(Reply::Return(instance.watch(place, mask)?.into()));
    }
    let file = host_file(&found).ok_or(Errno::ENOENT)?;
    Ok(Reply::Return(instance.watch_host(cx, &file.path, mask)?.into()))
}

/// inotify_rm_watch(2): (instance, watch).
pub async fn inotify_rm_watch(cx: &Ctx) -> Result<Reply, Errno> {
    let Some(open) = cx.open_file(cx.fd(0)) else {
        return Ok(Reply::Passthrough);
    };
    let instance = instance(&open).ok_or(Errno::EINVAL)?;
    instance.unwatch(cx.fd(1))?;
    super::stream::refresh(&open);
    Ok(Reply::Return(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(watch: i32, events: Events, name: &str) -> Event {
        Event {
            watch,
            events: events.bits(),
            cookie: 0,
            name: name.into(),
        }
    }

    fn instance(most: usize) -> Rc<Instance> {
        Rc::new_cyclic(|me| Instance {
            me: me.clone(),
            flags: Cell::new(OpenFlags::empty()),
            most,
            kernel: OnceCell::new(),
            last: Cell::new(0),
            watches: RefCell::default(),
            queue: RefCell::default(),
            wakers: RefCell::default(),
            told: RefCell::default(),
        })
    }

    #[test]
    fn events_have_the_kernels_form() {
        let mut out = Vec::new();
        event(3, Events::CREATE, "name").put(&mut out);
        event(1, Events::OPEN, "").put(&mut out);
        event(1, Events::OPEN, "sixteen_letters_").put(&mut out);
        assert_eq!(out.len(), 32 + 16 + 48);
        assert_eq!(out[..4], 3i32.to_ne_bytes());
        assert_eq!(out[12..16], 16u32.to_ne_bytes());
        assert_eq!(out[16..22], *b"name\0\0");
        assert_eq!(out[44..48], 0u32.to_ne_bytes());
    }

    #[test]
    fn only_whole_events_are_read() {
        let instance = instance(10);
        instance.push(event(1, Events::CREATE, "a"));
        instance.push(event(1, Events::DELETE, "a"));
        assert_eq!(instance.take(31), Err(Errno::EINVAL));
        assert_eq!(instance.take(63).map(|got| got.map(|got| got.len())), Ok(Some(32)));
        assert_eq!(instance.waiting(), 32);
        assert_eq!(instance.take(64).map(|got| got.map(|got| got.len())), Ok(Some(32)));
        assert_eq!(instance.take(64), Ok(None));
    }

    #[test]
    fn what_repeats_is_told_once_and_too_much_not_at_all() {
        let instance = instance(3);
        for n in 0..10 {
            instance.push(event(1, Events::MODIFY, "a"));
            instance.push(event(1, Events::MODIFY, "a"));
            instance.push(event(1, Events::IGNORED, ""));
            instance.push(event(n, Events::IGNORED, ""));
        }
        let queue = instance.queue.borrow();
        assert_eq!(queue.len(), 4);
        assert_eq!((queue[3].watch, queue[3].events), (-1, Events::Q_OVERFLOW.bits()));
    }
}
