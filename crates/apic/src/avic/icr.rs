//! The interrupt command register, as a guest has written it.

use super::Avic;
use super::table::{Kind, LogicalTable, Model};
use crate::GuestVector;

/// The vCPUs that are meant beside, or in the place of, the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shorthand {
    /// The destination.
    None,
    /// The sender.
    Itself,
    /// All.
    All,
    /// All but the sender.
    Others,
}

/// A value of the interrupt command register (AMD APM vol. 2, section 16.5): any bits, as a guest
/// may write any.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Icr(pub u64);

impl Icr {
    /// Returns bits 7:0, if they are a legal vector.
    pub const fn vector(self) -> Option<GuestVector> {
        GuestVector::new(self.0 as u8)
    }

    /// Returns bits 10:8; 0 is fixed, what hardware delivers.
    pub const fn message_type(self) -> u8 {
        (self.0 >> 8 & 7) as u8
    }

    /// Returns bit 11: the destination is a logical one.
    pub const fn logical(self) -> bool {
        self.0 >> 11 & 1 != 0
    }

    /// Returns bit 15: the interrupt is level-triggered.
    pub const fn level_triggered(self) -> bool {
        self.0 >> 15 & 1 != 0
    }

    /// Returns bits 19:18.
    pub const fn shorthand(self) -> Shorthand {
        match self.0 >> 18 & 3 {
            0 => Shorthand::None,
            1 => Shorthand::Itself,
            2 => Shorthand::All,
            _ => Shorthand::Others,
        }
    }

    /// Returns bits 63:32 in x2APIC mode, 63:56 in xAPIC mode.
    pub const fn destination(self, kind: Kind) -> u32 {
        match kind {
            Kind::Avic => (self.0 >> 56) as u32,
            Kind::X2Avic => (self.0 >> 32) as u32,
        }
    }

    /// Calls `each` once with the physical ID of each vCPU that may be meant, none of which is
    /// above `last`. There need not be such a vCPU.
    ///
    /// `logical` is the table and how it is meant, with AVIC. No more than `last` + 1 calls,
    /// whatever the bits are and whatever the table holds.
    pub fn targets<A: Avic>(
        self,
        kind: Kind,
        sender: u32,
        last: u32,
        logical: Option<(&LogicalTable<A>, Model)>,
        mut each: impl FnMut(u32),
    ) {
        let destination = self.destination(kind);
        let broadcast = match kind {
            Kind::Avic => destination == 0xff,
            Kind::X2Avic => destination == u32::MAX,
        };
        match self.shorthand() {
            Shorthand::Itself if sender <= last => each(sender),
            Shorthand::Itself => {}
            Shorthand::All => (0..=last).for_each(each),
            Shorthand::Others => (0..=last).filter(|id| *id != sender).for_each(each),
            // Hardware looks at this first, whether the destination is a logical one or not
            // (section 15.29.6.1).
            Shorthand::None if broadcast => (0..=last).for_each(each),
            Shorthand::None if !self.logical() => {
                if destination <= last {
                    each(destination);
                }
            }
            Shorthand::None => match (kind, logical) {
                (Kind::Avic, Some((table, model))) => {
                    // Nothing keeps a guest from giving a vCPU two entries.
                    let mut told = [0u64; 4];
                    let mut first = |id: u8| {
                        let (word, bit) = (&mut told[usize::from(id / 64)], 1 << (id % 64));
                        let new = *word & bit == 0;
                        *word |= bit;
                        new
                    };
                    let ids = table
                        .targets(model, destination as u8)
                        .filter(|id| u32::from(*id) <= last && first(*id));
                    ids.map(u32::from).for_each(each);
                }
                (Kind::Avic, None) => {}
                // APM vol. 2, section 15.29.5.3: cluster and bit are the two parts of the ID.
                (Kind::X2Avic, _) => {
                    let first = (destination >> 16) * 16;
                    let ids =
                        (0..16).filter(|bit| destination >> bit & 1 != 0).map(|bit| first + bit);
                    ids.filter(|id| *id <= last).for_each(each);
                }
            },
        }
    }
}
