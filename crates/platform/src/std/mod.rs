//! Doorbell in a process: threads are tasks, and what only a kernel has is emulated as far as it
//! means something.

mod context;
mod ipi;
mod pool;
mod spin;

use core::sync::atomic::{self, Ordering};
use std::thread::{self, Thread};

use crate::{
    CpuId, EpochRcu, EpochSrcu, ParkCompletion, ParkMutex, ParkWaitQueue, Platform, PoolQueue,
    SystemQueue, Vector,
};

pub use context::StdIrqState;
pub(crate) use ipi::IPIS;
pub use ipi::IpiHandler;
pub use pool::StdWorkQueue;
pub use spin::StdSpin;

/// The platform of a process, on `std`.
///
/// - A *task* is a thread.
/// - A *CPU* is a shard: each thread gets a number below [`cpu_count`](Platform::cpu_count) when it
///   first asks, in turn, and keeps it. So `current_cpu` costs one thread-local load and spreads
///   threads over per-CPU data; but several threads share a number, run at once, and turning
///   preemption off keeps none of them away. What is per CPU must stand being shared (see
///   [`PerCpu`](crate::PerCpu)).
/// - *Interrupts* are a thread's nesting depth: `irq_save` keeps nothing away, because nothing
///   interrupts a thread. In debug builds, restoring out of order and sleeping with interrupts off
///   panic, as they would hurt in a kernel. `in_hardirq` is always `false`.
/// - *Preemption* cannot be turned off in a process; in debug builds the calls are counted and
///   checked. Whoever holds a spin lock may lose its CPU, so spin locks spin for a moment only and
///   then give way.
/// - An *IPI* runs the handler that was registered for its CPU and vector ([`Std::on_ipi`]) on a
///   helper thread; without a handler it does nothing. A vector that is sent again before its
///   handler has begun is handled once, as by the hardware.
/// - RCU and SRCU have real grace periods. Deferred work runs on threads ([`StdWorkQueue`]).
#[derive(Debug)]
pub enum Std {}

// SAFETY: the atomics and the fence are those of the machine.
unsafe impl Platform for Std {
    type AtomicBool = atomic::AtomicBool;
    type AtomicU32 = atomic::AtomicU32;
    type AtomicU64 = atomic::AtomicU64;
    type AtomicU128 = portable_atomic::AtomicU128;
    type AtomicPtr<T: 'static> = atomic::AtomicPtr<T>;

    type RawSpin = StdSpin;
    type RawMutex = ParkMutex<Std>;

    type IrqState = StdIrqState;
    type Task = Thread;

    type Completion = ParkCompletion<Std>;
    type WaitQueue = ParkWaitQueue<Std>;

    type Rcu = EpochRcu<Std>;
    type Srcu = EpochSrcu<Std>;

    type WorkQueue = PoolQueue<Std>;

    #[inline(always)]
    fn fence(order: Ordering) {
        atomic::fence(order);
    }

    #[inline(always)]
    fn cpu_relax() {
        core::hint::spin_loop();
    }

    #[inline]
    fn current_cpu() -> CpuId {
        context::current_cpu()
    }

    #[inline]
    fn cpu_count() -> u32 {
        context::cpu_count()
    }

    #[inline]
    #[track_caller]
    fn irq_save() -> StdIrqState {
        context::irq_save()
    }

    #[inline]
    #[track_caller]
    fn irq_restore(state: StdIrqState) {
        context::irq_restore(state);
    }

    #[inline]
    fn irqs_enabled() -> bool {
        context::irqs_enabled()
    }

    #[inline(always)]
    fn in_hardirq() -> bool {
        false
    }

    #[inline(always)]
    #[track_caller]
    fn preempt_disable() {
        context::preempt_disable();
    }

    #[inline(always)]
    #[track_caller]
    fn preempt_enable() {
        context::preempt_enable();
    }

    #[track_caller]
    fn send_ipi(cpu: CpuId, vector: Vector) {
        ipi::send(cpu, vector);
    }

    fn current_task() -> Thread {
        thread::current()
    }

    #[track_caller]
    fn park() {
        context::assert_may_sleep();
        thread::park();
    }

    fn wake(task: &Thread) {
        task.unpark();
    }
}

impl SystemQueue for Std {
    fn system_queue() -> PoolQueue<Std> {
        pool::system()
    }
}
