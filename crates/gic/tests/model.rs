//! Guests and hosts that do what they like, compared with a plain model of the architecture.

mod architecture;
mod random;
mod registers;

use std::collections::BTreeSet;

use doorbell_gic::icv;
use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    ApList, Ended, Group, IntId, Interrupt, Interrupts, PhysicalIntId, Priority, Trigger, VcpuId,
};
use doorbell_hardware::gic::spec as hw;
use doorbell_hardware::gic::{Physical, VirtualInterface};
use doorbell_platform::Std;

use architecture::{Frame, Gic};
use random::Random;
use registers::Registers;

const VCPU: VcpuId = VcpuId::new(0).unwrap();

/// INTIDs that the sequences use, to END: 8 SGIs, 16 PPIs and 16 SPIs, half of them levels.
const FIRST: u32 = 8;
const END: u32 = 48;
/// The first of these that a physical one backs, of 500 more, as those after it.
const BACKED: u32 = 44;
/// The PE.
const PE: usize = 0;

struct Table(Vec<Interrupt<Std>>);

impl Interrupts<Std> for Table {
    fn interrupt(&self, id: IntId) -> &Interrupt<Std> {
        &self.0[id.number() as usize]
    }
}

fn hardware(group: Group) -> hw::Group {
    [hw::Group::Zero, hw::Group::One][group as usize]
}

fn id(number: u32) -> IntId {
    IntId::new(number).expect("it is small")
}

/// How soon a maintenance interrupt is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Maintenance {
    AtOnce,
    Late,
}

struct Machine {
    table: Table,
    list: ApList,
    registers: Registers,
    reference: Gic,
    maintenance: Maintenance,
    /// Ends that were told to sources, and those that are due.
    told: BTreeSet<u32>,
    /// How often each physical interrupt was deactivated.
    deactivated: Vec<u32>,
    exits: u32,
}

impl Machine {
    fn new(random: &mut Random, lrs: u8, drops_only: bool, maintenance: Maintenance) -> Self {
        let (priority_bits, preemption_bits) =
            [(5, 5), (6, 5), (7, 6), (8, 7)][random.below(4) as usize];
        let implementation =
            hw::Implementation::new(lrs, priority_bits, preemption_bits).expect("it is legal");
        let implementation =
            if random.one_in(2) { implementation } else { implementation.without_tds() };
        let mut registers = Registers(VirtualInterface::new(implementation));
        registers.0.set_vmcr(0xff << 24 | 0b11 | u64::from(drops_only) << 9);
        let mut reference = Gic::new(&[0], 32, priority_bits.into(), preemption_bits.into());
        reference.write(Frame::Distributor, 0, 4, 0b11);
        reference.write(Frame::RdBase(PE), 0x14, 4, 0);
        let (mask, interface) = (reference.priority_mask(), &mut reference.pes[PE].interface);
        (interface.mask, interface.enabled, interface.drops_only) = (mask, [true; 2], drops_only);
        let few = random.one_in(2);
        let table = Table(
            (0..END).map(|number| Self::configured(number, few, random, &mut reference)).collect(),
        );
        let list = ApList::new(Vtr::from_bits(implementation.vtr()), VCPU);
        let (told, deactivated) = (BTreeSet::new(), vec![0; END as usize]);
        Machine { table, list, registers, reference, maintenance, told, deactivated, exits: 0 }
    }

    /// Returns an interrupt of its own priority, group and trigger, enabled, here and there.
    fn configured(
        number: u32,
        few: bool,
        random: &mut Random,
        reference: &mut Gic,
    ) -> Interrupt<Std> {
        let edge = number < 16 || number.is_multiple_of(3) || number >= BACKED;
        let interrupt = Interrupt::new(if edge { Trigger::Edge } else { Trigger::Level }, VCPU);
        let priority = (random.below(if few { 4 } else { 32 }) << 3) as u8;
        let group = if random.one_in(4) { Group::Zero } else { Group::One };
        let physical =
            (number >= BACKED).then(|| PhysicalIntId::new(500 + number).expect("it is small"));
        interrupt.configure(Priority(priority), group, physical);
        interrupt.set_enabled(true);
        let same = reference.interrupt_mut(PE, number);
        (same.edge, same.priority, same.group) = (edge, priority, group as usize);
        (same.physical, same.enabled) = (physical.is_some(), true);
        interrupt
    }

