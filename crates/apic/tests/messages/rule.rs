//! Whom a message reaches, written down in another way. Shared with the fuzz target.

use doorbell_apic::{DestinationMode, InterruptMessage, LogicalIds, Registers};

/// Returns whether a message reaches an APIC, by the text of the manual.
pub fn reaches(registers: &Registers, message: &InterruptMessage) -> bool {
    let destination = message.destination;
    let bits = |word: u32, from: u32, count: u32| word >> from & ((1 << count) - 1);
    match (*registers, message.mode) {
        (Registers::Disabled, _) => false,
        (_, _) if destination == 0xffff_ffff => true,
        (Registers::XApic { id, .. }, DestinationMode::Physical) => {
            [u32::from(id), 0xff].contains(&destination)
        }
        (Registers::XApic { .. }, DestinationMode::Logical) if destination >= 0x100 => false,
        (Registers::XApic { logical, format: LogicalIds::Flat, .. }, DestinationMode::Logical) => {
            (0..8).any(|bit| bits(destination, bit, 1) == 1 && bits(logical.into(), bit, 1) == 1)
        }
        (
            Registers::XApic { logical, format: LogicalIds::Cluster, .. },
            DestinationMode::Logical,
        ) => {
            let clusters = [bits(logical.into(), 4, 4), 15];
            clusters.contains(&bits(destination, 4, 4))
                && (0..4)
                    .any(|bit| bits(destination, bit, 1) == 1 && bits(logical.into(), bit, 1) == 1)
        }
        (Registers::X2Apic { id }, DestinationMode::Physical) => destination == id,
        (Registers::X2Apic { id }, DestinationMode::Logical) => {
            let logical = bits(id, 4, 16) << 16 | 1 << bits(id, 0, 4);
            bits(destination, 16, 16) == bits(logical, 16, 16)
                && destination & logical & 0xffff != 0
        }
    }
}
