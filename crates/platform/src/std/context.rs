//! What a thread knows about itself: its "CPU", and the depth of its emulated interrupt and
//! preemption state.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::CpuId;

const UNKNOWN: u32 = u32::MAX;

thread_local! {
    static CPU: Cell<u32> = const { Cell::new(UNKNOWN) };
    static IRQS_OFF: Cell<u32> = const { Cell::new(0) };
    static PREEMPTION_OFF: Cell<u32> = const { Cell::new(0) };
}

/// What [`irq_save`](crate::Platform::irq_save) found: the nesting depth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StdIrqState(u32);

#[inline]
pub(super) fn current_cpu() -> CpuId {
    match CPU.get() {
        UNKNOWN => choose_cpu(),
        cpu => CpuId(cpu),
    }
}

#[cold]
fn choose_cpu() -> CpuId {
    static TURN: AtomicU32 = AtomicU32::new(0);
    let cpu = TURN.fetch_add(1, Ordering::Relaxed) % cpu_count();
    CPU.set(cpu);
    CpuId(cpu)
}

static COUNT: AtomicU32 = AtomicU32::new(0);

#[inline]
pub(super) fn cpu_count() -> u32 {
    match COUNT.load(Ordering::Relaxed) {
        0 => count_cpus(),
        count => count,
    }
}

/// Asked once, because the answer may change with the process's affinity, and `current_cpu` must
/// stay below it.
#[cold]
fn count_cpus() -> u32 {
    let now = thread::available_parallelism().map_or(1, |n| n.get().min(1 << 16) as u32);
    match COUNT.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => now,
        Err(earlier) => earlier,
    }
}

#[inline]
pub(super) fn irq_save() -> StdIrqState {
    let depth = IRQS_OFF.get();
    IRQS_OFF.set(depth + 1);
    StdIrqState(depth)
}

#[inline]
#[track_caller]
pub(super) fn irq_restore(StdIrqState(depth): StdIrqState) {
    debug_assert_eq!(
        IRQS_OFF.get(),
        depth + 1,
        "interrupts are restored out of order, or on another thread"
    );
    IRQS_OFF.set(depth);
}

#[inline]
pub(super) fn irqs_enabled() -> bool {
    IRQS_OFF.get() == 0
}

#[inline(always)]
pub(super) fn preempt_disable() {
    if cfg!(debug_assertions) {
        PREEMPTION_OFF.set(PREEMPTION_OFF.get() + 1);
    }
}

#[inline(always)]
#[track_caller]
pub(super) fn preempt_enable() {
    if cfg!(debug_assertions) {
        let depth = PREEMPTION_OFF.get().checked_sub(1);
        PREEMPTION_OFF.set(depth.expect("preemption is turned on more often than off"));
    }
}

/// Sleeping with interrupts or preemption off would hang a kernel.
#[track_caller]
pub(super) fn assert_may_sleep() {
    debug_assert!(irqs_enabled(), "sleeps with interrupts off");
    debug_assert_eq!(PREEMPTION_OFF.get(), 0, "sleeps with preemption off");
}
