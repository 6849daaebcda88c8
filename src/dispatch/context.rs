//! What a handler sees: the call, its caller, and the ways from arguments to places.

use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll};

use fsmodules::api::{Caller, Cx, Errno, Ids, MountFlags, Name, Vnode};
use fsmodules::ids::{Cap, Creds};
use fuse_compat::kernel::Client;

use crate::abi::{RawCall, is_restart};
use crate::hypervisor::Hypervisor;
use crate::table;
use crate::task::{OpenFile, ScratchSlot, Task};
use crate::trap::{self, GuestMemory, Memory, Reply};
use crate::view::{Found, HostPlace, HostRights, Last, Mount, Place, VirtualPlace, WalkFlags, Walker};

use super::host;
use super::owners;
use super::procfs::{self, Links};

/// `AT_FDCWD`
pub const CWD: i32 = libc::AT_FDCWD;

/// Where an existing file is.
pub enum Target {
    /// Where the kernel finds it too: the call can pass as it is.
    Native,
    Host(HostFile),
    Virtual(VirtualPlace),
}

/// Where a name is to be made, removed or replaced.
pub enum Slot {
    Native,
    Host(HostFile),
    Virtual(NameIn),
}

/// A file of the host or a name for one, reached through a mount of the view.
pub struct HostFile {
    /// Where the host has it; with a slash at the end if the caller's path had one.
    pub path: Vec<u8>,
    /// The caller's own path, if the kernel arrives there by it too.
    pub given: Option<Vec<u8>>,
    /// The mount of the directory that it is in.
    pub mount: Rc<Mount>,
    /// Something is mounted on it.
    pub covered: bool,
    /// It is the link to what is open as a descriptor, which is always followed.
    pub is_open: bool,
}

impl std::ops::Deref for HostFile {
    type Target = [u8];

    /// The path for the kernel to use in the caller's place.
    fn deref(&self) -> &[u8] {
        self.given.as_ref().unwrap_or(&self.path)
    }
}

impl HostFile {
    fn at(place: HostPlace) -> HostFile {
        HostFile {
            path: place.bytes(),
            given: None,
            mount: place.mount,
            covered: false,
            is_open: false,
        }
    }

    pub fn place(&self) -> HostPlace {
        HostPlace {
            mount: self.mount.clone(),
            path: self.as_path().to_owned(),
        }
    }

    fn named(dir: &HostPlace, name: &Name, slash: bool, covered: bool) -> HostFile {
        let mut path = dir.join(name);
        if slash {
            path.push(b'/');
        }
        HostFile {
            path,
            given: None,
            mount: dir.mount.clone(),
            covered,
            is_open: false,
        }
    }

    pub fn as_path(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt;
        std::path::Path::new(std::ffi::OsStr::from_bytes(&self.path))
    }

