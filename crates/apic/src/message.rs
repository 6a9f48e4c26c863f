//! What an MSI says.
//!
//! Intel SDM vol. 3 (253668-083), section 12.11 "Message Signalled Interrupts": 12.11.1 for the
//! address, 12.11.2 for the data. What destination ids mean is in section 12.6.2, and for x2APICs
//! in 12.12.

use doorbell_platform::MsiMessage;

use crate::GuestVector;

const ADDRESS_BASE: u64 = 0xfee;
/// What a route's address says beside bits 31:8 of a destination id.
const ADDRESS_OF_ROUTE: u64 = 0xff_ffff_ffff;
const DATA_LEVEL: u32 = 1 << 14;
const DATA_TRIGGER: u32 = 1 << 15;
const DESTINATION_MODE: u64 = 1 << 2;
const REDIRECTION_HINT: u64 = 1 << 3;

/// How many bits of destination id an address has, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DestinationIds {
    /// Bits 19:12, as in the manual. 0xff means all, also to x2APICs.
    Eight,
    /// Bits 11:5 in addition, as bits 14:8 of the id: what hypervisors offer their guests as the
    /// extended destination id. 0xff means all xAPICs, and the x2APIC of that id.
    Fifteen,
    /// Bits 63:40 in addition, as bits 31:8 of the id: the form in which KVM's routes state x2APIC
    /// ids above 255 (`KVM_X2APIC_API_USE_32BIT_IDS`), which no device writes. Bits 39:32 are zero.
    /// 0xff means all xAPICs, and the x2APIC of that id; 0xffff_ffff means all.
    ThirtyTwo,
}

/// How a destination is to be understood.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DestinationMode {
    /// As an APIC id.
    Physical,
    /// As a set, to be compared with the logical destination registers.
    Logical,
}

/// The delivery mode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Delivery {
    /// To all targets, with the vector.
    Fixed,
    /// To that one of the targets whose priority is lowest.
    LowestPriority,
    /// A system-management interrupt.
    Smi,
    /// A non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// The vector comes from an 8259.
    ExtInt,
    /// 3 or 6, which mean nothing.
    Reserved,
}

/// The trigger mode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "Trigger")]
pub enum TriggerMode {
    /// An edge.
    Edge,
    /// A level, which the guest's EOI ends.
    Level {
        /// Whether the line is up.
        asserted: bool,
    },
}

/// A message-signalled interrupt, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "Message")]
pub struct InterruptMessage {
    /// For whom it is. [`InterruptMessage::ALL`] means all.
    pub destination: u32,
    /// How `destination` is to be understood.
    pub mode: DestinationMode,
    /// The target with the lowest priority is to get the interrupt, and not all of them.
    pub redirection_hint: bool,
    /// The vector, also if it is not a legal one.
    pub vector: u8,
    /// What is to be done.
    pub delivery: Delivery,
    /// Edge or level.
    pub trigger: TriggerMode,
}

/// The address is none to which a device could send an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAMessage;

impl core::fmt::Display for NotAMessage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the address is none to which a device could send an interrupt")
    }
}

impl core::error::Error for NotAMessage {}

impl InterruptMessage {
    /// The destination id that means all.
    pub const ALL: u32 = u32::MAX;

    /// Takes a message apart.
    ///
    /// # Errors
    /// If the address does not begin with 0xfee, or says what `ids` has no place for.
    #[inline]
    pub const fn decode(message: MsiMessage, ids: DestinationIds) -> Result<Self, NotAMessage> {
        let MsiMessage { address, data } = message;
        let written_to = match ids {
            DestinationIds::Eight | DestinationIds::Fifteen => address,
            DestinationIds::ThirtyTwo => address & ADDRESS_OF_ROUTE,
        };
        if written_to >> 20 != ADDRESS_BASE {
            return Err(NotAMessage);
        }
        let low = (address >> 12 & 0xff) as u32;
        let destination = match ids {
            DestinationIds::Eight if low == 0xff => Self::ALL,
            DestinationIds::Eight => low,
            DestinationIds::Fifteen => low | ((address >> 5 & 0x7f) as u32) << 8,
            DestinationIds::ThirtyTwo => low | ((address & !ADDRESS_OF_ROUTE) >> 32) as u32,
        };
        let delivery = match data >> 8 & 7 {
            0 => Delivery::Fixed,
            1 => Delivery::LowestPriority,
            2 => Delivery::Smi,
            4 => Delivery::Nmi,
            5 => Delivery::Init,
            7 => Delivery::ExtInt,
            _ => Delivery::Reserved,
        };
        // Bit 14 says nothing about an edge.
        let trigger = if data & DATA_TRIGGER == 0 {
            TriggerMode::Edge
        } else {
            TriggerMode::Level { asserted: data & DATA_LEVEL != 0 }
        };
        let logical = address & DESTINATION_MODE != 0;
        Ok(InterruptMessage {
            destination,
            mode: if logical { DestinationMode::Logical } else { DestinationMode::Physical },
            redirection_hint: address & REDIRECTION_HINT != 0,
            vector: data as u8,
            delivery,
            trigger,
        })
    }

