//! RCU and SRCU over per-CPU counters.
//!
//! ```text
//!   a reader                          a grace period
//!   counts itself in the current      drains the counters that are not current,
//!     counter of its CPU              makes them current,
//!   reads what is published           drains those that were
//!   ends in that very counter
//! ```
//!
//! Each counter by itself says how many readers it has; a grace period has seen each at zero once.
//! Nobody blocks to drive one: whoever asks takes it as far as it goes, and readers that end take
//! it further.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::marker::PhantomData;
use core::sync::atomic::Ordering;

mod grace;
#[cfg(all(test, feature = "std"))]
mod tests;

use crate::{
    Atomic, AtomicInt, CachePadded, Platform, ReadDomain, SystemQueue, WaitQueue, Work, WorkQueue,
};
pub(crate) use grace::GRACE;
use grace::{Effects, Grace};

/// SRCU: read sections may sleep.
pub type EpochSrcu<P> = Epoch<P, MaySleep>;

/// RCU: preemption is off in a read section, so that a grace period never waits for a reader that
/// is not running.
pub type EpochRcu<P> = Epoch<P, NonPreemptible>;

/// What a read section does besides counting itself.
pub trait Section: Send + Sync + 'static {
    /// Does what comes before a section begins.
    #[track_caller]
    fn enter<P: Platform>();
    /// Does what comes after a section has ended.
    #[track_caller]
    fn exit<P: Platform>();
}

/// Nothing: read sections may be preempted and may sleep.
#[derive(Debug)]
pub struct MaySleep;

impl Section for MaySleep {
    #[inline(always)]
    fn enter<P: Platform>() {}
    #[inline(always)]
    fn exit<P: Platform>() {}
}

/// Read sections run with preemption off.
#[derive(Debug)]
pub struct NonPreemptible;

impl Section for NonPreemptible {
    #[inline(always)]
    #[track_caller]
    fn enter<P: Platform>() {
        P::preempt_disable();
    }
    #[inline(always)]
    #[track_caller]
    fn exit<P: Platform>() {
        P::preempt_enable();
    }
}

/// The readers of one CPU, by the index that was current when they began. In 64 bits, because safe
/// code can forget guards: 2^32 of them take seconds, and would bring a count back to zero while a
/// reader lives; 2^64 take centuries.
type Readers<P> = CachePadded<[<P as Platform>::AtomicU64; 2]>;

/// A domain of read sections that are counted per CPU: one read-modify-write at either end of a
/// section, on a cache line that other CPUs leave alone.
///
/// A section is counted in one of two counters of the CPU that it began on, and ends in that very
/// counter, wherever it runs by then. So each counter by itself tells how many readers it has, a
/// "CPU" may as well be a shard of a process's threads, and a grace period is: see each counter at
/// zero once. That there are two per CPU only keeps a stream of new readers from holding it up: it
/// drains the counters that are not current, makes them the current ones, and drains those that
/// were.
///
/// Nobody blocks to drive a grace period: whoever asks for one takes it as far as it goes, and the
/// readers that it waits for take it further as they end. A step looks at a counter of each CPU,
/// under a spin lock. A grace period serves all who asked before it began. Callbacks run as one
/// piece of work on the system queue, in the order in which they came.
///
/// So the end of a read section may take a spin lock (with interrupts off), wake tasks and queue
/// work, but only if a grace period waits for just this section. Do not end one under a lock that
/// waking or queueing needs, nor under a [leaf](crate::LockClass::leaf).
pub struct Epoch<P: SystemQueue, K: Section> {
    readers: Arc<[Readers<P>]>,
    control: Arc<Control<P>>,
    section: PhantomData<K>,
}

crate::opaque_debug!([P: SystemQueue, K: Section] Epoch<P, K>);

/// Where a read section was counted.
#[derive(Clone, Copy, Debug)]
pub struct EpochToken {
    cpu: u32,
    index: u32,
}

/// What readers read of a grace period. On a cache line of its own, which is written twice per
/// grace period.
struct Signals<P: Platform> {
    /// The counter of each CPU that new readers use, 0 or 1.
    index: P::AtomicU32,
    /// 0, or one more than the index of the counters that a grace period waits for.
    awaited: P::AtomicU32,
}

struct Control<P: SystemQueue> {
    signals: CachePadded<Signals<P>>,
    grace: Grace<P>,
    callbacks: <P::WorkQueue as WorkQueue>::Work,
}

// SAFETY: let R be a read section and S a call that waits for a grace period G, which began (under
// the lock of `grace`, hence after what S's caller wrote) with a SeqCst fence. R's `fetch_add` and
// the loads of the contract are SeqCst, as are G's loads of the counters, of which G saw each at
// zero. Look at R's counter, when G saw it at zero. Either the `fetch_add` came later in the order
// of SeqCst operations; then the fence did not, and R's loads, which follow it, see what was
// written before the fence. Or it came before, and then so did the `fetch_sub` of R, because only
// that takes R's count back; the zero that G acquired is in the release sequence of it (the counter
// is changed by read-modify-writes only), and S returns after G has ended. Which index R chose does
// not matter to this.
unsafe impl<P: SystemQueue, K: Section> ReadDomain for Epoch<P, K> {
    type Token = EpochToken;