    /// Leaves the guest, does what the host does, and enters it again.
    fn exits(&mut self, host: impl FnOnce(&mut Self)) {
        self.exits += 1;
        self.list.fold(&self.table, &mut self.registers);
        let (told, deactivated) = (&mut self.told, &mut self.deactivated);
        self.list.take_ended(&self.table, |ended| match ended {
            Ended::Level(id) => _ = told.insert(id.number()),
            Ended::Physical(id) => deactivated[id.number() as usize - 500] += 1,
        });
        self.compare();
        self.asks();
        host(self);
        self.asks();
        self.list.flush(&self.table, &mut self.registers, [true; 2]);
        self.check_entry();
    }

    /// What the words say is what the architecture says, when the vCPU is out of the guest.
    fn compare(&mut self) {
        for number in 0..END {
            let state = self.table.interrupt(id(number)).state();
            let expected = self.reference.state(PE, number);
            assert_eq!(
                (state.is_pending(), state.is_active()),
                expected,
                "pending and active, of {number}"
            );
        }
        // Every end of a level is told, though several may be told at once.
        let ended = std::mem::take(&mut self.reference.ended);
        assert_eq!(
            std::mem::take(&mut self.told),
            ended.iter().map(|&(_, number)| number).collect(),
            "told of the ends"
        );
        let deactivated =
            |number| self.reference.deactivated.get(&(PE, number)).copied().unwrap_or(0);
        assert_eq!(
            self.deactivated,
            (0..END).map(deactivated).collect::<Vec<_>>(),
            "deactivated physically"
        );
    }

    /// Asks what would be signalled, out of the guest.
    fn asks(&mut self) {
        let expected = [0, 1].iter().any(|&group| !self.reference.signalled(PE, group).is_empty());
        let signals = self.list.signals(&self.table, &self.registers, [true; 2]);
        assert_eq!(signals, expected, "{:?}", self.reference);
    }

    fn vtr(&self) -> Vtr {
        Vtr::from_bits(self.registers.0.implementation().vtr())
    }

    fn looks(&mut self, number: u32) {
        let vmcr = self.registers.0.vmcr();
        self.list.look(&self.table, id(number), vmcr);
    }

    /// What has to hold at each entry.
    fn check_entry(&self) {
        let interface = &self.registers.0;
        interface.check().expect("a guest may be entered with it");
        assert_eq!(interface.misr(), 0, "a condition is asserted that the entry does not clear");
        let pending: Vec<_> = (interface.implemented_lrs().iter())
            .filter(|lr| lr.state() == hw::State::Pending)
            .map(|lr| lr.intid().number())
            .collect();
        let candidates = self.reference.candidates(PE);
        let outside = candidates.iter().filter(|number| !pending.contains(number)).count();
        if let Some(best) = self.reference.best(PE, &candidates) {
            assert!(
                pending.iter().any(|number| best.contains(number)),
                "{pending:?} has none of {best:?}"
            );
        }
        let armed = |field: hw::Field| field.is_set(interface.hcr());
        assert_eq!(armed(hw::hcr::NPIE), outside > 0, "NPIE, with {outside} outside");
        let inside = |number: &u32| {
            interface
                .implemented_lrs()
                .iter()
                .any(|lr| lr.state().is_active() && lr.intid().number() == *number)
        };
        let active: Vec<_> = (0..END)
            .filter(|&number| self.reference.state(PE, number).1 && !inside(&number))
            .collect();
        let interface = &self.reference.pes[PE].interface;
        let drops_only = interface.drops_only;
        // Somebody waits for the end and would not hear of it later: the source, the physical
        // distributor, or the guest, for which the interrupt is pending again.
        let seen = active.iter().any(|&number| {
            let interrupt = self.reference.interrupt(PE, number);
            interface.is_running(number)
                && (!interrupt.edge || interrupt.physical || interrupt.latch)
        });
        assert_eq!(
            armed(hw::hcr::LRENPIE),
            !drops_only && seen,
            "LRENPIE, with {active:?} outside"
        );
        // What DIR deactivates is in no list register that the CPU knows to be right.
        let apart = self.vtr().traps_dir();
        assert_eq!(
            (armed(hw::hcr::TDIR), armed(hw::hcr::TC)),
            (apart, !apart && drops_only),
            "TDIR and TC"
        );
    }

