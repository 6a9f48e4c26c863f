//! Bare metal at EL2, as a platform.

use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{self, Ordering};

use doorbell_platform::{
    AtomicU128, CpuId, EpochRcu, EpochSrcu, OnceCell, ParkCompletion, ParkMutex, ParkWaitQueue,
    Platform, PoolQueue, SystemQueue, TicketLock, Vector,
};

use crate::cpu::Cpu;
use crate::irq::{self, Sgi};
use crate::scheduler;
use crate::sysreg::read_sysreg;
use crate::task::Task;

/// The platform of the hypervisor: CPUs at EL2, and tasks with stacks of their own.
pub enum Bare {}

/// DAIF.I: interrupts are masked.
const MASKED: u64 = 1 << 7;

impl Bare {
    /// What [`irq_save`](Platform::irq_save) finds while interrupts are on.
    pub(crate) const IRQS_ON: u64 = 0;
}

// SAFETY: the atomics and the fence are those of the machine, on normal memory. The count of what
// has turned preemption off has 64 bits; the other guards are no counts.
unsafe impl Platform for Bare {
    type AtomicBool = crate::atomic::AtomicBool;
    type AtomicU32 = crate::atomic::AtomicU32;
    type AtomicU64 = crate::atomic::AtomicU64;
    type AtomicU128 = AtomicU128;
    type AtomicPtr<T: 'static> = atomic::AtomicPtr<T>;
    type RawSpin = TicketLock<Bare>;
    type RawMutex = ParkMutex<Bare>;
    type IrqState = u64;
    type Task = &'static Task;
    type Completion = ParkCompletion<Bare>;
    type WaitQueue = ParkWaitQueue<Bare>;
    type Rcu = EpochRcu<Bare>;
    type Srcu = EpochSrcu<Bare>;
    type WorkQueue = PoolQueue<Bare>;

    #[inline(always)]
    fn fence(order: Ordering) {
        atomic::fence(order);
    }

    #[inline(always)]
    fn cpu_relax() {
        // The hint that makes way for a CPU that shares this one's resources, as the CPUs of QEMU
        // do (Arm DDI 0487, YIELD). SAFETY: a hint.
        unsafe { asm!("yield", options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn current_cpu() -> CpuId {
        Task::current().cpu()
    }

    fn cpu_count() -> u32 {
        Cpu::count()
    }

    #[inline(always)]
    fn irq_save() -> u64 {
        let daif = read_sysreg!("daif");
        // SAFETY: masks interrupts. Memory accesses stay where they are, since the block may change
        // memory, as far as the compiler knows.
        unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
        daif
    }

    #[inline(always)]
    fn irq_restore(daif: u64) {
        if daif & MASKED == 0 {
            // SAFETY: unmasks interrupts, whose handlers keep to the locks. As above for accesses.
            unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
        }
    }

    fn irqs_enabled() -> bool {
        read_sysreg!("daif") & MASKED == 0
    }

    fn in_hardirq() -> bool {
        Task::current().in_hardirq.load(Relaxed)
    }

    // The count is the task's own, and a handler puts back what it changes: a load and a store are
    // enough.
    #[inline(always)]
    fn preempt_disable() {
        let count = &Task::current().preemption_off;
        count.store(count.load(Relaxed) + 1, Relaxed);
        atomic::compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn preempt_enable() {
        atomic::compiler_fence(Ordering::SeqCst);
        let count = &Task::current().preemption_off;
        let left = count.load(Relaxed) - 1;
        count.store(left, Relaxed);
        if left == 0 && Cpu::this().resched.load(Relaxed) {
            scheduler::preempted();
        }
    }

    fn send_ipi(cpu: CpuId, vector: Vector) {
        irq::send(cpu, Sgi::Vector(vector));
    }

    fn current_task() -> &'static Task {
        Task::current()
    }

    fn park() {
        scheduler::park();
    }

    fn wake(task: &&'static Task) {
        task.wake();
    }
}

/// How many workers the system queue has.
const WORKERS: u32 = 2;

static QUEUE: OnceCell<Bare, PoolQueue<Bare>> = OnceCell::new();

impl SystemQueue for Bare {
    fn system_queue() -> PoolQueue<Bare> {
        QUEUE.get().expect("the queue is there before the first task").clone()
    }
}

/// Creates the system queue. On the first CPU, before the first task.
pub(crate) fn init() {
    let (queue, worker) = PoolQueue::unmanned();
    for number in 0..WORKERS {
        let worker = worker.clone();
        let spawned = Task::spawn(CpuId(number % Cpu::count()), move || worker.run());
        assert!(spawned.is_some(), "there is room for the first tasks");
    }
    assert!(QUEUE.set(Box::new(queue)).is_ok(), "the queue is created once");
}
