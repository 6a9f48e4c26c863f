//! A plain model of a PE's interrupts, as if there were a list register for each: slow, and to be
//! read beside the manual (Arm IHI 0069H, chapter 4). Guests end what they have acknowledged last,
//! and deactivate what they have dropped: all else is UNPREDICTABLE.

use std::collections::BTreeSet;

#[derive(Clone, Default, Debug)]
struct Interrupt {
    edge: bool,
    priority: u8,
    group: usize,
    physical: bool,
    enabled: bool,
    /// An edge that was not acknowledged.
    latch: bool,
    line: bool,
    active: bool,
}

impl Interrupt {
    fn is_pending(&self) -> bool {
        self.latch || !self.edge && self.line
    }
}

/// The interrupts of a PE, and its CPU interface.
#[derive(Debug)]
pub struct Reference {
    interrupts: Vec<Interrupt>,
    priority_bits: u32,
    preemption_bits: u32,
    drops_only: bool,
    pub mask: u8,
    pub enabled: [bool; 2],
    pub binary_points: [u8; 2],
    /// What was acknowledged and not dropped: the last is the one of the highest priority.
    running: Vec<u32>,
    /// What is active all the same: dropped, or made active by a write.
    dropped: Vec<u32>,
    /// Levels that have ended.
    pub ended: BTreeSet<u32>,
    pub deactivated: Vec<u32>,
}

impl Reference {
    pub fn new(priority_bits: u8, preemption_bits: u8, drops_only: bool) -> Self {
        let smallest = 7 - preemption_bits;
        Reference {
            interrupts: Vec::new(),
            priority_bits: priority_bits.into(),
            preemption_bits: preemption_bits.into(),
            drops_only,
            mask: 0xff << (8 - priority_bits),
            enabled: [true; 2],
            binary_points: [smallest, smallest + 1],
            running: Vec::new(),
            dropped: Vec::new(),
            ended: BTreeSet::new(),
            deactivated: Vec::new(),
        }
    }

    /// Adds an interrupt, which is enabled.
    pub fn add(&mut self, edge: bool, priority: u8, group: usize, physical: bool) {
        let priority = priority & (0xff << (8 - self.priority_bits)) as u8;
        self.interrupts.push(Interrupt { edge, priority, group, physical, enabled: true, ..Interrupt::default() });
        self.deactivated.push(0);
    }

    /// Whether it is pending, and whether it is active.
    pub fn state(&self, number: u32) -> (bool, bool) {
        let interrupt = &self.interrupts[number as usize];
        (interrupt.is_pending(), interrupt.active)
    }

    pub fn is_edge(&self, number: u32) -> bool {
        self.interrupts[number as usize].edge
    }

    pub fn latch(&mut self, number: u32) {
        self.interrupts[number as usize].latch = true;
    }

    pub fn set_line(&mut self, number: u32, high: bool) {
        let interrupt = &mut self.interrupts[number as usize];
        interrupt.latch |= interrupt.edge && high && !interrupt.line;
        interrupt.line = high;
    }

    pub fn set_enabled(&mut self, number: u32, enabled: bool) {
        self.interrupts[number as usize].enabled = enabled;
    }

    pub fn is_enabled(&self, number: u32) -> bool {
        self.interrupts[number as usize].enabled
    }

    pub fn drops_only(&self) -> bool {
        self.drops_only
    }

    /// Whether somebody waits for its end, who would not hear of it later: its source, the physical
    /// distributor, or the guest, for which it is pending again.
    pub fn is_seen_at_its_end(&self, number: u32) -> bool {
        let interrupt = &self.interrupts[number as usize];
        self.running.contains(&number) && (!interrupt.edge || interrupt.physical || interrupt.latch)
    }

    /// Makes it active or inactive, as a write does, unless the guest has acknowledged it. Returns
    /// which.
    pub fn write_active(&mut self, number: u32) -> bool {
        let interrupt = &mut self.interrupts[number as usize];
        if self.running.contains(&number) {
            return true;
        }
        interrupt.active = !interrupt.active;
        self.dropped.retain(|&dropped| dropped != number);
        if interrupt.active {
            self.dropped.push(number);
        }
        interrupt.active
    }

    pub fn nothing_active(&self) -> bool {
        self.running.is_empty() && self.dropped.is_empty()
    }

    /// What may be signalled as far as the distributor and the group enables go.
    pub fn candidates(&self) -> Vec<u32> {
        let all = self.interrupts.iter().enumerate();
        all.filter(|(_, i)| i.is_pending() && !i.active && i.enabled && self.enabled[i.group])
            .map(|(number, _)| number as u32)
            .collect()
    }

    /// Those of the highest priority: any of them is a legal pick.
    pub fn best(&self, candidates: &[u32]) -> Option<Vec<u32>> {
        let priority = |number: &u32| self.interrupts[*number as usize].priority;
        let highest = candidates.iter().map(priority).min()?;
        Some(candidates.iter().copied().filter(|number| priority(number) == highest).collect())
    }

    /// What an acknowledgement of the group may return now.
    pub fn signalled(&self, group: usize) -> Vec<u32> {
        let best = self.best(&self.candidates()).unwrap_or_default();
        let of = |number: &u32| &self.interrupts[*number as usize];
        let running = self.running.iter().map(|number| self.group_priority(*number)).min();
        (best.into_iter())
            .filter(|number| of(number).group == group && of(number).priority < self.mask)
            .filter(|number| running.is_none_or(|running| self.group_priority(*number) < self.masked(*number, running)))
            .collect()
    }

    /// Section 4.8.2: the bits of the priority that the binary point of the group leaves.
    fn mask_of(&self, group: usize) -> u8 {
        let subpriority = if group == 0 { self.binary_points[0] + 1 } else { self.binary_points[1] };
        (0xffu32 << subpriority) as u8 & (0xff << (8 - self.preemption_bits)) as u8
    }

    fn group_priority(&self, number: u32) -> u8 {
        let interrupt = &self.interrupts[number as usize];
        interrupt.priority & self.mask_of(interrupt.group)
    }

    /// A running priority as an interrupt of that group compares with it.
    fn masked(&self, number: u32, running: u8) -> u8 {
        running & self.mask_of(self.interrupts[number as usize].group)
    }

    pub fn acknowledge(&mut self, number: u32) {
        let interrupt = &mut self.interrupts[number as usize];
        (interrupt.latch, interrupt.active) = (false, true);
        self.running.push(number);
    }

    /// What was acknowledged last and not dropped, and its group.
    pub fn last_acknowledged(&self) -> Option<(u32, usize)> {
        self.running.last().map(|&number| (number, self.interrupts[number as usize].group))
    }

    pub fn end(&mut self, number: u32) {
        assert_eq!(self.running.pop(), Some(number));
        if self.drops_only {
            self.dropped.push(number);
        } else {
            self.is_inactive(number);
        }
    }

    /// What the guest may deactivate.
    pub fn dropped(&self) -> &[u32] {
        if self.drops_only { &self.dropped } else { &[] }
    }

    pub fn deactivate(&mut self, number: u32) {
        self.dropped.retain(|&dropped| dropped != number);
        self.is_inactive(number);
    }

    fn is_inactive(&mut self, number: u32) {
        let interrupt = &mut self.interrupts[number as usize];
        interrupt.active = false;
        if !interrupt.edge {
            self.ended.insert(number);
        }
        self.deactivated[number as usize] += u32::from(interrupt.physical);
    }
}
