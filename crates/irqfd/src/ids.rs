//! What KVM's vocabulary names: GSIs, pins, interrupt source ids, MSI messages.

use core::fmt;

use doorbell_platform::MsiMessage;

/// A global system interrupt: the number under which a VMM knows an interrupt. A routing table says
/// what it means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gsi(pub u32);

impl fmt::Display for Gsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GSI {}", self.0)
    }
}

/// One input of one interrupt controller. Which chip has which number is between the VMM and its
/// [`Controller`](crate::Controller).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pin {
    /// The interrupt controller.
    pub chip: u16,
    /// The controller's input, counted from 0.
    pub number: u32,
}

impl Pin {
    /// Returns input `number` of controller `chip`.
    pub const fn new(chip: u16, number: u32) -> Self {
        Pin { chip, number }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pin {} of chip {}", self.number, self.chip)
    }
}

/// A source that drives a level-sensitive pin: one of 32. The level of a pin is the OR over all
/// sources, which the controller computes, as a word with a [bit](SourceId::bit) for each.
///
/// Those from 8 on belong to [lines](crate::Line), 3 to 7 to the host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceId(u8);

impl SourceId {
    /// The VMM itself, through [`Irqfds::set_irq`](crate::Irqfds::set_irq).
    pub const USERSPACE: SourceId = SourceId(0);
    /// All resampling irqfds together. Nobody else may use it: an acknowledgement lowers it.
    pub const RESAMPLE: SourceId = SourceId(1);
    /// Plain irqfds on a level-sensitive pin, for the moment between the two halves of their pulse.
    pub const IRQFD: SourceId = SourceId(2);

    /// The first that [lines](crate::Line) have, to the last. Those between the named ones and this
    /// are the host's own.
    const FIRST_LINE: u8 = 8;

    /// Returns the sources that [lines](crate::Line) have: from 8 on.
    pub(crate) fn lines() -> impl Iterator<Item = SourceId> {
        (Self::FIRST_LINE..u32::BITS as u8).map(SourceId)
    }

    pub(crate) fn is_reserved(self) -> bool {
        [Self::RESAMPLE, Self::IRQFD].contains(&self) || self.0 >= Self::FIRST_LINE
    }

    /// Returns the source of that number, if it is below 32.
    pub const fn new(number: u8) -> Option<Self> {
        if number < u32::BITS as u8 { Some(SourceId(number)) } else { None }
    }

    /// Returns its number, below 32.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Returns its bit in the word of a pin.
    pub const fn bit(self) -> u32 {
        1 << self.0
    }
}

/// A message-signalled interrupt, with the device that sends it where that matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Msi {
    /// What the device writes, and where.
    pub message: MsiMessage,
    /// The device that writes, for controllers that tell devices apart (an ITS).
    pub device: Option<u32>,
}

impl Msi {
    /// Creates a message of a device that nobody needs to know.
    pub const fn new(address: u64, data: u32) -> Self {
        Msi { message: MsiMessage::new(address, data), device: None }
    }

    /// Creates a message of device `device` (the ITS's DeviceID).
    pub const fn from_device(device: u32, address: u64, data: u32) -> Self {
        Msi { message: MsiMessage::new(address, data), device: Some(device) }
    }
}

impl From<MsiMessage> for Msi {
    /// Returns a message of a device that nobody needs to know.
    fn from(message: MsiMessage) -> Self {
        Msi { message, device: None }
    }
}
