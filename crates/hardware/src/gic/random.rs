//! Guests that keep the rules, and a hypervisor that takes interrupts out of list registers and
//! puts them back, beside a second formulation: a stack of what is acknowledged, and sums and
//! comparisons of priorities in place of bits.

use proptest::prelude::*;

use super::VirtualInterface;
use super::spec::{Group, Implementation, IntId, ListRegister, Priority, State, ctlr, hcr, vmcr};

const LIST_REGISTERS: usize = 4;

#[derive(Clone, Debug)]
enum Act {
    /// The hypervisor writes a list register that is empty, or makes what is active there pending
    /// as well.
    Raise {
        lr: usize,
        interrupt: usize,
        priority: u8,
        group: Group,
    },
    /// The hypervisor empties a list register.
    Take {
        lr: usize,
    },
    Acknowledge(Group),
    /// The guest ends what it has acknowledged last.
    End,
    /// The guest deactivates something that it has ended.
    Deactivate {
        number: usize,
    },
    Mask(u8),
    Enable(Group, bool),
}

#[derive(Clone, Debug)]
struct Setup {
    implementation: Implementation,
    split: bool,
    common: bool,
    points: [u8; 2],
}

fn group() -> impl Strategy<Value = Group> {
    prop_oneof![Just(Group::Zero), Just(Group::One)]
}