    /// `EROFS` if the mount is read-only.
    pub fn check_writable(&self) -> Result<(), Errno> {
        if self.mount.flags().contains(MountFlags::RDONLY) {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    /// As [`HostFile::check_writable`], for a name that is to be made: one that exists is another error, the kernel's.
    pub fn check_makeable(&self) -> Result<(), Errno> {
        match std::fs::symlink_metadata(self.as_path()) {
            Ok(_) => Ok(()),
            Err(_) => self.check_writable(),
        }
    }

    /// As [`HostFile::check_writable`], for a name that is to be removed.
    pub fn check_removable(&self) -> Result<(), Errno> {
        self.check_writable()?;
        if self.covered { Err(Errno::EBUSY) } else { Ok(()) }
    }
}

/// A name in a virtual directory.
pub struct NameIn {
    pub dir: VirtualPlace,
    pub name: Name,
    /// What has the name now.
    pub child: Option<Place>,
    /// The path ended in a slash: only a directory will do.
    pub slash: bool,
}

/// A caught call on its way through a handler.
pub struct Ctx {
    pub hv: Rc<Hypervisor>,
    pub task: Rc<Task>,
    /// The call, with legacy forms folded into the modern ones.
    pub call: RawCall,
    ids: OnceCell<Rc<Ids>>,
    /// Requests that modules sent for it.
    pub requests: RefCell<Vec<&'static str>>,
    /// The mount that answered, with its type, for the trace.
    pub answered_by: RefCell<Option<String>>,
}

impl Ctx {
    pub fn new(hv: Rc<Hypervisor>, task: Rc<Task>, call: RawCall) -> Ctx {
        Ctx {
            hv,
            task,
            call,
            ids: OnceCell::new(),
            requests: RefCell::default(),
            answered_by: RefCell::default(),
        }
    }

    /// The caller is who it really is, as for access(2), from now on. Before anything else is asked of the ids.
    pub fn act_as_real(&self) {
        let ids = self.task.ids();
        let _ = self.ids.set(Rc::new(Ids {
            fsuid: ids.ruid,
            fsgid: ids.rgid,
            ..(*ids).clone()
        }));
    }

    /// The module API's view of this call.
    pub fn cx(&self) -> Cx<'_> {
        Cx {
            caller: self,
            host: &self.hv.host,
        }
    }

    // Arguments.

    pub fn arg(&self, n: usize) -> u64 {
        self.call.args[n]
    }

    pub fn fd(&self, n: usize) -> i32 {
        self.call.args[n] as i32
    }

    pub fn int(&self, n: usize) -> u32 {
        self.call.args[n] as u32
    }

    pub fn memory(&self) -> Memory {
        self.hv.tracer.borrow().memory(self.task.tid.get())
    }

    pub fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        self.memory().read(address, &mut bytes)?;
        Ok(bytes)
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.memory().write(address, bytes)
    }

