//! A host that has of its own what every host has (here: simulated), and takes the rest from the
//! crate.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, SeqCst};

use doorbell_explore::sim::{IrqDepth, Pool, SimAtomic, SimAtomicPtr, SimSpin, SimTask};
use doorbell_explore::{Machine, Sim};
use doorbell_platform::{
    Atomic, CpuId, EpochRcu, EpochSrcu, LockClass, ParkCompletion, ParkMutex, ParkWaitQueue,
    Platform, Subclass, SystemQueue, Vector,
};

/// See the module.
pub enum Host {}

/// A word of the simulated machine.
pub type Word = SimAtomic<u64>;

// SAFETY: all that matters for it is the simulated machine's.
unsafe impl Platform for Host {
    const SPINS: u32 = Sim::SPINS;

    type AtomicBool = SimAtomic<bool>;
    type AtomicU32 = SimAtomic<u32>;
    type AtomicU64 = Word;
    type AtomicU128 = SimAtomic<u128>;
    type AtomicPtr<T: 'static> = SimAtomicPtr<T>;
    type RawSpin = SimSpin;
    type RawMutex = ParkMutex<Host>;
    type IrqState = IrqDepth;
    type Task = SimTask;
    type Completion = ParkCompletion<Host>;
    type WaitQueue = ParkWaitQueue<Host>;
    type Rcu = EpochRcu<Host>;
    type Srcu = EpochSrcu<Host>;
    type WorkQueue = Pool;

    fn fence(order: Ordering) {
        Sim::fence(order);
    }
    #[track_caller]
    fn cpu_relax() {
        Sim::cpu_relax();
    }
    fn current_cpu() -> CpuId {
        CpuId(Sim::current_cpu().0 % Self::cpu_count())
    }
    fn cpu_count() -> u32 {
        SHARDS.get()
    }
    #[track_caller]
    fn irq_save() -> IrqDepth {
        Sim::irq_save()
    }
    #[track_caller]
    fn irq_restore(state: IrqDepth) {
        Sim::irq_restore(state);
    }
    fn irqs_enabled() -> bool {
        Sim::irqs_enabled()
    }
    fn in_hardirq() -> bool {
        Sim::in_hardirq()
    }
    fn preempt_disable() {
        Sim::preempt_disable();
    }
    #[track_caller]
    fn preempt_enable() {
        Sim::preempt_enable();
    }
    #[track_caller]
    fn send_ipi(cpu: CpuId, vector: Vector) {
        Sim::send_ipi(cpu, vector);
    }
    fn current_task() -> SimTask {
        Sim::current_task()
    }
    #[track_caller]
    fn park() {
        Sim::park();
    }
    #[track_caller]
    fn wake(task: &SimTask) {
        Sim::wake(task);
    }
    #[track_caller]
    fn annotate_acquire(class: &'static LockClass, subclass: Subclass) {
        Sim::annotate_acquire(class, subclass);
    }
    fn annotate_release(class: &'static LockClass, subclass: Subclass) {
        Sim::annotate_release(class, subclass);
    }
    #[track_caller]
    fn assert_no_leaf(what: &'static str) {
        Sim::assert_no_leaf(what);
    }
}

thread_local! {
    /// The system queue of the execution that runs on this OS thread.
    static SYSTEM_QUEUE: RefCell<Option<Pool>> = const { RefCell::new(None) };
    /// Among how many shards the CPUs of the machine are divided: they are the CPUs of this host.
    static SHARDS: Cell<u32> = const { Cell::new(1) };
}

impl SystemQueue for Host {
    fn system_queue() -> Pool {
        SYSTEM_QUEUE
            .with_borrow(|pool| pool.clone())
            .expect("the program has set up a system queue")
    }
}

/// Gives the host a system queue with one worker, and one CPU.
pub fn system_queue(m: &Machine) {
    system_queue_and_cpus(m, 1);
}

/// [`system_queue`] with that many CPUs.
pub fn system_queue_and_cpus(m: &Machine, cpus: u32) {
    SHARDS.set(cpus);
    let pool = Pool::new(m, "system queue", 1);
    SYSTEM_QUEUE.set(Some(pool));
}

/// A word to be shared.
pub fn word() -> Arc<Word> {
    Arc::new(Word::new(0))
}

/// Adds one in two steps: two at once lose one of the additions.
pub fn add_one(word: &Word) {
    let before = word.load(SeqCst);
    word.store(before + 1, SeqCst);
}

/// Expects a word to hold a value in the end.
pub fn ends_with(m: &Machine, word: &Arc<Word>, value: u64) {
    let word = Arc::clone(word);
    m.at_quiescence("the word has its value", move || match word.load(SeqCst) {
        found if found == value => Ok(()),
        found => Err(format!("it is {found}, not {value}")),
    });
}
