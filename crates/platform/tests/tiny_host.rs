//! A host that writes only what it must, and takes the rest from the crate: no feature `std`, a
//! ticket lock that does not sleep, CPU numbers that change under a running task, and a `park` that
//! often returns for no reason.

mod common;

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{self, Ordering};
use std::thread::{self, Thread};

use doorbell_platform::*;

enum Tiny {}

thread_local! {
    static STEP: Cell<u32> = const { Cell::new(0) };
}

// SAFETY: the atomics and the fence are those of the machine.
unsafe impl Platform for Tiny {
    type AtomicBool = atomic::AtomicBool;
    type AtomicU32 = atomic::AtomicU32;
    type AtomicU64 = atomic::AtomicU64;
    type AtomicU128 = AtomicU128;
    type AtomicPtr<T: 'static> = atomic::AtomicPtr<T>;
    type RawSpin = TicketLock<Tiny>;
    type RawMutex = ParkMutex<Tiny>;
    type IrqState = ();
    type Task = Thread;
    type Completion = ParkCompletion<Tiny>;
    type WaitQueue = ParkWaitQueue<Tiny>;
    type Rcu = EpochRcu<Tiny>;
    type Srcu = EpochSrcu<Tiny>;
    type WorkQueue = PoolQueue<Tiny>;

    fn fence(order: Ordering) {
        atomic::fence(order);
    }
    fn cpu_relax() {
        thread::yield_now();
    }
    fn current_cpu() -> CpuId {
        CpuId(STEP.replace(STEP.get() + 1) % Self::cpu_count())
    }
    fn cpu_count() -> u32 {
        3
    }
    fn irq_save() {}
    fn irq_restore(_: ()) {}
    fn irqs_enabled() -> bool {
        true
    }
    fn in_hardirq() -> bool {
        false
    }
    fn preempt_disable() {}
    fn preempt_enable() {}
    fn send_ipi(_: CpuId, _: Vector) {}
    fn current_task() -> Thread {
        thread::current()
    }
    fn park() {
        if Self::current_cpu() == CpuId(0) {
            thread::yield_now();
        } else {
            thread::park();
        }
    }
    fn wake(task: &Thread) {
        task.unpark();
    }
}

impl SystemQueue for Tiny {
    fn system_queue() -> PoolQueue<Tiny> {
        static QUEUE: OnceLock<PoolQueue<Tiny>> = OnceLock::new();
        let start = || {
            let (queue, worker) = PoolQueue::unmanned();
            for _ in 0..2 {
                let worker = worker.clone();
                thread::spawn(move || worker.run());
            }
            queue
        };
        QUEUE.get_or_init(start).clone()
    }
}

platform_tests!(Tiny);

#[test]
fn per_cpu_data_is_that_of_the_cpu() {
    let each = PerCpu::<Tiny, u32>::new(|cpu| cpu.0 * 10);
    assert_eq!(
        each.iter().map(|(cpu, n)| (cpu.0, *n)).collect::<Vec<_>>(),
        [(0, 0), (1, 10), (2, 20)]
    );
    assert_eq!(*each.of(CpuId(2)), 20);
    let pinned = PreemptGuard::new();
    assert_eq!(*each.this(&pinned) % 10, 0);
}