    /// Returns the vector, if it is legal.
    #[inline]
    pub const fn legal_vector(&self) -> Option<GuestVector> {
        GuestVector::new(self.vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: InterruptMessage = InterruptMessage {
        destination: 3,
        mode: DestinationMode::Physical,
        redirection_hint: false,
        vector: 0x41,
        delivery: Delivery::Fixed,
        trigger: TriggerMode::Edge,
    };

    fn decode(
        address: u64,
        data: u32,
        ids: DestinationIds,
    ) -> Result<InterruptMessage, NotAMessage> {
        InterruptMessage::decode(MsiMessage::new(address, data), ids)
    }

    #[test]
    fn the_fields_are_where_sdm_12_11_has_them() {
        let of = |address, data| decode(address, data, DestinationIds::Eight);
        assert_eq!(of(0xfee0_3000, 0x41), Ok(PLAIN));
        assert_eq!(
            of(0xfee0_3004, 0x41),
            Ok(InterruptMessage { mode: DestinationMode::Logical, ..PLAIN })
        );
        assert_eq!(of(0xfee0_3008, 0x41), Ok(InterruptMessage { redirection_hint: true, ..PLAIN }));
        assert_eq!(
            of(0xfee0_3000, 0x0141),
            Ok(InterruptMessage { delivery: Delivery::LowestPriority, ..PLAIN })
        );
        assert_eq!(of(0xfee0_3000, 0x4041), Ok(PLAIN));
        assert_eq!(
            of(0xfee0_3000, 0x8041),
            Ok(InterruptMessage { trigger: TriggerMode::Level { asserted: false }, ..PLAIN })
        );
        assert_eq!(
            of(0xfee0_3000, 0xc041),
            Ok(InterruptMessage { trigger: TriggerMode::Level { asserted: true }, ..PLAIN })
        );
        // Bits 31:16 of the data, and 11:4 and 1:0 of the address, say nothing.
        assert_eq!(of(0xfee0_3ff3, 0xffff_0041), Ok(PLAIN));
    }

    #[test]
    fn each_delivery_mode_has_its_number() {
        use Delivery::*;
        let of =
            |mode: u32| decode(0xfee0_0000, mode << 8, DestinationIds::Eight).map(|it| it.delivery);
        let modes = [Fixed, LowestPriority, Smi, Reserved, Nmi, Init, Reserved, ExtInt];
        for (number, mode) in (0..).zip(modes) {
            assert_eq!(of(number), Ok(mode));
        }
    }

    #[test]
    fn an_extended_destination_id_has_seven_bits_more() {
        let of = |address, ids| decode(address, 0, ids).map(|it| it.destination);
        assert_eq!(of(0xfee3_4240, DestinationIds::Fifteen), Ok(0x1234));
        assert_eq!(of(0xfee3_4240, DestinationIds::Eight), Ok(0x34));
        assert_eq!(of(0xfeef_ffe0, DestinationIds::Fifteen), Ok(0x7fff));
        assert_eq!(of(0xfeef_f000, DestinationIds::Fifteen), Ok(0xff));
        assert_eq!(of(0xfeef_f000, DestinationIds::Eight), Ok(InterruptMessage::ALL));
    }

    #[test]
    fn an_id_of_a_route_of_kvm_has_32_bits() {
        let of =
            |address| decode(address, 0x41, DestinationIds::ThirtyTwo).map(|it| it.destination);
        assert_eq!(of(0x100_fee2_3000), Ok(0x123));
        assert_eq!(of(0xabcd_ef00_fee1_2000), Ok(0xabcd_ef12));
        assert_eq!([of(0xfee0_3fe0), of(0xfeef_f000)], [Ok(3), Ok(0xff)]);
        assert_eq!(of(0xffff_ff00_feef_f000), Ok(InterruptMessage::ALL));
        for address in [0x1_fee0_0000, 0x180_fee0_0000, 0x100_fed0_0000, 0x100_0000_0000] {
            assert_eq!(of(address), Err(NotAMessage), "{address:#x}");
        }
    }

    #[test]
    fn what_is_written_elsewhere_is_no_message() {
        for address in [0, 0xfed0_0000, 0xfef0_0000, 0x1_fee0_0000, u64::MAX] {
            assert_eq!(
                decode(address, 0x41, DestinationIds::Eight),
                Err(NotAMessage),
                "{address:#x}"
            );
        }
    }

    #[test]
    fn a_vector_below_16_is_not_legal() {
        assert_eq!(InterruptMessage { vector: 15, ..PLAIN }.legal_vector(), None);
        assert_eq!(InterruptMessage { vector: 16, ..PLAIN }.legal_vector(), GuestVector::new(16));
    }
}
