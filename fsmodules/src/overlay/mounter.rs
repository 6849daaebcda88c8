//! Whoever mounted the overlay: in its name files are copied up, whoever caused that.

use std::task::{Context, Poll};

use fuse_compat::kernel::Client;

use crate::api::{Caller, Cx, Host, Ids};

/// The caller, but for its ids where these are virtual: then it is virtual root, who may give files away.
pub struct Mounter<'a> {
    caller: &'a dyn Caller,
    host: &'a std::rc::Rc<dyn Host>,
    ids: Ids,
}

impl<'a> Mounter<'a> {
    pub fn of(cx: Cx<'a>) -> Mounter<'a> {
        Mounter {
            caller: cx.caller,
            host: cx.host,
            ids: if cx.caller.has_virtual_ids() {
                Ids::default()
            } else {
                cx.caller.ids().clone()
            },
        }
    }

    pub fn cx(&self) -> Cx<'_> {
        Cx {
            caller: self,
            host: self.host,
        }
    }
}

impl Client for Mounter<'_> {
    fn uid(&self) -> u32 {
        self.ids.fsuid
    }
    fn gid(&self) -> u32 {
        self.ids.fsgid
    }
    fn pid(&self) -> u32 {
        self.caller.pid()
    }
    fn poll_signal(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.caller.poll_signal(cx)
    }
    fn sent(&self, request: &'static str) {
        self.caller.sent(request);
    }
}

impl Caller for Mounter<'_> {
    fn ids(&self) -> &Ids {
        &self.ids
    }
    fn tgid(&self) -> u32 {
        self.caller.tgid()
    }
    fn umask(&self) -> u32 {
        0
    }
    fn files_id(&self) -> u64 {
        self.caller.files_id()
    }
    fn has_virtual_ids(&self) -> bool {
        self.caller.has_virtual_ids()
    }
}