    pub fn write_value<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        address: u64,
        value: &T,
    ) -> Result<(), Errno> {
        self.memory().write(address, value.as_bytes())
    }

    pub fn read_value<T: zerocopy::FromBytes + zerocopy::IntoBytes>(&self, address: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.memory().read(address, value.as_mut_bytes())?;
        Ok(value)
    }

    /// A string argument of at most `PATH_MAX` bytes, without its NUL.
    pub fn path(&self, n: usize) -> Result<Vec<u8>, Errno> {
        self.string(self.arg(n))
    }

    pub fn string(&self, address: u64) -> Result<Vec<u8>, Errno> {
        self.memory().read_cstr(address, libc::PATH_MAX as usize)
    }

    // Descriptors.

    pub fn open_file(&self, fd: i32) -> Option<Rc<OpenFile>> {
        let file = self.task.files.borrow().get(fd)?;
        self.answered(&file.place);
        Some(file)
    }

    /// As [`Ctx::open_file`], but `None` too where the kernel itself reads and writes: the call is for it.
    pub fn data_file(&self, fd: i32) -> Option<Rc<OpenFile>> {
        self.open_file(fd).filter(|open| !open.is_native())
    }

    /// Where paths relative to this descriptor start.
    pub fn place_of(&self, fd: i32) -> Result<Place, Errno> {
        if fd == CWD {
            return Ok(self.task.fs.borrow().cwd.borrow().clone());
        }
        if let Some(file) = self.open_file(fd) {
            return Ok(Place::Virtual(file.place.clone()));
        }
        let path = self.task.look_at_fd(fd, std::fs::read_link).map_err(|_| Errno::EBADF)?;
        let through = host::opened_through(&self.hv.mounts, &self.task, fd, &path);
        let root = self.task.fs.borrow().root.borrow().clone();
        Ok(self.hv.mounts.host_place(&path, &root, through.as_ref()))
    }

    /// The host's file behind a descriptor, whether it has a name or not.
    pub fn host_file_of(&self, fd: i32) -> Result<HostFile, Errno> {
        use std::os::unix::fs::MetadataExt;
        let Place::Host(place) = self.place_of(fd)? else {
            return Err(Errno::EBADF);
        };
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        // A symlink's own path would be followed, which changes its time of access.
        let named = std::fs::symlink_metadata(&place.path)
            .ok()
            .filter(|meta| !meta.is_symlink())
            .map(id);
        if named.is_some() && named == self.task.look_at_fd(fd, std::fs::metadata).ok().map(id) {
            return Ok(HostFile::at(place));
        }
        Ok(HostFile {
            path: self.task.fd_link(fd).into_os_string().into_encoded_bytes(),
            given: None,
            mount: place.mount,
            covered: false,
            is_open: true,
        })
    }

    /// `EROFS` if a descriptor of the host was opened through a mount that is read-only.
    pub fn check_fd_writable(&self, fd: i32) -> Result<(), Errno> {
        match self.host_file_of(fd)?.check_writable() {
            Err(errno) if host::is_marked(&self.task, fd) => Err(errno),
            _ => Ok(()),
        }
    }

    /// Is it root, for what takes privileges on mounts too?
    pub fn is_root(&self) -> bool {
        self.ids().euid == 0
    }

    /// Is the caller for the view who and where it is for the kernel? Else calls on files of the host need a hand.
    pub fn is_plain(&self) -> bool {
        self.task.creds().is_none() && self.task.fs.borrow().root.borrow().is_host_root()
    }

    // Paths.

    /// Resolves a path as far as `flags` say. The walk is quick where the view has nothing that could match.
    pub async fn walk(&self, dirfd: i32, path: &[u8], flags: WalkFlags) -> Result<Found, Errno> {
        let start = match flags.contains(WalkFlags::IN_ROOT) {
            true => self.place_of(dirfd)?,
            false => self.start_of(dirfd, path)?,
        };
        self.walk_from(start, path, flags).await
    }

    async fn walk_from(&self, start: Place, path: &[u8], flags: WalkFlags) -> Result<Found, Errno> {
        let root = self.task.fs.borrow().root.borrow().clone();
        let links = Links {
            hv: &self.hv,
            task: &self.task,
        };
        let creds = self.task.creds();
        let rights = creds.map(|creds| owners::Searcher { cx: self, creds });
        let walker = Walker {
            mounts: &self.hv.mounts,
            cx: self.cx(),
            root,
            links: &links,
            rights: rights.as_ref().map(|rights| rights as &dyn HostRights),
            protected_symlinks: self.hv.protected.symlinks,
        };
        walker.walk(start, path, flags).await
    }

    /// Does the path leave the view at once?
    pub fn is_quick(&self, dirfd: i32, path: &[u8]) -> bool {
        if self.task.creds().is_some() {
            return false;
        }
        let root = self.task.fs.borrow().root.borrow().clone();
        if let Some(fd) = procfs::own_fd(path) {
            // The kernel knows best what a descriptor of its own leads to.
            let files = self.task.files();
            let elsewhere = files.through(fd).is_some() || self.hv.mounts.shows_read_only();
            return files.get(fd).is_none() && !elsewhere && self.hv.mounts.shows_proc(&root);
        }
        match self.start_of(dirfd, path) {
            Ok(start) => self.hv.mounts.quick_native(&start, &root, path),
            Err(_) => true,
        }
    }

    /// Where the host has a file, for a caller whose paths the kernel would resolve otherwise.
    fn quick_host(&self, dirfd: i32, path: &[u8]) -> Option<HostFile> {
        let searches = |creds: &Creds| creds.has(Cap::DacOverride);
        if self.is_plain() || self.task.creds().is_some_and(|creds| !searches(&creds)) {
            return None;
        }
        let root = self.task.fs.borrow().root.borrow().clone();
        let start = self.start_of(dirfd, path).ok()?;
        let file = self.hv.mounts.quick_host(&start, &root, path).map(HostFile::at)?;
        let native = self.hv.mounts.quick_native(&start, &root, path);
        let given = native.then(|| path.to_vec());
        Some(HostFile { given, ..file })
    }

    fn start_of(&self, dirfd: i32, path: &[u8]) -> Result<Place, Errno> {
        if path.first() == Some(&b'/') {
            Ok(self.task.fs.borrow().root.borrow().clone())
        } else {
            self.place_of(dirfd)
        }
    }

    /// The existing file at a path.
    pub async fn target(&self, dirfd: i32, path: &[u8], follow: bool) -> Result<Target, Errno> {
        if self.is_quick(dirfd, path) {
            return Ok(Target::Native);
        }
        if let Some(file) = self.quick_host(dirfd, path) {
            return Ok(Target::Host(file));
        }
        let flags = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
        let found = self.walk(dirfd, path, flags).await?;
        if found.native && self.task.creds().is_none() {
            return Ok(Target::Native);
        }
        if let Some(file) = host_file(&found) {
            let given = found.native.then(|| path.to_vec());
            return Ok(Target::Host(HostFile { given, ..file }));
        }
        match found.place {
            Some(Place::Virtual(place)) => {
                if found.slash && place.node().kind() != fsmodules::api::FileKind::Directory {
                    return Err(Errno::ENOTDIR);
                }
                self.answered(&place);
                Ok(Target::Virtual(place))
            }
            _ => Err(Errno::ENOENT),
        }
    }

    /// The file that a `*at` call with `AT_EMPTY_PATH` means: by descriptor if the path is empty.
    pub async fn target_at(&self, dirfd: i32, path: &[u8], at_flags: u32, follow: bool) -> Result<Target, Errno> {
        if path.is_empty() && at_flags & libc::AT_EMPTY_PATH as u32 != 0 {
            return Ok(match self.place_of(dirfd) {
                Ok(Place::Virtual(place)) => Target::Virtual(place),
                Ok(_) if self.task.creds().is_some() => Target::Host(self.host_file_of(dirfd)?),
                _ => Target::Native,
            });
        }
        self.target(dirfd, path, follow).await
    }

    /// The name at the end of a path, in its directory. What is no name fails as in rmdir(2).
    pub async fn slot(&self, dirfd: i32, path: &[u8]) -> Result<Slot, Errno> {
        self.slot_or(dirfd, path, WalkFlags::PARENT, nameless).await
    }

    /// As [`Ctx::slot`], but who has a virtual name is left to [`Ctx::see`].
    pub async fn unseen_slot(&self, dirfd: i32, path: &[u8]) -> Result<Slot, Errno> {
        let flags = WalkFlags::PARENT | WalkFlags::UNSEEN;
        self.slot_or(dirfd, path, flags, nameless).await
    }

    /// Finds out who has the name.
    pub async fn see(&self, slot: &mut NameIn, flags: WalkFlags) -> Result<(), Errno> {
        let directory = Place::Virtual(slot.dir.clone());
        let flags = flags | WalkFlags::PARENT | WalkFlags::ENTERED;
        slot.child = self.walk_from(directory, slot.name.as_bytes(), flags).await?.place;
        Ok(())
    }

    /// The name that is to be made: what is no name exists.
    pub async fn new_slot(&self, dirfd: i32, path: &[u8]) -> Result<Slot, Errno> {
        let flags = WalkFlags::PARENT | WalkFlags::FRESH;
        self.slot_or(dirfd, path, flags, |_| Errno::EEXIST).await
    }

    async fn slot_or(
        &self,
        dirfd: i32,
        path: &[u8],
        flags: WalkFlags,
        special: fn(&Last) -> Errno,
    ) -> Result<Slot, Errno> {
        if self.is_quick(dirfd, path) {
            return Ok(Slot::Native);
        }
        if let Some(file) = self.quick_host(dirfd, path) {
            return Ok(Slot::Host(file));
        }
        let found = self.walk(dirfd, path, flags).await?;
        if found.native && self.task.creds().is_none() {
            return Ok(Slot::Native);
        }
        let nameless = special(&found.last);
        self.slot_of(found, path).ok_or(nameless)
    }

    /// As [`Ctx::slot`], never by the caller's own path.
    pub async fn walked_slot(&self, dirfd: i32, path: &[u8]) -> Result<Slot, Errno> {
        let found = self.walk(dirfd, path, WalkFlags::PARENT).await?;
        self.slot_of(found, path).ok_or(Errno::EBUSY)
    }

    fn slot_of(&self, found: Found, path: &[u8]) -> Option<Slot> {
        match (found.parent, found.last) {
            (Some(Place::Virtual(dir)), Last::Name(name)) => {
                self.answered(&dir);
                Some(Slot::Virtual(NameIn {
                    dir,
                    name,
                    child: found.place,
                    slash: found.slash,
                }))
            }
            (Some(Place::Host(dir)), Last::Name(name)) => {
                let covered = found.place.filter(|child| !Rc::ptr_eq(child.mount(), &dir.mount));
                let given = found.native.then(|| path.to_vec());
                let file = HostFile::named(&dir, &name, found.slash, covered.is_some());
                Some(Slot::Host(HostFile { given, ..file }))
            }
            _ => None,
        }
    }

    /// Remembers, for the trace, whose answer this is.
    pub fn answered(&self, place: &VirtualPlace) {
        if self.hv.trace.is_on() && self.answered_by.borrow().is_none() {
            let kind = Some(place.mount.describe().fstype).filter(|kind| !kind.is_empty());
            let kind = kind.unwrap_or_else(|| "device".into());
            self.answered_by
                .replace(Some(format!("{kind}:{}", place.mount.label())));
        }
    }

    // The guest's own kernel.

    /// Lets the kernel run a call in the guest.
    pub async fn run(&self, nr: i64, args: [u64; 6]) -> Result<i64, Errno> {
        let result = self.hv.run(&self.task, RawCall { nr: nr as u32, args }).await;
        if (-4095..0).contains(&result) {
            Err(Errno::from_raw(-result as i32))
        } else {
            Ok(result)
        }
    }

    /// Some guest memory for arguments of [`Ctx::run`].
    pub async fn scratch(&self) -> Result<ScratchSlot, Errno> {
        let mm = self.task.mm();
        loop {
            if let Some(slot) = mm.slot() {
                return Ok(slot);
            }
            let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
            let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
            let area = self
                .run(
                    libc::SYS_mmap,
                    [0, crate::task::AREA_LEN, protection, kind, u64::MAX, 0],
                )
                .await?;
            mm.add_area(area as u64);
        }
    }

    /// The same with a string in it, a path or a name.
    pub async fn scratch_string(&self, path: &[u8]) -> Result<ScratchSlot, Errno> {
        let bytes = [path, b"\0"].concat();
        if bytes.len() as u64 > crate::task::SLOT_LEN {
            return Err(Errno::ENAMETOOLONG);
        }
        let slot = self.scratch().await?;
        self.write(slot.address, &bytes)?;
        Ok(slot)
    }

    /// Has the kernel close a descriptor of the guest's.
    pub async fn close(&self, fd: i32) -> Result<(), Errno> {
        self.run(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]).await.map(drop)
    }

    /// Waits for something, unless a signal comes first: then the call is interrupted.
    pub async fn until(&self, event: impl Future<Output = ()>) -> Result<(), Errno> {
        let signal = async {
            self.task.signal.raised().await;
            Err(Errno::ERESTARTSYS)
        };
        let event = async {
            event.await;
            Ok(())
        };
        futures_lite::future::or(event, signal).await
    }

    /// Runs the call with other paths in place of some arguments.
    pub async fn with_paths(&self, paths: &[(usize, &[u8])]) -> Result<Reply, Errno> {
        self.call_with_paths(self.call, paths).await
    }

    pub async fn call_with_paths(&self, mut call: RawCall, paths: &[(usize, &[u8])]) -> Result<Reply, Errno> {
        let mut slots = Vec::new();
        for (arg, path) in paths {
            let slot = self.scratch_string(path).await?;
            call.args[*arg] = slot.address;
            slots.push(slot);
        }
        self.finish_run(call).await
    }

    /// Runs a call in place of the caught one; its result is the reply.
    pub async fn finish_run(&self, call: RawCall) -> Result<Reply, Errno> {
        let result = self.hv.run(&self.task, call).await;
        // ERESTARTSYS and its relatives: a signal came, and the caught call is to be made again or end with EINTR.
        Ok(if is_restart(result) {
            Reply::Restart
        } else {
            Reply::Return(result)
        })
    }

    /// A call that no handler serves for virtual files, by what the table knows of its arguments: it passes unless it
    /// touches something virtual.
    pub async fn elsewhere(&self) -> Result<Reply, Errno> {
        let entry = table::entry(self.call.nr);
        let mut dirfd = CWD;
        let mut rewritten = Vec::new();
        for (n, arg) in entry.map_or(&[][..], |entry| entry.args).iter().enumerate() {
            match arg {
                table::Arg::DirFd => dirfd = self.fd(n),
                table::Arg::Fd if self.open_file(self.fd(n)).is_some() => return Err(self.unserved()),
                table::Arg::Path if self.arg(n) != 0 => match self.target(dirfd, &self.path(n)?, true).await? {
                    Target::Native => {}
                    Target::Host(file) => rewritten.push((n, file.to_vec())),
                    Target::Virtual(_) => return Err(self.unserved()),
                },
                _ => {}
            }
        }
        if rewritten.is_empty() {
            return Ok(Reply::Passthrough);
        }
        let paths: Vec<_> = rewritten.iter().map(|(n, path)| (*n, path.as_slice())).collect();
        self.with_paths(&paths).await
    }
}

