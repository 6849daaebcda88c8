//! Puts a thread that stands in the agent back to its own call.

use super::image::{LEN, framed, is_agent};
use super::site::Slots;
use crate::abi::{Regs, SYSCALL_LEN};

/// Of what the agent has saved, by the distance from its frame.
const SAVED: usize = 12;
const RED_ZONE: u64 = 128;

/// If the thread is in the agent, at a fault or in an interrupted call: its registers as if its own call had come as far.
/// `read` reads its memory.
pub fn rollback(regs: &mut Regs, fault: bool, read: impl Fn(u64, &mut [u8]) -> Option<()>) -> Option<()> {
    // A call that is over has its result in rax, which stays.
    if !fault && !regs.is_interrupted() {
        return None;
    }
    let r = &mut regs.0;
    let agent = r.rip / LEN * LEN;
    if !framed().contains(&(r.rip - agent)) {
        return None;
    }
    let mut start = [0; 16];
    read(agent, &mut start)?;
    if !is_agent(&start) {
        return None;
    }
    // From the lowest address: r15, r14, …, the number of the call, the caller's rbp, the return address.
    let mut frame = [[0; 8]; SAVED + 2];
    read(r.rbp.checked_sub(8 * SAVED as u64)?, frame.as_flattened_mut())?;
    let [r15, r14, r13, r12, rbx, r9, r8, r10, rdx, rsi, rdi, nr, rbp, back] = frame.map(u64::from_ne_bytes);
    let mut code = [0; Slots::BACK_LEN];
    read(back, &mut code)?;
    let call = Slots::call_of(back, &code)?;
    r.rsp = r.rbp + 16 + RED_ZONE;
    (r.rbp, r.rbx, r.r12, r.r13, r.r14, r.r15) = (rbp, rbx, r12, r13, r14, r15);
    (r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9) = (rdi, rsi, rdx, r10, r8, r9);
    if fault {
        (r.rip, r.rax, r.orig_rax) = (call, nr, u64::MAX);
    } else {
        (r.rip, r.orig_rax) = (call + SYSCALL_LEN, nr);
    }
    Some(())
}
