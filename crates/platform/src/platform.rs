//! The trait that a host implements.

use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use crate::{
    Atomic, AtomicInt, AtomicPtr, Completion, CpuId, LockClass, RawLock, ReadDomain, Subclass,
    Vector, WaitQueue, WorkQueue,
};

/// What a host gives to the crates of Doorbell.
///
/// A platform is a type that is never instantiated: its calls are associated functions, and what
/// they act upon (the current CPU, the current task) is found by the implementation. See the
/// crate's front page for which parts a host writes itself and which it takes from this crate.
///
/// # Safety
/// The atomics behave as those of [`core::sync::atomic`] do, each operation with the ordering that
/// it is given, and [`fence`](Platform::fence) as [`core::sync::atomic::fence`]: the memory safety
/// of [`RcuCell`](crate::RcuCell) and of the locks that this crate builds rests on them. Guards
/// that are forgotten (of interrupts, preemption, locks, read sections) leave things as they were
/// while they lived, for good: that may stop everything, but must not corrupt anything, so counts
/// of them must not wrap.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a host that Doorbell can run on",
    label = "implement `Platform` for `{Self}`, or name `Std` or, in an exploration, `Sim`",
    note = "`examples/bare.rs` of doorbell-platform is a whole host"
)]
pub unsafe trait Platform: Sized + Send + Sync + 'static {
    /// How often a wait that could sleep looks for what it waits for, with
    /// [`cpu_relax`](Platform::cpu_relax) between, before it sleeps:
    /// [`synchronize_expedited`](ReadDomain::synchronize_expedited) of the domains that this crate
    /// builds does so. A thousand looks take some microseconds. With 0 it sleeps at once.
    const SPINS: u32 = 1_000;

    /// An atomic flag.
    type AtomicBool: Atomic<Value = bool>;
    /// An atomic 32-bit word.
    type AtomicU32: AtomicInt<Value = u32>;
    /// An atomic 64-bit word.
    type AtomicU64: AtomicInt<Value = u64>;
    /// An atomic 128-bit word: a hardware-shared table entry that must never be seen half-written.
    type AtomicU128: Atomic<Value = u128>;
    /// An atomic pointer.
    type AtomicPtr<T: 'static>: AtomicPtr<T>;

    /// A spin lock: waits without sleeping, preemption off while it is held.
    type RawSpin: RawLock;
    /// A sleeping lock.
    type RawMutex: RawLock;

    /// What [`irq_save`](Platform::irq_save) found, to be handed back to
    /// [`irq_restore`](Platform::irq_restore).
    type IrqState: Copy;

    /// A handle with which one task wakes another.
    type Task: Clone + Send + Sync + 'static;

    /// A one-way event: "it is done".
    type Completion: Completion;
    /// A queue of tasks that wait for a condition.
    type WaitQueue: WaitQueue;

    /// RCU: read sections that never sleep.
    type Rcu: ReadDomain;
    /// SRCU: read sections that may sleep; each object is a domain of its own.
    type Srcu: ReadDomain;

    /// Deferred work on a pool with a bounded number of workers.
    type WorkQueue: WorkQueue;

    /// Executes an atomic fence.
    #[track_caller]
    fn fence(order: Ordering);

    /// Says that a loop is waiting for another CPU to write what the loop reads.
    #[track_caller]
    fn cpu_relax();

    /// Returns the CPU that this code runs on. It may have changed by the time the caller looks at
    /// it, unless preemption or interrupts are off.
    fn current_cpu() -> CpuId;

    /// Returns how many CPUs there are; `current_cpu` is always below it.
    fn cpu_count() -> u32;

    /// Turns interrupts off on this CPU and returns what they were.
    #[track_caller]
    fn irq_save() -> Self::IrqState;

    /// Sets interrupts on this CPU to what the matching [`irq_save`](Platform::irq_save) found.
    /// Saves and restores nest; restoring out of order is an error of the caller.
    #[track_caller]
    fn irq_restore(state: Self::IrqState);

    /// Returns whether interrupts are enabled on this CPU.
    fn irqs_enabled() -> bool;

    /// Returns whether this is hard-interrupt context.
    fn in_hardirq() -> bool;

    /// Turns preemption off on this CPU; calls nest.
    #[track_caller]
    fn preempt_disable();

    /// Undoes one [`preempt_disable`](Platform::preempt_disable).
    #[track_caller]
    fn preempt_enable();

    /// Sends an interrupt to a CPU (also to this one). It arrives later.
    #[track_caller]
    fn send_ipi(cpu: CpuId, vector: Vector);

    /// Returns the running task.
    fn current_task() -> Self::Task;

    /// Sleeps until [`wake`](Platform::wake) is called for this task; returns at once if that
    /// happened since the last return. May return without a wake-up: callers check their condition
    /// again.
    #[track_caller]
    fn park();

    /// Wakes a task out of [`park`](Platform::park).
    #[track_caller]
    fn wake(task: &Self::Task);

    /// Tells a lock validator that `class` counts as taken from here on, though no lock is. Does
    /// nothing natively.
    #[inline(always)]
    #[track_caller]
    fn annotate_acquire(class: &'static LockClass, subclass: Subclass) {
        let _ = (class, subclass);
    }

    /// Ends an [`annotate_acquire`](Platform::annotate_acquire) of the same class and subclass.
    #[inline(always)]
    #[track_caller]
    fn annotate_release(class: &'static LockClass, subclass: Subclass) {
        let _ = (class, subclass);
    }

    /// Tells a lock validator that the calling context does something that nobody does who holds a
    /// [leaf](LockClass::leaf): `what` says it in words that come after "the task", such as "frees
    /// the table". For what the platform does not see by itself: the end of a read section that is
    /// only counted, a callback of the host, a destructor. Does nothing natively.
    #[inline(always)]
    #[track_caller]
    fn assert_no_leaf(what: &'static str) {
        let _ = what;
    }
}

/// Interrupts are off on this CPU while it lives.
#[must_use = "interrupts are on again as soon as the guard is dropped"]
pub struct IrqGuard<P: Platform> {
    state: P::IrqState,
    not_send: PhantomData<*mut ()>,
}

crate::opaque_debug!([P: Platform] IrqGuard<P>);

impl<P: Platform> IrqGuard<P> {
    /// Turns interrupts off.
    #[inline]
    #[track_caller]
    pub fn new() -> Self {
        IrqGuard { state: P::irq_save(), not_send: PhantomData }
    }
}

impl<P: Platform> Default for IrqGuard<P> {
    #[inline]
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> Drop for IrqGuard<P> {
    #[inline]
    fn drop(&mut self) {
        P::irq_restore(self.state);
    }
}

/// Preemption is off on this CPU while it lives.
#[must_use = "preemption is on again as soon as the guard is dropped"]
pub struct PreemptGuard<P: Platform> {
    platform: PhantomData<P>,
    not_send: PhantomData<*mut ()>,
}

crate::opaque_debug!([P: Platform] PreemptGuard<P>);

impl<P: Platform> PreemptGuard<P> {
    /// Turns preemption off.
    #[inline]
    #[track_caller]
    pub fn new() -> Self {
        P::preempt_disable();
        PreemptGuard { platform: PhantomData, not_send: PhantomData }
    }
}

impl<P: Platform> Default for PreemptGuard<P> {
    #[inline]
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> Drop for PreemptGuard<P> {
    #[inline]
    fn drop(&mut self) {
        P::preempt_enable();
    }
}
