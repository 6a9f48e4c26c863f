//! A platform that counts what is done on it.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ops::{Add, Sub};
use core::sync::atomic::Ordering;
use std::boxed::Box;
use std::thread_local;

use crate::{
    Acquire, Atomic, AtomicInt, AtomicPtr, CpuId, EpochRcu, EpochSrcu, LockClass, ParkCompletion,
    ParkWaitQueue, Platform, RawLock, ReadDomain, Subclass, SystemQueue, Vector, Work, WorkQueue,
};

/// What one thread has done, as [`Counting::measure`] returns it.
///
/// Each thing is counted once, where it was asked for: a lock that was taken counts as a lock, and
/// not also as the atomic operations that it consists of.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Spin locks taken.
    pub spins: u64,
    /// Sleeping locks taken.
    pub mutexes: u64,
    /// Atomic loads.
    pub loads: u64,
    /// Atomic stores.
    pub stores: u64,
    /// Atomic read-modify-writes, including compare-exchanges that failed.
    pub rmws: u64,
    /// Fences.
    pub fences: u64,
    /// RCU and SRCU read sections begun. Their atomic operations are counted too.
    pub read_sections: u64,
    /// Times that interrupts were turned off.
    pub irq_saves: u64,
    /// Times that preemption was turned off (by itself, not by a spin lock).
    pub preempt_disables: u64,
    /// Tasks woken.
    pub wakes: u64,
    /// Times that the thread went to sleep.
    pub parks: u64,
    /// IPIs sent.
    pub ipis: u64,
    /// Pieces of work queued, including attempts that found the work queued.
    pub queued: u64,
}

impl Counts {
    const ZERO: Counts = Counts {
        spins: 0,
        mutexes: 0,
        loads: 0,
        stores: 0,
        rmws: 0,
        fences: 0,
        read_sections: 0,
        irq_saves: 0,
        preempt_disables: 0,
        wakes: 0,
        parks: 0,
        ipis: 0,
        queued: 0,
    };
}

impl Counts {
    fn each(self, other: Counts, f: impl Fn(u64, u64) -> u64) -> Counts {
        Counts {
            spins: f(self.spins, other.spins),
            mutexes: f(self.mutexes, other.mutexes),
            loads: f(self.loads, other.loads),
            stores: f(self.stores, other.stores),
            rmws: f(self.rmws, other.rmws),
            fences: f(self.fences, other.fences),
            read_sections: f(self.read_sections, other.read_sections),
            irq_saves: f(self.irq_saves, other.irq_saves),
            preempt_disables: f(self.preempt_disables, other.preempt_disables),
            wakes: f(self.wakes, other.wakes),
            parks: f(self.parks, other.parks),
            ipis: f(self.ipis, other.ipis),
            queued: f(self.queued, other.queued),
        }
    }
}

impl Add for Counts {
    type Output = Counts;
    fn add(self, other: Counts) -> Counts {
        self.each(other, |a, b| a + b)
    }
}

impl Sub for Counts {
    type Output = Counts;
    fn sub(self, earlier: Counts) -> Counts {
        self.each(earlier, |a, b| a - b)
    }
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts::ZERO) };
}

fn count(what: impl FnOnce(&mut Counts)) {
    let mut counts = COUNTS.get();
    what(&mut counts);
    COUNTS.set(counts);
}

/// The platform `P`, with all that is done on it counted, exactly and for each thread.
///
/// Completions, wait queues, RCU and SRCU are those that this crate builds, over the counted
/// platform, so that what they consist of is counted too. What other threads do on behalf of the
/// one that measures (workers, for instance) is theirs.
///
/// ```
/// use doorbell_platform::{Atomic, Counting, Platform, Std};
/// use std::sync::atomic::Ordering;
///
/// type P = Counting<Std>;
/// let pending = <P as Platform>::AtomicU64::new(0);
/// let (_, counts) = P::measure(|| pending.fetch_or(1, Ordering::AcqRel));
/// assert_eq!((counts.rmws, counts.loads, counts.spins), (1, 0, 0));
/// ```
#[derive(Debug)]
pub struct Counting<P>(PhantomData<P>);

impl<P> Counting<P> {
    /// Runs `f` and returns what it did, on this thread.
    pub fn measure<R>(f: impl FnOnce() -> R) -> (R, Counts) {
        let before = COUNTS.get();
        let result = f();
        (result, COUNTS.get() - before)
    }
}

// SAFETY: the atomics and the fence are those of `P`.
unsafe impl<P: SystemQueue> Platform for Counting<P> {
    const SPINS: u32 = P::SPINS;

    type AtomicBool = CountedAtomic<P::AtomicBool>;
    type AtomicU32 = CountedAtomic<P::AtomicU32>;
    type AtomicU64 = CountedAtomic<P::AtomicU64>;
    type AtomicU128 = CountedAtomic<P::AtomicU128>;
    type AtomicPtr<T: 'static> = CountedAtomic<P::AtomicPtr<T>>;

    type RawSpin = CountedSpin<P::RawSpin>;
    type RawMutex = CountedMutex<P::RawMutex>;

