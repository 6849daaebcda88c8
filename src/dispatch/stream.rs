//! Placeholders whose readiness the guest must see in poll(2): devices, and files that a server polls.
//!
//! The guest gets one end of a socket pair. A byte in it makes it readable; when the file is in error, our end is
//! closed with an unread message in its queue, which shows as `POLLERR`. Nobody ever reads or writes through it:
//! those calls are caught.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::task::Poll;

use fsmodules::api::{Errno, Readiness};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::rt::Flag;
use crate::task::OpenFile;

use super::Ctx;

/// Both ends of a stream placeholder's socket.
pub struct Stream {
    ours: RefCell<Option<OwnedFd>>,
    theirs: OwnedFd,
    readable: Cell<bool>,
}

impl Stream {
    fn new(ours: OwnedFd, theirs: OwnedFd) -> Stream {
        Stream {
            ours: RefCell::new(Some(ours)),
            theirs,
            readable: Cell::new(false),
        }
    }

    /// Makes the guest's end show this readiness.
    fn show(&self, ready: Readiness) {
        if ready.contains(Readiness::ERR) {
            // The unread message makes the closing an error rather than an end of file.
            let _ = rustix::net::send(&self.theirs, b"e", SendFlags::DONTWAIT);
            self.ours.take();
            return;
        }
        let wanted = ready.contains(Readiness::IN);
        if wanted == self.readable.replace(wanted) {
            return;
        }
        if wanted {
            if let Some(ours) = &*self.ours.borrow() {
                let _ = rustix::net::send(ours, b"r", SendFlags::DONTWAIT);
            }
        } else {
            let mut byte = [0; 1];
            let _ = rustix::net::recv(&self.theirs, &mut byte, RecvFlags::DONTWAIT);
        }
    }
}

/// After a read, before its reply: a guest that is told of more and reads again would wait in vain.
pub fn refresh(file: &OpenFile) {
    let Some(served) = &file.file else { return };
    let streams = file.streams.borrow();
    let shown = streams.iter().filter_map(|(stream, _)| stream.downcast_ref::<Stream>());
    for stream in shown.filter(|stream| stream.readable.get()) {
        stream.show(served.ready(None));
    }
}

/// Makes the guest connect a socket to us, and keeps it showing the file's readiness. The guest's descriptor.
pub async fn connect(cx: &Ctx, file: &Rc<OpenFile>) -> Result<i32, Errno> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    let fd = cx
        .run(libc::SYS_socket, [libc::AF_UNIX as u64, kind as u64, 0, 0, 0, 0])
        .await? as i32;
    match pair(cx, fd).await {
        Ok(stream) => {
            start(cx, file, stream);
            Ok(fd)
        }
        Err(errno) => {
            cx.run(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0]).await?;
            Err(errno)
        }
    }
}

/// The guest's end of a file's socket, made here if there is none yet, for an engine that can hand it over.
pub fn local_end(cx: &Ctx, file: &Rc<OpenFile>) -> Option<OwnedFd> {
    if file.streams.borrow().is_empty() {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
        start(cx, file, Stream::new(ours, theirs));
    }
    let streams = file.streams.borrow();
    let (stream, _) = streams.first()?;
    stream.downcast_ref::<Stream>()?.theirs.try_clone().ok()
}

/// From now on the socket shows the file's readiness.
fn start(cx: &Ctx, file: &Rc<OpenFile>, stream: Stream) {
    let gone = Rc::new(Flag::default());
    let stream = Rc::new(stream);
    cx.hv
        .executor
        .spawn(follow(Rc::downgrade(file), Rc::downgrade(&stream), gone.clone()))
        .detach();
    file.streams.borrow_mut().push((stream, gone));
}

/// Connects the guest's socket to ours, and has the guest send us a copy of its end.
async fn pair(cx: &Ctx, fd: i32) -> Result<Stream, Errno> {
    let io = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
    let name = format!("umvu-{}-{}-{}", cx.hv.pid, cx.task.tid.get(), fd);
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(io)?;
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(io)?;
    rustix::net::bind(&listener, &address).map_err(io)?;
    rustix::net::listen(&listener, 1).map_err(io)?;

    let slot = cx.scratch().await?;
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(name.as_bytes());
    cx.write(slot.address, &bytes)?;
    cx.run(
        libc::SYS_connect,
        [fd as u64, slot.address, bytes.len() as u64, 0, 0, 0],
    )
    .await?;
    let ours = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).map_err(io)?;

    cx.write(slot.address, &rights_message(slot.address, fd))?;
    cx.run(libc::SYS_sendmsg, [fd as u64, slot.address, 0, 0, 0, 0]).await?;
    let theirs = receive_fd(&ours).ok_or(Errno::EIO)?;
    Ok(Stream::new(ours, theirs))
}

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

fn receive_fd(socket: &OwnedFd) -> Option<OwnedFd> {
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

/// Carries the file's readiness over to the socket until the file is closed.
async fn follow(file: Weak<OpenFile>, stream: Weak<Stream>, gone: Rc<Flag>) {
    poll_fn(|cx| {
        let (Some(file), Some(stream)) = (file.upgrade(), stream.upgrade()) else {
            return Poll::Ready(());
        };
        if let Some(file) = &file.file {
            stream.show(file.ready(Some(cx.waker())));
        }
        gone.poll_raised(cx)
    })
    .await
}
