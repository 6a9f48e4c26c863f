//! Where the fields of the registers are, and what their values mean. Each item has the name of its
//! register in the manual.

/// Bits of a register, with the numbers that the manual gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    low: u32,
    width: u32,
}

impl Field {
    /// Returns bits `[high:low]`.
    pub const fn bits(high: u32, low: u32) -> Self {
        Field { low, width: high - low + 1 }
    }

    /// Returns one bit.
    pub const fn bit(number: u32) -> Self {
        Field::bits(number, number)
    }

    /// Returns the bits of the field, where they are.
    pub const fn mask(self) -> u64 {
        (u64::MAX >> (64 - self.width)) << self.low
    }

    /// Returns the value of the field.
    pub const fn get(self, word: u64) -> u64 {
        (word & self.mask()) >> self.low
    }

    /// Returns whether any bit of the field is set.
    pub const fn is_set(self, word: u64) -> bool {
        word & self.mask() != 0
    }

    /// Returns the word with another value of the field. What does not fit is cut off.
    pub const fn put(self, word: u64, value: u64) -> u64 {
        word & !self.mask() | value << self.low & self.mask()
    }
}

/// Fields of `ICH_LR<n>_EL2`.
pub mod lr {
    use super::Field;

    /// State: [`State`](super::State).
    pub const STATE: Field = Field::bits(63, 62);
    /// HW: it is a physical interrupt, which deactivation deactivates.
    pub const HW: Field = Field::bit(61);
    /// Group: [`Group`](super::Group).
    pub const GROUP: Field = Field::bit(60);
    /// Priority: [`Priority`](super::Priority). Bits that are not implemented are RES0.
    pub const PRIORITY: Field = Field::bits(55, 48);
    /// pINTID, if HW is 1.
    pub const PINTID: Field = Field::bits(44, 32);
    /// EOI, if HW is 0: its deactivation asserts a maintenance interrupt.
    pub const EOI: Field = Field::bit(41);
    /// vINTID. ICH_VTR_EL2.IDbits says how many bits are implemented, 16 or 24; the others are
    /// RES0.
    pub const VINTID: Field = Field::bits(31, 0);
}

/// Fields of ICH_HCR_EL2.
pub mod hcr {
    use super::Field;

    /// En: without it no interrupt is signalled, neither to the guest nor for maintenance, and none
    /// acknowledged.
    pub const EN: Field = Field::bit(0);
    /// UIE: enables [`misr::U`](super::misr::U).
    pub const UIE: Field = Field::bit(1);
    /// LRENPIE: enables [`misr::LRENP`](super::misr::LRENP).
    pub const LRENPIE: Field = Field::bit(2);
    /// NPIE: enables [`misr::NP`](super::misr::NP).
    pub const NPIE: Field = Field::bit(3);
    /// VGrp0EIE: enables [`misr::VGRP0E`](super::misr::VGRP0E).
    pub const VGRP0EIE: Field = Field::bit(4);
    /// VGrp0DIE: enables [`misr::VGRP0D`](super::misr::VGRP0D).
    pub const VGRP0DIE: Field = Field::bit(5);
    /// VGrp1EIE: enables [`misr::VGRP1E`](super::misr::VGRP1E).
    pub const VGRP1EIE: Field = Field::bit(6);
    /// VGrp1DIE: enables [`misr::VGRP1D`](super::misr::VGRP1D).
    pub const VGRP1DIE: Field = Field::bit(7);
    /// TC: traps the guest's accesses to what both groups share.
    pub const TC: Field = Field::bit(10);
    /// TALL0: traps the guest's accesses to the registers of group 0.
    pub const TALL0: Field = Field::bit(11);
    /// TALL1: traps the guest's accesses to the registers of group 1.
    pub const TALL1: Field = Field::bit(12);
    /// TDIR: traps the guest's writes to DIR. RES0 without ICH_VTR_EL2.TDS.
    pub const TDIR: Field = Field::bit(14);
    /// EOIcount: deactivations of interrupts that were in no list register.
    pub const EOICOUNT: Field = Field::bits(31, 27);