    /// Takes the maintenance interrupt, if there is one.
    fn maintains(&mut self, random: &mut Random) {
        while self.registers.0.maintenance()
            && (self.maintenance == Maintenance::AtOnce || random.one_in(4))
        {
            self.exits(|_| ());
        }
    }

    fn guest(&mut self, random: &mut Random) {
        let group = if random.one_in(3) { Group::Zero } else { Group::One };
        match random.below(16) {
            0..=6 => self.acknowledges(group),
            7..=11 => self.ends(),
            12 => self.deactivates(random),
            13 => {
                let mask = if random.one_in(3) { (random.below(32) << 3) as u8 } else { 0xff };
                if self.registers.0.write_pmr(hw::Priority(mask)).is_err() {
                    self.exits(|this| {
                        let vtr = this.vtr();
                        icv::write_pmr(&mut this.registers, vtr, mask.into());
                        this.reference.pes[PE].interface.mask = this.masks(mask);
                    });
                }
                self.reference.pes[PE].interface.mask = self.masks(mask);
            }
            14 => {
                let on = !random.one_in(3);
                self.registers.0.write_igrpen(hardware(group), on).expect("it is not trapped");
                self.reference.pes[PE].interface.enabled[group as usize] = on;
            }
            _ => {
                let point = random.below(8) as u8;
                if self.reference.nothing_active(PE) {
                    self.registers.0.write_bpr(hardware(group), point).expect("it is not trapped");
                    let point =
                        self.registers.0.read_bpr(hardware(group)).expect("it is not trapped");
                    self.reference.pes[PE].interface.set_binary_point(group as usize, point);
                }
            }
        }
    }

    /// What is implemented of a priority mask.
    fn masks(&self, mask: u8) -> u8 {
        mask & self.registers.0.implementation().priority_mask()
    }

    fn acknowledges(&mut self, group: Group) {
        let got = self.registers.0.read_iar(hardware(group)).expect("it is not trapped").number();
        let legal = self.reference.signalled(PE, group as usize);
        match self.maintenance {
            Maintenance::AtOnce if got == 1023 => {
                // Another one of the same priority may be the one that the interface has picked,
                // and of the other group, or of a lower group priority.
                let legal_too = self.reference.may_be_spurious(PE, group as usize);
                assert!(legal_too, "1023, and not one of {legal:?}: {:x?}", self.registers.0);
            }
            Maintenance::AtOnce => assert!(
                legal.contains(&got),
                "{got}, and not one of {legal:?}: {:?} {:x?}",
                self.reference,
                self.registers.0
            ),
            // What waits outside comes later; what is inside may be acknowledged all the same.
            Maintenance::Late if got == 1023 => return,
            Maintenance::Late => {
                assert!(self.reference.candidates(PE).contains(&got), "{got} is no candidate")
            }
        }
        if got != 1023 {
            self.reference.acknowledge(PE, got);
        }
    }

