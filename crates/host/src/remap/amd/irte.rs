//! Interrupt remapping table entries of an AMD I/O MMU, 128 bits, in host and in guest mode.
//!
//! AMD I/O Virtualization Technology (IOMMU) Specification (48882, revision 3.08), section 2.2.5.2
//! "Interrupt Remapping Tables, Guest Virtual APIC Enabled", tables 21 and 22.

use doorbell_post::Residency;

/// Where and as what an interrupt of the host arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostMode {
    /// The APIC ID (or the logical destination) of the CPU.
    pub destination: u32,
    /// Whether `destination` is logical (DM).
    pub logical: bool,
    /// The vector.
    pub vector: u8,
    /// The interrupt type (IntType): 0 is fixed, 1 is arbitrated.
    pub kind: u8,
}

/// To which vCPU an interrupt is posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestMode {
    /// The page number of its AVIC backing page (the guest virtual APIC table root pointer).
    pub backing_page: u64,
    /// The vector, in the guest.
    pub vector: u8,
    /// What a log entry says (GATag).
    pub tag: u32,
    /// Where it is.
    pub residency: Residency,
}

/// The value of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AmdIrte(u128);

const REMAP_EN: u128 = 1 << 0;
const INT_TYPE_SHIFT: u32 = 2;
const INT_TYPE: u128 = 7 << INT_TYPE_SHIFT;
const GA_LOG_INTR: u128 = 1 << 2;
const DM: u128 = 1 << 6;
const IS_RUN: u128 = 1 << 6;
const GUEST_MODE: u128 = 1 << 7;
/// Bits 23:0 of the destination.
const DESTINATION_LOW_SHIFT: u32 = 8;
const DESTINATION_LOW: u128 = 0xff_ffff << DESTINATION_LOW_SHIFT;
const TAG_SHIFT: u32 = 32;
const VECTOR_SHIFT: u32 = 64;
/// Bits 51:12 of the address, at 51:12 of the upper half.
const ROOT_SHIFT: u32 = 64 + 12;
const ROOT_BITS: u64 = (1 << 40) - 1;
/// Bits 31:24 of the destination.
const DESTINATION_HIGH_SHIFT: u32 = 64 + 56;
const DESTINATION_HIGH: u128 = 0xff << DESTINATION_HIGH_SHIFT;

impl AmdIrte {
    /// An entry that blocks the interrupt.
    pub const ABORTS: AmdIrte = AmdIrte(0);

    /// The bits that are all set in guest mode, and not in host mode.
    pub(crate) const IN_GUEST_MODE: u128 = REMAP_EN | GUEST_MODE;

    /// Creates an entry in host mode.
    pub fn host(mode: HostMode) -> Self {
        let logical = if mode.logical { DM } else { 0 };
        let kind = u128::from(mode.kind & 7) << INT_TYPE_SHIFT;
        AmdIrte(
            REMAP_EN
                | kind
                | logical
                | destination(mode.destination)
                | u128::from(mode.vector) << VECTOR_SHIFT,
        )
    }

    /// Creates an entry in guest mode.
    pub fn guest(mode: GuestMode) -> Self {
        let root = u128::from(mode.backing_page & ROOT_BITS) << ROOT_SHIFT;
        let tag = u128::from(mode.tag) << TAG_SHIFT;
        AmdIrte(REMAP_EN | GUEST_MODE | tag | root | u128::from(mode.vector) << VECTOR_SHIFT)
            .at(mode.residency)
    }

    /// Returns the same entry in guest mode, of a vCPU that is elsewhere: IsRun, the destination
    /// and GALogIntr, which hardware reads anew for each interrupt, so that no invalidation is
    /// needed (section 2.2.5.3). Returns `None` in host mode.
    pub fn moved(self, residency: Residency) -> Option<Self> {
        self.is_guest().then(|| self.at(residency))
    }

    /// Creates an entry from its bits.
    pub const fn from_bits(bits: u128) -> Self {
        AmdIrte(bits)
    }

