//! When a process gets an agent ([`crate::agent`]), and what the agents are told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::agent::{CALLS, CLibrary, FACTS, Facts, Knows, LEN, Names, Site, Slots, image, is_agent};
use crate::hypervisor::Hypervisor;
use crate::table::FdLevel;
use crate::task::{Agent, Task};
use crate::trap::{GuestMemory, Memory, Reply};
use crate::view::Place;

use super::Ctx;

/// A process that makes fewer calls on paths of the host is quicker without.
const WORTHWHILE: u32 = 8;

type Sites = Rc<[Site]>;

/// The agents of a view.
#[derive(Default)]
pub struct Agents {
    off: Cell<bool>,
    names: RefCell<Names>,
    generation: Cell<u32>,
    /// Where C libraries make calls, by path and offset: what is read once.
    libraries: RefCell<HashMap<(String, u64), Sites>>,
    /// Which mounts there were, and whether there was a trace, when all were told last.
    seen: Cell<(u64, bool)>,
}

impl Agents {
    pub fn switch_off(&self) {
        self.off.set(true);
    }

    fn sites_of(&self, library: &CLibrary<'_>) -> Sites {
        let key = (library.path.to_owned(), library.offset);
        let mut libraries = self.libraries.borrow_mut();
        let read = || library.sites().unwrap_or_default().into();
        libraries.entry(key).or_insert_with(read).clone()
    }

    /// Has what concerns all of them changed?
    fn have_news(&self, hv: &Hypervisor) -> bool {
        let seen = (hv.mounts.changes(), hv.trace.is_on());
        if self.seen.replace(seen) == seen {
            return false;
        }
        let mut names = Names::default();
        hv.mounts.each_name(|name| names.insert(name));
        self.names.replace(names);
        self.generation.set(self.generation.get() + 1);
        true
    }
}

/// Before a call gets its reply: the agents are told what it has changed, and the caller gets one if that is worthwhile.
pub async fn keep_up(cx: &Ctx, reply: Reply) {
    let hv = &cx.hv;
    if hv.agents.off.get() {
        return;
    }
    if hv.agents.have_news(hv) || moves(cx.call.nr) {
        hv.tasks.borrow().values().for_each(|task| tell(hv, task));
    } else {
        tell(hv, &cx.task);
    }
    if reply == Reply::Passthrough && CALLS.contains(&cx.call.nr.into()) {
        attract(cx).await;
    }
}

/// Calls that change where other threads are, too, or what a mount allows.
fn moves(nr: u32) -> bool {
    matches!(
        nr.into(),
        libc::SYS_chdir | libc::SYS_fchdir | libc::SYS_chroot | libc::SYS_pivot_root | libc::SYS_mount
    )
}

/// A fork has copied an agent, perhaps before it was told something.
pub fn forked(hv: &Hypervisor, child: &Task) {
    let (mm, mut knows) = (child.mm(), [0; 8]);
    let mut agent = mm.agent.borrow_mut();
    let Some(known) = agent.as_mut() else { return };
    let at = known.address + FACTS.start as u64;
    if Memory::new(child.tid.get()).read(at, &mut knows).is_ok() {
        let [knows, generation] = [0, 4].map(|n| u32::from_ne_bytes([0, 1, 2, 3].map(|m| knows[n + m])));
        (known.knows, known.generation) = (Knows::from_bits_retain(knows), generation);
    }
    drop(agent);
    tell(hv, child);
}

/// Brings what the task's agent knows up to date.
fn tell(hv: &Hypervisor, task: &Task) {
    let shared = is_shared(task);
    let mm = task.mm();
    let mut agent = mm.agent.borrow_mut();
    let Some(agent) = agent.as_mut() else { return };
    let mut knows = known(hv, task);
    if shared {
        // Not more than holds for the others.
        knows &= agent.knows;
    }
    let generation = hv.agents.generation.get();
    if (knows, generation) == (agent.knows, agent.generation) {
        return;
    }
    let memory = Memory::new(task.tid.get());
    if !is_there(memory, agent.address) {
        return;
    }
    let at = agent.address + FACTS.start as u64;
    let know = |knows: Knows| memory.patch(at, &knows.bits().to_ne_bytes());
    // A process that is gone need not be told.
    let _ = if generation == agent.generation {
        know(knows)
    } else {
        let mut bytes = vec![0; FACTS.end];
        facts(hv, knows).put(&mut bytes);
        // While the names change, it decides nothing.
        know(Knows::empty())
            .and_then(|()| memory.patch(at + 4, &bytes[FACTS.start + 4..]))
            .and_then(|()| know(knows))
    };
    (agent.knows, agent.generation) = (knows, generation);
}

/// Is this still the memory that has the agent? A process may have unmapped it; and a child that shares its parent's
/// memory may be executing a program just now, of which umvu has not heard yet: the parent is told by itself.
fn is_there(memory: Memory, address: u64) -> bool {
    let mut start = [0; 16];
    memory.read(address, &mut start).is_ok() && is_agent(&start)
}

fn facts(hv: &Hypervisor, knows: Knows) -> Facts {
    Facts {
        knows,
        generation: hv.agents.generation.get(),
        names: hv.agents.names.borrow().clone(),
    }
}