impl Ctx {
    /// How a call fails that no virtual file can serve: as the kernel says it of FUSE, and to whom has no privileges.
    fn unserved(&self) -> Errno {
        match i64::from(self.call.nr) {
            libc::SYS_acct | libc::SYS_pivot_root | libc::SYS_swapon | libc::SYS_swapoff => Errno::EPERM,
            libc::SYS_fspick | libc::SYS_move_mount | libc::SYS_mount_setattr => Errno::EPERM,
            libc::SYS_quotactl => Errno::ENOTBLK,
            libc::SYS_quotactl_fd => Errno::ENOSYS,
            _ => Errno::EOPNOTSUPP,
        }
    }
}

impl NameIn {
    pub fn node(&self) -> &Rc<dyn Vnode> {
        self.dir.node()
    }

    /// `EROFS` on a read-only mount.
    pub fn check_writable(&self) -> Result<(), Errno> {
        check_writable(&self.dir)
    }
}

/// How rmdir(2) fails at what is no name.
fn nameless(last: &Last) -> Errno {
    match last {
        Last::Dot => Errno::EINVAL,
        Last::DotDot => Errno::ENOTEMPTY,
        _ => Errno::EBUSY,
    }
}

/// What a walk has found, if it is on the host or may come to be there.
pub fn host_file(found: &Found) -> Option<HostFile> {
    let mount = match (&found.place, &found.parent) {
        (Some(place), _) | (None, Some(place)) => place.mount().clone(),
        _ => return None,
    };
    Some(HostFile {
        path: found.host_path()?,
        given: None,
        mount,
        covered: false,
        is_open: false,
    })
}

