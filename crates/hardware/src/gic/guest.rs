//! What the guest does: ICV_*_EL1, without an exit unless it is trapped.

use std::error::Error;
use std::fmt;

use super::VirtualInterface;
use super::spec::{
    Field, Group, IntId, ListRegister, PhysicalIntId, Priority, State, ctlr, hcr, vmcr, vtr,
};

/// An access that ICH_HCR_EL2 traps. Nothing was done; the hypervisor does it, or does something
/// else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trapped {
    /// A register of that group, by TALL0 or TALL1.
    Group(Group),
    /// A register of both groups, by TC.
    Common,
    /// DIR, by TDIR.
    Deactivation,
}

impl fmt::Display for Trapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trapped::Group(Group::Zero) => "trapped by TALL0",
            Trapped::Group(Group::One) => "trapped by TALL1",
            Trapped::Common => "trapped by TC",
            Trapped::Deactivation => "trapped by TDIR",
        })
    }
}

impl Error for Trapped {}

/// The effect of a guest's access on the distributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a physical interrupt that stays active never comes again"]
pub enum Physical {
    /// Nothing.
    Untouched,
    /// That physical interrupt is deactivated.
    Deactivated(PhysicalIntId),
}

impl VirtualInterface {
    /// Reads IAR0 or IAR1, `ICV_IAR<n>_EL1`: the highest priority pending interrupt, which becomes
    /// active, if it can be signalled and is of this group; else [`IntId::SPURIOUS`].
    ///
    /// # Errors
    /// If it is trapped.
    pub fn read_iar(&mut self, group: Group) -> Result<IntId, Trapped> {
        self.traps_group(group)?;
        let Some(number) = self.signalled().filter(|&number| self.lrs[number].group() == group)
        else {
            return Ok(IntId::SPURIOUS);
        };
        let lr = self.lrs[number];
        self.lrs[number] = lr.in_state(State::Active);
        let level = u32::from(lr.priority().0 & self.group_mask(group))
            >> self.implementation.level_shift();
        self.active[group as usize][level as usize / 32] |= 1 << (level % 32);
        Ok(lr.intid())
    }

    /// Reads HPPIR0 or HPPIR1, `ICV_HPPIR<n>_EL1`: the highest priority pending interrupt, whether
    /// or not it can be signalled now, if it is of this group; else [`IntId::SPURIOUS`].
    ///
    /// # Errors
    /// If it is trapped.
    pub fn read_hppir(&self, group: Group) -> Result<IntId, Trapped> {
        self.traps_group(group)?;
        let highest =
            self.highest_pending().map(|number| self.lrs[number]).filter(|lr| lr.group() == group);
        Ok(highest.map_or(IntId::SPURIOUS, ListRegister::intid))
    }

