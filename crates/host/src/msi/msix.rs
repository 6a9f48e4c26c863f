//! An MSI-X table, written by a guest at any moment while the device raises interrupts.
//!
//! PCI Local Bus 3.0, section 6.8.2; PCI Express 6.0, section 7.7.2.

mod capability;
mod state;

use alloc::boxed::Box;
use core::fmt;
use core::mem;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Lock, LockClass, Platform, WaitType};

use crate::handover::{self, Handover};
use crate::msi::MsiMessage;
use crate::msi::spec::*;
pub use capability::{
    MessageCount, MsiCapability, MsiFeatures, MsiSource, MsiState, MsiWritten, Rewrites,
};
pub use state::MsixState;

/// A leaf, taken in task context by the guest's accesses. The device's interrupts do not take it.
/// What has to be routed or delivered is decided under it, and returned.
pub(crate) static TABLE: LockClass = LockClass::new("host.msix_table", WaitType::Spin).leaf();

/// A table has 1 to 2048 entries, not so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableSize(pub u16);

impl core::fmt::Display for TableSize {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "an MSI-X table of {} entries, instead of 1 to {MSIX_ENTRIES}", self.0)
    }
}

impl core::error::Error for TableSize {}

/// The table has no such entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoEntry(pub u16);

impl core::fmt::Display for NoEntry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the MSI-X table has no entry {}", self.0)
    }
}

impl core::error::Error for NoEntry {}

/// What becomes of an interrupt of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an interrupt that is to be delivered is delivered by nobody else"]
#[doc(alias = "Signalled")]
pub enum MsixSignalled {
    /// Deliver it, by the route of its entry.
    Deliver,
    /// The pending bit of the entry is set: whoever unmasks the entry delivers it. Interrupts that
    /// are pending coalesce.
    Pending,
}

/// What a write of the guest asks for.
#[must_use = "what the guest has unmasked is delivered by nobody else"]
#[doc(alias = "Written")]
pub enum MsixWritten<'a, P: Platform> {
    /// Nothing.
    Nothing,
    /// An interrupt of this entry that was pending: deliver it, by its route.
    Deliver(u16),
    /// The entry has another message than its route: change the route first.
    Route(Reroute<'a, P>),
}

impl<P: Platform> fmt::Debug for MsixWritten<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MsixWritten::Nothing => f.write_str("Nothing"),
            MsixWritten::Deliver(entry) => f.debug_tuple("Deliver").field(entry).finish(),
            MsixWritten::Route(reroute) => f.debug_tuple("Route").field(reroute).finish(),
        }
    }
}

/// How many entries share a gate.
const GROUP: u16 = 32;
/// The bit of a gate that is set while all its entries are kept back: the function is masked, or
/// MSI-X is not enabled.
const FUNCTION: u64 = 1 << 63;

/// The MSI-X table and pending bits of one function, and the two bits of its message control.
///
/// **The device** raises its interrupts with [`signal`](Msix::signal), from any number of contexts,
/// also hard-interrupt handlers: one load, if nothing masks it. To deliver one is the caller's
/// part, because the caller has the route: an irqfd, or just the [message](Reroute::message). An
/// interrupt that was about to be delivered when the guest masked it may arrive a moment later, as
/// a message that was on its way; whose route has changed meanwhile goes by the new one. Either way
/// it goes by one whole message. To wait for it would be a grace period for each mask.
///
/// **The guest** masks and unmasks without that a route changes, as long as the message is the
/// same. A message that it has changed while it was masked (by itself, or with the whole function)
/// becomes the route when it is unmasked: the entry stays shut until [`Reroute::routed`] says that
/// the route is there.
///
/// **Undefined** by the specification, and what it does here:
/// - The message changes while it is not masked: it goes on as it was; the change takes effect the
///   next time that entry or function is unmasked.
/// - A write of other than 4 or 8 bytes, or not aligned to its size, or beyond the table, or to the
///   pending bits: nothing. Reads can have any size from 1 to 8 and be anywhere: what is not there
///   is 0.
/// - Reserved bits: they are not kept, and are 0.
pub struct Msix<P: Platform> {
    len: u16,
    /// For each group, the entries that are shut, and [`FUNCTION`]. Written under the lock, read by
    /// the device's interrupts: all that can mask an entry is in one word, so that what they act
    /// upon held at one moment.
    gates: Box<[P::AtomicU64]>,
    /// The pending bits, as the guest sees them.
    pending: Box<[P::AtomicU64]>,
    guest: Lock<P, Guest>,
}

