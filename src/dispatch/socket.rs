//! Unix sockets: descriptors that travel by SCM_RIGHTS, and addresses that are virtual paths.

use std::collections::HashSet;
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use fsmodules::api::{Access, Errno, FileKind, OpenFlags, errno};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{Cmsghdr, Mmsghdr, Msghdr, RawCall};
use crate::hypervisor::{Bound, Hypervisor};
use crate::task::OpenFile;
use crate::trap::Reply;
use crate::view::Events;

use super::context::{CWD, Slot, Target};
use super::install::{catch_peers, put, reopen};
use super::{Ctx, fifo, upkeep};

/// As much ancillary data as the kernel lets a message carry, and more than any program sends.
const MAX_CONTROL: u64 = 1 << 16;
/// `struct sockaddr_storage`.
const MAX_ADDRESS: usize = 128;
/// So many messages at most are sent by one call.
const IOV_MAX: u64 = 1024;
/// Room for a path in `struct sockaddr_un`.
const SUN_PATH: usize = 108;

/// A virtual descriptor on its way between processes. In its place the kernel carries the writing end of a pipe, by
/// whose inode it is recognised where it arrives. When nobody has that end any more, it has arrived, or never will.
pub struct Travelling {
    pipe: OwnedFd,
    inode: (u64, u64),
    file: Rc<OpenFile>,
}

impl Travelling {
    fn is_over(&self) -> bool {
        let mut pipe = [PollFd::new(&self.pipe, PollFlags::empty())];
        poll(&mut pipe, Some(&Timespec::default())).is_ok() && pipe[0].revents().contains(PollFlags::HUP)
    }
}

/// Forgets the descriptors that have arrived or are lost.
pub fn forget_arrived(hv: &Hypervisor) {
    let over: Vec<_> = hv
        .travelling
        .borrow_mut()
        .extract_if(.., |entry| entry.is_over())
        .collect();
    // Dropped only now: the last one may close a file.
    drop(over);
}

