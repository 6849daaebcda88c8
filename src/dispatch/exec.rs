//! execve(2): programs, `#!` scripts and their interpreters, wherever they are.
//!
//! A virtual program is executed from its page cache, the memory file behind its placeholders. `#!` lines are read
//! here whenever the script or its interpreter may be virtual, as the kernel's own reading would look on the host.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use fsmodules::api::{Backing, Errno, FileKind, MapRequest, MountFlags, OpenFlags};
use rustix::fs::OFlags;

use crate::abi::{RawCall, is_restart};
use crate::task::{Executing, Mm, OpenFile, Task};
use crate::trap::Reply;
use crate::view::{Events, Place, VirtualPlace, WalkFlags};

use super::carrier::Way;
use super::context::{CWD, HostFile, Target, host_file};
use super::install::{PAGE, anew};
use super::{Ctx, elf, ids, lease, owners};

/// `BINPRM_BUF_SIZE`: as much of a script as the kernel looks at.
const HEADER: usize = 256;
/// Interpreters of interpreters, as the kernel allows.
const MAX_DEPTH: usize = 5;

pub async fn execve(cx: &Ctx) -> Result<Reply, Errno> {
    ids::share(cx).await?;
    let path = cx.path(0)?;
    let program = find(cx, CWD, &path, 0, true).await?;
    start(cx, program, path, cx.arg(1), cx.arg(2)).await
}

pub async fn execveat(cx: &Ctx) -> Result<Reply, Errno> {
    let (dirfd, path, flags) = (cx.fd(0), cx.path(1)?, cx.int(4));
    if flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    ids::share(cx).await?;
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0;
    let program = find(cx, dirfd, &path, flags, follow).await?;
    if let Program::Virtual(place) = &program
        && place.node().kind() == FileKind::Symlink
    {
        return Err(Errno::ELOOP);
    }
    // What a script gets to see as its own name.
    let shown = match (path.first(), dirfd) {
        (Some(b'/'), _) | (Some(_), CWD) => path,
        (None, _) => format!("/dev/fd/{dirfd}").into_bytes(),
        _ => [format!("/dev/fd/{dirfd}/").as_bytes(), &path].concat(),
    };
    let by_fd = shown.starts_with(b"/dev/fd/");
    if by_fd
        && cx
            .run(libc::SYS_fcntl, [dirfd as u64, libc::F_GETFD as u64, 0, 0, 0, 0])
            .await?
            != 0
    {
        // The interpreter could not open a script by that name.
        let opened = open(cx, &program, &shown).await?;
        if opened.is_some_and(|opened| script(&opened.header).is_some()) {
            return Err(Errno::ENOENT);
        }
    }
    start(cx, program, shown, cx.arg(2), cx.arg(3)).await
}

enum Program {
    /// The kernel finds it by the caller's own arguments, and its interpreter too.
    Native,
    Host(HostFile),
    Virtual(VirtualPlace),
}

async fn find(cx: &Ctx, dirfd: i32, path: &[u8], flags: u32, follow: bool) -> Result<Program, Errno> {
    Ok(match cx.target_at(dirfd, path, flags, follow).await? {
        Target::Native if cx.is_plain() => Program::Native,
        Target::Native => Program::Host(named(cx, dirfd, path, follow).await?),
        Target::Host(file) => Program::Host(file),
        Target::Virtual(place) => Program::Virtual(place),
    })
}

/// The host's path of a file that the kernel would find by itself.
async fn named(cx: &Ctx, dirfd: i32, path: &[u8], follow: bool) -> Result<HostFile, Errno> {
    if path.is_empty() {
        return cx.host_file_of(dirfd);
    }
    let flags = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
    host_file(&cx.walk(dirfd, path, flags).await?).ok_or(Errno::ENOENT)
}

/// A program that is open, and how it begins.
struct Opened {
    header: Vec<u8>,
    /// The virtual file, or `None` for a file of the host.
    file: Option<Rc<OpenFile>>,
}

