//! The registers as the hypervisor reads and writes them.

use std::error::Error;
use std::fmt;

use super::spec::{
    Group, Implementation, IntId, ListRegister, PhysicalIntId, State, hcr, lr, vmcr,
};

/// The most list registers that there can be.
const LIST_REGISTERS: usize = 16;

/// The registers of one virtual CPU interface.
///
/// What of them is saved and restored when a vCPU leaves and comes is a value of this type, too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualInterface {
    pub(super) implementation: Implementation,
    pub(super) hcr: u64,
    pub(super) vmcr: u64,
    /// `ICH_AP0R<n>_EL2`, and `ICH_AP1R<n>_EL2`.
    pub(super) active: [[u32; 4]; 2],
    pub(super) lrs: [ListRegister; LIST_REGISTERS],
}

/// An access to a register that is not implemented is UNDEFINED.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Undefined;

impl fmt::Display for Undefined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the register is not implemented: the access is UNDEFINED")
    }
}

impl Error for Undefined {}

/// List registers that no hypervisor may give to a guest: the behaviour is UNPREDICTABLE (chapter
/// 6, usage of list registers; `ICH_LR<n>_EL2`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpredictable {
    /// The vINTID of a valid list register is a special one.
    Special(IntId),
    /// Two valid list registers have the same vINTID.
    Twice(IntId),
    /// Two valid list registers have the same pINTID.
    TwicePhysical(PhysicalIntId),
    /// A physical interrupt is pending and active. Its pending state is the distributor's.
    PendingAndActive(PhysicalIntId),
}

impl fmt::Display for Unpredictable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unpredictable::Special(id) => {
                write!(f, "a list register holds the special INTID {}", id.number())
            }
            Unpredictable::Twice(id) => write!(f, "two list registers hold vINTID {}", id.number()),
            Unpredictable::TwicePhysical(id) => {
                write!(f, "two list registers hold pINTID {}", id.number())
            }
            Unpredictable::PendingAndActive(id) => {
                write!(
                    f,
                    "physical interrupt {} is pending and active in a list register",
                    id.number()
                )
            }
        }
    }
}

impl Error for Unpredictable {}

impl VirtualInterface {
    /// Returns the registers with all fields zero, or as little as they can be. (Many are UNKNOWN
    /// on reset.)
    pub fn new(implementation: Implementation) -> Self {
        let mut this = VirtualInterface {
            implementation,
            hcr: 0,
            vmcr: 0,
            active: [[0; 4]; 2],
            lrs: [ListRegister::EMPTY; LIST_REGISTERS],
        };
        this.set_vmcr(0);
        this
    }

    /// Returns what is implemented.
    pub fn implementation(&self) -> Implementation {
        self.implementation
    }

    /// Reads ICH_HCR_EL2.
    pub fn hcr(&self) -> u64 {
        self.hcr
    }

    /// Writes ICH_HCR_EL2.
    pub fn set_hcr(&mut self, value: u64) {
        self.hcr = value & hcr::WRITABLE;
        if !self.implementation.traps_dir() {
            self.hcr &= !hcr::TDIR.mask();
        }
    }

    /// Reads ICH_VMCR_EL2.
    pub fn vmcr(&self) -> u64 {
        self.vmcr
    }

    /// Writes ICH_VMCR_EL2. A binary point that is too small becomes the smallest, and of the
    /// priority mask only the implemented bits are kept.
    pub fn set_vmcr(&mut self, value: u64) {
        let flags = [vmcr::VENG0, vmcr::VENG1, vmcr::VCBPR, vmcr::VEOIM];
        let kept = flags.iter().fold(0, |kept, flag| kept | value & flag.mask());
        self.vmcr = kept | vmcr::VFIQEN.mask();
        self.put_binary_point(Group::Zero, vmcr::VBPR0.get(value));
        self.put_binary_point(Group::One, vmcr::VBPR1.get(value));
        self.put_mask(vmcr::VPMR.get(value));
    }

