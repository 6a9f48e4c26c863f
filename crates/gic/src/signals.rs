//! What would be signalled to a guest that is not entered.

use doorbell_platform::Platform;

use crate::groups::Groups;
use crate::running::{running_priority, subpriority_bits};
use crate::spec::vmcr;
use crate::{ApList, Group, Interrupts, ListRegisters, Priority};

impl ApList {
    /// Returns whether an interrupt would be signalled to the guest if it were entered: then its
    /// WFI is over, and a vCPU that is blocked wakes up. By the owner, outside of the guest, after
    /// the [fold](ApList::fold) and after it has [looked](ApList::look) at what it was told of;
    /// does not sleep.
    ///
    /// `registers` may be what was saved of them: only ICH_VMCR_EL2 and the active priority
    /// registers are read. `groups` are those that the distributor has enabled
    /// (GICD_CTLR.EnableGrp0 and EnableGrp1).
    ///
    /// The highest priority of what is pending, enabled, not active and of a group that distributor
    /// and guest have enabled is signalled, if it is higher than the priority mask, and its group
    /// priority higher than the running priority (section 4.8). If interrupts of both groups have
    /// that priority, one of them is enough: the architecture does not say which one the CPU takes.
    pub fn signals<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        registers: &impl ListRegisters,
        groups: [bool; 2],
    ) -> bool {
        let vmcr = registers.vmcr();
        let enabled = Groups::from(groups) & Groups::from_bits(vmcr);
        let levels = Group::BOTH
            .map(|group| self.highest_pending(interrupts, enabled & Groups::only(group)));
        let Some(highest) = levels.into_iter().flatten().min() else { return false };
        let priority = u32::from(highest.0);
        if priority >= (vmcr >> vmcr::VPMR_SHIFT & 0xff) as u32 {
            return false;
        }
        let Some(running) = running_priority(registers, self.vtr) else { return true };
        Group::BOTH.into_iter().filter(|&group| levels[group as usize] == Some(highest)).any(
            |group| {
                let subpriority = subpriority_bits(group, vmcr);
                priority >> subpriority < u32::from(running.0) >> subpriority
            },
        )
    }

    /// Returns the highest priority of the candidates of some groups. Takes those before it out of
    /// the lists that are none any more.
    pub(crate) fn highest_pending<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        groups: Groups,
    ) -> Option<Priority> {
        let highest = self.highest_listed(interrupts, groups);
        if !self.counts.lpis() || !self.lpis.are_on() || !groups.contains(Group::One) {
            return highest;
        }
        [highest, self.highest_lpi(interrupts)].into_iter().flatten().min()
    }

    fn highest_listed<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        groups: Groups,
    ) -> Option<Priority> {
        while let Some(list) = self.pending.best(groups) {
            let id = self.pending.first(list).id()?;
            // What is known to be active, and is not by now, comes with the news of that.
            if self.pending.candidates(list).contain(interrupts.interrupt(id).state())
                && !self.knows(id)
            {
                return Some(self.pending.priority(list));
            }
            self.moves_first(interrupts, list);
        }
        None
    }
}
