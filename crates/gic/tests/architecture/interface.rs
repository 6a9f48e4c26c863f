//! The CPU interface of each PE: what it may acknowledge, and what becomes of that (chapter 4).
//!
//! A guest ends what it has acknowledged last, and deactivates what was dropped: all else is
//! UNPREDICTABLE (section 12.2, ICC_EOIR1_EL1 and ICC_DIR_EL1). ICC_CTLR_EL1.CBPR is 0.

use super::{Gic, PRIVATE};

/// The registers of a CPU interface, and the priorities that are active in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// ICC_PMR_EL1.
    pub mask: u8,
    /// ICC_IGRPEN0_EL1 and ICC_IGRPEN1_EL1.
    pub enabled: [bool; 2],
    /// ICC_CTLR_EL1.EOImode: EOIR drops the priority, and DIR deactivates.
    pub drops_only: bool,
    /// ICC_BPR0_EL1 and ICC_BPR1_EL1.
    binary_points: [u8; 2],
    preemption_bits: u32,
    /// What was acknowledged and not dropped: the last is the one of the highest priority.
    running: Vec<Running>,
}

/// What a CPU interface remembers of an acknowledgement.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Running {
    id: u32,
    group: usize,
    group_priority: u8,
}

impl Interface {
    pub(super) fn new(preemption_bits: u32) -> Self {
        Interface {
            mask: 0,
            enabled: [false; 2],
            drops_only: false,
            binary_points: Self::smallest(preemption_bits),
            preemption_bits,
            running: Vec::new(),
        }
    }

    /// Returns the binary points that leave all bits that preempt (section 12.2, ICC_BPR0_EL1 and
    /// ICC_BPR1_EL1).
    fn smallest(preemption_bits: u32) -> [u8; 2] {
        let smallest = 7 - preemption_bits as u8;
        [smallest, smallest + 1]
    }

    /// Writes ICC_BPR0_EL1 or ICC_BPR1_EL1: a value that is too small sets the smallest.
    pub fn set_binary_point(&mut self, group: usize, value: u8) {
        self.binary_points[group] = value.max(Self::smallest(self.preemption_bits)[group]);
    }

    pub(super) fn reset(&mut self) {
        *self = Interface::new(self.preemption_bits);
    }

    /// Returns the bits of a priority that the binary point of the group leaves (section 4.8.2).
    fn mask_of(&self, group: usize) -> u8 {
        let subpriority =
            if group == 0 { self.binary_points[0] + 1 } else { self.binary_points[1] };
        (0xffu32 << subpriority) as u8
    }

    /// Returns whether an interrupt may be signalled: above the mask, and above what is running,
    /// as far as its group compares them (section 4.8.3).
    fn lets_through(&self, priority: u8, group: usize) -> bool {
        let mask = self.mask_of(group);
        let running = self.running.iter().map(|running| running.group_priority).min();
        priority < self.mask && running.is_none_or(|running| priority & mask < running & mask)
    }

    /// Returns whether the interface has acknowledged that interrupt and not dropped its priority.
    pub fn is_running(&self, id: u32) -> bool {
        self.running.iter().any(|running| running.id == id)
    }

    /// Returns what was acknowledged last and not dropped, and its group then.
    pub fn last_acknowledged(&self) -> Option<(u32, usize)> {
        self.running.last().map(|running| (running.id, running.group))
    }
}

impl Gic {
    /// Returns what may be signalled to a PE as far as the Distributor, the Redistributor and the
    /// group enables go.
    pub fn candidates(&self, pe: usize) -> Vec<u32> {
        let Some(Interface { enabled, .. }) = self.awake(pe) else { return Vec::new() };
        let is_candidate = |&id: &u32| {
            let interrupt = self.interrupt(pe, id);
            let group = interrupt.group;
            interrupt.is_pending()
                && !interrupt.active
                && interrupt.enabled
                && self.groups[group]
                && enabled[group]
                && (id < PRIVATE || self.legal_targets(id).contains(&pe))
        };
        (0..self.limit()).filter(is_candidate).collect()
    }

    /// Returns the CPU interface of a PE that interrupts are sent to: one that is on and not asleep
    /// (section 12.11, GICR_WAKER).
    fn awake(&self, pe: usize) -> Option<&Interface> {
        let pe = &self.pes[pe];
        (pe.on && !pe.asleep).then_some(&pe.interface)
    }

    /// Returns those of the highest priority.
    pub fn best(&self, pe: usize, candidates: &[u32]) -> Option<Vec<u32>> {
        let priority = |id: &u32| self.interrupt(pe, *id).priority;
        let highest = candidates.iter().map(priority).min()?;
        Some(candidates.iter().copied().filter(|id| priority(id) == highest).collect())
    }