    /// The bits of the entry.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Returns whether the entry is in guest mode.
    pub const fn is_guest(self) -> bool {
        self.0 & Self::IN_GUEST_MODE == Self::IN_GUEST_MODE
    }

    /// Returns what the entry says in host mode.
    pub fn as_host(self) -> Option<HostMode> {
        (self.0 & REMAP_EN != 0 && !self.is_guest()).then(|| HostMode {
            destination: self.destination(),
            logical: self.0 & DM != 0,
            vector: (self.0 >> VECTOR_SHIFT) as u8,
            kind: ((self.0 & INT_TYPE) >> INT_TYPE_SHIFT) as u8,
        })
    }

    /// Returns what the entry says in guest mode.
    pub fn as_guest(self) -> Option<GuestMode> {
        self.is_guest().then(|| GuestMode {
            backing_page: (self.0 >> ROOT_SHIFT) as u64 & ROOT_BITS,
            vector: (self.0 >> VECTOR_SHIFT) as u8,
            tag: (self.0 >> TAG_SHIFT) as u32,
            residency: if self.0 & IS_RUN != 0 {
                Residency::Running { apic_id: self.destination() }
            } else {
                Residency::Away { log: self.0 & GA_LOG_INTR != 0 }
            },
        })
    }

    fn at(self, residency: Residency) -> Self {
        let rest = self.0 & !(IS_RUN | GA_LOG_INTR | DESTINATION_LOW | DESTINATION_HIGH);
        AmdIrte(match residency {
            Residency::Running { apic_id } => rest | IS_RUN | destination(apic_id),
            Residency::Away { log: true } => rest | GA_LOG_INTR,
            Residency::Away { log: false } => rest,
        })
    }

    fn destination(self) -> u32 {
        let low = (self.0 & DESTINATION_LOW) >> DESTINATION_LOW_SHIFT;
        let high = (self.0 & DESTINATION_HIGH) >> DESTINATION_HIGH_SHIFT;
        (high << 24 | low) as u32
    }
}

fn destination(apic_id: u32) -> u128 {
    let low = u128::from(apic_id & 0xff_ffff) << DESTINATION_LOW_SHIFT;
    low | u128::from(apic_id >> 24) << DESTINATION_HIGH_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_in_host_mode_has_the_fields_of_table_21() {
        let mode = HostMode { destination: 0xab12_3456, logical: true, vector: 0x41, kind: 1 };
        let entry = AmdIrte::host(mode);
        assert_eq!(entry.bits(), 0xab00_0000_0000_0041_0000_0000_1234_5645);
        assert_eq!((entry.as_host(), entry.as_guest()), (Some(mode), None));
    }

    #[test]
    fn an_entry_in_guest_mode_has_the_fields_of_table_22() {
        let residency = Residency::Running { apic_id: 0x0100_0203 };
        let mode =
            GuestMode { backing_page: 0xf_edcb_a987, vector: 0x51, tag: 0xdead_beef, residency };
        let entry = AmdIrte::guest(mode);
        assert_eq!(entry.bits(), 0x0100_fedc_ba98_7051_dead_beef_0002_03c1);
        assert_eq!((entry.as_guest(), entry.as_host()), (Some(mode), None));
    }

    #[test]
    fn a_vcpu_that_moves_changes_three_fields_of_its_entries_and_no_others() {
        let away = GuestMode {
            backing_page: 7,
            vector: 9,
            tag: 1,
            residency: Residency::Away { log: true },
        };
        let entry = AmdIrte::guest(away);
        for residency in [
            Residency::Away { log: false },
            Residency::Running { apic_id: 5 },
            Residency::Away { log: true },
        ] {
            assert_eq!(
                entry.moved(residency).unwrap().as_guest(),
                Some(GuestMode { residency, ..away })
            );
        }
        assert_eq!(AmdIrte::ABORTS.moved(away.residency), None);
        assert_eq!((AmdIrte::ABORTS.as_host(), AmdIrte::ABORTS.as_guest()), (None, None));
    }
}