    type IrqState = P::IrqState;
    type Task = P::Task;

    type Completion = ParkCompletion<Self>;
    type WaitQueue = ParkWaitQueue<Self>;

    type Rcu = CountedDomain<EpochRcu<Self>>;
    type Srcu = CountedDomain<EpochSrcu<Self>>;

    type WorkQueue = CountedQueue<P::WorkQueue>;

    #[track_caller]
    fn fence(order: Ordering) {
        count(|c| c.fences += 1);
        P::fence(order);
    }

    #[track_caller]
    fn cpu_relax() {
        P::cpu_relax();
    }

    fn current_cpu() -> CpuId {
        P::current_cpu()
    }

    fn cpu_count() -> u32 {
        P::cpu_count()
    }

    #[track_caller]
    fn irq_save() -> P::IrqState {
        count(|c| c.irq_saves += 1);
        P::irq_save()
    }

    #[track_caller]
    fn irq_restore(state: P::IrqState) {
        P::irq_restore(state);
    }

    fn irqs_enabled() -> bool {
        P::irqs_enabled()
    }

    fn in_hardirq() -> bool {
        P::in_hardirq()
    }

    #[track_caller]
    fn preempt_disable() {
        count(|c| c.preempt_disables += 1);
        P::preempt_disable();
    }

    #[track_caller]
    fn preempt_enable() {
        P::preempt_enable();
    }

    #[track_caller]
    fn send_ipi(cpu: CpuId, vector: Vector) {
        count(|c| c.ipis += 1);
        P::send_ipi(cpu, vector);
    }

    fn current_task() -> P::Task {
        P::current_task()
    }

    #[track_caller]
    fn park() {
        count(|c| c.parks += 1);
        P::park();
    }

    #[track_caller]
    fn wake(task: &P::Task) {
        count(|c| c.wakes += 1);
        P::wake(task);
    }

    #[track_caller]
    fn annotate_acquire(class: &'static LockClass, subclass: Subclass) {
        P::annotate_acquire(class, subclass);
    }

    #[track_caller]
    fn annotate_release(class: &'static LockClass, subclass: Subclass) {
        P::annotate_release(class, subclass);
    }

    #[track_caller]
    fn assert_no_leaf(what: &'static str) {
        P::assert_no_leaf(what);
    }
}

impl<P: SystemQueue> SystemQueue for Counting<P> {
    fn system_queue() -> CountedQueue<P::WorkQueue> {
        CountedQueue(P::system_queue())
    }
}

/// An atomic word of [`Counting`].
#[derive(Debug)]
pub struct CountedAtomic<A>(A);

impl<A: Atomic> Atomic for CountedAtomic<A> {
    type Value = A::Value;
    const ZERO: Self = CountedAtomic(A::ZERO);

    #[inline]
    fn is_lock_free() -> bool {
        A::is_lock_free()
    }

    #[track_caller]
    fn new(value: A::Value) -> Self {
        CountedAtomic(A::new(value))
    }

