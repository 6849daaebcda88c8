//! Call sites in the guest's code: `mov eax, NUMBER; syscall`, as C libraries have it.
//!
//! The first of the two instructions is replaced by a jump of the same length, so that a thread that stands between them
//! goes on as if nothing had happened, and so that the second one is still there for calls that umvu has to see.

use super::image::{ENTRY, LEN, SLOTS};

/// A place where a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Of its first instruction.
    pub address: u64,
    nr: u32,
}

/// The calls that the agent knows.
const CALLS: [i64; 11] = [
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
];

impl Site {
    pub const LEN: u64 = 7;
    pub const JUMP_LEN: u64 = 5;

    /// `code` are the bytes before `end`, where a call that has been made returns to.
    pub fn new(end: u64, code: [u8; Site::LEN as usize]) -> Option<Site> {
        let [0xb8, a, b, c, d, 0x0f, 0x05] = code else {
            return None;
        };
        let nr = u32::from_le_bytes([a, b, c, d]);
        let address = end.checked_sub(Site::LEN)?;
        CALLS.contains(&nr.into()).then_some(Site { address, nr })
    }

    /// The jump to a slot, if it reaches that far.
    pub fn jump(&self, slot: u64) -> Option<[u8; Site::JUMP_LEN as usize]> {
        let [a, b, c, d] = distance(self.address + Site::JUMP_LEN, slot)?;
        Some([0xe9, a, b, c, d])
    }
}

/// The slots of an agent: pieces of code by which sites call it and go back.
pub struct Slots;

impl Slots {
    pub const LEN: usize = 40;
    pub const COUNT: usize = (LEN as usize - SLOTS) / Slots::LEN;
    /// From a slot's beginning to where the agent returns.
    pub const RETURN: u64 = 15;

    pub fn address(agent: u64, n: usize) -> u64 {
        agent + (SLOTS + n * Slots::LEN) as u64
    }

    /// The code of a slot, if the site is not too far away.
    pub fn code(agent: u64, n: usize, site: &Site) -> Option<Vec<u8>> {
        let slot = Slots::address(agent, n);
        let mut code = vec![0xb8]; // mov eax, NUMBER
        code.extend(site.nr.to_le_bytes());
        code.extend([0x48, 0x8d, 0x64, 0x24, 0x80]); // lea rsp, [rsp - 128]: the red zone
        let branch = |code: &mut Vec<u8>, opcode, to| {
            code.push(opcode);
            let next = slot + code.len() as u64 + 4;
            code.extend(distance(next, to)?);
            Some(())
        };
        branch(&mut code, 0xe8, agent + ENTRY as u64)?; // call entry
        code.extend([0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0]); // lea rsp, [rsp + 128]
        code.extend([0xe3, 5]); // jrcxz: over the next jump
        branch(&mut code, 0xe9, site.address + Site::LEN)?; // jmp: the call has been made
        branch(&mut code, 0xe9, site.address + Site::JUMP_LEN)?; // jmp: it is to be made
        code.resize(Slots::LEN, 0xcc);
        Some(code)
    }

    /// Where the call instruction of the slot's site is, from the code of the slot at this address.
    pub fn call_of(slot: u64, code: &[u8; Slots::LEN]) -> u64 {
        const LAST_JUMP: usize = 30;
        let distance = i32::from_le_bytes([31, 32, 33, 34].map(|n| code[n]));
        (slot + LAST_JUMP as u64 + 5).wrapping_add_signed(distance.into())
    }
}

fn distance(next: u64, to: u64) -> Option<[u8; 4]> {
    let distance = i32::try_from(to.wrapping_sub(next) as i64).ok()?;
    Some(distance.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_calls_are_sites() {
        let stat = [0xb8, 6, 1, 0, 0, 0x0f, 5];
        assert_eq!(
            Site::new(0x1007, stat),
            Some(Site {
                address: 0x1000,
                nr: 262
            })
        );
        assert_eq!(Site::new(0x1007, [0xb8, 0, 0, 0, 0, 0x0f, 5]), None);
        assert_eq!(Site::new(0x1007, [0x90, 6, 1, 0, 0, 0x0f, 5]), None);
        assert_eq!(Site::new(3, stat), None);
    }

    #[test]
    fn slots_know_their_way_back() {
        let site = Site {
            address: 0x7fff_1234,
            nr: 262,
        };
        let agent = 0x7ffe_0000;
        let code: [u8; Slots::LEN] = Slots::code(agent, 3, &site).unwrap().try_into().unwrap();
        assert_eq!(Slots::call_of(Slots::address(agent, 3), &code), site.address + 5);
        assert!(Slots::address(agent, Slots::COUNT) <= agent + LEN);
        assert_eq!(Slots::code(0x7000_0000_0000, 0, &site), None);
        assert_eq!(site.jump(0x7000_0000_0000), None);
    }
}
