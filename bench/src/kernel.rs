//! A host whose read sections cost nothing, as a kernel's do that is not preempted in them.

use std::sync::atomic::Ordering;

use doorbell_platform::{CpuId, Platform, ReadDomain, Std, Vector};

/// `Std` with read sections that cost nothing.
pub struct Kernel;

// SAFETY: the atomics and the fence are those of `Std`.
unsafe impl Platform for Kernel {
    type AtomicBool = <Std as Platform>::AtomicBool;
    type AtomicU32 = <Std as Platform>::AtomicU32;
    type AtomicU64 = <Std as Platform>::AtomicU64;
    type AtomicU128 = <Std as Platform>::AtomicU128;
    type AtomicPtr<T: 'static> = <Std as Platform>::AtomicPtr<T>;
    type RawSpin = <Std as Platform>::RawSpin;
    type RawMutex = <Std as Platform>::RawMutex;
    type IrqState = <Std as Platform>::IrqState;
    type Task = <Std as Platform>::Task;
    type Completion = <Std as Platform>::Completion;
    type WaitQueue = <Std as Platform>::WaitQueue;
    type Rcu = Free;
    type Srcu = Free;
    type WorkQueue = <Std as Platform>::WorkQueue;

    #[inline(always)]
    fn fence(order: Ordering) {
        Std::fence(order);
    }
    fn cpu_relax() {
        Std::cpu_relax();
    }
    fn current_cpu() -> CpuId {
        Std::current_cpu()
    }
    fn cpu_count() -> u32 {
        Std::cpu_count()
    }
    fn irq_save() -> Self::IrqState {
        Std::irq_save()
    }
    fn irq_restore(state: Self::IrqState) {
        Std::irq_restore(state);
    }
    fn irqs_enabled() -> bool {
        Std::irqs_enabled()
    }
    fn in_hardirq() -> bool {
        Std::in_hardirq()
    }
    fn preempt_disable() {
        Std::preempt_disable();
    }
    fn preempt_enable() {
        Std::preempt_enable();
    }
    fn send_ipi(cpu: CpuId, vector: Vector) {
        Std::send_ipi(cpu, vector);
    }
    fn current_task() -> Self::Task {
        Std::current_task()
    }
    fn park() {
        Std::park();
    }
    fn wake(task: &Self::Task) {
        Std::wake(task);
    }
}

/// Read sections of a program with one thread, which asks for no grace period in one.
pub struct Free;

// SAFETY: there is one thread, and it is in no read section when it asks for a grace period.
unsafe impl ReadDomain for Free {
    type Token = ();

    fn new(_name: &'static str) -> Self {
        Free
    }
    #[inline(always)]
    fn read_lock(&self) {}
    #[inline(always)]
    unsafe fn read_unlock(&self, (): ()) {}
    fn synchronize(&self) {}
    fn synchronize_expedited(&self) {}
    fn call(&self, f: Box<dyn FnOnce() + Send + 'static>) {
        f();
    }
    fn barrier(&self) {}
}