async fn start(cx: &Ctx, program: Program, shown: Vec<u8>, argv: u64, envp: u64) -> Result<Reply, Errno> {
    if matches!(program, Program::Native) && !cx.hv.mounts.has_visible() {
        return Ok(Reply::Passthrough);
    }
    let first = open(cx, &program, &shown).await?;
    let mut invocation = Invocation {
        name: shown.clone(),
        front: None,
        argv,
        envp,
    };
    let Some(mut line) = first.as_ref().and_then(|first| script(&first.header)) else {
        return match (program, first) {
            (Program::Native, _) => Ok(Reply::Passthrough),
            (Program::Host(file), _) => run(cx, Executable::Host(file), invocation).await,
            (Program::Virtual(_), Some(Opened { file: Some(file), .. })) => {
                run(cx, Executable::Virtual(file), invocation).await
            }
            _ => Err(Errno::EACCES),
        };
    };
    // The script's name in front of its arguments; each further interpreter in front of that.
    let mut front = vec![shown];
    for _ in 0..MAX_DEPTH {
        let (interpreter, argument) = line?;
        let found = find(cx, CWD, &interpreter, 0, true).await?;
        front.splice(0..0, std::iter::once(interpreter.clone()).chain(argument));
        let opened = open(cx, &found, &interpreter).await?;
        match opened.as_ref().and_then(|opened| script(&opened.header)) {
            Some(next) => line = next,
            None => {
                let executable = match (found, opened) {
                    (Program::Virtual(_), Some(Opened { file: Some(file), .. })) => Executable::Virtual(file),
                    (Program::Host(file), _) => Executable::Host(file),
                    _ => Executable::Host(named(cx, CWD, &interpreter, true).await?),
                };
                invocation.front = Some(front);
                return run(cx, executable, invocation).await;
            }
        }
    }
    Err(Errno::ELOOP)
}

/// Opens a program to look at it. `None` for one of the host that umvu cannot read: the kernel will know.
async fn open(cx: &Ctx, program: &Program, path: &[u8]) -> Result<Option<Opened>, Errno> {
    let host = match program {
        Program::Virtual(place) => return open_virtual(cx, place).await.map(Some),
        Program::Host(file) if file.mount.flags().contains(MountFlags::NOEXEC) => return Err(Errno::EACCES),
        Program::Host(file) => file.path.clone(),
        Program::Native if path.first() == Some(&b'/') => path.to_vec(),
        Program::Native => [format!("/proc/{}/cwd/", cx.task.tid.get()).as_bytes(), path].concat(),
    };
    Ok(host_header(&host).map(|header| Opened { header, file: None }))
}

fn host_header(path: &[u8]) -> Option<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::OpenOptionsExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut header = Vec::new();
    // Does not wait until somebody gives up a lease.
    let mut how = std::fs::File::options();
    how.read(true).custom_flags(libc::O_NONBLOCK);
    how.open(path).ok()?.take(HEADER as u64).read_to_end(&mut header).ok()?;
    Some(header)
}

async fn open_virtual(cx: &Ctx, place: &VirtualPlace) -> Result<Opened, Errno> {
    if place.node().kind() != FileKind::Regular || place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    let _opening = lease::opening(cx, place, OpenFlags::EXEC).await?;
    let file = place.node().clone().open(cx.cx(), OpenFlags::EXEC).await?;
    place.happened(Events::OPEN);
    let open = OpenFile::new(Some(file.clone()), place.clone(), OpenFlags::EXEC);
    let header = file.read(cx.cx(), 0, HEADER).await?.concat();
    place.happened(Events::ACCESS);
    Ok(Opened {
        header,
        file: Some(open),
    })
}

type Line = (Vec<u8>, Option<Vec<u8>>);

/// The interpreter and its one optional argument, if the file begins with `#!`; `ENOEXEC` if it names none.
fn script(header: &[u8]) -> Option<Result<Line, Errno>> {
    let rest = header.strip_prefix(b"#!")?;
    let line = match rest.iter().position(|&b| b == b'\n') {
        Some(end) => &rest[..end],
        // Cut off in the middle of the interpreter's name, it could be any other.
        None if header.len() >= HEADER && !rest.trim_ascii_start().iter().any(|b| b" \t".contains(b)) => {
            return Some(Err(Errno::ENOEXEC));
        }
        None => rest,
    };
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let line = line.split(|&b| b == 0).next().unwrap_or_default();
    let start = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
    let line = &line[start..];
    let end = line.iter().position(blank).unwrap_or(line.len());
    let (interpreter, rest) = line.split_at(end);
    if interpreter.is_empty() {
        return Some(Err(Errno::ENOEXEC));
    }
    let from = rest.iter().position(|b| !blank(b)).unwrap_or(rest.len());
    let to = rest.iter().rposition(|b| !blank(b)).map_or(from, |last| last + 1);
    let argument = (from < to).then(|| rest[from..to].to_vec());
    Some(Ok((interpreter.to_vec(), argument)))
}

