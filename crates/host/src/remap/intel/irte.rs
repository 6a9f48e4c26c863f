//! Interrupt remapping table entries of VT-d, 128 bits, in remapped and in posted format.
//!
//! Intel Virtualization Technology for Directed I/O, Architecture Specification (D51397-015),
//! sections 9.9 "Interrupt Remapping Table Entry (IRTE) for Remapped Interrupts" and 9.10 "... for
//! Posted Interrupts".

/// The requests that an entry accepts: bits 83:64, which both formats have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Any.
    Any,
    /// Those of one function of a device, by its source ID (bus, device and function).
    Function(u16),
    /// Those of the buses `first` to `last`.
    Buses {
        /// The first of them.
        first: u8,
        /// The last of them.
        last: u8,
    },
}

/// Where and as what an interrupt of the host arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "Remapped")]
pub struct RemappedIrte {
    /// The APIC ID (or the logical destination) of the CPU, in the form that the unit is set to:
    /// see [`Destination`](doorbell_post::Destination).
    pub destination: u32,
    /// Whether `destination` is logical (DM).
    pub logical: bool,
    /// Whether one CPU is to be chosen among several (RH).
    pub redirection_hint: bool,
    /// Whether it is level-triggered (TM).
    pub level: bool,
    /// The delivery mode (DLM): 0 is fixed, 1 is lowest priority.
    pub delivery: u8,
    /// The vector (V).
    pub vector: u8,
}

/// To which vCPU an interrupt is posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "Posted")]
pub struct PostedIrte {
    /// The physical address of its posted-interrupt descriptor, a multiple of 64 (PDA).
    pub descriptor: u64,
    /// The vector, in the guest (V).
    pub vector: u8,
    /// Whether it is urgent (URG): then SN does not suppress its notification.
    pub urgent: bool,
}

/// The value of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IntelIrte(u128);

const P: u128 = 1 << 0;
const DM: u128 = 1 << 2;
const RH: u128 = 1 << 3;
const TM: u128 = 1 << 4;
const DLM_SHIFT: u32 = 5;
const URG: u128 = 1 << 14;
const IM: u128 = 1 << 15;
const V_SHIFT: u32 = 16;
const DST_SHIFT: u32 = 32;
/// Bits 31:6 of the address, at 63:38.
const PDA_LOW_SHIFT: u32 = 38;
const SID_SHIFT: u32 = 64;
const SVT_SHIFT: u32 = 82;
/// Bits 63:32 of the address, at 127:96.
const PDA_HIGH_SHIFT: u32 = 96;

impl IntelIrte {
    /// An entry that blocks the interrupt.
    pub const NOT_PRESENT: IntelIrte = IntelIrte(0);

    /// The bits that are all set in posted format, and not in remapped format.
    pub(crate) const IN_POSTED_FORMAT: u128 = P | IM;

    /// Creates an entry in remapped format.
    pub fn remapped(source: Source, to: RemappedIrte) -> Self {
        let flags = [(to.logical, DM), (to.redirection_hint, RH), (to.level, TM)];
        let flags = flags.iter().filter(|(set, _)| *set).fold(P, |bits, (_, flag)| bits | flag);
        let delivery = u128::from(to.delivery & 7) << DLM_SHIFT;
        let (vector, destination) =
            (u128::from(to.vector) << V_SHIFT, u128::from(to.destination) << DST_SHIFT);
        IntelIrte(flags | delivery | vector | destination | source.bits())
    }

    /// Creates an entry in posted format; `None` if the descriptor's address is not a multiple of
    /// 64.
    pub fn posted(source: Source, to: PostedIrte) -> Option<Self> {
        if !to.descriptor.is_multiple_of(64) {
            return None;
        }
        let urgent = if to.urgent { URG } else { 0 };
        let low = u128::from(to.descriptor as u32 >> 6) << PDA_LOW_SHIFT;
        let high = u128::from(to.descriptor >> 32) << PDA_HIGH_SHIFT;
        Some(IntelIrte(
            P | IM | urgent | u128::from(to.vector) << V_SHIFT | low | high | source.bits(),
        ))
    }

    /// Creates an entry from its bits.
    pub const fn from_bits(bits: u128) -> Self {
        IntelIrte(bits)
    }

    /// The bits of the entry.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Returns whether the entry is in posted format.
    pub const fn is_posted(self) -> bool {
        self.0 & Self::IN_POSTED_FORMAT == Self::IN_POSTED_FORMAT
    }

    /// Returns what the entry says in remapped format.
    pub fn as_remapped(self) -> Option<RemappedIrte> {
        (self.0 & (P | IM) == P).then_some(RemappedIrte {
            destination: (self.0 >> DST_SHIFT) as u32,
            logical: self.0 & DM != 0,
            redirection_hint: self.0 & RH != 0,
            level: self.0 & TM != 0,
            delivery: (self.0 >> DLM_SHIFT) as u8 & 7,
            vector: (self.0 >> V_SHIFT) as u8,
        })
    }

    /// Returns what the entry says in posted format.
    pub fn as_posted(self) -> Option<PostedIrte> {
        let low = (self.0 >> PDA_LOW_SHIFT) as u64 & ((1 << 26) - 1);
        let high = (self.0 >> PDA_HIGH_SHIFT) as u64;
        self.is_posted().then_some(PostedIrte {
            descriptor: high << 32 | low << 6,
            vector: (self.0 >> V_SHIFT) as u8,
            urgent: self.0 & URG != 0,
        })
    }
}

impl Source {
    /// SID, SQ and SVT. All bits of the source ID are compared (SQ is 0).
    fn bits(self) -> u128 {
        let (svt, sid) = match self {
            Source::Any => (0, 0),
            Source::Function(id) => (1, id),
            Source::Buses { first, last } => (2, u16::from(first) << 8 | u16::from(last)),
        };
        (svt as u128) << SVT_SHIFT | u128::from(sid) << SID_SHIFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_in_remapped_format_has_the_fields_of_section_9_9() {
        let to = RemappedIrte {
            destination: 0x1234_5678,
            logical: true,
            redirection_hint: true,
            level: true,
            delivery: 1,
            vector: 0x41,
        };
        let entry = IntelIrte::remapped(Source::Function(0xbeef), to);
        assert_eq!(entry.bits(), 0x0000_0000_0004_beef_1234_5678_0041_003d);
        assert_eq!((entry.as_remapped(), entry.as_posted()), (Some(to), None));
    }

    #[test]
    fn an_entry_in_posted_format_has_the_fields_of_section_9_10() {
        let to = PostedIrte { descriptor: 0x0123_4567_89ab_cdc0, vector: 0x51, urgent: true };
        let entry = IntelIrte::posted(Source::Buses { first: 3, last: 5 }, to).unwrap();
        assert_eq!(entry.bits(), 0x0123_4567_0008_0305_89ab_cdc0_0051_c001);
        assert_eq!((entry.as_posted(), entry.as_remapped()), (Some(to), None));
    }

    #[test]
    fn a_descriptor_that_is_not_aligned_is_refused() {
        let to = PostedIrte { descriptor: 0x1020, vector: 0x51, urgent: false };
        assert_eq!(IntelIrte::posted(Source::Any, to), None);
        assert_eq!(IntelIrte::NOT_PRESENT.as_remapped(), None);
    }
}
