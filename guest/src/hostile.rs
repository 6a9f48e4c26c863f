//! What a guest does that means harm, and one beside it that means none.

use core::sync::atomic::Ordering::Relaxed;

use crate::checks::{Checked, verdict};
use crate::gic;
use crate::handler::{KEEPS_TIMER, forget, irqs_off, irqs_on, taken};
use crate::mmio;
use crate::sysreg::{read_sysreg, write_sysreg};

/// How often it writes.
const WRITES: u32 = 300_000;
/// How often the other one arms its timer, for how many ticks, and how many ticks a time slice has.
const TIMERS: usize = 100;
const PERIOD: u64 = 100_000;
const SLICE: u64 = 625_000;

/// Writes anything to every register of the GIC, at full speed, and is interrupted by what comes of
/// it. Nothing is to be seen of that here: whether the hypervisor stands it is the check.
pub fn writes_garbage() -> Checked {
    gic::init();
    irqs_on();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..WRITES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (value, offset) = (random.rotate_left(32), (random >> 20) as usize % 0x1_0000);
        match random >> 8 & 15 {
            0..6 => mmio::write(gic::GICD + offset / 4 * 4, value as u32),
            6..9 => mmio::write(
                gic::GICR + (random >> 16) as usize % 2 * 0x1_0000 + offset / 4 * 4,
                value as u32,
            ),
            9 => mmio::write_double(gic::GICD + offset / 8 * 8, value),
            10 => mmio::write_byte(gic::GICD + offset, value as u8),
            // What is interesting is not far from the beginning.
            11 => mmio::write(gic::GICD + offset / 4 * 4 % 0x400, value as u32),
            12 => mmio::write(gic::GICR + 0x1_0000 + offset / 4 * 4 % 0x400, value as u32),
            13 => write_sysreg!("icc_sgi1r_el1", value & 0xf00_ffff | 1),
            14 => write_sysreg!("icc_dir_el1", value & 0x3ff),
            _ => _ = mmio::read(gic::GICD + offset / 4 * 4),
        }
    }
    irqs_off();
    Ok(())
}

/// Arms the timer again and again. The interrupt is never later than a time slice.
pub fn is_never_late() -> Checked {
    gic::init();
    KEEPS_TIMER.store(0, Relaxed);
    let mut latest = 0;
    for _ in 0..TIMERS {
        forget();
        irqs_off();
        let due = read_sysreg!("cntvct_el0") + PERIOD;
        write_sysreg!("cntv_cval_el0", due);
        write_sysreg!("cntv_ctl_el0", 1);
        while taken() == 0 {
            // SAFETY: a hint, which ends when the interrupt is pending.
            unsafe { core::arch::asm!("wfi", options(nostack)) };
            irqs_on();
            irqs_off();
        }
        latest = latest.max(read_sysreg!("cntvct_el0") - due);
    }
    // With what it takes to switch and to handle.
    verdict(latest <= SLICE + SLICE / 50, "it is later")
}