doorbell_platform::opaque_debug!([P: Platform] Msix<P>; len);

struct Guest {
    control: u16,
    entries: Box<[Entry]>,
    groups: Box<[Group]>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    message: MsiMessage,
    /// What the host has made its route.
    routed: Option<MsiMessage>,
}

/// Sets of entries, as bits.
#[derive(Clone, Copy)]
struct Group {
    /// The guest has masked them.
    masked: u32,
    /// Their message is not what is routed.
    stale: u32,
    /// Somebody changes their route, and looks again afterwards. One at a time: of two routes, the
    /// host would not know which is the later one.
    routing: u32,
    /// What the gate holds. An entry whose message changes while it is open becomes stale and stays
    /// open.
    shut: u64,
}

impl Group {
    const RESET: Group =
        Group { masked: u32::MAX, stale: 0, routing: 0, shut: FUNCTION | u32::MAX as u64 };
}

/// The place of an entry in a bit set.
const fn bit(entry: u16) -> u32 {
    1 << (entry % GROUP)
}

impl Guest {
    fn is_open(&self) -> bool {
        self.control & (MSIX_ENABLE | MSIX_FUNCTION_MASK) == MSIX_ENABLE
    }

    fn group(&mut self, entry: u16) -> &mut Group {
        &mut self.groups[usize::from(entry / GROUP)]
    }

    /// A quadword of the table; 0 beyond it.
    fn quadword(&self, index: u64) -> u64 {
        let Some(entry) = usize::try_from(index / 2).ok().and_then(|at| self.entries.get(at))
        else {
            return 0;
        };
        if index.is_multiple_of(2) {
            return entry.message.address;
        }
        let at = (index / 2) as u16;
        let masked = self.groups[usize::from(at / GROUP)].masked & bit(at) != 0;
        u64::from(entry.message.data) | u64::from(masked) << 32
    }

    /// Notes whether an entry's message is what is routed.
    fn compare(&mut self, entry: u16) {
        let Entry { message, routed } = self.entries[usize::from(entry)];
        let group = self.group(entry);
        group.stale &= !bit(entry);
        if routed != Some(message) {
            group.stale |= bit(entry);
        }
    }
}

impl<P: Platform> Msix<P> {
    /// Creates the table of a function after a reset: not enabled, all masked. What is allocated is
    /// allocated here.
    ///
    /// # Errors
    /// If there are none, or more than 2048.
    pub fn new(entries: u16) -> Result<Self, TableSize> {
        if entries == 0 || entries > MSIX_ENTRIES {
            return Err(TableSize(entries));
        }
        let groups = entries.div_ceil(GROUP);
        let guest = Guest {
            control: 0,
            entries: (0..entries).map(|_| Entry::default()).collect(),
            // No route is there yet, so all are stale.
            groups: (0..groups).map(|_| Group { stale: u32::MAX, ..Group::RESET }).collect(),
        };
        Ok(Msix {
            len: entries,
            gates: (0..groups)
                .map(|_| P::AtomicU64::new(Group::RESET.shut).named("gate"))
                .collect(),
            pending: (0..entries.div_ceil(64))
                .map(|_| P::AtomicU64::new(0).named("pending bits"))
                .collect(),
            guest: Lock::new(&TABLE, guest),
        })
    }