    fn ends(&mut self) {
        let Some((number, group)) = self.reference.pes[PE].interface.last_acknowledged() else {
            return;
        };
        let intid = hw::IntId::new(number).expect("it is small");
        let physical = self.registers.0.write_eoir([hw::Group::Zero, hw::Group::One][group], intid);
        self.deactivated_by_hardware(physical.expect("it is not trapped"));
        self.reference.end(PE, number);
    }

    fn deactivates(&mut self, random: &mut Random) {
        let dropped = self.reference.dropped(PE);
        if dropped.is_empty() {
            return;
        }
        let number = dropped[random.below(dropped.len() as u32) as usize];
        let intid = hw::IntId::new(number).expect("it is small");
        match self.registers.0.write_dir(intid) {
            Ok(physical) => {
                self.deactivated_by_hardware(physical);
                self.reference.deactivate(PE, number);
            }
            Err(_) => self.exits(|this| {
                let written = icv::write_dir(&this.registers, this.vtr(), number.into());
                assert_eq!(written, Some(id(number)));
                let vmcr = this.registers.0.vmcr();
                assert!(this.list.deactivate(&this.table, id(number), vmcr), "it is active here");
                this.reference.deactivate(PE, number);
                let (told, deactivated) = (&mut this.told, &mut this.deactivated);
                this.list.take_ended(&this.table, |ended| match ended {
                    Ended::Level(id) => _ = told.insert(id.number()),
                    Ended::Physical(id) => deactivated[id.number() as usize - 500] += 1,
                });
            }),
        }
    }

    fn deactivated_by_hardware(&mut self, physical: Physical) {
        if let Physical::Deactivated(id) = physical {
            self.deactivated[id.number() as usize - 500] += 1;
        }
    }

    /// The host changes an interrupt, and the vCPU looks at it.
    fn host(&mut self, random: &mut Random) {
        let number = FIRST + random.below(END - FIRST);
        let what = random.below(8);
        self.exits(|this| {
            let interrupt = this.table.interrupt(id(number));
            match what {
                0..=5 if this.reference.interrupt(PE, number).edge => {
                    interrupt.latch();
                    this.reference.latch(PE, number);
                }
                0..=5 => {
                    let high = what < 4;
                    interrupt.set_level(number % 32, high);
                    this.reference.set_line(PE, number, high);
                }
                6 => {
                    let same = this.reference.interrupt_mut(PE, number);
                    same.enabled = !same.enabled;
                    interrupt.set_enabled(same.enabled);
                }
                _ => {
                    // What the guest has acknowledged stays active.
                    let running = this.reference.pes[PE].interface.is_running(number);
                    let same = this.reference.interrupt_mut(PE, number);
                    same.active = running || !same.active;
                    interrupt.set_active(same.active);
                }
            }
            this.looks(number);
        });
    }
}

fn sequence(seed: u64, operations: u32) -> u32 {
    let mut random = Random::new(seed);
    let lrs = 1 + random.below(if seed.is_multiple_of(2) { 4 } else { 16 }) as u8;
    let maintenance = if random.one_in(3) { Maintenance::Late } else { Maintenance::AtOnce };
    let drops_only = random.one_in(2);
    let mut machine = Machine::new(&mut random, lrs, drops_only, maintenance);
    machine.exits(|_| ());
    for _ in 0..operations {
        if random.one_in(3) {
            machine.host(&mut random)
        } else {
            machine.guest(&mut random)
        }
        machine.maintains(&mut random);
    }
    machine.exits(|_| ());
    machine.exits
}

#[test]
fn a_guest_gets_and_ends_what_the_architecture_says_whatever_the_number_of_list_registers() {
    let sequences = std::env::var("DOORBELL_SEQUENCES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000);
    let mut exits = 0u64;
    for seed in 0..sequences {
        let run = std::panic::catch_unwind(|| sequence(seed, 64));
        match run {
            Ok(some) => exits += u64::from(some),
            Err(panic) => {
                eprintln!("in sequence {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{sequences} sequences, {exits} exits");
}
