//! What would be signalled to a guest that is not entered.

use doorbell_platform::Platform;

use crate::levels::Levels;
use crate::running::{running_priority, subpriority_bits};
use crate::spec::vmcr;
use crate::{ApList, Group, Interrupts, ListRegisters};

impl ApList {
    /// Returns whether an interrupt would be signalled to the guest if it were entered: then its WFI
    /// is over, and a vCPU that is blocked wakes up. By the owner, outside of the guest, after the
    /// [fold](ApList::fold) and after it has [looked](ApList::look) at what it was told of; does not
    /// sleep.
    ///
    /// `registers` may be what was saved of them: only ICH_VMCR_EL2 and the active priority registers
    /// are read. `groups` are those that the distributor has enabled (GICD_CTLR.EnableGrp0 and
    /// EnableGrp1).
    ///
    /// The highest priority of what is pending, enabled, not active and of a group that distributor
    /// and guest have enabled is signalled, if it is higher than the priority mask, and its group
    /// priority higher than the running priority (section 4.8). If interrupts of both groups have that
    /// priority, one of them is enough: the architecture does not say which one the CPU takes.
    pub fn signals<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &impl ListRegisters,
        groups: [bool; 2],
    ) -> bool {
        if self.staged == 0 && self.pending.is_empty() {
            return false;
        }
        let vmcr = registers.vmcr();
        let enabled = Group::BOTH.map(|group| groups[group as usize] && vmcr >> group as u32 & vmcr::VENG0 != 0);
        let levels = self.highest_pending(interrupts, enabled);
        let highest = levels[0].min(levels[1]);
        if highest == Levels::NO_LEVEL {
            return false;
        }
        let priority = highest << (8 - self.vtr.priority_bits());
        if priority >= (vmcr >> vmcr::VPMR_SHIFT & 0xff) as u32 {
            return false;
        }
        let Some(running) = running_priority(registers, self.vtr) else { return true };
        Group::BOTH.into_iter().filter(|&group| levels[group as usize] == highest).any(|group| {
            let subpriority = subpriority_bits(group, vmcr);
            priority >> subpriority < u32::from(running.0) >> subpriority
        })
    }

    /// Returns the highest priority of the candidates of each enabled group, as the number of its
    /// level.
    fn highest_pending<P: Platform>(&mut self, interrupts: &impl Interrupts<P>, enabled: [bool; 2]) -> [u32; 2] {
        let mut highest = Group::BOTH.map(|group| {
            let alone = Group::BOTH.map(|other| other == group && enabled[group as usize]);
            self.best(interrupts, alone).map_or(Levels::NO_LEVEL, |(_, level, ..)| level)
        });
        for &id in &self.stage[..self.staged as usize] {
            let state = interrupts.interrupt(id).state();
            let group = state.group() as usize;
            // What is known to be active, and is not by now, comes with the news of that.
            let inactive = self.active == 0 || !self.known.contains(id);
            if state.is_candidate() && state.is_held_by(self.vcpu()) && enabled[group] && inactive {
                highest[group] = highest[group].min(self.pending.of(state.group()).level_of(state.priority()));
            }
        }
        highest
    }
}