/// `EROFS` if the mount is read-only.
pub fn check_writable(place: &VirtualPlace) -> Result<(), Errno> {
    if place.mount.flags().contains(MountFlags::RDONLY) {
        Err(Errno::EROFS)
    } else {
        Ok(())
    }
}

impl Client for Ctx {
    fn uid(&self) -> u32 {
        self.ids().fsuid
    }

    fn gid(&self) -> u32 {
        self.ids().fsgid
    }

    fn pid(&self) -> u32 {
        self.task.tid.get().as_raw() as u32
    }

    fn poll_signal(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.signal.poll_raised(cx)
    }

    fn sent(&self, request: &'static str) {
        self.requests.borrow_mut().push(request);
    }
}

impl Caller for Ctx {
    fn ids(&self) -> &Ids {
        self.ids.get_or_init(|| self.task.ids())
    }

    fn tgid(&self) -> u32 {
        self.task.tgid().as_raw() as u32
    }

    fn umask(&self) -> u32 {
        self.task.fs.borrow().umask.get()
    }

    fn has_virtual_ids(&self) -> bool {
        self.task.creds().is_some()
    }

    fn files_id(&self) -> u64 {
        self.task.files.borrow().id
    }

    fn file_size_limit(&self) -> u64 {
        trap::soft_limit(self.task.tid.get(), libc::RLIMIT_FSIZE)
    }

    fn beyond_file_size_limit(&self) -> Errno {
        trap::signal_thread(self.task.tgid(), self.task.tid.get(), libc::SIGXFSZ);
        Errno::EFBIG
    }
}