    /// Returns how many entries the table has.
    #[expect(clippy::len_without_is_empty, reason = "it has at least one")]
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Signals an interrupt of the device. Takes no lock.
    ///
    /// While MSI-X is not enabled it is pending as well: a device whose driver uses another kind of
    /// interrupt does not signal.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If there is no such entry, which a guest may have told the device to use: nobody wants the
    /// interrupt then.
    #[inline]
    pub fn signal(&self, entry: u16) -> Result<MsixSignalled, NoEntry> {
        // Entries of the last group that do not exist are masked for good: the way that has to be
        // short need not tell.
        let Some(gate) = self.gates.get(usize::from(entry / GROUP)) else {
            return Err(NoEntry(entry));
        };
        if is_open::<P>(gate, entry) { Ok(MsixSignalled::Deliver) } else { self.signal_shut(entry) }
    }

    #[cold]
    fn signal_shut(&self, entry: u16) -> Result<MsixSignalled, NoEntry> {
        if entry >= self.len {
            return Err(NoEntry(entry));
        }
        Ok(match handover::pend(&self.gate(entry)) {
            Some(_) => MsixSignalled::Deliver,
            None => MsixSignalled::Pending,
        })
    }

    /// Reads the table for the guest: `bytes` (1 to 8) from `offset` on, the first of them lowest.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn read_table(&self, offset: u64, bytes: usize) -> u64 {
        let guest = self.guest.lock();
        part(offset, bytes, |index| guest.quadword(index))
    }

    /// Reads the pending bits for the guest, which cannot write them.
    pub fn read_pending(&self, offset: u64, bytes: usize) -> u64 {
        let word =
            |index| usize::try_from(index).ok().and_then(|index: usize| self.pending.get(index));
        part(offset, bytes, |index| word(index).map_or(0, |word| word.load(SeqCst)))
    }

    /// Writes the table for the guest: the low `bytes` bytes of `value`, to `offset`.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn write_table(&self, offset: u64, bytes: usize, value: u64) -> MsixWritten<'_, P> {
        let defined = matches!(bytes, 4 | 8) && offset.is_multiple_of(bytes as u64);
        if !defined || offset >= u64::from(self.len) * MSIX_ENTRY_SIZE {
            return MsixWritten::Nothing;
        }
        let entry = (offset / MSIX_ENTRY_SIZE) as u16;
        let first = (offset % MSIX_ENTRY_SIZE / 4) as usize;
        let mut control = None;
        let mut guest = self.guest.lock();
        for at in 0..bytes / 4 {
            let dword = (value >> (at * 32)) as u32;
            let message = &mut guest.entries[usize::from(entry)].message;
            match first + at {
                MSIX_ADDRESS => {
                    message.address =
                        message.address >> 32 << 32 | u64::from(dword & MSIX_ADDRESS_BITS);
                }
                MSIX_UPPER_ADDRESS => {
                    message.address = u64::from(message.address as u32) | u64::from(dword) << 32
                }
                MSIX_DATA => message.data = dword,
                _ => control = Some(dword),
            }
        }
        guest.compare(entry);
        let masked = guest.group(entry).masked & bit(entry) != 0;
        match control.map(|control| control & MSIX_MASK != 0) {
            Some(mask) if mask != masked => {
                guest.group(entry).masked ^= bit(entry);
                if mask { self.shut(&mut guest, entry) } else { self.open(&mut guest, entry) }
            }
            _ => MsixWritten::Nothing,
        }
    }

    /// Returns message control as the guest reads it: the number of entries less one, function mask
    /// and enable.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn control(&self) -> u16 {
        self.guest.lock().control | (self.len - 1)
    }

    /// Writes message control for the guest. What that opens is open once the caller has acted on
    /// what is returned.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn write_control(&self, value: u16) -> Opened<'_, P> {
        let mut guest = self.guest.lock();
        let was_open = guest.is_open();
        guest.control = value & (MSIX_ENABLE | MSIX_FUNCTION_MASK);
        let is_open = guest.is_open();
        if was_open && !is_open {
            for (gate, group) in self.gates.iter().zip(&mut guest.groups) {
                group.shut |= FUNCTION;
                gate.store(group.shut, SeqCst);
            }
        }
        Opened(is_open.then_some(self))
    }

    /// Resets the function: not enabled, all masked, nothing pending, all messages 0. What the
    /// device signals meanwhile may stay pending. Routes stay, and are used again if the guest
    /// writes the same messages.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn reset(&self) {
        let mut guest = self.guest.lock();
        guest.control = 0;
        for (gate, group) in self.gates.iter().zip(&mut guest.groups) {
            // Who changes a route still does.
            *group = Group { routing: group.routing, ..Group::RESET };
            gate.store(group.shut, SeqCst);
        }
        for entry in 0..self.len {
            guest.entries[usize::from(entry)].message = MsiMessage::default();
            guest.compare(entry);
        }
        self.pending.iter().for_each(|word| word.store(0, SeqCst));
    }

    fn gate(&self, entry: u16) -> Gate<'_, P> {
        Gate { msix: self, word: &self.gates[usize::from(entry / GROUP)], entry }
    }

    /// Takes those of some pending bits that are set.
    fn take(&self, word: usize, bits: u64) -> u64 {
        let pending = &self.pending[word];
        // Written only if there is something to take: mostly there is not.
        match pending.load(SeqCst) & bits {
            0 => 0,
            _ => pending.fetch_and(!bits, SeqCst) & bits,
        }
    }

    fn shut(&self, guest: &mut Guest, entry: u16) -> MsixWritten<'_, P> {
        let group = guest.group(entry);
        group.shut |= u64::from(bit(entry));
        self.gate(entry).word.store(group.shut, SeqCst);
        MsixWritten::Nothing
    }

    /// Opens an entry, unless something else shuts it still.
    fn open(&self, guest: &mut Guest, entry: u16) -> MsixWritten<'_, P> {
        let message = guest.entries[usize::from(entry)].message;
        let group = guest.group(entry);
        // Whoever opens the group, changes the route, or unmasks the entry sees to it.
        if group.shut & FUNCTION != 0 || (group.routing | group.masked) & bit(entry) != 0 {
            return MsixWritten::Nothing;
        }
        if group.stale & bit(entry) != 0 {
            group.routing |= bit(entry);
            return MsixWritten::Route(Reroute { msix: self, entry, message });
        }
        group.shut &= !u64::from(bit(entry));
        let gate = self.gate(entry);
        gate.word.store(group.shut, SeqCst);
        match gate.take() {
            0 => MsixWritten::Nothing,
            _ => MsixWritten::Deliver(entry),
        }
    }

    /// Opens those entries of a group that nothing else shuts: which of them were pending, and
    /// which of the others wait for a route only. `None` if the function has been masked again.
    fn open_group(&self, index: usize) -> Option<(u32, u32)> {
        let mut guest = self.guest.lock();
        if !guest.is_open() {
            return None;
        }
        let group = &mut guest.groups[index];
        if group.shut & FUNCTION == 0 {
            return Some((0, 0));
        }
        group.shut = u64::from(group.masked | group.stale | group.routing);
        let (open, unrouted) = (!group.shut as u32, group.stale & !group.masked & !group.routing);
        self.gates[index].store(group.shut, SeqCst);
        let half = index % 2 * 32;
        let taken = self.take(index / 2, u64::from(open) << half);
        Some(((taken >> half) as u32, unrouted))
    }
}

