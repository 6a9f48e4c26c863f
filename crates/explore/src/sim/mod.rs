//! The simulated machine as a [`Platform`], and what cases build their models of.

mod atomic;
mod cpu;
mod domain;
mod ghost;
mod lock;
mod managed;
mod model;
mod pool;
mod preempted;
mod sched;
mod timer;
mod wait;

use std::sync::atomic::Ordering;

use doorbell_platform::{CpuId, LockClass, Platform, Subclass, Vector};

use crate::machine::step::step;
use crate::op::{NO_OBJ, Op, OpKind};

pub use crate::machine::leaf::DropUnlocked;
pub use crate::machine::record::{note, remark};
pub use atomic::{SimAtomic, SimAtomicPtr, Word, both};
pub use cpu::{IrqDepth, local_irq_disable, local_irq_enable};
pub(crate) use cpu::{Wire, clock};
pub use domain::{GracePeriods, SimDomain, SimRcu, SimSrcu};
pub use ghost::Ghost;
pub use lock::{SimMutex, SimSpin};
pub use managed::{Managed, ManagedPool, Queue};
pub use model::{Model, fail, fail_as, witness};
pub(crate) use model::{try_step_that, try_wait};
pub use pool::{Pool, SimWork};
pub(crate) use preempted::WorkerAccounting;
pub use preempted::{Preempted, PreemptionOff};
pub(crate) use sched::Scheduled;
pub use sched::{Hooks, PI_LOCK, Placement, RESCHEDULE, RQ_LOCK, SchedTask, Scheduler, yield_now};
pub use timer::Timer;
pub use wait::{SimCompletion, SimTask, SimWaitQueue};

/// The simulated machine. Its calls act on the exploration that runs on this OS thread.
#[derive(Debug)]
pub struct Sim;

// SAFETY: one context runs at a time, all on one OS thread; `current_cpu` is below `cpu_count`, and
// what runs on a CPU with preemption or interrupts off stays on it.
unsafe impl Platform for Sim {
    /// Few: how many looks come before the search lets the loop give up does not matter.
    const SPINS: u32 = 2;

    type AtomicBool = SimAtomic<bool>;
    type AtomicU32 = SimAtomic<u32>;
    type AtomicU64 = SimAtomic<u64>;
    type AtomicU128 = SimAtomic<u128>;
    type AtomicPtr<T: 'static> = SimAtomicPtr<T>;
    type RawSpin = SimSpin;
    type RawMutex = SimMutex;
    type IrqState = IrqDepth;
    type Task = SimTask;
    type Completion = SimCompletion;
    type WaitQueue = SimWaitQueue;
    type Rcu = SimRcu;
    type Srcu = SimSrcu;
    type WorkQueue = Pool;

    /// Nothing: the machine is sequentially consistent.
    #[inline]
    fn fence(_order: Ordering) {}

    #[track_caller]
    fn cpu_relax() {
        step(Op::new(OpKind::Relax, NO_OBJ));
    }

    fn current_cpu() -> CpuId {
        cpu::current()
    }

    fn cpu_count() -> u32 {
        cpu::count()
    }

    #[track_caller]
    fn irq_save() -> IrqDepth {
        cpu::irq_save()
    }

    #[track_caller]
    fn irq_restore(state: IrqDepth) {
        cpu::irq_restore(state);
    }

    fn irqs_enabled() -> bool {
        cpu::irqs_enabled()
    }

    fn in_hardirq() -> bool {
        cpu::in_hardirq()
    }

    fn preempt_disable() {
        cpu::preempt_disable();
    }

    #[track_caller]
    fn preempt_enable() {
        cpu::preempt_enable();
    }

    #[track_caller]
    fn send_ipi(cpu: CpuId, vector: Vector) {
        cpu::send_ipi(cpu, vector);
    }

    fn current_task() -> SimTask {
        wait::current_task()
    }

    #[track_caller]
    fn park() {
        wait::park();
    }

    #[track_caller]
    fn wake(task: &SimTask) {
        task.wake();
    }

    #[track_caller]
    fn annotate_acquire(class: &'static LockClass, subclass: Subclass) {
        lock::annotate_acquire(class, subclass);
    }

    fn annotate_release(class: &'static LockClass, subclass: Subclass) {
        lock::annotate_release(class, subclass);
    }

    #[track_caller]
    fn assert_no_leaf(what: &'static str) {
        crate::machine::leaf::assert_none(what);
    }
}
