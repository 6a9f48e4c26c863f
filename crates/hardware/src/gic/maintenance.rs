//! What the hypervisor is told: which list registers are free or ended, and the maintenance
//! interrupt.

use super::VirtualInterface;
use super::spec::{Field, ListRegister, State, hcr, misr, vmcr};

impl VirtualInterface {
    /// Reads ICH_EISR_EL2: a bit for each list register whose interrupt was deactivated and has EOI
    /// set, as long as the hypervisor leaves it there.
    pub fn eisr(&self) -> u64 {
        self.which(|lr| lr.state() == State::Inactive && lr.eoi())
    }

    /// Reads ICH_ELRSR_EL2: a bit for each list register that can be written without losing an
    /// interrupt, or news of an EOI.
    pub fn elrsr(&self) -> u64 {
        self.which(|lr| lr.state() == State::Inactive && !lr.eoi())
    }

    fn which(&self, condition: impl Fn(ListRegister) -> bool) -> u64 {
        let each = self.implemented_lrs().iter().enumerate();
        each.fold(0, |bits, (number, lr)| bits | u64::from(condition(*lr)) << number)
    }

    /// Reads ICH_MISR_EL2: what is asserted now. It stays so until its condition is gone; nothing
    /// acknowledges it.
    pub fn misr(&self) -> u64 {
        let conditions = [
            (misr::EOI, None, self.eisr() != 0),
            (
                misr::U,
                Some(hcr::UIE),
                self.which(|lr| lr.state() != State::Inactive).count_ones() <= 1,
            ),
            (misr::LRENP, Some(hcr::LRENPIE), hcr::EOICOUNT.is_set(self.hcr)),
            (misr::NP, Some(hcr::NPIE), self.which(|lr| lr.state() == State::Pending) == 0),
            (misr::VGRP0E, Some(hcr::VGRP0EIE), vmcr::VENG0.is_set(self.vmcr)),
            (misr::VGRP0D, Some(hcr::VGRP0DIE), !vmcr::VENG0.is_set(self.vmcr)),
            (misr::VGRP1E, Some(hcr::VGRP1EIE), vmcr::VENG1.is_set(self.vmcr)),
            (misr::VGRP1D, Some(hcr::VGRP1DIE), !vmcr::VENG1.is_set(self.vmcr)),
        ];
        let enabled = |enable: Option<Field>| enable.is_none_or(|enable| enable.is_set(self.hcr));
        conditions.iter().fold(0, |bits, &(bit, enable, holds)| {
            bits | if holds && enabled(enable) { bit.mask() } else { 0 }
        })
    }

    /// Returns the level of the maintenance interrupt, a PPI of the CPU: it is not signalled while
    /// the interface is disabled (ICH_HCR_EL2.En).
    pub fn maintenance(&self) -> bool {
        hcr::EN.is_set(self.hcr) && self.misr() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Group, Implementation, IntId, Priority};
    use super::*;

    fn new() -> VirtualInterface {
        VirtualInterface::new(Implementation::new(3, 5, 5).expect("it is legal"))
    }

    fn pending(number: u32) -> ListRegister {
        ListRegister::new(IntId::new(number).expect("it is small"), Priority(0), Group::One)
    }

    /// Asserts that the condition shows in MISR if and only if its enable is set, with all others
    /// off, and on.
    fn follows(ich: &mut VirtualInterface, enable: Field, bit: Field, condition: bool) {
        let count = ich.hcr() & hcr::EOICOUNT.mask();
        ich.set_hcr(count | enable.mask());
        assert_eq!(ich.misr(), if condition { bit.mask() } else { 0 }, "alone: {ich:x?}");
        ich.set_hcr(count | 0xff & !enable.mask());
        assert!(!bit.is_set(ich.misr()), "all but it: {ich:x?}");
    }

    #[test]
    fn underflow_is_asserted_while_at_most_one_list_register_is_valid() {
        let mut ich = new();
        for (valid, asserted) in [(0, true), (1, true), (2, false), (3, false)] {
            if valid > 0 {
                let lr =
                    pending(32 + valid as u32).in_state([State::Pending, State::Active][valid % 2]);
                ich.set_lr(valid - 1, lr).expect("there are three");
            }
            follows(&mut ich, hcr::UIE, misr::U, asserted);
        }
    }

    #[test]
    fn no_pending_is_asserted_while_no_list_register_is_pending_and_nothing_else() {
        let mut ich = new();
        for (state, asserted) in [
            (State::Inactive, true),
            (State::Pending, false),
            (State::Active, true),
            (State::PendingAndActive, true),
        ] {
            ich.set_lr(2, pending(32).in_state(state)).expect("there are three");
            follows(&mut ich, hcr::NPIE, misr::NP, asserted);
        }
    }

    #[test]
    fn entry_not_present_is_asserted_while_eoicount_is_not_zero() {
        let mut ich = new();
        for count in [0, 1, 31] {
            ich.set_hcr(hcr::EOICOUNT.put(0, count));
            follows(&mut ich, hcr::LRENPIE, misr::LRENP, count > 0);
        }
    }

    #[test]
    fn each_group_asserts_by_its_own_enable() {
        for (zero, one) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut ich = new();
            ich.set_vmcr(vmcr::VENG0.put(0, zero.into()) | vmcr::VENG1.put(0, one.into()));
            follows(&mut ich, hcr::VGRP0EIE, misr::VGRP0E, zero);
            follows(&mut ich, hcr::VGRP0DIE, misr::VGRP0D, !zero);
            follows(&mut ich, hcr::VGRP1EIE, misr::VGRP1E, one);
            follows(&mut ich, hcr::VGRP1DIE, misr::VGRP1D, !one);
        }
    }

    #[test]
    fn an_ended_list_register_is_in_eisr_and_not_empty_until_it_is_written() {
        let mut ich = new();
        let active = pending(32).with_eoi().in_state(State::Active);
        ich.set_lr(1, active).expect("there are three");
        assert_eq!((ich.eisr(), ich.elrsr(), ich.misr()), (0, 0b101, 0));
        ich.set_lr(1, active.in_state(State::Inactive)).expect("there are three");
        assert_eq!((ich.eisr(), ich.elrsr(), ich.misr()), (0b010, 0b101, misr::EOI.mask()));
        ich.set_lr(1, ListRegister::EMPTY).expect("there are three");
        assert_eq!((ich.eisr(), ich.elrsr(), ich.misr()), (0, 0b111, 0));
    }

    #[test]
    fn an_ended_physical_interrupt_leaves_its_list_register_empty() {
        let mut ich = new();
        let physical = super::super::spec::PhysicalIntId::new(0x200).expect("it is small");
        ich.set_lr(0, pending(32).of_physical(physical).in_state(State::Inactive))
            .expect("there are three");
        assert_eq!((ich.eisr(), ich.elrsr()), (0, 0b111), "bit 41 is one of pINTID");
    }

    #[test]
    fn a_disabled_interface_signals_no_maintenance_interrupt() {
        let mut ich = new();
        ich.set_hcr(hcr::UIE.mask());
        assert!(ich.misr() != 0 && !ich.maintenance());
        ich.set_hcr(hcr::UIE.mask() | hcr::EN.mask());
        assert!(ich.maintenance());
    }
}