    pub(super) fn put_binary_point(&mut self, group: Group, value: u64) {
        let smallest = self.implementation.smallest_binary_point(group).into();
        let field = if group == Group::Zero { vmcr::VBPR0 } else { vmcr::VBPR1 };
        self.vmcr = field.put(self.vmcr, (value & 0b111).max(smallest));
    }

    pub(super) fn put_mask(&mut self, value: u64) {
        self.vmcr =
            vmcr::VPMR.put(self.vmcr, value & u64::from(self.implementation.priority_mask()));
    }

    /// Reads a list register.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn lr(&self, number: usize) -> Result<ListRegister, Undefined> {
        self.implemented_lrs().get(number).copied().ok_or(Undefined)
    }

    /// Writes a list register.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn set_lr(&mut self, number: usize, value: ListRegister) -> Result<(), Undefined> {
        self.lr(number)?;
        let reserved =
            if lr::HW.is_set(value.bits()) { 0 } else { lr::PINTID.mask() & !lr::EOI.mask() };
        let written =
            lr::STATE.mask() | lr::HW.mask() | lr::GROUP.mask() | lr::PINTID.mask() & !reserved;
        let priority = value.priority().0 & self.implementation.priority_mask();
        let word = lr::PRIORITY.put(value.bits() & written, priority.into());
        let intid = value.intid().cut(self.implementation.id_bits());
        self.lrs[number] = ListRegister::from_bits(word | u64::from(intid.number()));
        Ok(())
    }

    /// Returns the list registers.
    pub fn implemented_lrs(&self) -> &[ListRegister] {
        &self.lrs[..self.implementation.list_registers()]
    }

    /// Reads `ICH_AP0R<n>_EL2` or `ICH_AP1R<n>_EL2`. Bit 0 of the first register is the highest
    /// priority.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn active_priorities(&self, group: Group, number: usize) -> Result<u32, Undefined> {
        let there = self.implementation.active_priority_registers();
        self.active[group as usize][..there].get(number).copied().ok_or(Undefined)
    }

    /// Writes `ICH_AP0R<n>_EL2` or `ICH_AP1R<n>_EL2`. Anything but zero or what was read before is
    /// UNPREDICTABLE; here it is taken as it is.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn set_active_priorities(
        &mut self,
        group: Group,
        number: usize,
        value: u32,
    ) -> Result<(), Undefined> {
        self.active_priorities(group, number)?;
        self.active[group as usize][number] = value;
        Ok(())
    }

    /// Looks for list registers that no guest may be entered with.
    ///
    /// # Errors
    /// With the first that it finds.
    pub fn check(&self) -> Result<(), Unpredictable> {
        let valid = |lr: &&ListRegister| lr.state() != State::Inactive;
        for (number, one) in self.implemented_lrs().iter().enumerate().filter(|(_, lr)| valid(lr)) {
            if one.intid().is_special() {
                return Err(Unpredictable::Special(one.intid()));
            }
            if let (Some(physical), State::PendingAndActive) = (one.physical(), one.state()) {
                return Err(Unpredictable::PendingAndActive(physical));
            }
            for other in self.lrs[..number].iter().filter(valid) {
                if one.intid() == other.intid() {
                    return Err(Unpredictable::Twice(one.intid()));
                }
                if let Some(physical) =
                    one.physical().filter(|_| one.physical() == other.physical())
                {
                    return Err(Unpredictable::TwicePhysical(physical));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Priority;
    use super::*;

    fn new(lrs: u8, priority_bits: u8, preemption_bits: u8) -> VirtualInterface {
        VirtualInterface::new(
            Implementation::new(lrs, priority_bits, preemption_bits).expect("it is legal"),
        )
    }

    fn pending(number: u32) -> ListRegister {
        ListRegister::new(IntId::new(number).expect("it is small"), Priority(0), Group::One)
    }

    #[test]
    fn what_ich_vmcr_el2_does_not_implement_is_not_kept() {
        let mut ich = new(1, 5, 5);
        ich.set_vmcr(u64::MAX);
        assert_eq!(ich.vmcr(), 0xf8fc_021b);
        ich.set_vmcr(0);
        assert_eq!(ich.vmcr(), 2 << 21 | 3 << 18 | 8, "the smallest binary points, and VFIQEn");
        let mut ich = new(1, 8, 7);
        ich.set_vmcr(0);
        assert_eq!(ich.vmcr(), 1 << 18 | 8);
    }

    #[test]
    fn what_ich_hcr_el2_does_not_implement_is_not_kept() {
        let mut ich = new(1, 5, 5);
        ich.set_hcr(u64::MAX);
        assert_eq!(ich.hcr(), 0xf800_5cff);
        let implementation = ich.implementation().without_tds();
        let mut ich = VirtualInterface::new(implementation);
        ich.set_hcr(u64::MAX);
        assert_eq!(ich.hcr(), 0xf800_1cff);
    }

    #[test]
    fn what_ich_lr_el2_does_not_implement_is_not_kept() {
        let ones = ListRegister::from_bits(u64::MAX);
        let mut ich = new(2, 5, 5);
        ich.set_lr(0, ones).expect("there are two");
        ich.set_lr(1, ListRegister::from_bits(!(1 << 61))).expect("there are two");
        assert_eq!(ich.lr(0).map(ListRegister::bits), Ok(0xf0f8_1fff_0000_ffff));
        assert_eq!(ich.lr(1).map(ListRegister::bits), Ok(0xd0f8_0200_0000_ffff));
        assert_eq!((ich.lr(2), ich.set_lr(2, ones)), (Err(Undefined), Err(Undefined)));
        let mut ich = VirtualInterface::new(new(1, 8, 7).implementation().with_long_ids());
        ich.set_lr(0, ones).expect("there is one");
        assert_eq!(ich.lr(0).map(ListRegister::bits), Ok(0xf0ff_1fff_00ff_ffff));
    }

    #[test]
    fn the_active_priority_registers_are_as_many_as_preemption_needs() {
        let mut ich = new(1, 8, 6);
        assert_eq!(ich.set_active_priorities(Group::One, 1, 1 << 31), Ok(()));
        assert_eq!(ich.active_priorities(Group::One, 1), Ok(1 << 31));
        assert_eq!(ich.active_priorities(Group::Zero, 1), Ok(0));
        assert_eq!(ich.set_active_priorities(Group::One, 2, 1), Err(Undefined));
        assert_eq!(ich.active_priorities(Group::Zero, 2), Err(Undefined));
    }

    #[test]
    fn list_registers_that_are_unpredictable_are_found() {
        let physical = PhysicalIntId::new(48).expect("it is small");
        let twice = IntId::new(32).expect("it is small");
        let special = IntId::new(1020).expect("it is small");
        let both = pending(33).of_physical(physical).in_state(State::PendingAndActive);
        let cases = [
            ([pending(32), pending(33)], Ok(())),
            ([pending(32), pending(32).in_state(State::Active)], Err(Unpredictable::Twice(twice))),
            ([pending(32), pending(32).in_state(State::Inactive)], Ok(())),
            ([pending(32), pending(1020)], Err(Unpredictable::Special(special))),
            ([pending(32), both], Err(Unpredictable::PendingAndActive(physical))),
            ([pending(32), both.in_state(State::Active)], Ok(())),
            (
                [pending(32).of_physical(physical), both.in_state(State::Active)],
                Err(Unpredictable::TwicePhysical(physical)),
            ),
        ];
        for (lrs, found) in cases {
            let mut ich = new(2, 5, 5);
            for (number, lr) in lrs.into_iter().enumerate() {
                ich.set_lr(number, lr).expect("there are two");
            }
            assert_eq!(ich.check(), found, "{lrs:x?}");
        }
    }
}
