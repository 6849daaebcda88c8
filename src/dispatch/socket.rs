//! Unix sockets: descriptors that travel by SCM_RIGHTS, and addresses that are virtual paths.

use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use fsmodules::api::{Access, Errno};

use crate::abi::{Cmsghdr, Mmsghdr, Msghdr};
use crate::hypervisor::Bound;
use crate::task::OpenFile;
use crate::trap::Reply;

use super::context::{CWD, Slot, Target};
use super::{Ctx, fds};

/// As much ancillary data as the kernel lets a message carry, and more than any program sends.
const MAX_CONTROL: u64 = 1 << 16;
/// `struct sockaddr_storage`.
const MAX_ADDRESS: usize = 128;
/// Room for a path in `struct sockaddr_un`.
const SUN_PATH: usize = 108;

/// A virtual descriptor on its way between processes. The kernel carries its placeholder; by the placeholder's inode
/// the receiver's one is recognised.
pub struct Travelling {
    inode: (u64, u64),
    file: Rc<OpenFile>,
}

/// Placeholders on their way that nobody ever receives are forgotten beyond this many.
const MAX_TRAVELLING: usize = 1024;

fn placeholder_inode(cx: &Ctx, fd: i32) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(cx.task.fd_link(fd)).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// sendmsg(2): remembers virtual descriptors that it passes on.
pub async fn sendmsg(cx: &Ctx) -> Result<Reply, Errno> {
    if let Ok(message) = cx.read_value::<Msghdr>(cx.arg(1)) {
        note_rights(cx, &message);
        if message.msg_name != 0 && message.msg_namelen > 2 {
            let (name, len) = (message.msg_name, message.msg_namelen as usize);
            if let Some((address, path)) = virtual_address(cx, name, len, false).await? {
                let _keep = path;
                return send_to(cx, message, &address).await;
            }
        }
    }
    Ok(Reply::Passthrough)
}

/// sendmmsg(2): (fd, vector, length, flags).
pub async fn sendmmsg(cx: &Ctx) -> Result<Reply, Errno> {
    for n in 0..u64::from(cx.int(2)).min(1024) {
        if let Ok(entry) = cx.read_value::<Mmsghdr>(cx.arg(1) + n * size_of::<Mmsghdr>() as u64) {
            note_rights(cx, &entry.msg_hdr);
        }
    }
    Ok(Reply::Passthrough)
}

fn note_rights(cx: &Ctx, message: &Msghdr) {
    for (_, fd) in passed_fds(cx, message) {
        let Some(file) = cx.task.files().get(fd) else { continue };
        let Some(inode) = placeholder_inode(cx, fd) else {
            continue;
        };
        let mut travelling = cx.hv.travelling.borrow_mut();
        if travelling.len() >= MAX_TRAVELLING {
            travelling.remove(0);
        }
        travelling.push(Travelling { inode, file });
    }
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
        let Ok(header) = <Cmsghdr as zerocopy::FromBytes>::read_from_bytes(header) else {
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

/// recvmsg(2): virtual descriptors that arrive get their place in our table.
pub async fn recvmsg(cx: &Ctx) -> Result<Reply, Errno> {
    let Ok(message) = cx.read_value::<Msghdr>(cx.arg(1)) else {
        return Ok(Reply::Passthrough);
    };
    if message.msg_controllen == 0 {
        return Ok(Reply::Passthrough);
    }
    let reply = cx.finish_run(cx.call).await?;
    if matches!(reply, Reply::Return(0..)) {
        arrive(cx, &cx.read_value(cx.arg(1))?, cx.fd(2)).await?;
    }
    Ok(reply)
}

/// recvmmsg(2): (fd, vector, length, flags, timeout).
pub async fn recvmmsg(cx: &Ctx) -> Result<Reply, Errno> {
    let reply = cx.finish_run(cx.call).await?;
    if let Reply::Return(count @ 0..) = reply {
        for n in 0..count as u64 {
            let entry: Mmsghdr = cx.read_value(cx.arg(1) + n * size_of::<Mmsghdr>() as u64)?;
            arrive(cx, &entry.msg_hdr, cx.fd(3)).await?;
        }
    }
    Ok(reply)
}

async fn arrive(cx: &Ctx, message: &Msghdr, flags: i32) -> Result<(), Errno> {
    if cx.hv.travelling.borrow().is_empty() {
        return Ok(());
    }
    let cloexec = flags & libc::MSG_CMSG_CLOEXEC != 0;
    for (address, fd) in passed_fds(cx, message) {
        let Some(inode) = placeholder_inode(cx, fd) else {
            continue;
        };
        let file = {
            let mut travelling = cx.hv.travelling.borrow_mut();
            let found = travelling.iter().position(|entry| entry.inode == inode);
            found.map(|n| travelling.remove(n).file)
        };
        let Some(file) = file else { continue };
        let fd = fds::adopt(cx, fd, file, cloexec).await?;
        cx.write_value(address, &fd)?;
    }
    Ok(())
}

/// bind(2) and connect(2): (fd, address, length).
pub async fn bind_or_connect(cx: &Ctx) -> Result<Reply, Errno> {
    let bind = i64::from(cx.call.nr) == libc::SYS_bind;
    let Some((address, made)) = virtual_address(cx, cx.arg(1), cx.arg(2) as usize, bind).await? else {
        return Ok(Reply::Passthrough);
    };
    let slot = cx.scratch().await?;
    cx.write(slot.address, &address)?;
    let mut call = cx.call;
    call.args[1] = slot.address;
    call.args[2] = address.len() as u64;
    let reply = cx.finish_run(call).await?;
    match (&reply, made) {
        (Reply::Return(0), Some(bound)) => cx.hv.bound.borrow_mut().push(bound),
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
    if let Some(bound) = cx.hv.bound.borrow().iter().find(|bound| bound.address() == name) {
        name.truncate(2);
        name.extend_from_slice(&bound.path);
        name.push(0);
    }
    cx.write(address, &name[..name.len().min(room)])?;
    cx.write_value(len_at, &(name.len() as i32))?;
    Ok(Reply::Return(0))
}

async fn send_to(cx: &Ctx, mut message: Msghdr, address: &[u8]) -> Result<Reply, Errno> {
    use zerocopy::IntoBytes;
    let slot = cx.scratch().await?;
    let header = size_of::<Msghdr>() as u64;
    message.msg_name = slot.address + header;
    message.msg_namelen = address.len() as u32;
    cx.write(slot.address, message.as_bytes())?;
    cx.write(slot.address + header, address)?;
    let mut call = cx.call;
    call.args[1] = slot.address;
    cx.finish_run(call).await
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
