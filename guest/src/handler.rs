//! What the guest does when it is interrupted.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::gic;
use crate::sysreg::{read_sysreg, write_sysreg};

/// How many interrupts may be remembered.
const MOST: usize = 128;

/// The INTIDs that were acknowledged, in their order.
static TAKEN: [AtomicU32; MOST] = [const { AtomicU32::new(0) }; MOST];
static COUNT: AtomicU32 = AtomicU32::new(0);
/// The handler of an SPI makes the one before it pending, of a higher priority, down to this.
pub static NESTS_DOWN_TO: AtomicU32 = AtomicU32::new(u32::MAX);
/// How deep handlers are nested, and were.
static DEPTH: AtomicU32 = AtomicU32::new(0);
pub static DEEPEST: AtomicU32 = AtomicU32::new(0);
/// ESR_EL1 of the last synchronous exception.
pub static SYNDROME: AtomicU64 = AtomicU64::new(0);

const TIMER: u32 = 27;

/// Returns how many interrupts were taken since the last [`forget`].
pub fn taken() -> usize {
    COUNT.load(Relaxed) as usize
}

/// Returns the INTID of the interrupt that was taken as the `index`th.
pub fn nth(index: usize) -> u32 {
    TAKEN.get(index).map_or(u32::MAX, |taken| taken.load(Relaxed))
}

/// Forgets what was taken.
pub fn forget() {
    COUNT.store(0, Relaxed);
    DEEPEST.store(0, Relaxed);
}

/// Turns interrupts on.
pub fn irqs_on() {
    // SAFETY: handlers touch atomics only.
    unsafe { core::arch::asm!("msr daifclr, #2", "isb", options(nostack)) };
}

/// Turns interrupts off.
pub fn irqs_off() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("msr daifset, #2", "isb", options(nostack)) };
}

pub extern "C" fn irq() {
    let intid = read_sysreg!("icc_iar1_el1") as u32;
    if intid >= 1020 {
        return;
    }
    let count = COUNT.load(Relaxed);
    if let Some(taken) = TAKEN.get(count as usize) {
        taken.store(intid, Relaxed);
    }
    COUNT.store(count + 1, Relaxed);
    let depth = DEPTH.load(Relaxed) + 1;
    DEPTH.store(depth, Relaxed);
    DEEPEST.store(DEEPEST.load(Relaxed).max(depth), Relaxed);
    if intid == TIMER {
        write_sysreg!("cntv_ctl_el0", 0);
    }
    if intid > NESTS_DOWN_TO.load(Relaxed) {
        // ELR_EL1 and SPSR_EL1 are on the stack.
        irqs_on();
        gic::pend(intid - 1);
        irqs_off();
    }
    DEPTH.store(depth - 1, Relaxed);
    write_sysreg!("icc_eoir1_el1", intid.into());
}

/// Goes on after the instruction that was UNDEFINED. `pc` is where the vector has saved ELR_EL1.
pub extern "C" fn synchronous(pc: &mut u64) {
    SYNDROME.store(read_sysreg!("esr_el1"), Relaxed);
    *pc += 4;
}