enum Executable {
    Host(HostFile),
    Virtual(Rc<OpenFile>),
}

/// How a program is called.
struct Invocation {
    /// The path that was asked for, a script's own.
    name: Vec<u8>,
    /// What stands in place of the first argument.
    front: Option<Vec<Vec<u8>>>,
    argv: u64,
    envp: u64,
}

impl Invocation {
    /// What the kernel would call the thread (`TASK_COMM_LEN`).
    fn comm(&self) -> &[u8] {
        let name = self.name.rsplit(|&b| b == b'/').next().unwrap_or_default();
        &name[..name.len().min(15)]
    }
}

/// Executes it.
async fn run(cx: &Ctx, executable: Executable, invocation: Invocation) -> Result<Reply, Errno> {
    let (path, place, open) = match executable {
        Executable::Host(file) => (host_program(cx, &file).await?, Place::Host(file.place()), None),
        Executable::Virtual(open) => {
            let place = Place::Virtual(open.place.clone());
            (virtual_program(cx, &open).await?, place, Some(open))
        }
    };
    let path = Kernels {
        path: padded(path.path, invocation.name.len()),
        ..path
    };
    let block = ArgumentBlock::build(cx, &path.path, invocation.front.as_deref(), invocation.argv).await?;
    let call = RawCall {
        nr: libc::SYS_execve as u32,
        args: [
            block.path,
            block.argv.unwrap_or(invocation.argv),
            invocation.envp,
            0,
            0,
            0,
        ],
    };
    let creds = owners::executed(cx, &place).await?;
    // umvu's own commands need the host's libraries, whatever tree they are called in.
    let own = matches!(&place, Place::Host(place) if place.mount.hidden());
    let fs = cx.task.fs();
    let home = own.then(|| fs.root.replace(cx.hv.mounts.base().root_place()));
    let executing = Executing {
        place,
        open,
        creds,
        home: home.clone(),
    };
    cx.task.executing.replace(Some(executing));
    let result = cx.hv.run(&cx.task, call).await;
    if result < 0 {
        cx.task.executing.take();
        if let Some(home) = home {
            fs.root.replace(home);
        }
        block.unmap(cx).await;
        for way in path.ways {
            way.end(cx).await?;
        }
    } else {
        // A process whose memory cannot be written has other troubles.
        let _ = show_name(cx, &invocation.name);
        if path.path.rsplit(|&b| b == b'/').next() != invocation.name.rsplit(|&b| b == b'/').next() {
            cx.task.comm.replace(Some(invocation.comm().to_vec()));
        }
    }
    Ok(if is_restart(result) {
        Reply::Restart
    } else {
        Reply::Return(result)
    })
}

/// What the kernel is given to execute, and what must live until it has it.
struct Kernels {
    path: Vec<u8>,
    /// The ways to the program and its interpreter, where they are umvu's files.
    ways: Vec<Way>,
    _copy: Option<Rc<OwnedFd>>,
    _interpreter: Option<Rc<OpenFile>>,
}

async fn host_program(cx: &Ctx, file: &HostFile) -> Result<Kernels, Errno> {
    let as_it_is = || Kernels {
        path: file.path.clone(),
        ways: Vec::new(),
        _copy: None,
        _interpreter: None,
    };
    // umvu's own commands are the host's.
    if file.mount.hidden() {
        return Ok(as_it_is());
    }
    match std::fs::File::open(file.as_path()) {
        Ok(opened) => {
            if rustix::fs::access(file.as_path(), rustix::fs::Access::EXEC_OK).is_err() {
                return Err(Errno::EACCES);
            }
            Ok(with_interpreter(cx, &opened).await?.unwrap_or_else(as_it_is))
        }
        Err(_) => Ok(as_it_is()),
    }
}

