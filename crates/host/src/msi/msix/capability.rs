//! A plain MSI capability: one message for 1 to 32 interrupts, in registers of configuration space.
//!
//! PCI Local Bus 3.0, section 6.8.1; PCI Express 6.0, section 7.7.1.
//!
//! ```text
//!   configuration space (one writer)        the device's interrupts
//!   writes a register                       MsiSource::signal: the gate, one load
//!   shuts what is another's by now   ---->    shut: pending
//!   MsiWritten::each, without a lock:
//!     route, then open, deliver what
//!     was pending
//! ```

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use super::{FUNCTION, GROUP, Msix, bit};
use crate::msi::spec::*;
use crate::msi::{MsiMessage, MsixSignalled, MsixWritten, NoEntry};

/// A capability has 1, 2, 4, 8, 16 or 32 messages, not so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageCount(pub u16);

impl fmt::Display for MessageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an MSI capability of {} messages, instead of 1, 2, 4, 8, 16 or 32", self.0)
    }
}

impl core::error::Error for MessageCount {}

impl MessageCount {
    /// Returns the number, if a capability can have so many.
    pub(crate) fn check(messages: u16) -> Result<u16, MessageCount> {
        let exists = messages.is_power_of_two() && messages <= GROUP;
        exists.then_some(messages).ok_or(MessageCount(messages))
    }
}

/// When a message takes effect that a guest writes while MSI is enabled and the interrupt not
/// masked. The specification leaves that open; some guests do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rewrites {
    /// Each register at once, as a device that sends what stands in its registers. A guest that
    /// writes address and data one after the other can have an interrupt sent by half of each.
    AtOnce,
    /// The next time that the interrupt is unmasked, or MSI enabled.
    WhenUnmasked,
}

/// What a function has of MSI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiFeatures {
    /// How many messages the function asks for: 1, 2, 4, 8, 16 or 32.
    pub messages: u16,
    /// Whether the address has 64 bits.
    pub wide: bool,
    /// Whether each message has a mask bit and a pending bit.
    pub maskable: bool,
    /// When messages take effect that are written while they are in use.
    pub rewrites: Rewrites,
}

/// What of a capability has to be saved. Pending bits are there also without a register that shows
/// them: of what was signalled while MSI was off, or a route was being changed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MsiState {
    /// Message control, as the guest reads it.
    pub control: u16,
    /// The message, as it stands in the registers.
    pub message: MsiMessage,
    /// The mask bits.
    pub mask: u32,
    /// The pending bits, by the number of the message.
    pub pending: u32,
}

/// The capability of one function, of who emulates its configuration space. The device has the
/// [source](MsiSource).
///
/// A guest that enables fewer messages than the function asks for gets interrupt n as message n
/// modulo their number, with that one's mask bit.
///
/// **Undefined** by the specification, and what it does here: more messages are enabled than the
/// function asks for: all of them. A write of other than whole bytes of registers, or to what is
/// read-only: nothing. Reserved bits are 0.
///
/// ```
/// use doorbell_host::msi::*;
/// use doorbell_platform::Std;
///
/// let rewrites = Rewrites::AtOnce;
/// let features = MsiFeatures { messages: 2, wide: false, maskable: false, rewrites };
/// let (mut capability, device) = MsiCapability::<Std>::new(features)?;
/// # let _ = capability.write(4, 4, 0xfee0_1000);
/// # let _ = capability.write(8, 2, 0x42);
/// // The guest has written the message (offsets 4 and 8); now it enables both.
/// let mut routes = Vec::new();
/// capability.write(2, 2, 1 << 4 | 1).each(|mut written| {
///     while let MsixWritten::Route(route) = written {
///         routes.push((route.entry(), route.message().data));
///         written = route.routed();
///     }
/// });
/// assert_eq!(routes, [(0, 0x42), (1, 0x43)]);
/// assert_eq!(device.signal(1)?, MsixSignalled::Deliver);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MsiCapability<P: Platform> {
    features: MsiFeatures,
    enabled: bool,
    /// Bits 6:4 of message control: how many messages are enabled, as a power of two.
    multiple: u16,
    message: MsiMessage,
    mask: u32,
    table: Arc<Msix<P>>,
}

doorbell_platform::opaque_debug!([P: Platform] MsiCapability<P>; features, enabled, message, mask);

/// The device's side of a [capability](MsiCapability).
#[derive(Clone)]
pub struct MsiSource<P: Platform>(Arc<Msix<P>>);

doorbell_platform::opaque_debug!([P: Platform] MsiSource<P>);

impl<P: Platform> MsiSource<P> {
    /// Signals an interrupt, as [`Msix::signal`] does. Takes no lock.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the function asks for no such message.
    #[inline]
    pub fn signal(&self, message: u16) -> Result<MsixSignalled, NoEntry> {
        self.0.signal(message)
    }
}

