//! What the guest does when it is interrupted.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::cpu::{self, Each};
use crate::gic;
use crate::sysreg::{read_sysreg, write_sysreg};

/// How many interrupts may be remembered.
const MOST: usize = 128;
/// How many INTIDs are counted.
const INTIDS: usize = 128;

/// The INTIDs that the first CPU has acknowledged, in their order.
static TAKEN: [AtomicU32; MOST] = [const { AtomicU32::new(0) }; MOST];
static COUNT: AtomicU32 = AtomicU32::new(0);
/// How often each INTID was taken, by CPU.
static COUNTS: [Each; INTIDS] = [const { Each::new() }; INTIDS];
/// The handler of an SPI makes the one before it pending, of a higher priority, down to this.
pub static NESTS_DOWN_TO: AtomicU32 = AtomicU32::new(u32::MAX);
/// How deep handlers of the first CPU are nested, and were.
static DEPTH: AtomicU32 = AtomicU32::new(0);
pub static DEEPEST: AtomicU32 = AtomicU32::new(0);
/// ESR_EL1 of the last synchronous exception.
pub static SYNDROME: AtomicU64 = AtomicU64::new(0);
/// How often the handler of the timer leaves it as it is. Written by the first CPU.
pub static KEEPS_TIMER: AtomicU32 = AtomicU32::new(0);
/// The INTID whose handler stays until this is another one. Written by the first CPU.
pub static STAYS_IN: AtomicU32 = AtomicU32::new(0);

const VIRTUAL_TIMER: u32 = 27;
const PHYSICAL_TIMER: u32 = 30;

/// Returns how many interrupts the first CPU has taken since the last [`forget`].
pub fn taken() -> usize {
    COUNT.load(Relaxed) as usize
}

/// Returns the INTID of the interrupt that it has taken as the `index`th.
pub fn nth(index: usize) -> u32 {
    TAKEN.get(index).map_or(u32::MAX, |taken| taken.load(Relaxed))
}

/// Returns how often an INTID was taken, by CPU.
pub fn counts(intid: u32) -> &'static Each {
    &COUNTS[intid as usize % INTIDS]
}

/// Forgets what was taken. By the first CPU.
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

/// Waits for an interrupt, if `condition` does not hold. Handles it.
pub fn wait_unless(condition: impl FnOnce() -> bool) {
    irqs_off();
    if !condition() {
        // SAFETY: a hint, which ends when an interrupt is pending, masked or not.
        unsafe { core::arch::asm!("dsb sy", "wfi", options(nostack)) };
    }
    irqs_on();
}

/// Waits until a condition holds that another CPU makes true: for a while by looking, and then by
/// sleeping a little, so that the other one may run where there are fewer CPUs than it seems.
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..20 {
        if condition() {
            return;
        }
        relax();
    }
    while !condition() {
        write_sysreg!("cntv_tval_el0", 2_000);
        write_sysreg!("cntv_ctl_el0", 1);
        wait_unless(|| read_sysreg!("cntv_ctl_el0") & 1 == 0);
    }
    write_sysreg!("cntv_ctl_el0", 0);
}

/// Makes way for who shares this CPU's resources.
pub fn relax() {
    // SAFETY: a hint.
    unsafe { core::arch::asm!("yield", options(nostack)) };
}

pub extern "C" fn irq() {
    let intid = read_sysreg!("icc_iar1_el1") as u32;
    if intid >= 1020 {
        return;
    }
    match intid {
        VIRTUAL_TIMER if KEEPS_TIMER.load(Relaxed) > 0 => {
            KEEPS_TIMER.store(KEEPS_TIMER.load(Relaxed) - 1, Relaxed)
        }
        VIRTUAL_TIMER => write_sysreg!("cntv_ctl_el0", 0),
        PHYSICAL_TIMER => write_sysreg!("cntp_ctl_el0", 0),
        _ => {}
    }
    if cpu::number() == 0 {
        first_cpu(intid);
    }
    // After what else is to be seen by who waits for it.
    counts(intid).count();
    while intid != 0 && STAYS_IN.load(Relaxed) == intid {
        relax();
    }
    write_sysreg!("icc_eoir1_el1", intid.into());
}

fn first_cpu(intid: u32) {
    let count = COUNT.load(Relaxed);
    if let Some(taken) = TAKEN.get(count as usize) {
        taken.store(intid, Relaxed);
    }
    COUNT.store(count + 1, Relaxed);
    let depth = DEPTH.load(Relaxed) + 1;
    DEPTH.store(depth, Relaxed);
    DEEPEST.store(DEEPEST.load(Relaxed).max(depth), Relaxed);
    if intid > NESTS_DOWN_TO.load(Relaxed) {
        // ELR_EL1 and SPSR_EL1 are on the stack.
        irqs_on();
        gic::pend(intid - 1);
        // Until it was taken.
        while DEEPEST.load(Relaxed) == depth {}
        irqs_off();
    }
    DEPTH.store(depth - 1, Relaxed);
}

/// Goes on after the instruction that was UNDEFINED. `pc` is where the vector has saved ELR_EL1.
pub extern "C" fn synchronous(pc: &mut u64) {
    SYNDROME.store(read_sysreg!("esr_el1"), Relaxed);
    *pc += 4;
}
