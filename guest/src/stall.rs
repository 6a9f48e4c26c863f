//! What a guest does that stands still, and one that is slow: a watchdog tells the one from the
//! other.

use core::arch::asm;

use crate::checks::{Checked, verdict};
use crate::console::line;
use crate::gic;
use crate::handler::{irqs_off, irqs_on, wait_until};
use crate::others::{self, BEGUN, Job, has_done, tell};
use crate::sysreg::{read_sysreg, write_sysreg};

/// How long the slow one takes for one thing, in ticks: 100 ms, and how many things it does. The
/// watchdog barks after 200 ms.
const THING: u64 = 6_250_000;
const THINGS: u32 = 8;

/// Turns the other CPUs on.
fn begin() {
    gic::init();
    irqs_on();
    for cpu in 1..gic::count_cpus() {
        others::turn_on(cpu);
        wait_until(|| BEGUN.of(cpu) == 1);
    }
}

/// All CPUs spin, with interrupts masked.
pub fn all_spin() -> Checked {
    begin();
    (1..gic::count_cpus()).for_each(|cpu| tell(cpu, Job::Spin));
    spin()
}

/// Spins for ever, with interrupts masked.
pub fn spin() -> ! {
    irqs_off();
    loop {
        core::hint::spin_loop();
    }
}

/// One CPU spins, and the first one sleeps and wakes.
pub fn one_spins() -> Checked {
    begin();
    tell(1, Job::Spin);
    wait_until(|| has_done(1));
    Ok(())
}

/// All CPUs wait for an interrupt, and none comes.
pub fn all_wait() -> Checked {
    begin();
    irqs_off();
    loop {
        // SAFETY: a hint.
        unsafe { asm!("wfi", options(nostack)) };
    }
}

/// All CPUs take their time: the first one writes a line now and then, the second one runs at EL0,
/// and the third one waits now and then. None does anything else.
pub fn is_slow() -> Checked {
    begin();
    tell(1, Job::AtEl0);
    tell(2, Job::Slow);
    for thing in 0..THINGS {
        until(read_sysreg!("cntvct_el0") + THING);
        line(format_args!("{thing}"));
    }
    let late = |cpu| {
        wait_until(|| has_done(cpu));
        cpu
    };
    verdict([1, 2].map(late) == [1, 2], "a CPU is lost")
}

/// Computes, and does not wait.
fn until(time: u64) {
    while read_sysreg!("cntvct_el0") < time {
        core::hint::spin_loop();
    }
}

/// Waits now and then, with interrupts masked.
pub fn slow() {
    irqs_off();
    for _ in 0..THINGS {
        until(read_sysreg!("cntvct_el0") + THING / 2);
        // For longer than other CPUs may take before this one comes to WFI.
        write_sysreg!("cntv_tval_el0", THING / 2);
        write_sysreg!("cntv_ctl_el0", 1);
        // SAFETY: a hint, which ends when the interrupt is pending.
        unsafe { asm!("wfi", options(nostack)) };
        write_sysreg!("cntv_ctl_el0", 0);
    }
    irqs_on();
}

/// Runs at EL0 for as long as the others take, and does not wait.
pub fn at_el0() {
    unsafe extern "C" {
        /// Runs at EL0 until that time. See `boot`.
        fn guest_at_el0(until: u64);
    }
    // CNTKCTL_EL1.EL0VCTEN: EL0 may read the counter.
    write_sysreg!("cntkctl_el1", 1 << 1);
    let until = read_sysreg!("cntvct_el0") + THING * u64::from(THINGS);
    // SAFETY: the code at EL0 reads the counter, and uses no stack.
    unsafe { guest_at_el0(until) };
    irqs_on();
}