fn setup() -> impl Strategy<Value = Setup> {
    let bits = (5u8..=8).prop_flat_map(|priority| (Just(priority), 5..=priority.min(7)));
    (bits, any::<bool>(), any::<bool>(), [0u8..8, 0u8..8]).prop_map(
        |((priority, preemption), split, common, points)| {
            let implementation = Implementation::new(LIST_REGISTERS as u8, priority, preemption)
                .expect("it is legal");
            Setup { implementation, split, common, points }
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let raise = (0..LIST_REGISTERS, 0..6usize, any::<u8>(), group());
    prop_oneof![
        6 => raise.prop_map(|(lr, interrupt, priority, group)| Act::Raise { lr, interrupt, priority, group }),
        1 => (0..LIST_REGISTERS).prop_map(|lr| Act::Take { lr }),
        4 => group().prop_map(Act::Acknowledge),
        4 => Just(Act::End),
        2 => any::<usize>().prop_map(|number| Act::Deactivate { number }),
        1 => prop_oneof![Just(0xff), any::<u8>()].prop_map(Act::Mask),
        1 => (group(), prop::bool::weighted(0.8)).prop_map(|(group, on)| Act::Enable(group, on)),
    ]
}

/// An interrupt in a list register of the second formulation.
#[derive(Clone, Copy)]
struct Held {
    intid: IntId,
    priority: u32,
    group: Group,
    pending: bool,
    active: bool,
}

struct Reference {
    setup: Setup,
    held: [Option<Held>; LIST_REGISTERS],
    /// Acknowledged and not ended: the INTID, the group, and the group priority.
    running: Vec<(IntId, Group, u32)>,
    /// Ended and not deactivated.
    ended: Vec<IntId>,
    mask: u32,
    enabled: [bool; 2],
    count: u64,
}

/// Returns the INTID of one of six interrupts, SPIs and LPIs.
fn intid(interrupt: usize) -> IntId {
    IntId::new([32, 33, 1019, 1024, 8192, 8193][interrupt]).expect("it is small")
}

impl Reference {
    /// Returns the priority in steps of its group: BPR0 leaves out one bit more than BPR1.
    fn group_priority(&self, priority: u32, group: Group) -> u32 {
        let own = group == Group::One && !self.setup.common;
        let smallest = 7 - u32::from(self.preemption()) + u32::from(own);
        let point = u32::from(self.setup.points[usize::from(own)]).max(smallest);
        let step = if own { 2u32.pow(point) } else { 2u32.pow(point + 1) };
        priority - priority % step
    }

    fn preemption(&self) -> u8 {
        // A register has 32 levels.
        5 + self.setup.implementation.active_priority_registers().ilog2() as u8
    }

    fn highest(&self) -> Option<usize> {
        let mut best: Option<(u32, usize)> = None;
        for (number, held) in self.held.iter().enumerate() {
            let Some(held) = held else { continue };
            let counts = held.pending
                && !held.active
                && held.priority != 0xff
                && self.enabled[held.group as usize];
            if counts && best.is_none_or(|(priority, _)| held.priority < priority) {
                best = Some((held.priority, number));
            }
        }
        best.map(|(_, number)| number)
    }

    fn signalled(&self) -> Option<usize> {
        let number = self.highest()?;
        let held = self.held[number]?;
        let free = self.running.iter().all(|&(.., priority)| {
            self.group_priority(held.priority, held.group)
                < self.group_priority(priority, held.group)
        });
        (held.priority < self.mask && free).then_some(number)
    }

    fn acknowledge(&mut self, group: Group) -> IntId {
        let Some(number) = self.signalled() else { return IntId::SPURIOUS };
        let held = self.held[number].expect("it is signalled");
        if held.group != group {
            return IntId::SPURIOUS;
        }
        self.held[number] = Some(Held { pending: false, active: true, ..held });
        self.running.push((held.intid, group, self.group_priority(held.priority, group)));
        held.intid
    }

    fn deactivate(&mut self, intid: IntId) {
        let active = self
            .held
            .iter_mut()
            .find(|held| held.is_some_and(|held| held.active && held.intid == intid));
        match active {
            Some(slot) => {
                *slot = slot.map(|held| Held { active: false, ..held }).filter(|held| held.pending)
            }
            None if intid.number() < 8192 => self.count = (self.count + 1) % 32,
            None => {}
        }
    }

    fn knows(&self, intid: IntId) -> bool {
        self.running.iter().any(|&(known, ..)| known == intid) || self.ended.contains(&intid)
    }
}

/// Does the act to both, if a guest or a hypervisor may do it now.
fn both(
    act: &Act,
    gic: &mut VirtualInterface,
    reference: &mut Reference,
) -> Result<(), TestCaseError> {
    match *act {
        Act::Raise { lr, interrupt, priority, group } => {
            let intid = intid(interrupt);
            if let Some(held) = reference.held[lr].as_mut().filter(|held| held.active) {
                held.pending = true;
                let word = gic.lr(lr).expect("there are four").in_state(State::PendingAndActive);
                gic.set_lr(lr, word).expect("there are four");
                return Ok(());
            }
            let elsewhere = reference.held.iter().flatten().any(|held| held.intid == intid);
            if reference.held[lr].is_some() || elsewhere || reference.knows(intid) {
                return Ok(());
            }
            let word = ListRegister::new(intid, Priority(priority), group);
            gic.set_lr(lr, word).expect("there are four");
            let priority = u32::from(priority & reference.setup.implementation.priority_mask());
            reference.held[lr] =
                Some(Held { intid, priority, group, pending: true, active: false });
        }
        Act::Take { lr } => {
            gic.set_lr(lr, ListRegister::EMPTY).expect("there are four");
            reference.held[lr] = None;
        }
        Act::Acknowledge(group) => {
            prop_assert_eq!(gic.read_iar(group), Ok(reference.acknowledge(group)));
        }
        Act::End => {
            let Some((intid, group, _)) = reference.running.pop() else { return Ok(()) };
            let _ = gic.write_eoir(group, intid).expect("it is not trapped");
            if reference.setup.split && !intid.is_lpi() {
                reference.ended.push(intid);
            } else {
                reference.deactivate(intid);
            }
        }
        Act::Deactivate { number } => {
            if reference.ended.is_empty() {
                return Ok(());
            }
            let intid = reference.ended.remove(number % reference.ended.len());
            let _ = gic.write_dir(intid).expect("it is not trapped");
            reference.deactivate(intid);
        }
        Act::Mask(priority) => {
            gic.write_pmr(Priority(priority)).expect("it is not trapped");
            reference.mask = u32::from(priority & reference.setup.implementation.priority_mask());
        }
        Act::Enable(group, on) => {
            gic.write_igrpen(group, on).expect("it is not trapped");
            reference.enabled[group as usize] = on;
        }
    }
    Ok(())
}

fn agree(gic: &VirtualInterface, reference: &Reference) -> Result<(), TestCaseError> {
    let running = reference.running.last().map_or(0xff, |&(.., priority)| priority);
    prop_assert_eq!(gic.read_rpr().map(|priority| u32::from(priority.0)), Ok(running));
    for group in [Group::Zero, Group::One] {
        let highest = reference.highest().and_then(|number| reference.held[number]);
        let seen =
            highest.filter(|held| held.group == group).map_or(IntId::SPURIOUS, |held| held.intid);
        prop_assert_eq!(gic.read_hppir(group), Ok(seen));
    }
    let signalled = reference.signalled().and_then(|number| reference.held[number]);
    prop_assert_eq!(gic.signals(), signalled.map(|held| held.group));
    prop_assert_eq!(hcr::EOICOUNT.get(gic.hcr()), reference.count);
    for (number, held) in reference.held.iter().enumerate() {
        let state = match held.map(|held| (held.pending, held.active)) {
            None | Some((false, false)) => State::Inactive,
            Some((true, false)) => State::Pending,
            Some((false, true)) => State::Active,
            Some((true, true)) => State::PendingAndActive,
        };
        prop_assert_eq!(gic.lr(number).map(ListRegister::state), Ok(state));
    }
    let empty = (0..LIST_REGISTERS)
        .filter(|&number| reference.held[number].is_none())
        .map(|number| 1 << number)
        .sum();
    prop_assert_eq!(gic.elrsr(), empty);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_guest_that_keeps_the_rules_sees_what_a_stack_of_its_interrupts_says(
        setup in setup(),
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let mut gic = VirtualInterface::new(setup.implementation);
        gic.set_hcr(hcr::EN.mask());
        gic.set_vmcr(vmcr::VENG0.mask() | vmcr::VENG1.mask() | vmcr::VPMR.mask());
        gic.write_bpr(Group::Zero, setup.points[0]).expect("it is not trapped");
        gic.write_bpr(Group::One, setup.points[1]).expect("it is not trapped");
        let word = ctlr::EOIMODE.put(ctlr::CBPR.put(0, setup.common.into()), setup.split.into());
        gic.write_ctlr(word).expect("it is not trapped");
        let mask = u32::from(setup.implementation.priority_mask());
        let mut reference = Reference {
            setup,
            held: [None; LIST_REGISTERS],
            running: Vec::new(),
            ended: Vec::new(),
            mask,
            enabled: [true; 2],
            count: 0,
        };
        for act in &acts {
            both(act, &mut gic, &mut reference)?;
            agree(&gic, &reference)?;
        }
    }
}