    /// Returns what may be the highest priority pending interrupt of a PE, and `None` if there may
    /// be no such interrupt. Of several of one priority it is any. Of those that may go to several
    /// PEs (section 2.3.2), each may be with another PE.
    pub fn highest(&self, pe: usize) -> Vec<Option<u32>> {
        let (elsewhere, here): (Vec<_>, Vec<_>) =
            self.candidates(pe).into_iter().partition(|&id| self.may_go_elsewhere(id));
        let priority = |id: u32| self.interrupt(pe, id).priority;
        let Some(best) = self.best(pe, &here) else {
            return elsewhere.into_iter().map(Some).chain([None]).collect();
        };
        let before = elsewhere.into_iter().filter(|&id| priority(id) <= priority(best[0]));
        before.chain(best.iter().copied()).map(Some).collect()
    }

    /// Returns what an acknowledgement of the group may return now.
    pub fn signalled(&self, pe: usize, group: usize) -> Vec<u32> {
        self.highest(pe)
            .into_iter()
            .flatten()
            .filter(|&id| self.is_signalled(pe, group, id))
            .collect()
    }

    /// Returns whether an acknowledgement of the group may return 1023 now.
    pub fn may_be_spurious(&self, pe: usize, group: usize) -> bool {
        self.highest(pe).into_iter().any(|id| id.is_none_or(|id| !self.is_signalled(pe, group, id)))
    }

    fn is_signalled(&self, pe: usize, group: usize, id: u32) -> bool {
        let interrupt = self.interrupt(pe, id);
        interrupt.group == group && self.pes[pe].interface.lets_through(interrupt.priority, group)
    }

    /// Acknowledges an interrupt, which is active then. A level is pending while its line is high.
    pub fn acknowledge(&mut self, pe: usize, id: u32) {
        let interrupt = self.interrupt_mut(pe, id);
        (interrupt.latch, interrupt.active) = (false, true);
        let (priority, group) = (interrupt.priority, interrupt.group);
        let interface = &mut self.pes[pe].interface;
        let group_priority = priority & interface.mask_of(group);
        interface.running.push(Running { id, group, group_priority });
    }

    /// Ends the interrupt that a PE has acknowledged last: drops its priority, and with EOImode 0
    /// deactivates it.
    pub fn end(&mut self, pe: usize, id: u32) {
        let interface = &mut self.pes[pe].interface;
        assert_eq!(interface.running.pop().map(|running| running.id), Some(id));
        if !interface.drops_only {
            self.is_inactive(pe, id);
        }
    }

    /// Returns the PE that has acknowledged an interrupt and not dropped its priority.
    pub fn acknowledged_by(&self, pe: usize, id: u32) -> Option<usize> {
        if id < PRIVATE {
            return self.pes[pe].interface.is_running(id).then_some(pe);
        }
        self.pes.iter().position(|pe| pe.interface.is_running(id))
    }

    /// Returns what a PE may deactivate: with EOImode 1, what is active and running nowhere. Any PE
    /// may deactivate an SPI (section 4.1).
    pub fn dropped(&self, pe: usize) -> Vec<u32> {
        if !self.pes[pe].interface.drops_only {
            return Vec::new();
        }
        let is_dropped =
            |&id: &u32| self.interrupt(pe, id).active && self.acknowledged_by(pe, id).is_none();
        (0..self.limit()).filter(is_dropped).collect()
    }

    /// Deactivates an interrupt that was dropped, as a PE's write to ICC_DIR_EL1 does.
    pub fn deactivate(&mut self, pe: usize, id: u32) {
        assert!(self.dropped(pe).contains(&id), "{id} was not dropped");
        self.is_inactive(pe, id);
    }

    /// Returns whether no interrupt is active, nor any priority, for a PE.
    pub fn nothing_active(&self, pe: usize) -> bool {
        self.pes[pe].interface.running.is_empty()
            && (0..self.limit()).all(|id| !self.interrupt(pe, id).active)
    }

    fn is_inactive(&mut self, pe: usize, id: u32) {
        let interrupt = self.interrupt_mut(pe, id);
        if !std::mem::take(&mut interrupt.active) {
            // A write has made it inactive before.
            return;
        }
        let (edge, physical) = (interrupt.edge, interrupt.physical);
        let owner = if id < PRIVATE { pe } else { 0 };
        if !edge {
            self.ended.insert((owner, id));
        }
        if physical {
            *self.deactivated.entry((owner, id)).or_default() += 1;
        }
    }
}