async fn virtual_program(cx: &Ctx, open: &OpenFile) -> Result<Kernels, Errno> {
    let memory = memory_of(cx, open).await?;
    if let Some(opened) = anew(memory, OFlags::RDONLY)
        && let Some(patched) = with_interpreter(cx, &opened.into()).await?
    {
        return Ok(patched);
    }
    let way = Way::to(cx, memory).await?;
    Ok(Kernels {
        path: way.path.clone(),
        ways: vec![way],
        _copy: None,
        _interpreter: None,
    })
}

/// The program's copy with another interpreter, if the kernel would not find the one that the view has.
async fn with_interpreter(cx: &Ctx, program: &std::fs::File) -> Result<Option<Kernels>, Errno> {
    let Some(interpreter) = elf::interpreter(program) else {
        return Ok(None);
    };
    let mut ways = Vec::new();
    let (copy, interpreter) = match cx.target(CWD, &interpreter.path, true).await? {
        Target::Native => return Ok(None),
        Target::Host(file) if file.path == interpreter.path => return Ok(None),
        Target::Host(file) => {
            let mut programs = cx.hv.programs.borrow_mut();
            (programs.with_interpreter(program, &interpreter, &file.path), None)
        }
        // The path of an open file means that file only now.
        Target::Virtual(place) => match open_virtual(cx, &place).await? {
            Opened { file: Some(file), .. } => {
                let way = Way::to(cx, memory_of(cx, &file).await?).await?;
                let copy = elf::copy(program, &interpreter, &way.path).map(Rc::new);
                ways.push(way);
                (copy, Some(file))
            }
            _ => return Err(Errno::EACCES),
        },
    };
    let copy = copy?;
    let way = Way::to(cx, &copy).await?;
    let path = way.path.clone();
    ways.push(way);
    Ok(Some(Kernels {
        path,
        ways,
        _copy: Some(copy),
        _interpreter: interpreter,
    }))
}

/// The same path, with slashes before the last component to be at least `len` long: there will be room for the name
/// that the program is to see.
fn padded(mut path: Vec<u8>, len: usize) -> Vec<u8> {
    let slash = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
    let missing = len.saturating_sub(path.len());
    path.splice(slash..slash, std::iter::repeat_n(b'/', missing));
    path
}

/// Puts the name that the program was called by where the auxiliary vector points to (getauxval(3), `AT_EXECFN`).
fn show_name(cx: &Ctx, name: &[u8]) -> Result<(), Errno> {
    const AT_EXECFN: u64 = 31;
    let auxv = cx.task.look("auxv", std::fs::read).map_err(|_| Errno::ESRCH)?;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    let entry = auxv.chunks_exact(16).find(|entry| word(&entry[..8]) == AT_EXECFN);
    let address = entry.map(|entry| word(&entry[8..])).ok_or(Errno::ENOENT)?;
    cx.write(address, &[name, b"\0"].concat())
}

/// Gives the thread the name of the program that it executes, where the kernel has taken another one from the path that
/// it was given. Done at its first caught call, since the thread must do it itself.
pub async fn set_comm(cx: &Ctx, comm: &[u8]) -> Result<(), Errno> {
    let slot = cx.scratch_string(comm).await?;
    cx.run(libc::SYS_prctl, [libc::PR_SET_NAME as u64, slot.address, 0, 0, 0, 0])
        .await?;
    Ok(())
}

/// Fills the page cache of a program, and gives the memory from which the kernel can execute it.
async fn memory_of<'a>(cx: &Ctx, open: &'a OpenFile) -> Result<BorrowedFd<'a>, Errno> {
    let file = open.file.as_ref().ok_or(Errno::EACCES)?;
    let len = file.end(cx.cx()).await?;
    file.map(
        cx.cx(),
        MapRequest {
            offset: 0,
            len,
            shared: false,
            writable: false,
        },
    )
    .await?;
    match file.backing() {
        Backing::Memory(memory) => Ok(memory),
        _ => Err(Errno::EACCES),
    }
}

