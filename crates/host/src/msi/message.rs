//! What a device has to write, and where, to raise an interrupt. The messages that are encoded
//! here are fixed and edge-triggered, and mean one CPU.

use doorbell_platform::{MsiMessage, Vector};

use crate::msi::spec::*;

/// How many bits of destination id the host asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DestinationIds {
    /// The eight of the manual.
    Eight,
    /// Fifteen, by bits 11:5 of the address: what KVM and Hyper-V offer their guests as the
    /// extended destination id.
    Fifteen,
}

/// Why there is no such message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// The APIC ID has more bits than the address has for it.
    Destination(u32),
    /// In eight bits, APIC ID 0xff means all CPUs.
    MeansAll,
    /// Vectors below 16 are illegal.
    Vector(Vector),
    /// The index of a remapping table has more bits than the data has for it.
    Index(u16),
}

impl core::fmt::Display for MessageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            MessageError::Destination(id) => write!(f, "a message cannot name APIC ID {id:#x}"),
            MessageError::MeansAll => f.write_str("in a message, APIC ID 0xff means all CPUs"),
            MessageError::Vector(vector) => write!(f, "{vector} is below 16"),
            MessageError::Index(index) => write!(f, "a message cannot name entry {index}"),
        }
    }
}

impl core::error::Error for MessageError {}

/// Encodes a message in compatibility format, to the CPU of a physical APIC ID. With
/// [`Fifteen`](DestinationIds::Fifteen) bits, ID 0xff is the CPU of that ID only if all are in
/// x2APIC mode.
///
/// # Errors
/// [`Destination`](MessageError::Destination), [`MeansAll`](MessageError::MeansAll),
/// [`Vector`](MessageError::Vector).
pub const fn to_cpu(
    destination: u32,
    vector: Vector,
    ids: DestinationIds,
) -> Result<MsiMessage, MessageError> {
    let bits = match ids {
        DestinationIds::Eight if destination == DESTINATION_ALL => {
            return Err(MessageError::MeansAll);
        }
        DestinationIds::Eight => 8,
        DestinationIds::Fifteen => 15,
    };
    if destination >> bits != 0 {
        return Err(MessageError::Destination(destination));
    }
    if vector.0 < FIRST_VECTOR {
        return Err(MessageError::Vector(vector));
    }
    let low = (destination as u64 & 0xff) << DESTINATION_SHIFT;
    let high = (destination as u64 >> EXTENDED_DESTINATION_FROM) << EXTENDED_DESTINATION_SHIFT;
    Ok(MsiMessage { address: ADDRESS_BASE | low | high, data: vector.0 as u32 })
}

/// Encodes a message in the remappable format of VT-d: it goes by the entry `handle` of the
/// remapping table; with a subhandle, by the entry `handle` + `subhandle`, which a device that
/// has several messages counts up by itself.
pub const fn remappable(handle: u16, subhandle: Option<u16>) -> MsiMessage {
    let low = (handle as u64 & 0x7fff) << HANDLE_SHIFT;
    let high = if handle >> 15 != 0 { HANDLE_15 } else { 0 };
    let (valid, data) = match subhandle {
        Some(subhandle) => (SUBHANDLE_VALID, subhandle as u32),
        None => (0, 0),
    };
    MsiMessage { address: ADDRESS_BASE | low | REMAPPABLE | valid | high, data }
}

/// Encodes a message that an AMD I/O MMU remaps: it goes by the entry `index` of the device's
/// remapping table.
///
/// # Errors
/// [`Index`](MessageError::Index) from 2048 on.
pub const fn indexed(index: u16) -> Result<MsiMessage, MessageError> {
    if index < AMD_INDICES {
        Ok(MsiMessage { address: ADDRESS_BASE, data: index as u32 })
    } else {
        Err(MessageError::Index(index))
    }
}

#[cfg(test)]
mod tests {
    use super::DestinationIds::{Eight, Fifteen};
    use super::*;

    const V: Vector = Vector(0x41);

    #[test]
    fn a_message_to_a_cpu_has_its_fields_where_sdm_12_11_has_them() {
        assert_eq!(to_cpu(0xfe, V, Eight), Ok(MsiMessage { address: 0xfeef_e000, data: 0x41 }));
        assert_eq!(
            to_cpu(0, Vector(16), Eight),
            Ok(MsiMessage { address: 0xfee0_0000, data: 0x10 })
        );
    }

    #[test]
    fn an_extended_destination_id_has_its_upper_seven_bits_in_address_bits_11_to_5() {
        assert_eq!(to_cpu(0x7fff, V, Fifteen), Ok(MsiMessage { address: 0xfeef_ffe0, data: 0x41 }));
        assert_eq!(to_cpu(0x0101, V, Fifteen), Ok(MsiMessage { address: 0xfee0_1020, data: 0x41 }));
        // Small ones are the same in both forms.
        assert_eq!(to_cpu(3, V, Fifteen), to_cpu(3, V, Eight));
    }

    #[test]
    fn ids_that_do_not_fit_and_vectors_below_16_are_refused() {
        assert_eq!(to_cpu(0x100, V, Eight), Err(MessageError::Destination(0x100)));
        assert_eq!(to_cpu(0x8000, V, Fifteen), Err(MessageError::Destination(0x8000)));
        assert_eq!(to_cpu(u32::MAX, V, Fifteen), Err(MessageError::Destination(u32::MAX)));
        assert_eq!(to_cpu(0xff, V, Eight), Err(MessageError::MeansAll));
        assert_eq!(to_cpu(0, Vector(15), Eight), Err(MessageError::Vector(Vector(15))));
    }

    #[test]
    fn a_remappable_message_has_its_fields_where_vt_d_5_1_2_2_has_them() {
        assert_eq!(remappable(0x7fff, None), MsiMessage { address: 0xfeef_fff0, data: 0 });
        assert_eq!(remappable(0x8001, None), MsiMessage { address: 0xfee0_0034, data: 0 });
        assert_eq!(remappable(2, Some(5)), MsiMessage { address: 0xfee0_0058, data: 5 });
    }

    #[test]
    fn the_message_of_an_amd_remapping_entry_has_its_index_in_data_bits_10_to_0() {
        assert_eq!(indexed(2047), Ok(MsiMessage { address: 0xfee0_0000, data: 2047 }));
        assert_eq!(indexed(2048), Err(MessageError::Index(2048)));
    }
}
