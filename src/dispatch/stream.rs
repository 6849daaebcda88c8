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
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::rt::Flag;
use crate::task::OpenFile;

use super::Ctx;
use super::carrier::Carrier;

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
    let carrier = Carrier::connect(cx).await?;
    let fd = carrier.fd;
    match carrier.fetch(cx, fd).await {
        Ok(theirs) => {
            start(cx, file, Stream::new(carrier.ours, theirs));
            Ok(fd)
        }
        Err(errno) => {
            cx.close(fd).await?;
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
