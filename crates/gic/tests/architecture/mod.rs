//! A plain GICv3, to compare others with: slow, and to be read beside the manual. Sections are
//! those of Arm IHI 0069H. Affinity routing is always on, there is one Security state, and there
//! are neither LPIs, message-based SPIs nor extended ranges.
//!
//! Every effect is there at once. What the manual leaves open is either told, by [`Gic::reasons`],
//! [`Gic::known_bits`], [`Gic::legal_targets`] and [`Gic::highest`], or chosen here:
//!
//! - What is UNKNOWN after a reset is zero: priorities, groups, triggers, routes (section 12.9).
//! - E1NWF, GICD_STATUSR and GICR_STATUSR are RAZ/WI, and so is each offset without a register.
//! - The trigger of each PPI and SPI can be programmed (section 12.9, GICD_ICFGR<n>).
//! - An SPI whose affinity is no PE's goes to nobody, and reads as written (GICD_IROUTER<n>).
//! - An access of a size that is not supported reads zero, or is ignored (section 12.1.3).
//! - GICR_TYPER.Processor_Number is the index of the PE, and the last PE has GICR_TYPER.Last.
//! - A PE that is powered off loses its CPU interface, and nothing else.

// Each test file uses a part.
#![allow(dead_code)]

mod interface;
pub mod map;
pub mod predictable;
mod registers;
mod routing;
pub mod sgi;

use std::collections::{BTreeMap, BTreeSet};

pub use interface::Interface;
pub use map::{Access, Frame, Register};

/// SGIs and PPIs, of which each PE has its own.
pub const PRIVATE: u32 = 32;
/// SGIs.
pub const SGIS: u32 = 16;
/// INTIDs from here on are special (section 2.2).
pub const SPECIAL: u32 = 1020;

/// The state of an interrupt.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Interrupt {
    pub edge: bool,
    pub priority: u8,
    pub group: usize,
    pub enabled: bool,
    /// Backed by a physical interrupt, which is deactivated with it.
    pub physical: bool,
    /// Pending without its line: an edge, a message or a write that nobody has acknowledged.
    pub latch: bool,
    pub line: bool,
    pub active: bool,
    /// The value of GICD_IROUTER<n>, of an SPI.
    pub route: u64,
}

impl Interrupt {
    /// Returns whether the interrupt is pending, or active and pending (section 4.1.2).
    pub fn is_pending(&self) -> bool {
        self.latch || !self.edge && self.line
    }
}

/// A PE: its Redistributor and its CPU interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pe {
    /// Aff3.Aff2.Aff1.Aff0, a byte each, as GICR_TYPER has them.
    pub affinity: u32,
    pub on: bool,
    /// GICR_WAKER.ProcessorSleep.
    pub asleep: bool,
    /// GICR_CTLR.DPG0 and DPG1NS.
    pub not_selected: [bool; 2],
    pub interface: Interface,
    private: Vec<Interrupt>,
}

/// A GIC of some PEs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gic {
    pub pes: Vec<Pe>,
    /// GICD_CTLR.EnableGrp0 and EnableGrp1.
    pub groups: [bool; 2],
    /// The levels that have ended, as a guest says: PE (0 of an SPI) and INTID.
    pub ended: BTreeSet<(usize, u32)>,
    /// How often a physical interrupt was deactivated, of the same.
    pub deactivated: BTreeMap<(usize, u32), u32>,
    spis: Vec<Interrupt>,
    priority_bits: u32,
}

impl Gic {
    /// Returns a GIC after a reset, of the PEs of these affinities, all of them on, and a number of
    /// SPIs. Priorities have 5 to 8 bits, of which 5 to 7 preempt.
    pub fn new(affinities: &[u32], spis: u32, priority_bits: u32, preemption_bits: u32) -> Self {
        let distinct: BTreeSet<_> = affinities.iter().collect();
        assert!((1..=8).contains(&affinities.len()) && distinct.len() == affinities.len());
        assert!(spis == SPECIAL - PRIVATE || spis <= 960 && spis.is_multiple_of(32));
        assert!((5..=8).contains(&priority_bits) && (5..=7).contains(&preemption_bits));
        assert!(preemption_bits <= priority_bits);
        let sgi = Interrupt { edge: true, ..Interrupt::default() };
        let mut private = vec![sgi; SGIS as usize];
        private.resize(PRIVATE as usize, Interrupt::default());
        let interface = Interface::new(preemption_bits);
        let pe = |&affinity| Pe {
            affinity,
            on: true,
            asleep: true,
            not_selected: [false; 2],
            interface: interface.clone(),
            private: private.clone(),
        };
        Gic {
            pes: affinities.iter().map(pe).collect(),
            groups: [false; 2],
            ended: BTreeSet::new(),
            deactivated: BTreeMap::new(),
            spis: vec![Interrupt::default(); spis as usize],
            priority_bits,
        }
    }

    /// Returns whether there is an interrupt of that INTID.
    pub fn is_implemented(&self, id: u32) -> bool {
        id < self.limit()
    }

    /// Returns the first INTID that is not implemented.
    pub fn limit(&self) -> u32 {
        PRIVATE + self.spis.len() as u32
    }

    /// Returns the interrupt of that INTID, as a PE has it.
    pub fn interrupt(&self, pe: usize, id: u32) -> &Interrupt {
        if id < PRIVATE {
            &self.pes[pe].private[id as usize]
        } else {
            &self.spis[(id - PRIVATE) as usize]
        }
    }

    /// Returns the interrupt of that INTID, as a PE has it, to be changed.
    pub fn interrupt_mut(&mut self, pe: usize, id: u32) -> &mut Interrupt {
        if id < PRIVATE {
            &mut self.pes[pe].private[id as usize]
        } else {
            &mut self.spis[(id - PRIVATE) as usize]
        }
    }

    /// Returns each interrupt that there is, by PE (0 of an SPI) and INTID.
    pub fn interrupts(&self) -> Vec<(usize, u32)> {
        let private = (0..self.pes.len()).flat_map(|pe| (0..PRIVATE).map(move |id| (pe, id)));
        private.chain((PRIVATE..self.limit()).map(|id| (0, id))).collect()
    }

    /// Returns whether an interrupt is pending, and whether it is active.
    pub fn state(&self, pe: usize, id: u32) -> (bool, bool) {
        let interrupt = self.interrupt(pe, id);
        (interrupt.is_pending(), interrupt.active)
    }

    /// Returns the bits of a priority that are implemented (section 4.8).
    pub fn priority_mask(&self) -> u8 {
        (0xffu32 << (8 - self.priority_bits)) as u8
    }

    /// Sets the line of a PPI or SPI. An edge-triggered one is pending from its rise on.
    pub fn set_line(&mut self, pe: usize, id: u32, high: bool) {
        assert!(id >= SGIS, "an SGI has no line");
        let interrupt = self.interrupt_mut(pe, id);
        interrupt.latch |= interrupt.edge && high && !interrupt.line;
        interrupt.line = high;
    }

    /// Makes an interrupt pending by a message.
    pub fn latch(&mut self, pe: usize, id: u32) {
        self.interrupt_mut(pe, id).latch = true;
    }

    /// Powers a PE on or off. Its CPU interface is reset; what was active stays active.
    pub fn set_power(&mut self, pe: usize, on: bool) {
        let pe = &mut self.pes[pe];
        pe.on = on;
        pe.interface.reset();
    }
}