/// Guest memory with the path and a new argument vector, for as long as the exec takes.
struct ArgumentBlock {
    address: u64,
    len: u64,
    path: u64,
    argv: Option<u64>,
}

impl ArgumentBlock {
    async fn build(cx: &Ctx, path: &[u8], front: Option<&[Vec<u8>]>, argv: u64) -> Result<ArgumentBlock, Errno> {
        let mut strings = vec![path.to_vec()];
        let mut kept = Vec::new();
        if let Some(front) = front {
            strings.extend(front.iter().cloned());
            // Everything but argv[0], which the kernel replaces too.
            kept = pointers(cx, argv)?.into_iter().skip(1).collect();
        }
        let text: usize = strings.iter().map(|s| s.len() + 1).sum();
        let table = text.next_multiple_of(8);
        let words = front.map_or(0, |front| front.len() + kept.len() + 1);
        let len = ((table + words * 8) as u64).next_multiple_of(PAGE);
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let address = cx.run(libc::SYS_mmap, [0, len, protection, kind, u64::MAX, 0]).await? as u64;

        let mut bytes = Vec::with_capacity(table + words * 8);
        let mut pointers = Vec::new();
        for string in &strings {
            pointers.push(address + bytes.len() as u64);
            bytes.extend_from_slice(string);
            bytes.push(0);
        }
        bytes.resize(table, 0);
        if front.is_some() {
            for pointer in pointers[1..].iter().chain(&kept).chain([&0]) {
                bytes.extend_from_slice(&pointer.to_ne_bytes());
            }
        }
        cx.write(address, &bytes)?;
        Ok(ArgumentBlock {
            address,
            len,
            path: address,
            argv: front.map(|_| address + table as u64),
        })
    }

    async fn unmap(self, cx: &Ctx) {
        // Unmapping what was just mapped cannot fail.
        let _ = cx.run(libc::SYS_munmap, [self.address, self.len, 0, 0, 0, 0]).await;
    }
}

/// A null-terminated array of pointers.
fn pointers(cx: &Ctx, mut address: u64) -> Result<Vec<u64>, Errno> {
    const MAX_ARG_STRINGS: usize = 1 << 20;
    let mut all = Vec::new();
    if address == 0 {
        return Ok(all);
    }
    loop {
        let pointer: u64 = cx.read_value(address)?;
        if pointer == 0 {
            return Ok(all);
        }
        if all.len() >= MAX_ARG_STRINGS {
            return Err(Errno::E2BIG);
        }
        all.push(pointer);
        address += 8;
    }
}

/// The kernel has executed a program: a new address space, and a descriptor table of its own.
pub fn executed(task: &Task) {
    let process = task.process();
    let (place, open, home) = match task.executing.take() {
        Some(Executing {
            place,
            open,
            creds,
            home,
        }) => {
            if let Some(creds) = creds {
                task.set_creds(creds);
            }
            (Some(place), open, home)
        }
        None => (None, None, None),
    };
    process.home.replace(home);
    process.exe.replace(place);
    process.running.replace(open);
    task.comm.take();
    task.mm.replace(Mm::new());
    let files = task.files();
    if files.shared() {
        files.leave();
        task.files.replace(files.copy());
    }
    task.files().standard_open.set(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<Result<(String, Option<String>), Errno>> {
        let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        script(text.as_bytes()).map(|r| r.map(|(i, a)| (text_of(i), a.map(text_of))))
    }

    #[test]
    fn script_lines() {
        let ok = |i: &str, a: Option<&str>| Some(Ok((i.to_string(), a.map(str::to_string))));
        assert_eq!(line("#!/bin/sh\necho"), ok("/bin/sh", None));
        assert_eq!(
            line("#! /usr/bin/env  python3 -u \n"),
            ok("/usr/bin/env", Some("python3 -u"))
        );
        assert_eq!(line("#!/bin/sh"), ok("/bin/sh", None));
        assert_eq!(line("#!\n"), Some(Err(Errno::ENOEXEC)));
        assert_eq!(line("\x7fELF"), None);
        assert_eq!(
            line(&format!("#!/{}", &"x".repeat(400)[..HEADER - 3])),
            Some(Err(Errno::ENOEXEC))
        );
    }
}