/// What an agent of this task may decide.
fn known(hv: &Hypervisor, task: &Task) -> Knows {
    let (fs, process) = (task.fs(), task.process());
    let (root, cwd) = (fs.root.borrow(), fs.cwd.borrow());
    let plain = root.is_host_root() && root.is_transparent() && !hv.mounts.covers_root();
    if !plain || task.creds().is_some() || hv.trace.is_on() || process.confined.get() {
        return Knows::empty();
    }
    let mut knows = Knows::ABSOLUTE;
    knows.set(Knows::RELATIVE, is_ordinary(&cwd));
    let descriptors = process.level.get() <= FdLevel::Standard && !hv.mounts.shows_host();
    knows.set(Knows::DESCRIPTORS, descriptors);
    knows.set(Knows::SYMLINKS, !hv.mounts.has_visible());
    knows
}

/// A directory where names stand for the same files for everybody.
fn is_ordinary(cwd: &Place) -> bool {
    let Place::Host(place) = cwd else { return false };
    place.mount.is_base() && cwd.is_transparent() && !["/proc", "/dev"].iter().any(|dir| place.path.starts_with(dir))
}

/// Has the task's memory other users?
fn is_shared(task: &Task) -> bool {
    Rc::strong_count(&task.mm.borrow()) > 1
}

/// A call that an agent might have spared.
async fn attract(cx: &Ctx) {
    let mm = cx.task.mm();
    let calls = mm.path_calls.get().saturating_add(1);
    mm.path_calls.set(calls);
    drop(mm);
    // Another thread might just be executing what is patched.
    if calls < WORTHWHILE || is_shared(&cx.task) || known(&cx.hv, &cx.task).is_empty() {
        return;
    }
    if let Some(end) = call_end(cx)
        && cx.task.mm().sites.borrow_mut().insert(end)
    {
        patch(cx, end).await;
    }
}

/// Where the call returns to, if the host lets the agent make calls of its own.
fn call_end(cx: &Ctx) -> Option<u64> {
    let tracer = cx.hv.tracer.borrow();
    let allowed = CALLS.iter().all(|nr| tracer.allows(*nr));
    tracer.call_end(cx.task.tid.get()).filter(|_| allowed)
}

/// Leads a call site to an agent. Where that is not possible, its calls are caught as ever.
async fn patch(cx: &Ctx, end: u64) -> Option<()> {
    let memory = cx.memory();
    let site = site_at(memory, end)?;
    let mm = cx.task.mm();
    if mm.agent.borrow().is_none() {
        mm.agent.replace(Some(map(cx, &site).await?));
    }
    lead(memory, mm.agent.borrow_mut().as_mut()?, &site)
}

/// The call site with this end.
fn site_at(memory: Memory, end: u64) -> Option<Site> {
    let mut code = [0; Site::MAX_LEN];
    memory.read(end.checked_sub(code.len() as u64)?, &mut code).ok()?;
    Site::new(end, code)
}

fn lead(memory: Memory, agent: &mut Agent, site: &Site) -> Option<()> {
    if agent.used == Slots::COUNT {
        return None;
    }
    let slot = Slots::address(agent.address, agent.used);
    memory
        .patch(slot, &Slots::code(agent.address, agent.used, site)?)
        .ok()?;
    memory.patch(site.address(), &site.jump(slot)?).ok()?;
    agent.used += 1;
    Some(())
}

/// A process is about to have threads, which is the last moment to patch its C library: all call sites there.
pub fn before_threads(hv: &Hypervisor, task: &Task) {
    let (shared, mm, tid) = (is_shared(task), task.mm(), task.tid.get());
    let mut agent = mm.agent.borrow_mut();
    let (false, Some(agent)) = (shared, agent.as_mut()) else {
        return;
    };
    let maps = std::fs::read_to_string(format!("/proc/{tid}/maps")).unwrap_or_default();
    let memory = Memory::new(tid);
    for library in maps.lines().filter_map(CLibrary::on) {
        for site in hv.agents.sites_of(&library).iter() {
            let site = site.moved(library.start);
            if mm.sites.borrow_mut().insert(site.end()) && site_at(memory, site.end()) == Some(site) {
                lead(memory, agent, &site);
            }
        }
    }
}

/// Puts an agent into the caller's memory, where jumps between it and the site reach.
async fn map(cx: &Ctx, site: &Site) -> Option<Agent> {
    let protection = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let args = [beside(site), LEN, protection, kind, u64::MAX, 0];
    let address = cx.run(libc::SYS_mmap, args).await.ok()? as u64;
    if Slots::code(address, 0, site).is_none() {
        // Unmapping what was just mapped cannot fail.
        let _ = cx.run(libc::SYS_munmap, [address, LEN, 0, 0, 0, 0]).await;
        return None;
    }
    let facts = facts(&cx.hv, known(&cx.hv, &cx.task));
    let agent = Agent {
        address,
        used: 0,
        knows: facts.knows,
        generation: facts.generation,
    };
    cx.memory().patch(address, &image(&facts)).ok()?;
    Some(agent)
}

/// An address where most likely nothing is: below the libraries, or below a program that has a fixed address.
fn beside(site: &Site) -> u64 {
    const BELOW: u64 = 16 << 20;
    const LOWEST: u64 = 1 << 20;
    (site.address() / LEN * LEN).saturating_sub(BELOW).max(LOWEST)
}