    #[inline]
    fn set_name(&mut self, name: &'static str) {
        self.0.set_name(name);
    }
    #[track_caller]
    fn load(&self, order: Ordering) -> A::Value {
        count(|c| c.loads += 1);
        self.0.load(order)
    }
    #[track_caller]
    fn store(&self, value: A::Value, order: Ordering) {
        count(|c| c.stores += 1);
        self.0.store(value, order);
    }
    #[track_caller]
    fn swap(&self, value: A::Value, order: Ordering) -> A::Value {
        count(|c| c.rmws += 1);
        self.0.swap(value, order)
    }
    #[track_caller]
    fn compare_exchange(
        &self,
        current: A::Value,
        new: A::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<A::Value, A::Value> {
        count(|c| c.rmws += 1);
        self.0.compare_exchange(current, new, success, failure)
    }
    #[track_caller]
    fn compare_exchange_weak(
        &self,
        current: A::Value,
        new: A::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<A::Value, A::Value> {
        count(|c| c.rmws += 1);
        self.0.compare_exchange_weak(current, new, success, failure)
    }
    #[track_caller]
    fn fetch_or(&self, value: A::Value, order: Ordering) -> A::Value {
        count(|c| c.rmws += 1);
        self.0.fetch_or(value, order)
    }
    #[track_caller]
    fn fetch_and(&self, value: A::Value, order: Ordering) -> A::Value {
        count(|c| c.rmws += 1);
        self.0.fetch_and(value, order)
    }
    #[track_caller]
    fn fetch_xor(&self, value: A::Value, order: Ordering) -> A::Value {
        count(|c| c.rmws += 1);
        self.0.fetch_xor(value, order)
    }
}

impl<A: AtomicInt> AtomicInt for CountedAtomic<A> {
    #[track_caller]
    fn fetch_add(&self, value: A::Value, order: Ordering) -> A::Value {
        count(|c| c.rmws += 1);
        self.0.fetch_add(value, order)
    }
    #[track_caller]
    fn fetch_sub(&self, value: A::Value, order: Ordering) -> A::Value {
        count(|c| c.rmws += 1);
        self.0.fetch_sub(value, order)
    }
    #[track_caller]
    fn fetch_max(&self, value: A::Value, order: Ordering) -> A::Value {
        count(|c| c.rmws += 1);
        self.0.fetch_max(value, order)
    }
    #[track_caller]
    fn fetch_min(&self, value: A::Value, order: Ordering) -> A::Value {
        count(|c| c.rmws += 1);
        self.0.fetch_min(value, order)
    }
}

impl<T, A: AtomicPtr<T>> AtomicPtr<T> for CountedAtomic<A> {
    #[track_caller]
    fn new(ptr: *mut T) -> Self {
        CountedAtomic(A::new(ptr))
    }

    #[inline]
    fn set_name(&mut self, name: &'static str) {
        self.0.set_name(name);
    }
    #[track_caller]
    fn load(&self, order: Ordering) -> *mut T {
        count(|c| c.loads += 1);
        self.0.load(order)
    }
    #[track_caller]
    fn store(&self, ptr: *mut T, order: Ordering) {
        count(|c| c.stores += 1);
        self.0.store(ptr, order);
    }
    #[track_caller]
    fn swap(&self, ptr: *mut T, order: Ordering) -> *mut T {
        count(|c| c.rmws += 1);
        self.0.swap(ptr, order)
    }
    #[track_caller]
    fn compare_exchange(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        count(|c| c.rmws += 1);
        self.0.compare_exchange(current, new, success, failure)
    }
    #[track_caller]
    fn compare_exchange_weak(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        count(|c| c.rmws += 1);
        self.0.compare_exchange_weak(current, new, success, failure)
    }
}

macro_rules! counted_lock {
    ($(#[$doc:meta])* $name:ident, $field:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<R>(R);

        // SAFETY: it is the lock `R`.
        unsafe impl<R: RawLock> RawLock for $name<R> {
            const INIT: Self = $name(R::INIT);

            #[track_caller]
            fn new(class: &'static LockClass) -> Self {
                $name(R::new(class))
            }
            #[track_caller]
            fn lock(&self, how: Acquire) {
                count(|c| c.$field += 1);
                self.0.lock(how);
            }
            #[track_caller]
            fn try_lock(&self, how: Acquire) -> bool {
                let taken = self.0.try_lock(how);
                count(|c| c.$field += u64::from(taken));
                taken
            }
            #[track_caller]
            unsafe fn unlock(&self) {
                // SAFETY: by the caller.
                unsafe { self.0.unlock() }
            }
            #[track_caller]
            fn assert_held(&self) {
                self.0.assert_held();
            }
            #[inline]
            fn changes(&self) {
                self.0.changes();
            }
        }
    };
}

counted_lock!(
    /// A spin lock of [`Counting`].
    CountedSpin,
    spins
);
counted_lock!(
    /// A sleeping lock of [`Counting`].
    CountedMutex,
    mutexes
);

/// A domain of read sections of [`Counting`].
#[derive(Debug)]
pub struct CountedDomain<D>(D);

// SAFETY: it is the domain `D`.
unsafe impl<D: ReadDomain> ReadDomain for CountedDomain<D> {
    type Token = D::Token;

    #[track_caller]
    fn new(name: &'static str) -> Self {
        CountedDomain(D::new(name))
    }
    #[track_caller]
    fn read_lock(&self) -> D::Token {
        count(|c| c.read_sections += 1);
        self.0.read_lock()
    }
    #[track_caller]
    unsafe fn read_unlock(&self, token: D::Token) {
        // SAFETY: by the caller.
        unsafe { self.0.read_unlock(token) }
    }
    #[track_caller]
    fn synchronize(&self) {
        self.0.synchronize();
    }
    #[track_caller]
    fn synchronize_expedited(&self) {
        self.0.synchronize_expedited();
    }
    #[track_caller]
    fn call(&self, f: Box<dyn FnOnce() + Send + 'static>) {
        self.0.call(f);
    }
    #[track_caller]
    fn barrier(&self) {
        self.0.barrier();
    }
}

/// A work queue of [`Counting`], or a piece of its work.
#[derive(Clone, Debug)]
pub struct CountedQueue<Q>(Q);

impl<Q: WorkQueue> WorkQueue for CountedQueue<Q> {
    type Work = CountedWork<Q::Work>;

    #[track_caller]
    fn work(
        &self,
        name: &'static str,
        f: impl Fn() + Send + Sync + 'static,
    ) -> CountedWork<Q::Work> {
        CountedWork(self.0.work(name, f))
    }
    #[track_caller]
    fn spawn(&self, name: &'static str, f: Box<dyn FnOnce() + Send + 'static>) {
        count(|c| c.queued += 1);
        self.0.spawn(name, f);
    }
}

/// A piece of work of [`Counting`].
#[derive(Clone, Debug)]
pub struct CountedWork<W>(W);

impl<W: Work> Work for CountedWork<W> {
    #[track_caller]
    fn queue(&self) -> bool {
        count(|c| c.queued += 1);
        self.0.queue()
    }
    #[track_caller]
    fn flush(&self) {
        self.0.flush();
    }
    #[track_caller]
    fn cancel(&self) -> bool {
        self.0.cancel()
    }
}
