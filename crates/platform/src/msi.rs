//! A message-signalled interrupt, as a device writes it.

/// A write of a device that is an interrupt.
///
/// What the words say is the architecture's: `doorbell-host` encodes them for the host's own CPUs
/// and remapping units, and `doorbell-apic` decodes what a guest has programmed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[doc(alias = "Message")]
pub struct MsiMessage {
    /// Where the device writes.
    pub address: u64,
    /// What the device writes.
    pub data: u32,
}

impl MsiMessage {
    /// Returns the message of a write of `data` to `address`.
    pub const fn new(address: u64, data: u32) -> Self {
        MsiMessage { address, data }
    }
}
