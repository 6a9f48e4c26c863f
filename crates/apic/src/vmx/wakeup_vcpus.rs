//! The vCPUs that sleep, and the CPUs on which they do: what the handler of the wake-up vector
//! looks at.
//!
//! Each CPU has a bitmap with a bit for each registered vCPU, and not a list under a lock. To enter
//! it and to leave it is one read-modify-write, and the handler loads words: there is no lock whose
//! order with the scheduler's locks could matter, nothing that a vCPU could be entered into twice,
//! and nothing to annotate for a lock validator. A bit that is stale by the time the handler looks
//! leads it to a vCPU that does not sleep or has nothing pending
//! ([`Post::notified`](doorbell_post::Post::notified)), and costs that look.
//!
//! What a vCPU's slot holds is replaced under RCU, so the handler may use what it finds there until
//! it is done.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, CachePadded, CpuId, Platform, RcuCell, ReadDomain, Retired};
use doorbell_post::PiDescriptor;

use super::{PiHooks, PiHost};

/// A host's vCPU, as far as its sleep is concerned.
#[doc(alias = "Sleeper")]
pub trait PiVcpu<P: Platform>: Send + Sync + 'static {
    /// The vCPU's posted-interrupt descriptor.
    fn descriptor(&self) -> &PiDescriptor<P>;
}

impl<P: Platform> PiVcpu<P> for PiDescriptor<P> {
    fn descriptor(&self) -> &PiDescriptor<P> {
        self
    }
}

/// All slots are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSlot;

impl core::fmt::Display for NoSlot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("all slots for vCPUs that may sleep are taken")
    }
}

impl core::error::Error for NoSlot {}

/// There are to be more slots than [`MOST_SLOTS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

impl core::fmt::Display for TooMany {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "there cannot be more than {MOST_SLOTS} slots for vCPUs that may sleep")
    }
}

impl core::error::Error for TooMany {}

/// How many slots there can be: as many as a handler can still look through, a word for each 64.
/// Each takes a bit for each CPU of the host, so that a mistaken number would take all memory; a
/// host with more vCPUs has several [`WakeupVcpus`].
pub const MOST_SLOTS: usize = 1 << 16;

/// The vCPUs of a host that may sleep, and for each of its CPUs those that do so there.
#[doc(alias = "Sleepers")]
pub struct WakeupVcpus<P: Platform, V: PiVcpu<P>> {
    host: PiHost,
    rcu: Arc<P::Rcu>,
    maps: Box<[Map<P>]>,
    slots: Box<[Slot<P, V>]>,
}

doorbell_platform::opaque_debug!([P: Platform, V: PiVcpu<P>] WakeupVcpus<P, V>);

/// The bitmap of a CPU, with a bit for each slot. It shares no cache line with that of another CPU.
struct Map<P: Platform> {
    lines: Box<[CachePadded<[P::AtomicU64; LINE]>]>,
}

/// Words in a cache line, or a pair of them.
const LINE: usize = 16;

impl<P: Platform> Map<P> {
    fn new(slots: usize) -> Self {
        let line = |_| CachePadded(core::array::from_fn(|_| P::AtomicU64::new(0)));
        Map { lines: (0..slots.div_ceil(64 * LINE)).map(line).collect() }
    }

    fn word(&self, index: usize) -> &P::AtomicU64 {
        &self.lines[index / LINE][index % LINE]
    }
}

struct Slot<P: Platform, V: PiVcpu<P>> {
    taken: P::AtomicBool,
    vcpu: RcuCell<P, P::Rcu, Option<Arc<V>>>,
}

/// What a slot held before.
pub(super) type Former<P, V> = Retired<<P as Platform>::Rcu, Option<Arc<V>>>;

impl<P: Platform, V: PiVcpu<P>> WakeupVcpus<P, V> {
    /// Creates room for `slots` vCPUs. `rcu` pins what the handler looks at.
    ///
    /// # Errors
    /// If that is more than [`MOST_SLOTS`].
    pub fn new(host: PiHost, slots: usize, rcu: &Arc<P::Rcu>) -> Result<Arc<Self>, TooMany> {
        if slots > MOST_SLOTS {
            return Err(TooMany);
        }
        let slot =
            |_| Slot { taken: P::AtomicBool::new(false), vcpu: RcuCell::new(rcu, Box::new(None)) };
        Ok(Arc::new(WakeupVcpus {
            maps: (0..host.cpus()).map(|_| Map::new(slots)).collect(),
            slots: (0..slots).map(slot).collect(),
            rcu: Arc::clone(rcu),
            host,
        }))
    }

