//! What a guest does that means harm, and one beside it that means none.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::checks::{Checked, verdict};
use crate::cpu::{self, Each};
use crate::handler::{KEEPS_TIMER, forget, irqs_off, irqs_on, relax, taken, wait_until};
use crate::others::{self, BEGUN, Job, has_done, tell};
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::{gic, mmio};

/// How often each CPU writes.
const WRITES: u32 = 75_000;
/// How often the other one arms its timer, for how many ticks, and how many ticks a time slice has.
const TIMERS: usize = 100;
const PERIOD: u64 = 100_000;
const SLICE: u64 = 62_500;

/// The CPUs that are about to write: one each.
static READY: Each = Each::new();
/// Whether they may. Written by the first CPU.
static GO: AtomicU32 = AtomicU32::new(0);

/// Writes anything to every register of the GIC, and to system registers that trap, on all CPUs, at
/// full speed, and is interrupted by what comes of it. Nothing is to be seen of that here: whether
/// the hypervisor stands it is the check.
pub fn writes_garbage() -> Checked {
    gic::init();
    irqs_on();
    let others = || 1..gic::count_cpus();
    for cpu in others() {
        verdict(others::turn_on(cpu) == 0, "a CPU does not come on")?;
        wait_until(|| BEGUN.of(cpu) == 1);
        tell(cpu, Job::Garbage);
    }
    // Later, nobody is sure to be told of anything by an interrupt.
    others().for_each(|cpu| wait_until(|| READY.of(cpu) == 1));
    GO.store(1, Relaxed);
    garbage();
    while !others().all(has_done) {
        relax();
    }
    irqs_off();
    Ok(())
}

/// Writes garbage, on this CPU, when all do.
pub fn garbage() {
    READY.count();
    while GO.load(Relaxed) == 0 {
        relax();
    }
    let cpus = gic::count_cpus();
    let mut random = 0x2545_f491_4f6c_dd1d_u64.rotate_left(cpu::number() as u32 * 9);
    for _ in 0..WRITES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (value, offset) = (random.rotate_left(32), (random >> 20) as usize % 0x1_0000);
        let frame = gic::GICR + (random >> 36) as usize % (2 * cpus) * 0x1_0000;
        match random >> 8 & 31 {
            0..9 => mmio::write(gic::GICD + offset / 4 * 4, value as u32),
            9..15 => mmio::write(frame + offset / 4 * 4, value as u32),
            15 | 16 => mmio::write_double(gic::GICD + offset / 8 * 8, value),
            17 | 18 => mmio::write_byte(gic::GICD + offset, value as u8),
            19 => mmio::write_byte(frame + offset, value as u8),
            // What is interesting is not far from the beginning.
            20 | 21 => mmio::write(gic::GICD + offset / 4 * 4 % 0x400, value as u32),
            22 | 23 => mmio::write(frame + offset / 4 * 4 % 0x400, value as u32),
            24 => _ = mmio::read(gic::GICD + offset / 4 * 4),
            25 => _ = mmio::read(frame + offset / 4 * 4),
            // To those of the list, or to all others.
            26 => write_sysreg!("icc_sgi1r_el1", value & 0x100_0f00_ffff | 1),
            27 => write_sysreg!("icc_asgi1r_el1", value & 0x100_0f00_ffff | 1),
            28 => write_sysreg!("icc_sgi0r_el1", value & 0x100_0f00_ffff | 1),
            29 => write_sysreg!("icc_dir_el1", value & 0x3ff),
            30 => {
                write_sysreg!("cntp_tval_el0", value & 0xffff);
                write_sysreg!("cntp_ctl_el0", value >> 62);
            }
            _ => {
                write_sysreg!("icc_pmr_el1", value & 0xff);
                write_sysreg!("icc_igrpen1_el1", value >> 8 & 1);
                write_sysreg!("mdscr_el1", 0);
                _ = read_sysreg!("id_aa64pfr0_el1");
            }
        }
    }
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
    // With what it takes to switch and to handle, and the exits that end slices late.
    verdict(latest <= SLICE + SLICE / 5, "it is later")
}
