//! execve(2): programs, `#!` scripts and their interpreters, wherever they are.
//!
//! A virtual program is executed from its page cache, the memory file behind its placeholders. `#!` lines are read
//! here whenever the script or its interpreter may be virtual, as the kernel's own reading would look on the host.

use std::rc::Rc;

use fsmodules::api::{Backing, Errno, FileKind, MapRequest, MountFlags, OpenFlags};

use crate::abi::RawCall;
use crate::task::{Mm, OpenFile, Task};
use crate::trap::Reply;
use crate::view::{Place, VirtualPlace};

use super::Ctx;
use super::context::{CWD, Target};
use super::install::PAGE;

/// `BINPRM_BUF_SIZE`: as much of a script as the kernel looks at.
const HEADER: usize = 256;
/// Interpreters of interpreters, as the kernel allows.
const MAX_DEPTH: usize = 5;

pub async fn execve(cx: &Ctx) -> Result<Reply, Errno> {
    let path = cx.path(0)?;
    let program = find(cx, CWD, &path, 0, true).await?;
    start(cx, program, path, cx.arg(1), cx.arg(2)).await
}

pub async fn execveat(cx: &Ctx) -> Result<Reply, Errno> {
    let (dirfd, path, flags) = (cx.fd(0), cx.path(1)?, cx.int(4));
    if flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0;
    let program = find(cx, dirfd, &path, flags, follow).await?;
    // What a script gets to see as its own name.
    let shown = match (path.first(), dirfd) {
        (Some(b'/'), _) | (Some(_), CWD) => path,
        (None, _) => format!("/dev/fd/{dirfd}").into_bytes(),
        _ => [format!("/dev/fd/{dirfd}/").as_bytes(), &path].concat(),
    };
    start(cx, program, shown, cx.arg(2), cx.arg(3)).await
}

enum Program {
    /// The kernel finds it by the caller's own arguments.
    Native,
    Host(Vec<u8>),
    Virtual(VirtualPlace),
}

async fn find(cx: &Ctx, dirfd: i32, path: &[u8], flags: u32, follow: bool) -> Result<Program, Errno> {
    Ok(match cx.target_at(dirfd, path, flags, follow).await? {
        Target::Native => Program::Native,
        Target::Host(path) => Program::Host(path),
        Target::Virtual(place) => Program::Virtual(place),
    })
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
    let Some(mut line) = first.as_ref().and_then(|first| script(&first.header)) else {
        return match (program, first) {
            (Program::Native, _) => Ok(Reply::Passthrough),
            (Program::Host(path), _) => run(cx, Executable::Host(path), None, argv, envp).await,
            (Program::Virtual(_), Some(Opened { file: Some(file), .. })) => {
                run(cx, Executable::Virtual(file), None, argv, envp).await
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
                    (Program::Host(path), _) => Executable::Host(path),
                    _ => Executable::Host(interpreter),
                };
                return run(cx, executable, Some(front), argv, envp).await;
            }
        }
    }
    Err(Errno::ELOOP)
}

/// Opens a program to look at it. `None` for a native one that umvu cannot read: the kernel will know.
async fn open(cx: &Ctx, program: &Program, path: &[u8]) -> Result<Option<Opened>, Errno> {
    let host = match program {
        Program::Virtual(place) => return open_virtual(cx, place).await.map(Some),
        Program::Host(path) => path.clone(),
        Program::Native if path.first() == Some(&b'/') => path.to_vec(),
        Program::Native => [format!("/proc/{}/cwd/", cx.task.tid.get()).as_bytes(), path].concat(),
    };
    Ok(host_header(&host).map(|header| Opened { header, file: None }))
}

fn host_header(path: &[u8]) -> Option<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut header = Vec::new();
    std::fs::File::open(path)
        .ok()?
        .take(HEADER as u64)
        .read_to_end(&mut header)
        .ok()?;
    Some(header)
}

async fn open_virtual(cx: &Ctx, place: &VirtualPlace) -> Result<Opened, Errno> {
    if place.node().kind() != FileKind::Regular || place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    let file = place.node().clone().open(cx.cx(), OpenFlags::EXEC).await?;
    let header = file.read(cx.cx(), 0, HEADER).await?.concat();
    let open = OpenFile::new(Some(file), place.clone(), OpenFlags::EXEC);
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
    Host(Vec<u8>),
    Virtual(Rc<OpenFile>),
}

/// Executes it, with `front` in place of the first argument.
async fn run(
    cx: &Ctx,
    executable: Executable,
    front: Option<Vec<Vec<u8>>>,
    argv: u64,
    envp: u64,
) -> Result<Reply, Errno> {
    let path = match &executable {
        Executable::Host(path) => path.clone(),
        Executable::Virtual(open) => memory_path(cx, open).await?,
    };
    let block = ArgumentBlock::build(cx, &path, front, argv).await?;
    let call = RawCall {
        nr: libc::SYS_execve as u32,
        args: [block.path, block.argv.unwrap_or(argv), envp, 0, 0, 0],
    };
    let exe = match executable {
        Executable::Virtual(open) => Some(open),
        Executable::Host(_) => None,
    };
    cx.task.executing.replace(exe);
    let result = cx.hv.run(&cx.task, call).await;
    if result < 0 {
        cx.task.executing.take();
        block.unmap(cx).await;
    }
    Ok(if (-516..=-512).contains(&result) {
        Reply::Restart
    } else {
        Reply::Return(result)
    })
}

/// Fills the page cache of a program, and gives the path by which the kernel can execute it.
async fn memory_path(cx: &Ctx, open: &OpenFile) -> Result<Vec<u8>, Errno> {
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
        Backing::Memory(memory) => Ok(cx.hv.reopen_path(&memory)),
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
    async fn build(cx: &Ctx, path: &[u8], front: Option<Vec<Vec<u8>>>, argv: u64) -> Result<ArgumentBlock, Errno> {
        let mut strings = vec![path.to_vec()];
        let mut kept = Vec::new();
        if let Some(front) = &front {
            strings.extend(front.iter().cloned());
            // Everything but argv[0], which the kernel replaces too.
            kept = pointers(cx, argv)?.into_iter().skip(1).collect();
        }
        let text: usize = strings.iter().map(|s| s.len() + 1).sum();
        let table = text.next_multiple_of(8);
        let words = front.as_ref().map_or(0, |front| front.len() + kept.len() + 1);
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
    let exe = task.executing.take();
    process
        .exe
        .replace(exe.as_ref().map(|open| Place::Virtual(open.place.clone())));
    process.running.replace(exe);
    task.mm.replace(Mm::new());
    let files = task.files();
    if files.shared() {
        files.leave();
        task.files.replace(files.copy());
    }
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