    /// All that can be written. (TSEI, vSGIEOICount and DVIM are RES0: no SErrors, no GICv4.)
    pub(crate) const WRITABLE: u64 = Field::bits(7, 0).mask()
        | TC.mask()
        | TALL0.mask()
        | TALL1.mask()
        | TDIR.mask()
        | EOICOUNT.mask();
}

/// Fields of ICH_VMCR_EL2, which are those of the guest's own registers.
pub mod vmcr {
    use super::Field;

    /// VENG0: group 0 is enabled (ICV_IGRPEN0_EL1.Enable).
    pub const VENG0: Field = Field::bit(0);
    /// VENG1: group 1 is enabled (ICV_IGRPEN1_EL1.Enable).
    pub const VENG1: Field = Field::bit(1);
    /// VFIQEn: group 0 is signalled as virtual FIQ. RES1 where the guest uses system registers.
    pub const VFIQEN: Field = Field::bit(3);
    /// VCBPR: BPR0 is for both groups (ICV_CTLR_EL1.CBPR).
    pub const VCBPR: Field = Field::bit(4);
    /// VEOIM: an EOI only drops the priority (ICV_CTLR_EL1.EOImode).
    pub const VEOIM: Field = Field::bit(9);
    /// VBPR1 (ICV_BPR1_EL1.BinaryPoint).
    pub const VBPR1: Field = Field::bits(20, 18);
    /// VBPR0 (ICV_BPR0_EL1.BinaryPoint).
    pub const VBPR0: Field = Field::bits(23, 21);
    /// VPMR (ICV_PMR_EL1.Priority).
    pub const VPMR: Field = Field::bits(31, 24);
}

/// Fields of ICH_VTR_EL2, which is read only.
pub mod vtr {
    use super::Field;

    /// ListRegs: how many list registers, less one.
    pub const LISTREGS: Field = Field::bits(4, 0);
    /// TDS: ICH_HCR_EL2.TDIR is there.
    pub const TDS: Field = Field::bit(19);
    /// nV4: no direct injection.
    pub const NV4: Field = Field::bit(20);
    /// A3V: affinity 3 may be other than zero.
    pub const A3V: Field = Field::bit(21);
    /// IDbits: 0 for 16 bits of INTID, 1 for 24.
    pub const IDBITS: Field = Field::bits(25, 23);
    /// PREbits: how many bits of preemption, less one.
    pub const PREBITS: Field = Field::bits(28, 26);
    /// PRIbits: how many bits of priority, less one.
    pub const PRIBITS: Field = Field::bits(31, 29);
}

/// Fields of ICH_MISR_EL2: which maintenance interrupts are asserted. They are levels.
pub mod misr {
    use super::Field;

    /// EOI: a bit of ICH_EISR_EL2 is set. No bit of ICH_HCR_EL2 enables it; that is
    /// [`lr::EOI`](super::lr::EOI).
    pub const EOI: Field = Field::bit(0);
    /// U: at most one list register holds a valid interrupt.
    pub const U: Field = Field::bit(1);
    /// LRENP: [`hcr::EOICOUNT`](super::hcr::EOICOUNT) is not zero.
    pub const LRENP: Field = Field::bit(2);
    /// NP: no list register is in the state pending.
    pub const NP: Field = Field::bit(3);
    /// VGrp0E: group 0 is enabled.
    pub const VGRP0E: Field = Field::bit(4);
    /// VGrp0D: group 0 is disabled.
    pub const VGRP0D: Field = Field::bit(5);
    /// VGrp1E: group 1 is enabled.
    pub const VGRP1E: Field = Field::bit(6);
    /// VGrp1D: group 1 is disabled.
    pub const VGRP1D: Field = Field::bit(7);
}

