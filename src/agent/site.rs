//! Call sites in the guest's code: `mov eax, NUMBER; syscall`, as C libraries have it, and glibc's syscall(3).
//!
//! The first of the two instructions is replaced by a jump of the same length, so that a thread that stands behind it
//! goes on as if nothing had happened, and so that the last one is still there for calls that umvu has to see.

use super::CALLS;
use super::image::{ENTRY, LEN, SLOTS};
use crate::abi::{RawCall, fold};

/// A place where a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its first instruction, which is to be replaced.
    first: [u8; Site::JUMP_LEN],
    /// Of its first instruction.
    start: u64,
    /// Behind its last one.
    end: u64,
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `mov rsi, rdi; mov edi, AT_FDCWD`: glibc has this between the two where it opens files for itself.
const MOVES: [u8; 8] = [0x48, 0x89, 0xfe, 0xbf, 0x9c, 0xff, 0xff, 0xff];

/// `mov r9, [rsp + 8]`: the last instruction of syscall(3) before the call, whose number is in its place already.
const LAST_ARGUMENT: [u8; Site::JUMP_LEN] = [0x4c, 0x8b, 0x4c, 0x24, 0x08];

/// Is it a call that the agent makes, or an older form of one? (The few that it leaves to umvu reach it as ever.)
fn is_known(nr: u32) -> bool {
    CALLS.contains(&fold(RawCall { nr, args: [0; 6] }).nr.into())
}

impl Site {
    /// No site is longer.
    pub const MAX_LEN: usize = Site::JUMP_LEN + MOVES.len() + SYSCALL.len();
    const JUMP_LEN: usize = 5;

    /// `code` are the bytes before `end`, where a call that has been made returns to.
    pub fn new(end: u64, code: [u8; Site::MAX_LEN]) -> Option<Site> {
        let rest = code.strip_suffix(&SYSCALL)?;
        let rest = rest.strip_suffix(&MOVES).unwrap_or(rest);
        let (_, first) = rest.split_last_chunk::<{ Site::JUMP_LEN }>()?;
        let known = match *first {
            [0xb8, a, b, c, d] => is_known(u32::from_le_bytes([a, b, c, d])),
            _ => *first == LAST_ARGUMENT,
        };
        let start = end.checked_sub((code.len() - rest.len() + Site::JUMP_LEN) as u64)?;
        known.then_some(Site {
            first: *first,
            start,
            end,
        })
    }

    /// All sites in the code at this address.
    pub fn all(code: &[u8], address: u64) -> Vec<Site> {
        let found =
            |(at, window): (usize, &[u8; Site::MAX_LEN])| Site::new(address + (at + Site::MAX_LEN) as u64, *window);
        let windows = (0..).zip(code.windows(Site::MAX_LEN));
        windows
            .filter(|(_, window)| window.ends_with(&SYSCALL))
            .filter_map(|(at, window)| found((at, window.try_into().ok()?)))
            .collect()
    }

    /// The same site where the code is at an address that is higher by this.
    pub fn moved(self, by: u64) -> Site {
        let (start, end) = (self.start + by, self.end + by);
        Site { start, end, ..self }
    }

    /// Behind its last instruction.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Of its first instruction, which is to be replaced.
    pub fn address(&self) -> u64 {
        self.start
    }

    /// The jump to a slot, if it reaches that far.
    pub fn jump(&self, slot: u64) -> Option<[u8; Site::JUMP_LEN]> {
        let [a, b, c, d] = distance(self.start + Site::JUMP_LEN as u64, slot)?;
        Some([0xe9, a, b, c, d])
    }

    fn has_moves(&self) -> bool {
        self.end - self.start == Site::MAX_LEN as u64
    }
}

/// The slots of an agent: pieces of code by which sites call it and go back.
pub struct Slots;

impl Slots {
    pub const LEN: usize = 48;
    pub const COUNT: usize = (LEN as usize - SLOTS) / Slots::LEN;

    pub fn address(agent: u64, n: usize) -> u64 {
        agent + (SLOTS + n * Slots::LEN) as u64
    }