/// What a write of the guest leaves to be done, without a lock.
#[must_use = "nothing opens, and nothing is delivered, until this is acted upon"]
pub struct MsiWritten<P: Platform>(Option<Arc<Msix<P>>>);

doorbell_platform::opaque_debug!([P: Platform] MsiWritten<P>);

impl<P: Platform> MsiWritten<P> {
    /// Opens what the guest has enabled and unmasked, and has `act` do what that asks for: route a
    /// message, deliver what was pending.
    ///
    /// # Context
    /// Any task, also when the configuration space is locked no more; sleeps if `act` does.
    pub fn each(self, mut act: impl FnMut(MsixWritten<'_, P>)) {
        let Some(table) = &self.0 else { return };
        for entry in 0..table.len() {
            let written = {
                let mut guest = table.guest.lock();
                match guest.group(entry).shut & u64::from(bit(entry)) {
                    0 => MsixWritten::Nothing,
                    _ => table.open(&mut guest, entry),
                }
            };
            act(written);
        }
    }
}

/// The registers of a capability, by where they begin.
struct Offsets {
    data: u64,
    mask: u64,
    pending: u64,
    end: u64,
}

const CONTROL: u64 = 2;
const ADDRESS: u64 = 4;

impl MsiFeatures {
    fn offsets(&self) -> Offsets {
        let data = ADDRESS + if self.wide { 8 } else { 4 };
        let (mask, pending) = (data + 4, data + 8);
        Offsets { data, mask, pending, end: if self.maskable { data + 12 } else { data + 2 } }
    }

    /// Returns the mask bits that there are.
    fn mask_bits(&self) -> u32 {
        if self.maskable { bits(self.messages) } else { 0 }
    }
}

/// Returns a bit for each of so many messages: 1 to 32.
fn bits(messages: u16) -> u32 {
    u32::MAX >> (GROUP - messages)
}

impl<P: Platform> MsiCapability<P> {
    /// Creates the capability of a function after a reset, and its device's side.
    ///
    /// # Errors
    /// If the number of messages is not 1, 2, 4, 8, 16 or 32.
    pub fn new(features: MsiFeatures) -> Result<(Self, MsiSource<P>), MessageCount> {
        let count = MessageCount::check(features.messages)?;
        let table = Arc::new(Msix::new(count).map_err(|_| MessageCount(count))?);
        let source = MsiSource(Arc::clone(&table));
        let message = MsiMessage::default();
        let new = MsiCapability { features, enabled: false, multiple: 0, message, mask: 0, table };
        Ok((new, source))
    }

    /// Returns how many bytes the capability has, with its id and the pointer to the next one.
    #[expect(clippy::len_without_is_empty, reason = "it has at least its control")]
    pub fn len(&self) -> u64 {
        self.features.offsets().end
    }

    /// Reads registers for the guest: `bytes` (1 to 4) from `offset` on, the first of them lowest.
    /// The capability's id and the pointer to the next one, at 0 and 1, are the caller's.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn read(&self, offset: u64, bytes: usize) -> u32 {
        let byte = |at: u64| u32::from(self.byte(at));
        (0..bytes.min(4) as u64)
            .map(|at| byte(offset.saturating_add(at)) << (8 * at))
            .fold(0, |read, byte| read | byte)
    }

