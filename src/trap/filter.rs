//! From the table to seccomp programs (classic BPF, seccomp(2)).

use std::ops::Range;

use super::host::Refusals;
use crate::agent;
use crate::table::{self, AGAIN_CALL, AGAIN_MARK, Catch, FdLevel, PLACEHOLDERS, Treat};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const RETURN: u16 = 0x06;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRACE: u32 = libc::SECCOMP_RET_TRACE;
const ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
/// How umvu's SIGSYS is told from those of a guest's own filters: `si_errno`.
pub const TRAP_MARK: u16 = 0x756d;
const TRAP: u32 = libc::SECCOMP_RET_TRAP | TRAP_MARK as u32;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const NR: u32 = 0;
const ARCH: u32 = 4;
const ORIGIN: u32 = 8;
const ARGS: u32 = 16;
/// Call numbers from here on are of the x32 ABI.
const X32: u32 = 0x4000_0000;

type Program = Vec<libc::sock_filter>;

fn op(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// From here come, as far as the kernel sees, the calls that umvu makes a thread make. No instruction has this address.
/// (A call that ptrace has stopped at and rewritten is filtered once more, and a notification would be interrupted by
/// signals.)
pub const REWRITTEN: u32 = 0x7676;

/// How caught calls reach umvu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// By a ptrace stop.
    Trace,
    /// By user notification.
    Notify,
}