    /// The code of a slot, if the site is not too far away.
    pub fn code(agent: u64, n: usize, site: &Site) -> Option<Vec<u8>> {
        let slot = Slots::address(agent, n);
        let mut code = site.first.to_vec();
        code.extend(site.has_moves().then_some(MOVES).iter().flatten());
        code.extend([0x48, 0x8d, 0x64, 0x24, 0x80]); // lea rsp, [rsp - 128]: the red zone
        let branch = |code: &mut Vec<u8>, opcode, to| {
            code.push(opcode);
            let next = slot + code.len() as u64 + 4;
            code.extend(distance(next, to)?);
            Some(())
        };
        branch(&mut code, 0xe8, agent + ENTRY as u64)?; // call entry
        code.extend(BACK);
        branch(&mut code, 0xe9, site.end)?; // jmp: the call has been made
        branch(&mut code, 0xe9, site.end - SYSCALL.len() as u64)?; // jmp: it is to be made
        code.resize(Slots::LEN, 0xcc);
        Some(code)
    }

    /// Where the call instruction of a slot's site is, from the code at `back`, where the agent returns to the slot.
    pub fn call_of(back: u64, code: &[u8; Slots::BACK_LEN]) -> Option<u64> {
        let (_, to) = code.strip_prefix(&BACK)?.split_last_chunk::<4>()?;
        Some((back + Slots::BACK_LEN as u64).wrapping_add_signed(i32::from_le_bytes(*to).into()))
    }

    /// The length of that code.
    pub const BACK_LEN: usize = BACK.len() + 2 * Site::JUMP_LEN;
}

/// `lea rsp, [rsp + 128]; jrcxz` over the next jump.
const BACK: [u8; 10] = [0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0, 0xe3, 5];

fn distance(next: u64, to: u64) -> Option<[u8; 4]> {
    let distance = i32::try_from(to.wrapping_sub(next) as i64).ok()?;
    Some(distance.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(end: u64, code: &[u8]) -> Option<Site> {
        let mut bytes = [0x90; Site::MAX_LEN];
        bytes[Site::MAX_LEN - code.len()..].copy_from_slice(code);
        Site::new(end, bytes)
    }

    const STAT: [u8; 7] = [0xb8, 6, 1, 0, 0, 0x0f, 5];

    #[test]
    fn only_known_calls_are_sites() {
        let found = |end, code: &[u8]| site(end, code).map(|site| (site.address(), site.first[1]));
        assert_eq!(found(0x1007, &STAT), Some((0x1000, 6)));
        assert_eq!(
            found(0x1007, &[&LAST_ARGUMENT[..], &SYSCALL].concat()),
            Some((0x1000, 0x8b))
        );
        let with_moves = [&[0xb8, 1, 1, 0, 0], &MOVES[..], &SYSCALL].concat();
        assert_eq!(found(0x100f, &with_moves), Some((0x1000, 1)));
        let end = 0x100f;
        assert_eq!(site(end, &[0xb8, 0, 0, 0, 0, 0x0f, 5]), None);
        assert_eq!(site(end, &[0x90, 6, 1, 0, 0, 0x0f, 5]), None);
        assert_eq!(site(end, &[0xb8, 6, 1, 0, 0, 0x90, 0x90]), None);
        assert_eq!(site(3, &STAT), None);
    }

    #[test]
    fn all_sites_of_a_piece_of_code() {
        let code = [&[0x90; 20], &STAT[..], &[0xb8, 0, 0, 0, 0], &SYSCALL, &[0x90; 3], &STAT].concat();
        let ends: Vec<u64> = Site::all(&code, 0x1000).iter().map(Site::end).collect();
        assert_eq!(ends, [0x1000 + 27, 0x1000 + code.len() as u64]);
        assert_eq!(Site::all(&code, 0x1000)[0].moved(0x100), Site::all(&code, 0x1100)[0]);
    }

    #[test]
    fn slots_know_their_way_back() {
        let agent = 0x7ffe_0000;
        assert!(Slots::address(agent, Slots::COUNT) <= agent + LEN);
        let with_moves = [&[0xb8, 1, 1, 0, 0], &MOVES[..], &SYSCALL].concat();
        for code in [&STAT[..], &with_moves] {
            let site = site(0x7fff_1234, code).unwrap();
            let slot = Slots::code(agent, 3, &site).unwrap();
            let at = slot.windows(BACK.len()).position(|bytes| bytes == BACK).unwrap();
            let back = slot[at..at + Slots::BACK_LEN].try_into().unwrap();
            assert_eq!(
                Slots::call_of(Slots::address(agent, 3) + at as u64, &back),
                Some(0x7fff_1232)
            );
            assert_eq!(Slots::call_of(agent, &[0; Slots::BACK_LEN]), None);
            assert_eq!(Slots::code(0x7000_0000_0000, 0, &site), None);
            assert_eq!(site.jump(0x7000_0000_0000), None);
        }
    }
}