fn inode_of(cx: &Ctx, fd: i32) -> Option<(u64, u64)> {
    let meta = cx.task.look_at_fd(fd, std::fs::metadata).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// sendmsg(2): passes virtual descriptors on, and finds virtual addresses.
pub async fn sendmsg(cx: &Ctx) -> Result<Reply, Errno> {
    let Ok(message) = cx.read_value::<Msghdr>(cx.arg(1)) else {
        return Ok(Reply::Passthrough);
    };
    let address = destination(cx, &message).await?;
    let fds = virtual_fds(cx, &message);
    if address.is_none() && fds.is_empty() {
        return Ok(Reply::Passthrough);
    }
    send(cx, message, cx.int(2), address.as_deref(), fds).await
}

/// The address that the kernel is to get in place of a message's own.
async fn destination(cx: &Ctx, message: &Msghdr) -> Result<Option<Vec<u8>>, Errno> {
    if message.msg_name == 0 {
        return Ok(None);
    }
    let found = virtual_address(cx, message.msg_name, message.msg_namelen as usize, false).await?;
    Ok(found.map(|(address, _)| address))
}

/// sendmmsg(2): (fd, vector, length, flags). With virtual descriptors or addresses, one message after the other.
pub async fn sendmmsg(cx: &Ctx) -> Result<Reply, Errno> {
    let at = |n: u64| cx.arg(1) + n * size_of::<Mmsghdr>() as u64;
    let count = u64::from(cx.int(2)).min(IOV_MAX);
    let entries = (0..count).map_while(|n| cx.read_value::<Mmsghdr>(at(n)).ok());
    let messages: Vec<Msghdr> = entries.map(|entry| entry.msg_hdr).collect();
    let mut parts = Vec::new();
    for message in messages {
        parts.push((message, destination(cx, &message).await, virtual_fds(cx, &message)));
    }
    if parts
        .iter()
        .all(|(_, address, fds)| *address == Ok(None) && fds.is_empty())
    {
        return Ok(Reply::Passthrough);
    }
    for (n, (message, address, fds)) in (0..).zip(parts) {
        let sent = match address {
            Ok(address) => send(cx, message, cx.int(3), address.as_deref(), fds).await,
            Err(errno) => Err(errno),
        };
        match sent {
            Ok(Reply::Return(sent @ 0..)) => cx.write_value(at(n) + size_of::<Msghdr>() as u64, &(sent as u32))?,
            _ if n > 0 => return Ok(Reply::Return(n as i64)),
            failed => return failed,
        }
    }
    Ok(Reply::Return(count as i64))
}

/// The virtual descriptors in a message: where in its ancillary data, and what they are. The others are the kernel's own
/// business.
fn virtual_fds(cx: &Ctx, message: &Msghdr) -> Vec<(usize, Rc<OpenFile>)> {
    let files = cx.task.files();
    let passed = passed_fds(cx, message).into_iter();
    let found = passed.filter_map(|(address, fd)| Some((address, files.get(fd).filter(|file| !file.is_native())?)));
    found
        .map(|(address, file)| ((address - message.msg_control) as usize, file))
        .collect()
}

/// Sends a message with another address, and with pipes in place of these descriptors.
async fn send(
    cx: &Ctx,
    message: Msghdr,
    flags: u32,
    address: Option<&[u8]>,
    fds: Vec<(usize, Rc<OpenFile>)>,
) -> Result<Reply, Errno> {
    let mut control = match fds.is_empty() {
        true => Vec::new(),
        false => cx.read(message.msg_control, message.msg_controllen.min(MAX_CONTROL) as usize)?,
    };
    let mut pipes = Vec::new();
    let mut ready = Ok(());
    for (at, file) in fds {
        match depart(cx, file).await {
            Ok(pipe) => {
                control[at..at + 4].copy_from_slice(&pipe.to_ne_bytes());
                pipes.push(pipe);
            }
            Err(errno) => ready = Err(errno),
        }
    }
    let sent = match ready {
        Ok(()) => send_changed(cx, message, flags, address, &control).await,
        Err(errno) => Err(errno),
    };
    for pipe in pipes {
        cx.close(pipe).await?;
    }
    forget_arrived(&cx.hv);
    sent
}

async fn send_changed(
    cx: &Ctx,
    mut message: Msghdr,
    flags: u32,
    address: Option<&[u8]>,
    control: &[u8],
) -> Result<Reply, Errno> {
    let slot = cx.scratch().await?;
    let mut bytes = vec![0; size_of::<Msghdr>()];
    if let Some(address) = address {
        message.msg_name = slot.address + bytes.len() as u64;
        message.msg_namelen = address.len() as u32;
        bytes.extend_from_slice(address);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    if !control.is_empty() {
        message.msg_control = slot.address + bytes.len() as u64;
        bytes.extend_from_slice(control);
    }
    bytes[..size_of::<Msghdr>()].copy_from_slice(message.as_bytes());
    if bytes.len() as u64 > crate::task::SLOT_LEN {
        return Err(Errno::ENOBUFS);
    }
    cx.write(slot.address, &bytes)?;
    let args = [cx.arg(0), slot.address, flags.into(), 0, 0, 0];
    let nr = libc::SYS_sendmsg as u32;
    cx.finish_run(RawCall { nr, args }).await
}

/// Gives the guest a pipe to send in place of a file.
async fn depart(cx: &Ctx, file: Rc<OpenFile>) -> Result<i32, Errno> {
    let (pipe, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
    let end = fifo::open_to_all(end).map_err(errno)?;
    let fd = reopen(cx, end.as_fd(), OpenFlags::WRONLY | OpenFlags::CLOEXEC).await?;
    if let Some(inode) = inode_of(cx, fd) {
        cx.hv.travelling.borrow_mut().push(Travelling { pipe, inode, file });
        upkeep::look_after(&cx.hv);
    }
    Ok(fd)
}

/// The descriptors in a message's ancillary data, each with the address of its number.
fn passed_fds(cx: &Ctx, message: &Msghdr) -> Vec<(u64, i32)> {
    let len = message.msg_controllen.min(MAX_CONTROL);
    let mut fds = Vec::new();
    let Ok(control) = cx.read(message.msg_control, len as usize) else {
        return fds;
    };
    let mut at = 0;
    const HEADER: usize = size_of::<Cmsghdr>();
    while let Some(header) = control.get(at..at + HEADER) {
        let Ok(header) = Cmsghdr::read_from_bytes(header) else {
            break;
        };
        let end = at.saturating_add(header.cmsg_len as usize).min(control.len());
        if (header.cmsg_len as usize) < HEADER {
            break;
        }
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            for (n, number) in control[at + HEADER..end].chunks_exact(4).enumerate() {
                let fd = i32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
                fds.push((message.msg_control + (at + HEADER + 4 * n) as u64, fd));
            }
        }
        at = end.next_multiple_of(8);
    }
    fds
}

/// recvmsg(2): virtual descriptors that arrive get their place in our table, and a virtual sender is shown.
pub async fn recvmsg(cx: &Ctx) -> Result<Reply, Errno> {
    let Ok(message) = cx.read_value::<Msghdr>(cx.arg(1)) else {
        return Ok(Reply::Passthrough);
    };
    let named = message.msg_name != 0 && !cx.hv.bound.borrow().is_empty();
    if message.msg_controllen == 0 && !named {
        return Ok(Reply::Passthrough);
    }
    let reply = cx.finish_run(cx.call).await?;
    if matches!(reply, Reply::Return(0..)) {
        arrive(cx, cx.arg(1), message.msg_namelen, cx.fd(2)).await?;
    }
    Ok(reply)
}

/// recvmmsg(2): (fd, vector, length, flags, timeout).
pub async fn recvmmsg(cx: &Ctx) -> Result<Reply, Errno> {
    let at = |n: u64| cx.arg(1) + n * size_of::<Mmsghdr>() as u64;
    let count = u64::from(cx.int(2)).min(IOV_MAX);
    // Programs offer many messages and get few.
    let Ok(entries) = cx.read(at(0), count as usize * size_of::<Mmsghdr>()) else {
        return Ok(Reply::Passthrough);
    };
    let entries = entries.chunks_exact(size_of::<Mmsghdr>());
    let rooms: Vec<u32> = entries
        .filter_map(|entry| Mmsghdr::read_from_bytes(entry).ok())
        .map(|entry| entry.msg_hdr.msg_namelen)
        .collect();
    let reply = cx.finish_run(cx.call).await?;
    if let Reply::Return(count @ 0..) = reply {
        for (n, room) in (0..count as u64).zip(rooms) {
            arrive(cx, at(n), room, cx.fd(3)).await?;
        }
    }
    Ok(reply)
}

/// A message has been received, with room for so much of an address.
async fn arrive(cx: &Ctx, at: u64, room: u32, flags: i32) -> Result<(), Errno> {
    let message: Msghdr = cx.read_value(at)?;
    if message.msg_name != 0 {
        show_peer(cx, message.msg_name, at + offset_of!(Msghdr, msg_namelen) as u64, room)?;
    }
    if cx.hv.travelling.borrow().is_empty() {
        return Ok(());
    }
    let cloexec = flags & libc::MSG_CMSG_CLOEXEC != 0;
    for (address, fd) in passed_fds(cx, &message) {
        let inode = inode_of(cx, fd);
        let file = {
            let travelling = cx.hv.travelling.borrow();
            let found = travelling.iter().find(|entry| Some(entry.inode) == inode);
            found.map(|entry| entry.file.clone())
        };
        let Some(file) = file else { continue };
        cx.close(fd).await?;
        let fd = put(cx, file, cloexec).await?;
        cx.write_value(address, &fd)?;
    }
    forget_arrived(&cx.hv);
    Ok(())
}

/// bind(2), connect(2) and sendto(2), whose argument `at` is an address, and the next one its length.
pub async fn with_address(cx: &Ctx, at: usize, bind: bool) -> Result<Reply, Errno> {
    let Some((address, made)) = virtual_address(cx, cx.arg(at), cx.arg(at + 1) as usize, bind).await? else {
        return Ok(Reply::Passthrough);
    };
    if made.is_some() {
        catch_peers(cx).await?;
    }
    let slot = cx.scratch().await?;
    cx.write(slot.address, &address)?;
    let mut call = cx.call;
    call.args[at] = slot.address;
    call.args[at + 1] = address.len() as u64;
    let reply = cx.finish_run(call).await?;
    match (&reply, made) {
        (Reply::Return(0), Some(bound)) => {
            forget_closed(&cx.hv);
            cx.hv.bound.borrow_mut().push(bound);
        }
        // Abstract addresses are looked up among sockets of the same type only.
        (Reply::Return(error), None) if *error == -i64::from(Errno::ECONNREFUSED.raw()) => {
            let of = |bound: &Bound| (bound.address() == address).then_some(bound.kind);
            let kind = cx.hv.bound.borrow().iter().find_map(of);
            if kind.is_some() && kind != Some(socket_type(cx).await?) {
                return Err(Errno::EPROTOTYPE);
            }
        }
        _ => {}
    }
    Ok(reply)
}

/// accept(2), accept4(2) and recvfrom(2), whose argument `at` is where the address of the other side is to go, and the
/// next one where its length is.
pub async fn with_peer(cx: &Ctx, at: usize) -> Result<Reply, Errno> {
    let (address, len_at) = (cx.arg(at), cx.arg(at + 1));
    let Ok(room) = cx.read_value::<u32>(len_at) else {
        return Ok(Reply::Passthrough);
    };
    let reply = cx.finish_run(cx.call).await?;
    if matches!(reply, Reply::Return(0..)) {
        show_peer(cx, address, len_at, room)?;
    }
    Ok(reply)
}

/// The kernel has told the address of another socket: one that was bound to a virtual path shows that.
fn show_peer(cx: &Ctx, address: u64, len_at: u64, room: u32) -> Result<(), Errno> {
    let len: u32 = cx.read_value(len_at)?;
    if len as usize > MAX_ADDRESS || len > room || cx.hv.bound.borrow().is_empty() {
        return Ok(());
    }
    let mut name = cx.read(address, len as usize)?;
    if show_path(cx, &mut name) {
        cx.write(address, &name[..name.len().min(room as usize)])?;
        cx.write_value(len_at, &(name.len() as u32))?;
    }
    Ok(())
}

/// Puts the virtual path that a socket was bound to in place of its abstract address, if it has one.
fn show_path(cx: &Ctx, name: &mut Vec<u8>) -> bool {
    let bound = cx.hv.bound.borrow();
    let Some(bound) = bound.iter().find(|bound| bound.address() == *name) else {
        return false;
    };
    name.truncate(2);
    name.extend_from_slice(&bound.path);
    name.push(0);
    true
}

/// Forgets the bound sockets that are gone, with all that were accepted from them: their name is not listed any more.
pub fn forget_closed(hv: &Hypervisor) {
    if hv.bound.borrow().is_empty() {
        return;
    }
    let Ok(sockets) = std::fs::read("/proc/net/unix") else {
        return;
    };
    let sockets = String::from_utf8_lossy(&sockets);
    let names: HashSet<&str> = sockets
        .lines()
        .filter_map(|line| Some(line.rsplit_once(" @")?.1))
        .collect();
    let gone = |bound: &mut Bound| !names.contains(bound.name());
    let gone: Vec<_> = hv.bound.borrow_mut().extract_if(.., gone).collect();
    // Dropped only now: a dying node sends FORGET.
    drop(gone);
}

/// `SO_TYPE` of the socket in the first argument.
async fn socket_type(cx: &Ctx) -> Result<i32, Errno> {
    let slot = cx.scratch().await?;
    let len_at = slot.address + 8;
    cx.write_value(len_at, &4i32)?;
    let (level, option) = (libc::SOL_SOCKET as u64, libc::SO_TYPE as u64);
    let args = [cx.arg(0), level, option, slot.address, len_at, 0];
    cx.run(libc::SYS_getsockopt, args).await?;
    cx.read_value(slot.address)
}

/// getsockname(2) and getpeername(2): (fd, address, length). A socket that was bound to a virtual path shows that.
pub async fn name(cx: &Ctx) -> Result<Reply, Errno> {
    if cx.hv.bound.borrow().is_empty() {
        return Ok(Reply::Passthrough);
    }
    let (address, len_at) = (cx.arg(1), cx.arg(2));
    let room: i32 = cx.read_value(len_at)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let slot = cx.scratch().await?;
    let full_len = slot.address + MAX_ADDRESS as u64;
    cx.write_value(full_len, &(MAX_ADDRESS as i32))?;
    let args = [cx.arg(0), slot.address, full_len, 0, 0, 0];
    cx.run(cx.call.nr.into(), args).await?;
    let len: i32 = cx.read_value(full_len)?;
    let mut name = cx.read(slot.address, (len as usize).min(MAX_ADDRESS))?;
    show_path(cx, &mut name);
    cx.write(address, &name[..name.len().min(room)])?;
    cx.write_value(len_at, &(name.len() as i32))?;
    Ok(Reply::Return(0))
}

/// The address that the kernel is to get in place of a path of the view; `None` if the guest's own will do.
///
/// A socket on a virtual file system has a node there, and an abstract address behind it.
async fn virtual_address(
    cx: &Ctx,
    address: u64,
    len: usize,
    bind: bool,
) -> Result<Option<(Vec<u8>, Option<Bound>)>, Errno> {
    let raw = match cx.read(address, len.min(SUN_PATH + 2)) {
        Ok(raw) if raw.len() > 2 && raw[..2] == (libc::AF_UNIX as u16).to_ne_bytes() && raw[2] != 0 => raw,
        _ => return Ok(None),
    };
    let path = raw[2..].split(|&b| b == 0).next().unwrap_or_default();
    if bind {
        return match cx.new_slot(CWD, path).await? {
            Slot::Native => Ok(None),
            Slot::Host(name) => {
                name.check_makeable()?;
                match name.given {
                    Some(_) => Ok(None),
                    None => Ok(Some((host_address(&name)?, None))),
                }
            }
            Slot::Virtual(slot) => {
                if slot.child.is_some() {
                    return Err(Errno::EADDRINUSE);
                }
                slot.check_writable()?;
                let kind = socket_type(cx).await?;
                // The kernel's rule: a socket is born with all permissions the umask leaves.
                let node = slot
                    .node()
                    .mknod(cx.cx(), &slot.name, libc::S_IFSOCK | 0o777, 0)
                    .await?;
                slot.dir.name_happened(&slot.name, FileKind::Socket, Events::CREATE);
                let bound = Bound::new(&cx.hv, slot.dir.mount.dev(), node, path, kind);
                Ok(Some((bound.address(), Some(bound))))
            }
        };
    }
    match cx.target(CWD, path, true).await? {
        Target::Native => Ok(None),
        Target::Host(file) if file.given.is_some() => Ok(None),
        Target::Host(file) => Ok(Some((host_address(&file)?, None))),
        Target::Virtual(place) => {
            place.node().permission(cx.cx(), Access::WRITE).await?;
            let bound = cx.hv.bound.borrow();
            let found = bound
                .iter()
                .rev()
                .find(|b| b.dev == place.mount.dev() && b.node.id() == place.node().id());
            match found {
                Some(bound) => Ok(Some((bound.address(), None))),
                None => Err(Errno::ECONNREFUSED),
            }
        }
    }
}

fn host_address(path: &[u8]) -> Result<Vec<u8>, Errno> {
    if path.len() >= SUN_PATH {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(path);
    address.push(0);
    Ok(address)
}