/// Fields of ICV_CTLR_EL1.
pub mod ctlr {
    use super::Field;

    /// CBPR: [`vmcr::VCBPR`](super::vmcr::VCBPR).
    pub const CBPR: Field = Field::bit(0);
    /// EOImode: [`vmcr::VEOIM`](super::vmcr::VEOIM).
    pub const EOIMODE: Field = Field::bit(1);
    /// PRIbits, read only: [`vtr::PRIBITS`](super::vtr::PRIBITS).
    pub const PRIBITS: Field = Field::bits(10, 8);
    /// IDbits, read only: [`vtr::IDBITS`](super::vtr::IDBITS).
    pub const IDBITS: Field = Field::bits(13, 11);
    /// A3V, read only: [`vtr::A3V`](super::vtr::A3V).
    pub const A3V: Field = Field::bit(15);
}

/// An INTID as the guest knows it, of 24 bits at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IntId(u32);

impl IntId {
    /// The special INTID 1023: there is nothing to acknowledge.
    pub const SPURIOUS: IntId = IntId(1023);

    /// Returns the INTID of that number, below 2^24.
    pub const fn new(number: u32) -> Option<IntId> {
        if number < 1 << 24 { Some(IntId(number)) } else { None }
    }

    /// Returns its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Returns whether it is one of the special INTIDs, 1020 to 1023, which no interrupt has.
    pub const fn is_special(self) -> bool {
        matches!(self.0, 1020..=1023)
    }

    /// Returns whether it is an LPI's, 8192 and up. LPIs are not active in the distributor, so
    /// nobody deactivates them.
    pub const fn is_lpi(self) -> bool {
        self.0 >= 8192
    }

    /// Returns what is left of it where so few bits are implemented.
    pub(crate) const fn cut(self, bits: u32) -> IntId {
        IntId(self.0 & ((1 << bits) - 1))
    }
}

/// The INTID of a physical interrupt, of 13 bits: those that must be deactivated have no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PhysicalIntId(u16);

impl PhysicalIntId {
    /// Returns the INTID of that number, below 2^13.
    pub const fn new(number: u16) -> Option<PhysicalIntId> {
        if number < 1 << 13 { Some(PhysicalIntId(number)) } else { None }
    }

    /// Returns its number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// A priority. The smaller number is the higher priority.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(pub u8);

impl Priority {
    /// The running priority when nothing runs. A pending interrupt of this priority is never
    /// signalled.
    pub const IDLE: Priority = Priority(0xff);
}

/// A group of interrupts, each with its own acknowledge, EOI and enable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// Signalled as virtual FIQ.
    Zero,
    /// Signalled as virtual IRQ.
    One,
}

/// The state of a list register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// There is no interrupt in it.
    Inactive,
    /// May be acknowledged.
    Pending,
    /// Acknowledged, and not deactivated.
    Active,
    /// Pending once more while it is active. It is not signalled until it is deactivated.
    PendingAndActive,
}

impl State {
    const fn from_bits(bits: u64) -> State {
        match bits & 0b11 {
            0b00 => State::Inactive,
            0b01 => State::Pending,
            0b10 => State::Active,
            _ => State::PendingAndActive,
        }
    }

    /// Returns whether it is active, pending or not.
    pub const fn is_active(self) -> bool {
        matches!(self, State::Active | State::PendingAndActive)
    }
}

/// A value of a list register, `ICH_LR<n>_EL2`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListRegister(u64);

impl ListRegister {
    /// Without an interrupt.
    pub const EMPTY: ListRegister = ListRegister(0);

    /// Returns a pending interrupt.
    pub const fn new(intid: IntId, priority: Priority, group: Group) -> Self {
        let word = lr::PRIORITY.put(intid.0 as u64, priority.0 as u64);
        ListRegister(lr::GROUP.put(word, group as u64)).in_state(State::Pending)
    }

