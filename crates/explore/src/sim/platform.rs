//! The simulated machine as a [`Platform`].

use std::sync::atomic::Ordering;

use doorbell_platform::{CpuId, LockClass, Platform, Subclass, Vector};

use crate::machine::leaf;
use crate::machine::step::step;
use crate::op::{NO_OBJ, Op, OpKind};
use crate::sim::atomic::{SimAtomic, SimAtomicPtr};
use crate::sim::cpu::{self, IrqDepth};
use crate::sim::domain::{SimRcu, SimSrcu};
use crate::sim::lock::{self, SimMutex, SimSpin};
use crate::sim::pool::Pool;
use crate::sim::wait::{self, SimCompletion, SimTask, SimWaitQueue};

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
        leaf::assert_none(what);
    }
}