    /// Writes registers for the guest: the low `bytes` bytes (1 to 4) of `value`, to `offset`. What
    /// that opens is open once the caller has acted on what is returned.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn write(&mut self, offset: u64, bytes: usize, value: u32) -> MsiWritten<P> {
        let before = (self.enabled, self.multiple, self.message, self.mask);
        for at in 0..bytes.min(4) as u64 {
            self.set_byte(offset.saturating_add(at), (value >> (8 * at)) as u8);
        }
        if (self.enabled, self.multiple, self.message, self.mask) == before {
            return MsiWritten(None);
        }
        self.takes_effect()
    }

    /// Resets the function: not enabled, nothing masked or pending. What the device signals
    /// meanwhile may stay pending.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn reset(&mut self) {
        (self.enabled, self.multiple, self.mask) = (false, 0, 0);
        self.message = MsiMessage::default();
        self.table.reset();
    }

    /// Saves what the guest can see, and what is pending. When, and in which order it is restored,
    /// is with [`MsixState`](crate::msi::MsixState).
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn save(&self) -> MsiState {
        let control = self.control();
        MsiState { control, message: self.message, mask: self.mask, pending: self.pending() }
    }

    /// Restores what was saved of a function with the same features, into one after a reset. Bits
    /// that it has not are left out. Routes are made, and pending interrupts delivered, by what is
    /// returned.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn restore(&mut self, state: MsiState) -> MsiWritten<P> {
        let pending = state.pending & bits(self.features.messages);
        self.table.pending[0].fetch_or(pending.into(), SeqCst);
        self.set_control(state.control);
        self.message = MsiMessage {
            address: state.message.address & self.address_bits(),
            data: state.message.data & MSI_DATA_BITS,
        };
        self.mask = state.mask & self.features.mask_bits();
        self.takes_effect()
    }

    fn address_bits(&self) -> u64 {
        let upper = if self.features.wide { u64::from(u32::MAX) << 32 } else { 0 };
        upper | u64::from(MSIX_ADDRESS_BITS)
    }

    fn control(&self) -> u16 {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let capable = self.features.messages.trailing_zeros() as u16;
        flag(self.enabled, MSI_ENABLE)
            | flag(self.features.wide, MSI_WIDE)
            | flag(self.features.maskable, MSI_MASKABLE)
            | (capable << MSI_CAPABLE_SHIFT)
            | (self.multiple << MSI_MULTIPLE_SHIFT)
    }

    fn set_control(&mut self, control: u16) {
        self.enabled = control & MSI_ENABLE != 0;
        self.multiple = control >> MSI_MULTIPLE_SHIFT & 7;
    }

    /// Returns how many messages the guest has enabled: a power of two.
    fn messages(&self) -> u16 {
        (1 << self.multiple.min(5)).min(self.features.messages)
    }

    /// Returns the pending bits. Those of interrupts that share a message are one.
    fn pending(&self) -> u32 {
        self.table.pending[0].load(SeqCst) as u32
    }

    fn byte(&self, at: u64) -> u8 {
        let Offsets { data, mask, pending, end } = self.features.offsets();
        let of = |register: u64, from: u64| (register >> (8 * (at - from))) as u8;
        match at {
            _ if at >= end => 0,
            CONTROL..ADDRESS => of(self.control().into(), CONTROL),
            ADDRESS.. if at < data => of(self.message.address, ADDRESS),
            _ if at >= pending => of(self.shown_pending().into(), pending),
            _ if at >= mask => of(self.mask.into(), mask),
            _ if at >= data => of(self.message.data.into(), data),
            _ => 0,
        }
    }

    /// Returns the pending bits as the guest sees them: of the messages that it has enabled.
    fn shown_pending(&self) -> u32 {
        let (pending, count) = (self.pending(), u32::from(self.messages()));
        (0..u32::from(GROUP) / count)
            .map(|at| pending >> (at * count))
            .fold(0, |all, part| all | part)
            & bits(self.messages())
    }

    fn set_byte(&mut self, at: u64, byte: u8) {
        let Offsets { data, mask, pending, end } = self.features.offsets();
        let put = |register: u64, from: u64| {
            let shift = 8 * (at - from);
            register & !(0xff << shift) | u64::from(byte) << shift
        };
        match at {
            _ if at >= end || at >= pending => {}
            CONTROL..ADDRESS => {
                let control = put(self.control().into(), CONTROL);
                self.set_control(control as u16);
            }
            ADDRESS.. if at < data => {
                self.message.address = put(self.message.address, ADDRESS) & self.address_bits();
            }
            _ if at >= mask => {
                self.mask = put(self.mask.into(), mask) as u32 & self.features.mask_bits();
            }
            _ if at >= data => {
                self.message.data = put(self.message.data.into(), data) as u32 & MSI_DATA_BITS;
            }
            _ => {}
        }
    }

    /// Gives the entries of the table what stands in the registers. Shuts those that the guest has
    /// masked, and those that have another message now: what is signalled from here on is pending,
    /// and whoever acts on what is returned delivers it.
    fn takes_effect(&self) -> MsiWritten<P> {
        let count = self.messages();
        let mut guest = self.table.guest.lock();
        let mut masked = 0;
        for entry in 0..self.table.len() {
            let number = u32::from(entry % count);
            // "Modify the low order bits": those that number the messages are the function's.
            let data = self.message.data & !(u32::from(count) - 1) | number;
            guest.entries[usize::from(entry)].message = MsiMessage { data, ..self.message };
            guest.compare(entry);
            masked |= (self.mask >> number & 1) << entry;
        }
        guest.control = u16::from(self.enabled) * MSIX_ENABLE;
        let group = guest.group(0);
        group.masked = masked | !bits(self.table.len());
        let was_open = group.shut & FUNCTION == 0;
        let rewritten = match self.features.rewrites {
            Rewrites::AtOnce => group.stale,
            Rewrites::WhenUnmasked => 0,
        };
        group.shut = match (self.enabled, was_open) {
            (false, _) => FUNCTION | u64::from(u32::MAX),
            (true, false) => u32::MAX.into(),
            (true, true) => group.shut | u64::from(group.masked | rewritten),
        };
        self.table.gates[0].store(group.shut, SeqCst);
        drop(guest);
        MsiWritten(self.enabled.then(|| Arc::clone(&self.table)))
    }
}

#[cfg(test)]
mod tests;