    fn new(_name: &'static str) -> Self {
        // A power of two, so that no CPU number whatsoever leads out of bounds.
        let cpus = P::cpu_count().next_power_of_two();
        let readers: Arc<[Readers<P>]> =
            (0..cpus).map(|_| CachePadded([P::AtomicU64::ZERO, P::AtomicU64::ZERO])).collect();
        let control = Arc::new_cyclic(|control: &Weak<Control<P>>| {
            let control = control.clone();
            let run = move || {
                // If the domain is gone, it has taken its callbacks along: see `drop`.
                if let Some(control) = control.upgrade() {
                    control.grace.run_callbacks(|| {
                        control.callbacks.queue();
                    });
                }
            };
            Control {
                signals: CachePadded(Signals {
                    index: P::AtomicU32::ZERO,
                    awaited: P::AtomicU32::ZERO,
                }),
                grace: Grace::new(readers.clone()),
                callbacks: P::system_queue().work("rcu callbacks", run),
            }
        });
        Epoch { readers, control, section: PhantomData }
    }

    #[inline]
    #[track_caller]
    fn read_lock(&self) -> EpochToken {
        K::enter::<P>();
        self.count_in()
    }

    #[inline]
    #[track_caller]
    unsafe fn read_unlock(&self, token: EpochToken) {
        P::assert_no_leaf("ends a read section");
        self.count_out(token);
        K::exit::<P>();
    }

    #[track_caller]
    fn synchronize(&self) {
        P::assert_no_leaf("waits for a grace period");
        let number = self.control.request();
        self.control.grace.wait(number);
    }

    #[track_caller]
    fn synchronize_expedited(&self) {
        P::assert_no_leaf("waits for a grace period");
        let number = self.control.request();
        if !self.control.ends_soon(number) {
            self.control.grace.wait(number);
        }
    }

    #[track_caller]
    fn call(&self, f: Box<dyn FnOnce() + Send + 'static>) {
        P::assert_no_leaf("asks for a grace period");
        let effects = self.control.grace.call(f, &self.control.signals);
        self.control.act(effects);
    }

    #[track_caller]
    fn barrier(&self) {
        P::assert_no_leaf("waits for callbacks of grace periods");
        self.control.grace.barrier();
    }
}

// What follows has no `#[track_caller]`: where the domain itself is explored, each of its accesses
// is told by its own line.

impl<P: SystemQueue, K: Section> Epoch<P, K> {
    #[inline]
    fn count_in(&self) -> EpochToken {
        let cpu = P::current_cpu().0 & (self.readers.len() as u32).wrapping_sub(1);
        let index = self.control.signals.index.load(Ordering::Relaxed) & 1;
        self.readers[cpu as usize][index as usize].fetch_add(1, Ordering::SeqCst);
        EpochToken { cpu, index }
    }

    /// Store buffering again: the reader writes its counter, then reads `awaited`; a grace period
    /// writes `awaited`, then reads the counters. All SeqCst, so either it sees that the last
    /// reader is gone, or that reader sees that it is awaited.
    #[inline]
    fn count_out(&self, EpochToken { cpu, index }: EpochToken) {
        let before = self.readers[cpu as usize][index as usize].fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.control.signals.awaited.load(Ordering::SeqCst) == index + 1 {
            self.control.last_reader_left();
        }
    }
}

impl<P: SystemQueue> Control<P> {
    /// Looks for a moment whether that grace period ends.
    fn ends_soon(&self, number: u64) -> bool {
        for _ in 0..P::SPINS {
            if self.grace.has_ended(number) {
                return true;
            }
            P::cpu_relax();
        }
        false
    }

    /// Asks for a grace period that begins after this call; returns its number.
    fn request(&self) -> u64 {
        let (number, effects) = self.grace.request(&self.signals);
        self.act(effects);
        number
    }

    #[cold]
    fn last_reader_left(&self) {
        let effects = self.grace.proceed(&self.signals);
        self.act(effects);
    }

    fn act(&self, effects: Effects) {
        if effects.wake {
            self.grace.ended.wake_all();
        }
        if effects.run {
            self.callbacks.queue();
        }
    }
}

impl<P: SystemQueue, K: Section> Drop for Epoch<P, K> {
    /// Without a domain there are no readers, so its callbacks may run now; in task context, as
    /// always.
    fn drop(&mut self) {
        let callbacks = self.control.grace.take_callbacks();
        if !callbacks.is_empty() {
            P::system_queue()
                .spawn("rcu callbacks", Box::new(move || callbacks.into_iter().for_each(|f| f())));
        }
    }
}
