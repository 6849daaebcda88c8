//! Files that come out of use without a call that umvu catches: they are mapped no more, or a message with their
//! descriptor is thrown away. As long as there may be such, they are looked for from time to time.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::abi::RawCall;
use crate::hypervisor::Hypervisor;

use super::{Ctx, mem, socket};

/// How long a file may stay open in vain, if looking takes no more than a small part of that.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const SMALL_PART: u32 = 20;

/// From now on they are looked for.
pub fn look_after(hv: &Rc<Hypervisor>) {
    if hv.looked_after.replace(true) {
        return;
    }
    let work = {
        let hv = hv.clone();
        async move {
            let mut pause = LOOK_AGAIN;
            while hv.looked_after.get() {
                hv.timers.until(hv.now() + pause).await;
                let begun = hv.now();
                close_unused(&hv).await;
                pause = LOOK_AGAIN.max((hv.now() - begun) * SMALL_PART);
                hv.looked_after.set(is_needed(&hv));
            }
        }
    };
    hv.executor.spawn(work).detach();
}

fn is_needed(hv: &Hypervisor) -> bool {
    let tasks = hv.tasks.borrow();
    let mapped = tasks.values().any(|task| !task.mm().mapped.borrow().is_empty());
    mapped || !hv.travelling.borrow().is_empty()
}

/// Closes what is out of use by now.
pub async fn close_unused(hv: &Rc<Hypervisor>) {
    socket::forget_arrived(hv);
    socket::forget_closed(hv);
    // One thread of each address space: they share its mappings.
    let tasks: HashMap<_, _> = {
        let tasks = hv.tasks.borrow();
        tasks
            .values()
            .map(|task| (Rc::as_ptr(&task.mm()), task.clone()))
            .collect()
    };
    for task in tasks.into_values() {
        let cx = Ctx::new(hv.clone(), task.clone(), RawCall::default());
        mem::close_unmapped(&cx, &task).await;
    }
}