#[inline(always)]
fn is_open<P: Platform>(gate: &P::AtomicU64, entry: u16) -> bool {
    gate.load(SeqCst) & (FUNCTION | u64::from(bit(entry))) == 0
}

/// What shuts an entry, and where its interrupts are pending.
struct Gate<'a, P: Platform> {
    msix: &'a Msix<P>,
    word: &'a P::AtomicU64,
    entry: u16,
}

impl<P: Platform> Gate<'_, P> {
    fn pending(&self) -> (usize, u64) {
        (usize::from(self.entry / 64), 1 << (self.entry % 64))
    }
}

impl<P: Platform> Handover for Gate<'_, P> {
    type To = ();

    fn open(&self) -> Option<()> {
        is_open::<P>(self.word, self.entry).then_some(())
    }

    fn pend(&self) {
        let (word, bits) = self.pending();
        self.msix.pending[word].fetch_or(bits, SeqCst);
    }

    fn take(&self) -> u64 {
        let (word, bits) = self.pending();
        u64::from(self.msix.take(word, bits) != 0)
    }
}

/// An entry that the guest has unmasked waits for its route. It is shut until the host has made
/// this message the route, and says so. If this is dropped instead, because the host could not, the
/// entry stays shut, its interrupts are pending, and the guest's next unmasking tries again.
#[must_use = "the entry is shut until its route is there"]
pub struct Reroute<'a, P: Platform> {
    msix: &'a Msix<P>,
    entry: u16,
    message: MsiMessage,
}