    /// Writes EOIR0 or EOIR1, `ICV_EOIR<n>_EL1`: drops the priority and, unless EOImode is 1,
    /// deactivates the interrupt. An LPI is deactivated in either mode, since its guest does not.
    ///
    /// A guest must end what it has acknowledged last, in its group; all else is UNPREDICTABLE.
    /// Here, what it writes then drops the highest active priority of both groups, and deactivates
    /// nothing that was not active at that one. If none is active, EOIcount is what the
    /// [implementation](super::spec::Implementation::counting_strays) has chosen.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn write_eoir(&mut self, group: Group, intid: IntId) -> Result<Physical, Trapped> {
        self.traps_group(group)?;
        let intid = intid.cut(self.implementation.id_bits());
        if intid.is_special() {
            return Ok(Physical::Untouched);
        }
        let dropped = self.drop_priority();
        let deactivates = intid.is_lpi() || !vmcr::VEOIM.is_set(self.vmcr);
        match (dropped, self.find_active(intid)) {
            (_, None) if intid.is_lpi() || !deactivates => {}
            (Some(_), None) => self.count_eoi(),
            (None, None) if self.implementation.counts_strays() => self.count_eoi(),
            (Some(priority), Some(number))
                if deactivates && self.is_at(number, group, priority) =>
            {
                return Ok(self.deactivate(number));
            }
            _ => {}
        }
        Ok(Physical::Untouched)
    }

    /// Writes DIR, ICV_DIR_EL1: deactivates an interrupt, in whatever order. Ignored unless EOImode
    /// is 1, and for an LPI.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn write_dir(&mut self, intid: IntId) -> Result<Physical, Trapped> {
        if hcr::TDIR.is_set(self.hcr) {
            return Err(Trapped::Deactivation);
        }
        self.traps_common()?;
        let intid = intid.cut(self.implementation.id_bits());
        if !vmcr::VEOIM.is_set(self.vmcr) || intid.is_special() || intid.is_lpi() {
            return Ok(Physical::Untouched);
        }
        if let Some(number) = self.find_active(intid) {
            return Ok(self.deactivate(number));
        }
        self.count_eoi();
        Ok(Physical::Untouched)
    }

    /// Reads PMR, ICV_PMR_EL1.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn read_pmr(&self) -> Result<Priority, Trapped> {
        self.traps_common()?;
        Ok(self.mask())
    }

    /// Writes PMR, ICV_PMR_EL1: only interrupts of a higher priority are signalled.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn write_pmr(&mut self, priority: Priority) -> Result<(), Trapped> {
        self.traps_common()?;
        self.put_mask(priority.0.into());
        Ok(())
    }

    /// Reads RPR, ICV_RPR_EL1: the highest active priority, with all its bits of preemption, or
    /// [`Priority::IDLE`].
    ///
    /// # Errors
    /// If it is trapped.
    pub fn read_rpr(&self) -> Result<Priority, Trapped> {
        self.traps_common()?;
        Ok(self.running_priority())
    }

    /// Reads BPR0 or BPR1, `ICV_BPR<n>_EL1`. With CBPR, BPR1 reads as BPR0 plus one, at most 7.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn read_bpr(&self, group: Group) -> Result<u8, Trapped> {
        self.traps_group(group)?;
        Ok(match group {
            Group::One if vmcr::VCBPR.is_set(self.vmcr) => {
                (vmcr::VBPR0.get(self.vmcr) as u8 + 1).min(7)
            }
            Group::One => vmcr::VBPR1.get(self.vmcr) as u8,
            Group::Zero => vmcr::VBPR0.get(self.vmcr) as u8,
        })
    }

    /// Writes BPR0 or BPR1, `ICV_BPR<n>_EL1`, of which three bits count. With CBPR, writes to BPR1
    /// are ignored.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn write_bpr(&mut self, group: Group, value: u8) -> Result<(), Trapped> {
        self.traps_group(group)?;
        if group == Group::Zero || !vmcr::VCBPR.is_set(self.vmcr) {
            self.put_binary_point(group, value.into());
        }
        Ok(())
    }

    /// Reads IGRPEN0 or IGRPEN1, `ICV_IGRPEN<n>_EL1`.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn read_igrpen(&self, group: Group) -> Result<bool, Trapped> {
        self.traps_group(group)?;
        Ok(self.is_enabled(group))
    }

    /// Writes IGRPEN0 or IGRPEN1, `ICV_IGRPEN<n>_EL1`.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn write_igrpen(&mut self, group: Group, enable: bool) -> Result<(), Trapped> {
        self.traps_group(group)?;
        self.vmcr = enable_of(group).put(self.vmcr, enable.into());
        Ok(())
    }

    /// Reads CTLR, ICV_CTLR_EL1.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn read_ctlr(&self) -> Result<u64, Trapped> {
        self.traps_common()?;
        let has = self.implementation.vtr();
        let word = ctlr::PRIBITS.put(0, vtr::PRIBITS.get(has));
        let word = ctlr::A3V.put(ctlr::IDBITS.put(word, vtr::IDBITS.get(has)), vtr::A3V.get(has));
        let word = ctlr::CBPR.put(word, vmcr::VCBPR.get(self.vmcr));
        Ok(ctlr::EOIMODE.put(word, vmcr::VEOIM.get(self.vmcr)))
    }

    /// Writes CTLR, ICV_CTLR_EL1: EOImode and CBPR.
    ///
    /// # Errors
    /// If it is trapped.
    pub fn write_ctlr(&mut self, value: u64) -> Result<(), Trapped> {
        self.traps_common()?;
        let word = vmcr::VCBPR.put(self.vmcr, ctlr::CBPR.get(value));
        self.vmcr = vmcr::VEOIM.put(word, ctlr::EOIMODE.get(value));
        Ok(())
    }

    /// Returns what is signalled to the guest: a virtual FIQ for group 0, a virtual IRQ for group
    /// 1.
    pub fn signals(&self) -> Option<Group> {
        self.signalled().map(|number| self.lrs[number].group())
    }

    fn traps_group(&self, group: Group) -> Result<(), Trapped> {
        let all = if group == Group::Zero { hcr::TALL0 } else { hcr::TALL1 };
        if all.is_set(self.hcr) { Err(Trapped::Group(group)) } else { Ok(()) }
    }

    fn traps_common(&self) -> Result<(), Trapped> {
        if hcr::TC.is_set(self.hcr) { Err(Trapped::Common) } else { Ok(()) }
    }

    fn is_enabled(&self, group: Group) -> bool {
        enable_of(group).is_set(self.vmcr)
    }

    fn mask(&self) -> Priority {
        Priority(vmcr::VPMR.get(self.vmcr) as u8)
    }

    /// Returns the list register with the highest priority pending interrupt of the enabled groups.
    /// What is pending and active is none. If several have that priority, it is the first: the
    /// manual leaves that to the implementation.
    fn highest_pending(&self) -> Option<usize> {
        let lrs = self.implemented_lrs();
        let candidate = |lr: &ListRegister| {
            lr.state() == State::Pending
                && self.is_enabled(lr.group())
                && lr.priority() < Priority::IDLE
        };
        (0..lrs.len())
            .filter(|&number| candidate(&lrs[number]))
            .min_by_key(|&number| lrs[number].priority())
    }

    /// Returns that of the highest priority pending interrupt, if the interface is enabled, the
    /// priority mask lets it through, and its group priority is above the running priority.
    fn signalled(&self) -> Option<usize> {
        let number = self.highest_pending()?;
        let (lr, running) = (self.lrs[number], self.running_priority());
        let mask = self.group_mask(lr.group());
        let preempts = running == Priority::IDLE || lr.priority().0 & mask < running.0 & mask;
        (hcr::EN.is_set(self.hcr) && lr.priority() < self.mask() && preempts).then_some(number)
    }

    /// Returns the bits of a priority that are the group priority, by the binary point that holds
    /// for the group: `[7:n+1]` for a BPR0 of `n`, `[7:n]` for a BPR1 of `n`. None are left for a
    /// BPR0 of 7.
    fn group_mask(&self, group: Group) -> u8 {
        let subpriority = match group {
            Group::One if !vmcr::VCBPR.is_set(self.vmcr) => vmcr::VBPR1.get(self.vmcr),
            _ => vmcr::VBPR0.get(self.vmcr) + 1,
        };
        (0xff << subpriority) as u8
    }

    /// Returns the group of the highest active priority, group 0 if it is that of both, and its
    /// level of preemption.
    fn highest_active(&self) -> Option<(Group, u32)> {
        let highest = |group: Group| {
            let words = self.active[group as usize];
            let number = words.iter().position(|&word| word != 0)?;
            Some((number as u32 * 32 + words[number].trailing_zeros(), group))
        };
        let (level, group) = [Group::Zero, Group::One].into_iter().filter_map(highest).min()?;
        Some((group, level))
    }

    fn running_priority(&self) -> Priority {
        let level =
            self.highest_active().map(|(_, level)| level << self.implementation.level_shift());
        level.map_or(Priority::IDLE, |priority| Priority(priority as u8))
    }

    /// Clears the highest active priority, and returns it.
    fn drop_priority(&mut self) -> Option<Priority> {
        let dropped = self.running_priority();
        let (group, level) = self.highest_active()?;
        self.active[group as usize][level as usize / 32] &= !(1 << (level % 32));
        Some(dropped)
    }

    /// Returns the list register in which an interrupt is active.
    fn find_active(&self, intid: IntId) -> Option<usize> {
        self.implemented_lrs().iter().position(|lr| lr.state().is_active() && lr.intid() == intid)
    }

    /// Returns whether a list register is of that group and has that group priority.
    fn is_at(&self, number: usize, group: Group, priority: Priority) -> bool {
        let lr = self.lrs[number];
        lr.group() == group && lr.priority().0 & self.group_mask(group) == priority.0
    }

    /// Makes what is active inactive, or pending if it was that, too.
    fn deactivate(&mut self, number: usize) -> Physical {
        let lr = self.lrs[number];
        let pending = lr.state() == State::PendingAndActive;
        self.lrs[number] = lr.in_state(if pending { State::Pending } else { State::Inactive });
        match lr.physical() {
            Some(physical) if !matches!(physical.number(), 1020..=1023) => {
                Physical::Deactivated(physical)
            }
            _ => Physical::Untouched,
        }
    }

    /// Counts an interrupt that was in no list register. The field has five bits, and what is too
    /// much for it is lost.
    fn count_eoi(&mut self) {
        self.hcr = hcr::EOICOUNT.put(self.hcr, hcr::EOICOUNT.get(self.hcr) + 1);
    }
}

fn enable_of(group: Group) -> Field {
    if group == Group::Zero { vmcr::VENG0 } else { vmcr::VENG1 }
}

#[cfg(test)]
mod tests;
