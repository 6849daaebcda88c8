//! umvu's own calls: what `vumount`, `vu_lsmod`, `umvu ps` and the others ask.

use std::rc::Rc;

use fsmodules::api::{Errno, Name};
use fsmodules::ids::{Creds, IdMap, Owners};

use crate::control::{
    COMMANDS_DIRECTORY, Description, FileIds, MAX_MESSAGE, ModuleLine, MountLine, ProcessLine, Request, Response,
};
use crate::door::Door;
use crate::hypervisor::Hypervisor;
use crate::table;
use crate::task::Task;
use crate::trace;
use crate::trap::{Reply, Tid};
use crate::view::{Place, WalkFlags};

use super::Ctx;
use super::context::CWD;
use super::install::catch_ids;

/// The control call: (option, request, its length, response, its capacity). The response's length.
pub async fn call(cx: &Ctx) -> Result<Reply, Errno> {
    let len = cx.arg(2) as usize;
    if len > MAX_MESSAGE {
        return Err(Errno::E2BIG);
    }
    let request = serde_json::from_slice(&cx.read(cx.arg(1), len)?).map_err(|_| Errno::EPROTO)?;
    let response = serve(cx, request).await?;
    let bytes = serde_json::to_vec(&response).map_err(|_| Errno::EIO)?;
    if bytes.len() as u64 > cx.arg(4) {
        return Err(Errno::ERANGE);
    }
    cx.write(cx.arg(3), &bytes)?;
    Ok(Reply::Return(bytes.len() as i64))
}

async fn serve(cx: &Ctx, request: Request) -> Result<Response, Errno> {
    match request {
        Request::Await { target, above } => Ok(match answering(cx, target.as_bytes(), above).await {
            Ok(()) => Response::Done,
            Err(Errno::ERESTARTSYS) => return Err(Errno::EINTR),
            Err(errno) => Response::Failed(errno.to_string()),
        }),
        Request::AwaitEnd { target } => {
            unmounted(cx, target.as_bytes()).await?;
            Ok(Response::Done)
        }
        Request::KeepRoot { commands } => {
            cx.hv.mounts.set_root(cx.task.fs().root.borrow().clone());
            fit_commands(cx, &commands).await?;
            Ok(Response::Done)
        }
        Request::GoHome => {
            if let Some(root) = cx.task.process().home.take() {
                cx.task.fs().root.replace(root);
            }
            Ok(Response::Done)
        }
        Request::Become {
            uid,
            gid,
            groups,
            files,
        } => {
            let for_the_view = files.is_some();
            if let Some(files) = files
                && let Err(message) = see_files(cx, uid, gid, &files)
            {
                return Ok(Response::Failed(message));
            }
            let creds = Creds::of(uid, gid, groups);
            if for_the_view {
                cx.hv.user.replace(Some(creds.clone()));
            } else if cx.hv.user.borrow().is_none() {
                cx.hv.mixed_ids.set(true);
            }
            catch_ids(cx).await?;
            cx.task.set_creds(creds);
            Ok(Response::Done)
        }
        Request::Join => {
            let user = cx.hv.user.borrow().clone();
            if let Some(creds) = user {
                catch_ids(cx).await?;
                cx.task.set_creds(creds);
            }
            Ok(Response::Done)
        }
        other => Ok(simple(&cx.hv, other)),
    }
}

/// Shows umvu's own commands in the caller's tree. One without a directory for them does without.
async fn fit_commands(cx: &Ctx, commands: &[String]) -> Result<(), Errno> {
    let (Ok(own), Ok(directory)) = (
        std::env::current_exe(),
        cx.walk(CWD, COMMANDS_DIRECTORY.as_bytes(), WalkFlags::FOLLOW).await,
    ) else {
        return Ok(());
    };
    let Some(directory) = directory.place else {
        return Ok(());
    };
    for command in commands {
        let path = format!("{COMMANDS_DIRECTORY}/{command}");
        let found = cx.walk(CWD, path.as_bytes(), WalkFlags::FOLLOW).await;
        if found.is_ok_and(|found| found.place.is_none()) {
            cx.hv
                .mounts
                .fit_command(&directory, &Name::new(command.as_bytes())?, &own);
        }
    }
    Ok(())
}

fn see_files(cx: &Ctx, uid: u32, gid: u32, files: &FileIds) -> Result<(), String> {
    let map = |text: &Option<String>, real: u32, shown: u32| match text {
        Some(text) => text.parse::<IdMap>(),
        None => Ok(IdMap::renaming(real, shown)),
    };
    let uids = map(&files.uid_map, rustix::process::geteuid().as_raw(), uid)?;
    let gids = map(&files.gid_map, rustix::process::getegid().as_raw(), gid)?;
    let mut owners = Owners::new(uids, gids);
    if let Some(path) = &files.state {
        owners.keep_in(path.as_ref()).map_err(|e| format!("{path}: {e}"))?;
    }
    cx.hv.owners.replace(owners);
    Ok(())
}