doorbell_platform::opaque_debug!(['a, P: Platform] Reroute<'a, P>; entry);

impl<'a, P: Platform> Reroute<'a, P> {
    /// The entry whose route is to change.
    pub fn entry(&self) -> u16 {
        self.entry
    }

    /// Returns what the guest wants to be sent. Only an interrupt controller can say whether that
    /// means anything.
    pub fn message(&self) -> MsiMessage {
        self.message
    }

    /// Says that the route is there: what is delivered for this entry from now on goes by it.
    /// Returns what comes next: if the guest has changed the message meanwhile and unmasked the
    /// entry, that is another route. There is one for each such write at most.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn routed(self) -> MsixWritten<'a, P> {
        let Reroute { msix, entry, message } = self;
        mem::forget(self);
        let mut guest = msix.guest.lock();
        guest.entries[usize::from(entry)].routed = Some(message);
        guest.group(entry).routing &= !bit(entry);
        guest.compare(entry);
        msix.open(&mut guest, entry)
    }
}

impl<P: Platform> Drop for Reroute<'_, P> {
    /// Nobody knows what the route is now.
    fn drop(&mut self) {
        let mut guest = self.msix.guest.lock();
        guest.entries[usize::from(self.entry)].routed = None;
        guest.group(self.entry).routing &= !bit(self.entry);
        guest.compare(self.entry);
    }
}

/// The guest has enabled MSI-X, or unmasked the function.
#[must_use = "nothing is open, and nothing delivered, until this is acted upon"]
pub struct Opened<'a, P: Platform>(Option<&'a Msix<P>>);

doorbell_platform::opaque_debug!(['a, P: Platform] Opened<'a, P>);

impl<'a, P: Platform> Opened<'a, P> {
    /// Opens the entries, 32 at a time, and has `act` do what that asks for, no lock being held.
    /// Ends early if the guest masks the function meanwhile.
    ///
    /// # Context
    /// Any task; sleeps if `act` does.
    pub fn each(self, mut act: impl FnMut(MsixWritten<'a, P>)) {
        let Some(msix) = self.0 else { return };
        for index in 0..msix.gates.len() {
            let Some((pending, unrouted)) = msix.open_group(index) else { return };
            let entries = |bits: u32| {
                (0..GROUP)
                    .filter(move |at| bits >> at & 1 != 0)
                    .map(move |at| index as u16 * GROUP + at)
            };
            entries(pending).for_each(|entry| act(MsixWritten::Deliver(entry)));
            for entry in entries(unrouted) {
                // It may have been masked, or routed, since.
                let next = msix.open(&mut msix.guest.lock(), entry);
                act(next);
            }
        }
    }
}

/// `bytes` bytes (8 at most) from `offset` on, of what is read in quadwords.
fn part(offset: u64, bytes: usize, quadword: impl Fn(u64) -> u64) -> u64 {
    let (index, skipped, bytes) = (offset / 8, offset % 8, bytes.min(8) as u64);
    let mut read = u128::from(quadword(index));
    if skipped + bytes > 8 {
        read |= u128::from(quadword(index + 1)) << 64;
    }
    let kept = (1u128 << (bytes * 8)) - 1;
    (read >> (skipped * 8) & kept) as u64
}

#[cfg(test)]
mod tests;
