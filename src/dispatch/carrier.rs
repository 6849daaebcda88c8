//! Descriptors on their way between umvu and a guest, and the paths by which a guest opens those of umvu.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use fsmodules::api::{Errno, errno};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::Ctx;

/// A connection between a socket of the guest's and one of ours.
pub struct Carrier {
    /// The guest's descriptor. It stays open.
    pub fd: i32,
    pub ours: OwnedFd,
}

impl Carrier {
    /// Makes the guest connect a socket to us.
    pub async fn connect(cx: &Ctx) -> Result<Carrier, Errno> {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        let fd = cx
            .run(libc::SYS_socket, [libc::AF_UNIX as u64, kind as u64, 0, 0, 0, 0])
            .await? as i32;
        match accept(cx, fd).await {
            Ok(ours) => Ok(Carrier { fd, ours }),
            Err(errno) => {
                cx.close(fd).await?;
                Err(errno)
            }
        }
    }

    /// Has the guest send us a copy of its descriptor.
    pub async fn fetch(&self, cx: &Ctx, fd: i32) -> Result<OwnedFd, Errno> {
        let slot = cx.scratch().await?;
        cx.write(slot.address, &rights_message(slot.address, fd))?;
        cx.run(libc::SYS_sendmsg, [self.fd as u64, slot.address, 0, 0, 0, 0])
            .await?;
        received(&self.ours).ok_or(Errno::EIO)
    }

    /// Sends the guest a copy of ours; the guest's descriptor, which is closed on exec.
    async fn give(&self, cx: &Ctx, fd: BorrowedFd<'_>) -> Result<i32, Errno> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let byte = [rustix::io::IoSlice::new(b"f")];
        rustix::net::sendmsg(&self.ours, &byte, &mut control, SendFlags::DONTWAIT).map_err(errno)?;

        let slot = cx.scratch().await?;
        cx.write(slot.address, &rights_message(slot.address, -1))?;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        let args = [self.fd as u64, slot.address, flags as u64, 0, 0, 0];
        cx.run(libc::SYS_recvmsg, args).await?;
        cx.read_value(slot.address + RIGHTS_FD)
    }
}

const BACKLOG: i32 = 8;

/// Our end of the guest's socket.
async fn accept(cx: &Ctx, fd: i32) -> Result<OwnedFd, Errno> {
    let name = format!("umvu-{}-{}-{}", cx.hv.pid, cx.task.tid.get(), fd);
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(errno)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(errno)?;
    rustix::net::bind(&listener, &address).map_err(errno)?;
    rustix::net::listen(&listener, BACKLOG).map_err(errno)?;

    let slot = cx.scratch().await?;
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(name.as_bytes());
    cx.write(slot.address, &bytes)?;
    let args = [fd as u64, slot.address, bytes.len() as u64, 0, 0, 0];
    cx.run(libc::SYS_connect, args).await?;
    // Anybody on the host may have connected, too.
    loop {
        let ours = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).map_err(errno)?;
        let peer = rustix::net::sockopt::socket_peercred(&ours).map_err(errno)?;
        if peer.pid.as_raw_nonzero().get() == cx.task.tgid().as_raw() {
            return Ok(ours);
        }
    }
}

/// A way for the caller to one of umvu's own files.
pub struct Way {
    pub path: Vec<u8>,
    /// The caller's copy of the descriptor that the path names.
    handed: Option<i32>,
}

impl Way {
    /// The caller looks into umvu; where it may not, because it is not umvu's user any more (root's programs can become
    /// others), it is given a copy of the descriptor.
    pub async fn to(cx: &Ctx, fd: impl AsFd) -> Result<Way, Errno> {
        let fd = fd.as_fd();
        let path = format!("/proc/{}/fd/{}", cx.hv.pid, fd.as_raw_fd()).into_bytes();
        if !cx.hv.is_privileged || sees(cx, &path).await? {
            return Ok(Way { path, handed: None });
        }
        let carrier = Carrier::connect(cx).await?;
        let given = carrier.give(cx, fd).await;
        cx.close(carrier.fd).await?;
        let handed = given?;
        Ok(Way {
            path: format!("/proc/self/fd/{handed}").into_bytes(),
            handed: Some(handed),
        })
    }

    /// The caller has arrived, or will not.
    pub async fn end(self, cx: &Ctx) -> Result<(), Errno> {
        match self.handed {
            Some(fd) => cx.close(fd).await,
            None => Ok(()),
        }
    }
}

/// May the caller follow this link of proc(5)?
async fn sees(cx: &Ctx, link: &[u8]) -> Result<bool, Errno> {
    let slot = cx.scratch_string(link).await?;
    let args = [slot.address, slot.address, 1, 0, 0, 0];
    match cx.run(libc::SYS_readlink, args).await {
        Ok(_) => Ok(true),
        Err(Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Where the descriptor stands in a [`rights_message`].
const RIGHTS_FD: u64 = 56 + 16 + 16;

/// A `struct msghdr` that lies at `base`, followed by what it points to: one byte, and one descriptor as SCM_RIGHTS.
fn rights_message(base: u64, fd: i32) -> Vec<u8> {
    const MSGHDR: u64 = 56;
    const IOVEC: u64 = 16;
    let (iov, control, data) = (base + MSGHDR, base + MSGHDR + IOVEC, base + MSGHDR + IOVEC + 24);
    let words: [u64; 10] = [
        0,       // msg_name
        0,       // msg_namelen
        iov,     // msg_iov
        1,       // msg_iovlen
        control, // msg_control
        20,      // msg_controllen
        0,       // msg_flags
        data,    // iov_base
        1,       // iov_len
        20,      // cmsg_len
    ];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for word in [libc::SOL_SOCKET, libc::SCM_RIGHTS, fd, 0] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn received(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    let mut data = [rustix::io::IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}
