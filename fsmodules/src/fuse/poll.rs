//! Readiness of files without a position, by POLL and NOTIFY_POLL (`fs/fuse/file.c`, `fuse_file_poll`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::background::Background;
use super::file::FuseFile;
use super::fs::FuseFs;
use crate::api::Readiness;

/// What somebody who polls wants to know.
const EVENTS: u32 = 0x1 | 0x4 | 0x2 | 0x40 | 0x100;

#[derive(Default)]
pub struct Poller {
    /// The server's name for it: 0 until the first POLL.
    kh: Cell<u64>,
    known: Cell<Option<Readiness>>,
    asking: Cell<bool>,
    /// Something has changed since the POLL that is under way was sent.
    outdated: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Poller {
    pub fn forget(&self, fs: &FuseFs) {
        fs.polled.borrow_mut().remove(&self.kh.get());
    }
}

impl FuseFile {
    /// What is known now; asks the server if nothing is.
    pub fn poll_ready(&self, waker: Option<&Waker>) -> Readiness {
        let poller = &self.poller;
        if let Some(waker) = waker {
            poller.wakers.borrow_mut().push(waker.clone());
        }
        if let Some(known) = poller.known.get() {
            return known;
        }
        if !poller.asking.replace(true)
            && let Some(file) = self.me.upgrade()
        {
            self.node.fs.host.spawn(Box::pin(file.ask_readiness()));
        }
        Readiness::empty()
    }

    async fn ask_readiness(self: Rc<Self>) {
        let (fs, poller) = (&self.node.fs, &self.poller);
        if poller.kh.get() == 0 {
            poller.kh.set(fs.next_poll_handle());
            fs.polled.borrow_mut().insert(poller.kh.get(), self.me.clone());
        }
        poller.outdated.set(false);
        let client = Background::NOBODY;
        let answer = fs
            .connection
            .by(&client)
            .poll(&self.handle, poller.kh.get(), EVENTS, true)
            .await;
        poller.asking.set(false);
        if !poller.outdated.get() {
            poller
                .known
                .set(Some(answer.map_or(Readiness::ERR, Readiness::from_bits_truncate)));
        }
        self.wake_pollers();
    }

    /// NOTIFY_POLL has come, or something was read or written.
    pub fn readiness_changed(&self) {
        self.poller.known.set(None);
        self.poller.outdated.set(true);
        self.wake_pollers();
    }

    fn wake_pollers(&self) {
        for waker in self.poller.wakers.take() {
            waker.wake();
        }
    }
}
