//! The time, and the time slices of tasks.

use crate::irq::{self, Handled};
use crate::scheduler;
use crate::sysreg::{isb, read_sysreg, write_sysreg};

/// How long a task keeps its CPU while others wait for it, as a part of a second.
const SLICES_PER_SECOND: u64 = 100;

/// CNTHP_CTL_EL2.ENABLE.
const ENABLE: u64 = 1;

/// Returns the time, in ticks of the counter. By anybody.
pub fn now() -> u64 {
    isb();
    read_sysreg!("cntpct_el0")
}

/// Returns how many ticks a slice has. By anybody.
pub fn slice() -> u64 {
    read_sysreg!("cntfrq_el0") / SLICES_PER_SECOND
}

/// Enables the timer's interrupt on this CPU.
pub(crate) fn init_this() {
    no_slice();
    irq::enable(irq::HYPERVISOR_TIMER);
}

/// Begins a time slice, unless one has begun. With interrupts off.
pub(crate) fn begin_slice() {
    if read_sysreg!("cnthp_ctl_el2") & ENABLE == 0 {
        // SAFETY: nothing that Rust knows of changes.
        unsafe {
            write_sysreg!("cnthp_tval_el2", slice());
            write_sysreg!("cnthp_ctl_el2", ENABLE);
        }
        isb();
    }
}

/// Ends the time slice: nobody else waits. With interrupts off.
pub(crate) fn no_slice() {
    // SAFETY: nothing that Rust knows of changes.
    unsafe { write_sysreg!("cnthp_ctl_el2", 0) };
    isb();
}

/// Handles the timer.
pub(crate) fn timer() -> Handled {
    no_slice();
    scheduler::slice_is_over();
    Handled::Done
}
