//! The time, the time slices of tasks, and when they want to be woken.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use doorbell_platform::IrqGuard;

use crate::bare::Bare;
use crate::cpu::Cpu;
use crate::deadlines::Deadlines;
use crate::irq::{self, Handled};
use crate::scheduler;
use crate::sysreg::{isb, read_sysreg, write_sysreg};
use crate::task::{DEADLINE, Task};

/// How long all tasks that wait for a CPU have their turns in, as a part of a second.
///
/// A spinlock that is taken in the order of arrival is handed to a vCPU that may be waiting for its
/// CPU, so each hand-over takes up to that long. It has to be well below the period of the guests'
/// ticks, 4 ms with Linux: vCPUs that take the same lock in each of their ticks find somebody
/// waiting for ever otherwise, and Linux's RCU, which notes a new grace period only where it finds
/// the lock free, stands still. (On hardware HCR_EL2.TWE has the waiters make way; QEMU traps no
/// WFE.)
const SLICES_PER_SECOND: u64 = 1000;

/// CNTHP_CTL_EL2.ENABLE.
const ENABLE: u64 = 1;

/// No time.
const NEVER: u64 = u64::MAX;

/// What the timer of a CPU is set for. On that CPU alone, with interrupts off.
pub(crate) struct Clock {
    /// When the time slice of the current task is over, if others wait.
    slice_end: AtomicU64,
    deadlines: Deadlines,
}

impl Clock {
    pub(crate) const fn new() -> Self {
        Clock { slice_end: AtomicU64::new(NEVER), deadlines: Deadlines::new() }
    }

    /// Sets the timer.
    fn program(&self) {
        let at = self.slice_end.load(Relaxed).min(self.deadlines.next().unwrap_or(NEVER));
        // SAFETY: nothing that Rust knows of changes.
        unsafe {
            write_sysreg!("cnthp_cval_el2", at);
            write_sysreg!("cnthp_ctl_el2", if at == NEVER { 0 } else { ENABLE });
        }
        isb();
    }
}

/// Returns the time, in ticks of the counter. By anybody.
pub fn now() -> u64 {
    isb();
    read_sysreg!("cntpct_el0")
}

/// Returns how many ticks a second has. By anybody.
pub(crate) fn per_second() -> u64 {
    read_sysreg!("cntfrq_el0")
}

/// Returns how many ticks all have their turns in. By anybody.
pub fn slice() -> u64 {
    per_second() / SLICES_PER_SECOND
}

/// Returns the time of day, in seconds since 1970, as the machine's PL031 says. By anybody.
pub(crate) fn of_day() -> u32 {
    /// Where the PL031 of the virt machine is.
    const DATA: usize = 0x0901_0000;
    let data: *const u32 = core::ptr::with_exposed_provenance(DATA);
    // SAFETY: the register is there, mapped as device memory for ever, and reading it changes
    // nothing.
    unsafe { data.read_volatile() }
}

/// Enables the timer's interrupt on this CPU.
pub(crate) fn init_this() {
    no_slice();
    irq::enable(irq::HYPERVISOR_TIMER);
}

/// Begins a time slice for the current task, or makes the one that has begun shorter: the shorter
/// the more others wait, so that each has its turn within a [`slice`], also one that comes while a
/// slice is under way. With interrupts off.
pub(crate) fn begin_slice() {
    let cpu = Cpu::this();
    let end = now() + slice() / (cpu.queue.len() + 1);
    if end < cpu.clock.slice_end.load(Relaxed) {
        cpu.clock.slice_end.store(end, Relaxed);
        cpu.clock.program();
    }
}

/// Ends the time slice. With interrupts off.
pub(crate) fn no_slice() {
    let clock = &Cpu::this().clock;
    clock.slice_end.store(NEVER, Relaxed);
    clock.program();
}

/// Sets when a task of this CPU wants to be woken, or that it does not. With interrupts off.
pub(crate) fn set_deadline(task: &Task, at: Option<u64>) {
    let clock = &Cpu::this().clock;
    clock.deadlines.set(task.number(), at);
    clock.program();
}

/// Has the current task woken at a time. By a task that stays on its CPU.
pub(crate) fn wake_at(at: u64) {
    let _irqs_off = IrqGuard::<Bare>::new();
    set_deadline(Task::current(), Some(at));
}

/// Sets when a task of this CPU wants to be woken, unless that is earlier already. With interrupts
/// off.
pub(crate) fn bring_deadline_forward(task: &Task, at: u64) {
    let clock = &Cpu::this().clock;
    clock.deadlines.bring_forward(task.number(), at);
    clock.program();
}

/// Handles the timer.
pub(crate) fn timer() -> Handled {
    let (clock, now) = (&Cpu::this().clock, now());
    if clock.slice_end.load(Relaxed) <= now {
        clock.slice_end.store(NEVER, Relaxed);
        scheduler::slice_is_over();
    }
    clock.deadlines.take_due(now, |task| Task::of(task).is_due(DEADLINE));
    clock.program();
    Handled::Done
}