    /// Returns it in another state.
    pub const fn in_state(self, state: State) -> Self {
        ListRegister(lr::STATE.put(self.0, state as u64))
    }

    /// Returns it with HW set, for that physical interrupt.
    pub const fn of_physical(self, pintid: PhysicalIntId) -> Self {
        ListRegister(lr::PINTID.put(self.0 | lr::HW.mask(), pintid.0 as u64))
    }

    /// Returns it without HW, and with a maintenance interrupt when it is deactivated.
    pub const fn with_eoi(self) -> Self {
        ListRegister(lr::PINTID.put(self.0 & !lr::HW.mask(), 0) | lr::EOI.mask())
    }

    /// Returns what is written so.
    pub const fn from_bits(bits: u64) -> Self {
        ListRegister(bits)
    }

    /// Returns what is read.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns its state.
    pub const fn state(self) -> State {
        State::from_bits(lr::STATE.get(self.0))
    }

    /// Returns its group.
    pub const fn group(self) -> Group {
        if lr::GROUP.is_set(self.0) { Group::One } else { Group::Zero }
    }

    /// Returns its priority.
    pub const fn priority(self) -> Priority {
        Priority(lr::PRIORITY.get(self.0) as u8)
    }

    /// Returns its INTID.
    pub const fn intid(self) -> IntId {
        IntId(lr::VINTID.get(self.0) as u32).cut(24)
    }

    /// Returns the physical interrupt that it is, if HW is set.
    pub const fn physical(self) -> Option<PhysicalIntId> {
        if lr::HW.is_set(self.0) {
            Some(PhysicalIntId(lr::PINTID.get(self.0) as u16))
        } else {
            None
        }
    }

    /// Returns whether its deactivation asserts a maintenance interrupt. Under HW the bit is one of
    /// pINTID.
    pub const fn eoi(self) -> bool {
        !lr::HW.is_set(self.0) && lr::EOI.is_set(self.0)
    }
}

/// What an implementation has: ICH_VTR_EL2, and where the manual leaves it a choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Implementation {
    list_registers: u8,
    priority_bits: u8,
    preemption_bits: u8,
    long_ids: bool,
    traps_dir: bool,
    counts_strays: bool,
}

impl Implementation {
    /// Returns one with 1 to 16 list registers, 5 to 8 bits of priority, and of those 5 to 7 bits
    /// of preemption, that has 16 bits of INTID and traps writes to DIR (TDS).
    pub const fn new(list_registers: u8, priority_bits: u8, preemption_bits: u8) -> Option<Self> {
        let legal = matches!(list_registers, 1..=16)
            && matches!(priority_bits, 5..=8)
            && matches!(preemption_bits, 5..=7)
            && preemption_bits <= priority_bits;
        let (long_ids, traps_dir, counts_strays) = (false, true, false);
        if legal {
            Some(Self {
                list_registers,
                priority_bits,
                preemption_bits,
                long_ids,
                traps_dir,
                counts_strays,
            })
        } else {
            None
        }
    }

    /// Returns it with 24 bits of INTID.
    pub const fn with_long_ids(self) -> Self {
        Implementation { long_ids: true, ..self }
    }

    /// Returns it without a trap for DIR alone.
    pub const fn without_tds(self) -> Self {
        Implementation { traps_dir: false, ..self }
    }

    /// Returns it with the other choice where ICH_HCR_EL2.EOIcount is CONSTRAINED UNPREDICTABLE: an
    /// EOI that clears no active priority, of an interrupt in no list register, is counted.
    pub const fn counting_strays(self) -> Self {
        Implementation { counts_strays: true, ..self }
    }

    pub(crate) const fn counts_strays(self) -> bool {
        self.counts_strays
    }

    pub(crate) const fn traps_dir(self) -> bool {
        self.traps_dir
    }

    /// Returns how many list registers there are.
    pub const fn list_registers(self) -> usize {
        self.list_registers as usize
    }