impl Delivery {
    fn action(self) -> u32 {
        match self {
            Delivery::Trace => TRACE,
            Delivery::Notify => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

/// What becomes of a call number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Return(u32),
    /// The verdict, unless the agent makes the call.
    Path(u32),
    /// The verdict, if one of these arguments can be a virtual descriptor.
    Fds(Catch, u32),
    /// The verdict, if this argument is not 0.
    Given(usize, u32),
}

/// The filter of every process in a view, on a host that refuses these calls.
pub fn program(delivery: Delivery, refusals: &Refusals) -> Program {
    let mut code = vec![
        op(LOAD, ARCH),
        branch(JUMP_EQ, AUDIT_ARCH_X86_64, 1, 0),
        // i386: nothing may slip past.
        op(RETURN, ERRNO | libc::ENOSYS as u32),
        op(LOAD, NR),
        // The way back into a call that the tracer makes anew.
        branch(JUMP_EQ, AGAIN_CALL, 0, 4),
        op(LOAD, ARGS),
        branch(JUMP_EQ, AGAIN_MARK, 0, 1),
        op(RETURN, TRACE),
        op(RETURN, ALLOW),
        branch(JUMP_GE, X32, 0, 1),
        op(RETURN, ERRNO | libc::ENOSYS as u32),
    ];
    let caught = |nr| {
        if refusals.error(nr).is_some() {
            TRAP
        } else {
            delivery.action()
        }
    };
    tree(
        &ranges(|nr| action(nr, caught(nr))),
        &mut |action| leaf(action, &PLACEHOLDERS),
        &mut code,
    );
    code
}

/// A further filter for a process that has virtual files at low numbers, as bytes: `struct sock_filter` each. It
/// cannot notify, as only the first filter has a listener.
pub fn added_filter(level: FdLevel) -> Vec<u8> {
    let mut code = vec![
        op(LOAD, ARCH),
        branch(JUMP_EQ, AUDIT_ARCH_X86_64, 1, 0),
        op(RETURN, ALLOW),
        op(LOAD, NR),
    ];
    let low = |nr| match action(nr, TRACE) {
        fds @ Action::Fds(..) => fds,
        Action::Return(_) | Action::Path(_) | Action::Given(..) => Action::Return(ALLOW),
    };
    let low_numbers = 0..level.bound();
    tree(
        &ranges(low),
        &mut |action| leaf(action, std::slice::from_ref(&low_numbers)),
        &mut code,
    );
    bytes(&code)
}

/// A further filter for a process with virtual ids, in the same form.
pub fn ids_filter() -> Vec<u8> {
    further(|catch| match catch {
        catch if catch.concerns_ids() => Action::Return(TRACE),
        _ => Action::Return(ALLOW),
    })
}

/// A further filter for a process that has bound a socket to a virtual path, in the same form.
pub fn peers_filter() -> Vec<u8> {
    further(|catch| match catch {
        Catch::Peer(arg) => Action::Given(arg, TRACE),
        _ => Action::Return(ALLOW),
    })
}

fn further(action: impl Fn(Catch) -> Action) -> Vec<u8> {
    let mut code = vec![
        op(LOAD, ARCH),
        branch(JUMP_EQ, AUDIT_ARCH_X86_64, 1, 0),
        op(RETURN, ALLOW),
        op(LOAD, NR),
    ];
    let of = |nr| match table::entry(nr).map(|entry| entry.treat) {
        Some(Treat::Serve(catch)) => action(catch),
        _ => Action::Return(ALLOW),
    };
    tree(&ranges(of), &mut |action| leaf(action, &[]), &mut code);
    bytes(&code)
}

fn bytes(code: &Program) -> Vec<u8> {
    code.iter()
        .flat_map(|i| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat())
        .collect()
}

/// `caught` is the verdict on a call that is caught.
fn action(nr: u32, caught: u32) -> Action {
    match table::entry(nr).map(|entry| entry.treat) {
        // A call that this table does not know yet must not slip past it.
        None => Action::Return(ERRNO | libc::ENOSYS as u32),
        Some(Treat::Pass(_)) => Action::Return(ALLOW),
        Some(Treat::Refuse(errno, _)) => Action::Return(ERRNO | errno.raw() as u32),
        Some(Treat::Serve(Catch::Always)) if agent::CALLS.contains(&nr.into()) => Action::Path(caught),
        Some(Treat::Serve(Catch::Always)) => Action::Return(caught),
        Some(Treat::Serve(Catch::Ids | Catch::Peer(_))) => Action::Return(ALLOW),
        Some(Treat::Serve(Catch::Given(arg))) => Action::Given(arg, caught),
        Some(Treat::Serve(catch)) => Action::Fds(catch, caught),
    }
}

/// The first numbers of ranges with equal actions.
fn ranges(action: impl Fn(u32) -> Action) -> Vec<(u32, Action)> {
    let mut ranges: Vec<(u32, Action)> = Vec::new();
    for nr in 0..=table::LAST + 1 {
        let action = action(nr);
        if ranges.last().is_none_or(|(_, last)| *last != action) {
            ranges.push((nr, action));
        }
    }
    ranges
}

/// A balanced tree of comparisons, so that no call costs more than a few.
fn tree(ranges: &[(u32, Action)], leaf: &mut impl FnMut(Action) -> Program, code: &mut Program) {
    if let [(_, action)] = ranges {
        code.extend(leaf(*action));
        return;
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let mut left = Program::new();
    tree(low, leaf, &mut left);
    match u8::try_from(left.len()) {
        Ok(len) => code.push(branch(JUMP_GE, high[0].0, len, 0)),
        // Conditional jumps reach 255 instructions, unconditional ones any number.
        Err(_) => code.extend([branch(JUMP_GE, high[0].0, 0, 1), op(JUMP, left.len() as u32)]),
    }
    code.extend(left);
    tree(high, leaf, code);
}

/// The end of a path through the tree: caught are descriptors in `caught`. They are 32-bit integers.
fn leaf(action: Action, caught: &[Range<u32>]) -> Program {
    let (catch, verdict) = match action {
        Action::Return(value) => return judge(value),
        Action::Path(verdict) => return [pass_if(5, agent::PASS), judge(verdict)].concat(),
        Action::Given(arg, verdict) => return [pass_if(arg, 0), judge(verdict)].concat(),
        Action::Fds(catch, verdict) => (catch, verdict),
    };
    let verdict = judge(verdict);
    let len = verdict.len() as u8;
    let mut code = Program::new();
    for arg in catch.args() {
        code.push(op(LOAD, ARGS + 8 * u32::from(arg)));
        if let Catch::FdOrStandard(_) = catch {
            code.push(branch(JUMP_GE, FdLevel::Standard.bound(), len, 0));
            code.extend(&verdict);
        }
        for range in caught {
            code.push(branch(JUMP_GE, range.end, len + 1, 0));
            code.push(branch(JUMP_GE, range.start, 0, len));
            code.extend(&verdict);
        }
    }
    code.push(op(RETURN, ALLOW));
    code
}

/// Lets calls pass where the argument has this value.
fn pass_if(arg: usize, value: u64) -> Program {
    let at = ARGS + 8 * arg as u32;
    vec![
        op(LOAD, at),
        branch(JUMP_EQ, value as u32, 0, 3),
        op(LOAD, at + 4),
        branch(JUMP_EQ, (value >> 32) as u32, 0, 1),
        op(RETURN, ALLOW),
    ]
}

/// Returns a verdict.
fn judge(verdict: u32) -> Program {
    if verdict != libc::SECCOMP_RET_USER_NOTIF {
        return vec![op(RETURN, verdict)];
    }
    vec![
        op(LOAD, ORIGIN),
        branch(JUMP_EQ, REWRITTEN, 0, 3),
        op(LOAD, ORIGIN + 4),
        branch(JUMP_EQ, 0, 0, 1),
        op(RETURN, ALLOW),
        op(RETURN, verdict),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsmodules::api::Errno;

    /// Runs a program as the kernel would.
    fn run(code: &Program, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        run_at(code, arch, nr, args, 0x7fff_0000_7676)
    }

    fn run_at(code: &Program, arch: u32, nr: u32, args: [u64; 6], origin: u64) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&nr.to_ne_bytes());
        data.extend_from_slice(&arch.to_ne_bytes());
        data.extend_from_slice(&origin.to_ne_bytes());
        args.iter().for_each(|arg| data.extend_from_slice(&arg.to_ne_bytes()));
        let (mut at, mut a) = (0, 0);
        loop {
            let i = code[at];
            at += 1;
            let jump = |taken| usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LOAD => a = u32::from_ne_bytes(data[i.k as usize..][..4].try_into().unwrap()),
                JUMP => at += i.k as usize,
                JUMP_EQ => at += jump(a == i.k),
                JUMP_GE => at += jump(a >= i.k),
                RETURN => return i.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn call(code: &Program, nr: u32, args: [u64; 6]) -> u32 {
        run(code, AUDIT_ARCH_X86_64, nr, args)
    }

    const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;

    #[test]
    fn agrees_with_the_table_for_every_number() {
        for delivery in [Delivery::Trace, Delivery::Notify] {
            let code = program(delivery, &Refusals::default());
            assert!(code.len() < 4096, "{} instructions", code.len());
            let caught = delivery.action();
            for nr in 0..=table::LAST + 50 {
                let with = |fd: u64| call(&code, nr, [fd; 6]);
                match action(nr, caught) {
                    Action::Return(value) | Action::Path(value) => assert_eq!(with(0), value, "{nr}"),
                    Action::Given(..) => {
                        assert_eq!(with(0), ALLOW, "{nr}");
                        assert_eq!(with(1), caught, "{nr}");
                        assert_eq!(with(1 << 32), caught, "{nr}");
                    }
                    Action::Fds(catch, _) => {
                        let standard = matches!(catch, Catch::FdOrStandard(_));
                        assert_eq!(with(2), if standard { caught } else { ALLOW }, "{nr}");
                        assert_eq!(with(3), ALLOW, "{nr}");
                        assert_eq!(with(767), ALLOW, "{nr}");
                        assert_eq!(with(768), caught, "{nr}");
                        assert_eq!(with(5000), ALLOW, "{nr}");
                        assert_eq!(with(20_000), caught, "{nr}");
                        assert_eq!(with(u64::MAX), ALLOW, "{nr}");
                        // Only the low half is the descriptor.
                        assert_eq!(with((1 << 32) + 5), ALLOW, "{nr}");
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_slips_past() {
        let code = program(Delivery::Notify, &Refusals::default());
        assert_eq!(run(&code, 0x4000_0003, 5, [0; 6]), ENOSYS);
        assert_eq!(call(&code, X32 + 1, [0; 6]), ENOSYS);
        assert_eq!(call(&code, 100_000, [0; 6]), ENOSYS);
        assert_eq!(call(&code, libc::SYS_io_uring_setup as u32, [0; 6]), ENOSYS);
        assert_eq!(call(&code, libc::SYS_prctl as u32, [0; 6]), Delivery::Notify.action());
    }

    #[test]
    fn rewritten_calls_are_not_notified_of() {
        let code = program(Delivery::Notify, &Refusals::default());
        for (nr, arg) in [(libc::SYS_openat, 0), (libc::SYS_read, 768), (libc::SYS_close, 1)] {
            let made_at = |origin| run_at(&code, AUDIT_ARCH_X86_64, nr as u32, [arg; 6], origin);
            assert_eq!(made_at(u64::from(REWRITTEN)), ALLOW, "{nr}");
            assert_eq!(made_at(0x40_1000), libc::SECCOMP_RET_USER_NOTIF, "{nr}");
        }
        let refused = run_at(
            &code,
            AUDIT_ARCH_X86_64,
            libc::SYS_io_uring_setup as u32,
            [0; 6],
            REWRITTEN.into(),
        );
        assert_eq!(refused, ENOSYS);
    }

    #[test]
    fn the_agents_calls_pass() {
        let code = program(Delivery::Notify, &Refusals::default());
        let (half, pass) = (u64::from(agent::PASS as u32), agent::PASS);
        for nr in agent::CALLS {
            assert_eq!(call(&code, nr as u32, [0, 0, 0, 0, 0, pass]), ALLOW, "{nr}");
            assert_eq!(call(&code, nr as u32, [0, 0, 0, 0, 0, half]), Delivery::Notify.action());
        }
        let other = call(&code, libc::SYS_execve as u32, [0, 0, 0, 0, 0, pass]);
        assert_eq!(other, Delivery::Notify.action());
    }

    #[test]
    fn the_way_back_is_a_marked_getpid() {
        let code = program(Delivery::Notify, &Refusals::default());
        assert_eq!(call(&code, AGAIN_CALL, [AGAIN_MARK.into(), 0, 0, 0, 0, 0]), TRACE);
        assert_eq!(call(&code, AGAIN_CALL, [0; 6]), ALLOW);
    }

    #[test]
    fn what_the_host_refuses_raises_a_signal() {
        let refusals = [libc::SYS_mount, libc::SYS_fsync].map(|nr| (nr as u32, Errno::EPERM));
        let code = program(Delivery::Trace, &refusals.into_iter().collect());
        assert_eq!(call(&code, libc::SYS_mount as u32, [0; 6]), TRAP);
        assert_eq!(call(&code, libc::SYS_umount2 as u32, [0; 6]), TRACE);
        assert_eq!(call(&code, libc::SYS_fsync as u32, [768, 0, 0, 0, 0, 0]), TRAP);
        assert_eq!(call(&code, libc::SYS_fsync as u32, [3, 0, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn added_filters_catch_low_numbers() {
        let decode = |bytes: Vec<u8>| -> Program {
            let instruction = |b: &[u8]| libc::sock_filter {
                code: u16::from_ne_bytes([b[0], b[1]]),
                jt: b[2],
                jf: b[3],
                k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            };
            bytes.chunks_exact(8).map(instruction).collect()
        };
        let read = libc::SYS_read as u32;
        let standard = decode(added_filter(FdLevel::Standard));
        assert_eq!(call(&standard, read, [2, 0, 0, 0, 0, 0]), TRACE);
        assert_eq!(call(&standard, read, [3, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(&standard, libc::SYS_getppid as u32, [2, 0, 0, 0, 0, 0]), ALLOW);
        let ids = decode(ids_filter());
        for (nr, caught) in [
            (libc::SYS_getuid, true),
            (libc::SYS_fstat, true),
            (libc::SYS_read, false),
        ] {
            assert_eq!(call(&ids, nr as u32, [3; 6]) == TRACE, caught, "{nr}");
            assert_eq!(
                call(&program(Delivery::Trace, &Refusals::default()), nr as u32, [3; 6]),
                ALLOW
            );
        }
        let peers = decode(peers_filter());
        assert_eq!(call(&peers, libc::SYS_accept as u32, [3, 1, 1, 0, 0, 0]), TRACE);
        assert_eq!(call(&peers, libc::SYS_accept as u32, [3, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(&peers, libc::SYS_sendto as u32, [3; 6]), ALLOW);
        let all = decode(added_filter(FdLevel::All));
        assert_eq!(call(&all, read, [700, 0, 0, 0, 0, 0]), TRACE);
        assert_eq!(call(&all, read, [5000, 0, 0, 0, 0, 0]), TRACE);
        assert_eq!(call(&all, libc::SYS_mmap as u32, [0, 0, 0, 0, u64::MAX, 0]), ALLOW);
    }
}