/// How many file systems are mounted at a path, one over the other.
fn mounted(hv: &Hypervisor, target: &[u8]) -> usize {
    let mounts = hv.mounts.visible();
    let here = mounts.iter().filter(|mount| hv.mounts.mountpoint_path(mount) == target);
    here.count()
}

/// Waits until a file system that is mounted at a path above others answers.
async fn answering(cx: &Ctx, target: &[u8], above: usize) -> Result<(), Errno> {
    loop {
        let changed = cx.hv.mounts.changes();
        let flags = WalkFlags::FOLLOW | WalkFlags::NO_CROSSING_CHECK;
        if mounted(&cx.hv, target) > above
            && let Ok(found) = cx.walk(CWD, target, flags).await
            && let Some(Place::Virtual(place)) = found.place
            && place.dentry.is_root()
            && let Some(fs) = place.mount.fs()
        {
            return fs.ready().await;
        }
        cx.until(cx.hv.mounts.changed(changed)).await?;
    }
}

/// Waits until nothing is mounted at a path any more.
async fn unmounted(cx: &Ctx, target: &[u8]) -> Result<(), Errno> {
    loop {
        let changed = cx.hv.mounts.changes();
        if mounted(&cx.hv, target) == 0 {
            return Ok(());
        }
        cx.until(cx.hv.mounts.changed(changed)).await?;
    }
}

/// The requests that need no caller.
pub fn simple(hv: &Rc<Hypervisor>, request: Request) -> Response {
    match request {
        Request::Describe => Response::View(describe(hv)),
        Request::Module { name, enabled } => match hv.modules.iter().find(|m| m.module.name() == name) {
            Some(entry) => {
                entry.enabled.set(enabled);
                Response::Done
            }
            None => Response::Failed(format!("no module `{name}`; vu_lsmod lists them")),
        },
        Request::Rename { name } if *hv.name.borrow() == name => Response::Done,
        Request::Rename { name } => match Door::open(&name) {
            Ok(door) => {
                hv.door.replace(Some(door));
                hv.name.replace(name);
                Response::Done
            }
            Err(error) => Response::Failed(error.to_string()),
        },
        Request::Trace { what, file } => match hv.trace.switch(what.as_deref(), file.as_deref()) {
            Ok(()) => Response::Done,
            Err(error) => Response::Failed(error),
        },
        Request::Await { .. }
        | Request::AwaitEnd { .. }
        | Request::KeepRoot { .. }
        | Request::GoHome
        | Request::Become { .. }
        | Request::Join
        | Request::Enter { .. } => Response::Failed("not possible from here".into()),
    }
}

fn describe(hv: &Rc<Hypervisor>) -> Description {
    let mounts = hv.mounts.visible().into_iter().map(|mount| {
        let shown = mount.describe();
        MountLine {
            target: String::from_utf8_lossy(&hv.mounts.mountpoint_path(&mount)).into_owned(),
            fstype: shown.fstype,
            source: shown.source,
            options: shown.options,
        }
    });
    let processes = hv
        .tasks
        .borrow()
        .values()
        .map(|task| process(hv, task))
        .collect::<Vec<_>>();
    let modules = hv.modules.iter().map(|entry| ModuleLine {
        name: entry.module.name().into(),
        summary: entry.module.summary().into(),
        enabled: entry.enabled.get(),
    });
    let mut processes = processes;
    processes.sort_by_key(|line| (line.pid, line.tid));
    Description {
        name: hv.name.borrow().clone(),
        pid: hv.pid,
        mounts: mounts.collect(),
        processes,
        modules: modules.collect(),
    }
}

fn process(hv: &Rc<Hypervisor>, task: &Rc<Task>) -> ProcessLine {
    let tid = task.tid.get();
    let command = std::fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
    let caught = task.current_call().map(|call| {
        let cx = Ctx::new(hv.clone(), task.clone(), call);
        trace::show(&cx, &call)
    });
    ProcessLine {
        pid: task.tgid().as_raw(),
        tid: tid.as_raw(),
        command: command.trim_end().to_owned(),
        waits_in: caught.or_else(|| native_call(tid)),
    }
}

/// The call in which the kernel has a thread wait (`/proc/TID/syscall`).
fn native_call(tid: Tid) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    let nr = text.split_ascii_whitespace().next()?.parse().ok()?;
    table::entry(nr).map(|entry| entry.name.to_owned())
}