    /// Returns how many active priority registers a group has: one for each 32 levels of
    /// preemption.
    pub const fn active_priority_registers(self) -> usize {
        1 << (self.preemption_bits - 5)
    }

    /// Returns how many bits of INTID there are.
    pub const fn id_bits(self) -> u32 {
        if self.long_ids { 24 } else { 16 }
    }

    /// Returns the bits of a priority that are implemented.
    pub const fn priority_mask(self) -> u8 {
        u8::MAX << (8 - self.priority_bits)
    }

    /// Returns how far a priority is shifted to the number of its bit in the active priority
    /// registers.
    pub(crate) const fn level_shift(self) -> u32 {
        8 - self.preemption_bits as u32
    }

    /// Returns the smallest binary point of a group: as if all bits of preemption were the group's.
    pub const fn smallest_binary_point(self, group: Group) -> u8 {
        7 - self.preemption_bits + group as u8
    }

    /// Returns ICH_VTR_EL2.
    pub const fn vtr(self) -> u64 {
        let word = vtr::NV4.mask()
            | vtr::A3V.mask()
            | vtr::LISTREGS.put(0, self.list_registers as u64 - 1);
        let word = vtr::PRIBITS.put(word, self.priority_bits as u64 - 1);
        let word = vtr::PREBITS.put(word, self.preemption_bits as u64 - 1);
        vtr::TDS.put(vtr::IDBITS.put(word, self.long_ids as u64), self.traps_dir as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_register_has_its_fields_where_ich_lr_el2_has_them() {
        let intid = IntId::new(0x2001).expect("it is small");
        let lr = ListRegister::new(intid, Priority(0xa8), Group::One);
        assert_eq!(lr.bits(), 0x50a8_0000_0000_2001);
        assert_eq!(lr.with_eoi().in_state(State::PendingAndActive).bits(), 0xd0a8_0200_0000_2001);
        let physical = PhysicalIntId::new(0x1fff).expect("it is small");
        let lr = lr.of_physical(physical).in_state(State::Active);
        assert_eq!(lr.bits(), 0xb0a8_1fff_0000_2001);
        assert_eq!(
            (lr.state(), lr.group(), lr.priority()),
            (State::Active, Group::One, Priority(0xa8))
        );
        assert_eq!((lr.intid(), lr.physical()), (intid, Some(physical)));
    }

    #[test]
    fn the_eoi_bit_of_ich_lr_el2_belongs_to_the_physical_intid_if_hw_is_set() {
        let lr = ListRegister::new(IntId::SPURIOUS, Priority(0), Group::Zero);
        let all = PhysicalIntId::new(0x1fff).expect("it is small");
        assert!(lr.with_eoi().eoi() && !lr.of_physical(all).eoi());
        assert_eq!(lr.with_eoi().physical(), None);
    }

    #[test]
    fn ich_vtr_el2_says_what_is_implemented() {
        let four = Implementation::new(4, 5, 5).expect("it is legal");
        assert_eq!(four.vtr(), 0x9038_0003);
        let most =
            Implementation::new(16, 8, 7).expect("it is legal").with_long_ids().without_tds();
        assert_eq!(most.vtr(), 0xf8b0_000f);
    }

    #[test]
    fn no_implementation_has_more_preemption_than_priority_bits_or_less_than_five() {
        for (lrs, priority, preemption) in
            [(0, 5, 5), (17, 5, 5), (4, 4, 4), (4, 9, 7), (4, 8, 8), (4, 5, 6), (4, 5, 4)]
        {
            assert_eq!(Implementation::new(lrs, priority, preemption), None);
        }
    }

    #[test]
    fn an_active_priority_register_has_thirty_two_levels() {
        let of = |preemption| {
            Implementation::new(1, 7, preemption).expect("it is legal").active_priority_registers()
        };
        assert_eq!([5, 6, 7].map(of), [1, 2, 4]);
    }
}