    /// The host's vectors and CPUs.
    pub fn host(&self) -> &PiHost {
        &self.host
    }

    /// Gives a vCPU a slot, and its owner what its scheduler's hooks need.
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    ///
    /// # Errors
    /// If all slots are taken.
    pub fn register(self: &Arc<Self>, vcpu: Arc<V>) -> Result<PiHooks<P, V>, NoSlot> {
        let free = |slot: &Slot<P, V>| !slot.taken.swap(true, SeqCst);
        let slot = self.slots.iter().position(free).ok_or(NoSlot)?;
        let before = self.slots[slot].vcpu.replace(Box::new(Some(Arc::clone(&vcpu))));
        Ok(PiHooks::new(Arc::clone(self), slot, vcpu, before))
    }

    /// Handles the wake-up vector, on `cpu`: calls `wake` with those who sleep there and were
    /// notified. `wake` must wake the vCPU's task.
    ///
    /// No lock is held meanwhile, only a read section of the RCU domain. Nothing is allocated.
    ///
    /// # Context
    /// Hard interrupt, the wake-up vector's; does not sleep.
    ///
    /// # Panics
    /// If the host has no such CPU.
    #[doc(alias = "wake_up")]
    pub fn handle_wakeup(&self, cpu: CpuId, wake: impl FnMut(&Arc<V>)) {
        self.each(cpu, PiDescriptor::notified, wake);
    }

    /// Takes `cpu` offline: calls `wake` with all who sleep there. `wake` must wake the vCPU's
    /// task, which then puts itself elsewhere.
    ///
    /// The host calls this after the last task has been switched away from on `cpu`, so that nobody
    /// begins to sleep there any more, and before interrupts cannot reach it any more: those that
    /// arrive later find awake whom they are for.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Panics
    /// If the host has no such CPU.
    #[doc(alias = "evacuate")]
    pub fn offline(&self, cpu: CpuId, wake: impl FnMut(&Arc<V>)) {
        self.each(cpu, |post| post.run_state().wake(), wake);
    }

    /// Returns whether nobody sleeps on `cpu`, as far as is known.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Panics
    /// If the host has no such CPU.
    pub fn is_empty(&self, cpu: CpuId) -> bool {
        self.words(cpu).all(|word| word.load(SeqCst) == 0)
    }

    fn each(
        &self,
        cpu: CpuId,
        wakes: impl Fn(&PiDescriptor<P>) -> bool,
        mut wake: impl FnMut(&Arc<V>),
    ) {
        let section = self.rcu.read();
        for (index, word) in self.words(cpu).enumerate() {
            // Whoever is notified with the wake-up vector entered the map before it asked for that.
            let mut bits = word.load(SeqCst);
            while bits != 0 {
                let slot = index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                // The slot may be another's by now, and that one be looked at in vain, or woken for
                // good reason.
                if let Some(vcpu) = self.slots[slot].vcpu.get(&section)
                    && wakes(vcpu.descriptor())
                {
                    wake(vcpu);
                }
            }
        }
    }

    fn words(&self, cpu: CpuId) -> impl Iterator<Item = &P::AtomicU64> {
        let map = &self.maps[cpu.0 as usize];
        (0..self.slots.len().div_ceil(64)).map(|index| map.word(index))
    }

    /// Enters a slot into the map of a CPU: from here on, its handler looks at the vCPU.
    pub(super) fn add(&self, cpu: CpuId, slot: usize) {
        self.maps[cpu.0 as usize].word(slot / 64).fetch_or(1 << (slot % 64), SeqCst);
    }

    /// Takes a slot out of the map of a CPU.
    pub(super) fn remove(&self, cpu: CpuId, slot: usize) {
        self.maps[cpu.0 as usize].word(slot / 64).fetch_and(!(1 << (slot % 64)), SeqCst);
    }

    /// Gives a slot back, which is in no map. The vCPU stays until the handlers that look at it are
    /// done.
    pub(super) fn vacate(&self, slot: usize, before: Former<P, V>) {
        let Slot { taken, vcpu } = &self.slots[slot];
        let former = vcpu.replace(Box::new(None));
        // After the replacement, which belongs to whoever has the slot.
        taken.store(false, SeqCst);
        former.reclaim_later();
        before.reclaim_later();
    }
}
