//! Whether a vCPU that is not entered has something to wake up for: the same that its CPU would
//! signal, if it were.

mod random;
mod registers;

use doorbell_gic::spec::Vtr;
use doorbell_gic::{ApList, Group, IntId, Interrupt, Interrupts, Priority, Trigger, VcpuId};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::Std;

use random::Random;
use registers::Registers;

const VCPU: VcpuId = VcpuId::new(0).unwrap();

struct Table(Vec<Interrupt<Std>>);

impl Interrupts<Std> for Table {
    fn interrupt(&self, id: IntId) -> &Interrupt<Std> {
        &self.0[id.number() as usize]
    }
}

/// A vCPU, and edges.
struct Vcpu {
    table: Table,
    list: ApList,
    registers: Registers,
    /// Those that the distributor has enabled.
    groups: [bool; 2],
}

fn id(number: u32) -> IntId {
    IntId::new(number).expect("it is small")
}

fn hardware(group: Group) -> hw::Group {
    [hw::Group::Zero, hw::Group::One][group as usize]
}

impl Vcpu {
    fn new(implementation: hw::Implementation, interrupts: &[(u8, Group)]) -> Self {
        let mut registers = Registers(VirtualInterface::new(implementation));
        registers.0.set_vmcr(0xff << 24 | 0b11);
        let table = Table(interrupts.iter().map(|_| Interrupt::new(Trigger::Edge, VCPU)).collect());
        for (interrupt, &(priority, group)) in table.0.iter().zip(interrupts) {
            interrupt.configure(Priority(priority), group, None);
            interrupt.set_enabled(true);
        }
        let list = ApList::new(Vtr::from_bits(implementation.vtr()), VCPU);
        Vcpu { table, list, registers, groups: [true; 2] }
    }

    /// One with five bits of priority and two list registers.
    fn small(interrupts: &[(u8, Group)]) -> Self {
        Vcpu::new(hw::Implementation::new(2, 5, 5).expect("it is legal"), interrupts)
    }

    fn looks(&mut self, number: u32) {
        let vmcr = self.registers.0.vmcr();
        self.list.look(&self.table, id(number), vmcr);
    }

    fn inject(&mut self, number: u32) {
        self.table.interrupt(id(number)).latch();
        self.looks(number);
    }

    fn signals(&mut self) -> bool {
        self.list.signals(&self.table, &self.registers, self.groups)
    }

    /// What there is to choose from: the groups of the highest priority that may be signalled.
    /// Which one gets a list register, if there is one alone, and which one the CPU takes, is open.
    fn groups_of_the_highest(&self) -> [bool; 2] {
        let vmcr = self.registers.0.vmcr();
        let enabled = |group: Group| self.groups[group as usize] && vmcr >> group as u32 & 1 != 0;
        let implemented = self.registers.0.implementation().priority_mask();
        let states = || self.table.0.iter().map(Interrupt::state);
        let candidates = || states().filter(|state| state.is_candidate() && enabled(state.group()));
        let highest = candidates().map(|state| state.priority().0 & implemented).min();
        [ZERO, ONE].map(|group| {
            candidates().any(|state| {
                Some(state.priority().0 & implemented) == highest && state.group() == group
            })
        })
    }

    fn enter(&mut self) {
        self.list.flush(&self.table, &mut self.registers, self.groups);
    }

    fn leave(&mut self) {
        self.list.fold(&self.table, &mut self.registers);
        self.list.take_ended(&self.table, |ended| {
            unreachable!("nobody waits for the end of an edge: {ended:?}")
        });
    }

    /// Enters the guest, which acknowledges an interrupt of the group.
    fn acknowledges(&mut self, group: Group) -> u32 {
        self.enter();
        let got = self.registers.0.read_iar(hardware(group)).expect("it is not trapped").number();
        self.leave();
        got
    }

    fn sets_mask(&mut self, mask: u8) {
        self.registers.0.write_pmr(hw::Priority(mask)).expect("it is not trapped");
    }
}

const ONE: Group = Group::One;
const ZERO: Group = Group::Zero;

#[test]
fn a_vcpu_wakes_for_what_is_pending_and_not_once_it_is_taken() {
    let mut vcpu = Vcpu::small(&[(0x80, ONE)]);
    assert!(!vcpu.signals());
    vcpu.inject(0);
    assert!(vcpu.signals());
    assert!(vcpu.signals(), "asking takes nothing away");
    assert_eq!(vcpu.acknowledges(ONE), 0);
    assert!(!vcpu.signals());
}

#[test]
fn a_vcpu_sleeps_on_when_what_was_pending_is_taken_back_or_disabled() {
    let mut vcpu = Vcpu::small(&[(0x80, ONE); 4]);
    for number in 0..4 {
        vcpu.inject(number);
    }
    for number in 0..4 {
        assert!(vcpu.signals(), "{number} is left");
        let interrupt = vcpu.table.interrupt(id(number));
        let _ = if number % 2 == 0 { interrupt.unlatch() } else { interrupt.set_enabled(false) };
    }
    assert!(!vcpu.signals());
}

#[test]
fn a_group_that_the_distributor_or_the_guest_has_disabled_wakes_nobody() {
    for group in [ZERO, ONE] {
        let mut vcpu = Vcpu::small(&[(0x80, group); 4]);
        (0..4).for_each(|number| vcpu.inject(number));
        vcpu.groups[group as usize] = false;
        assert!(!vcpu.signals(), "in the distributor");
        vcpu.groups[group as usize] = true;
        vcpu.registers.0.write_igrpen(hardware(group), false).expect("it is not trapped");
        assert!(!vcpu.signals(), "by the guest");
        vcpu.registers.0.write_igrpen(hardware(group), true).expect("it is not trapped");
        assert!(vcpu.signals());
    }
}

#[test]
fn an_interrupt_of_a_disabled_group_hides_none_of_a_lower_priority() {
    for count in [1, 2, 4] {
        let interrupts: Vec<_> =
            (0..2 * count).map(|n| if n < count { (0x40, ZERO) } else { (0x80, ONE) }).collect();
        let mut vcpu = Vcpu::small(&interrupts);
        (0..2 * count).for_each(|number| vcpu.inject(number));
        vcpu.sets_mask(0x60);
        assert!(vcpu.signals(), "of group 0");
        vcpu.groups[0] = false;
        assert!(!vcpu.signals(), "masked");
        vcpu.sets_mask(0x88);
        assert!(vcpu.signals(), "of group 1");
    }
}

#[test]
fn the_mask_lets_only_higher_priorities_through_by_the_bits_that_are_implemented() {
    // Five bits: 0x87 is 0x80.
    for (priority, mask, woken) in [
        (0x80, 0x80, false),
        (0x80, 0x88, true),
        (0x87, 0x80, false),
        (0x87, 0x88, true),
        (0xff, 0xff, false),
    ] {
        let mut vcpu = Vcpu::small(&[(priority, ONE)]);
        vcpu.inject(0);
        vcpu.sets_mask(mask);
        assert_eq!(vcpu.signals(), woken, "{priority:#x} through {mask:#x}");
    }
}

#[test]
fn a_vcpu_that_waits_in_a_handler_wakes_for_what_preempts_it() {
    // The binary point that leaves two bits of group priority.
    for (priority, woken) in [(0x80, false), (0x88, false), (0x40, true), (0x78, true)] {
        let mut vcpu = Vcpu::small(&[(0xa0, ONE), (priority, ONE)]);
        vcpu.registers.0.write_bpr(hw::Group::One, 6).expect("it is not trapped");
        vcpu.inject(0);
        assert_eq!(vcpu.acknowledges(ONE), 0);
        vcpu.inject(1);
        assert_eq!(vcpu.signals(), woken, "{priority:#x} while 0xa0 runs");
    }
}

#[test]
fn each_of_two_groups_is_asked_by_its_own_binary_point() {
    // Of the same priority; group 0 has no bit of group priority.
    for first in [ZERO, ONE] {
        let other = if first == ZERO { ONE } else { ZERO };
        let mut vcpu = Vcpu::small(&[(0x80, ONE), (0x40, first), (0x40, other)]);
        vcpu.registers.0.write_bpr(hw::Group::Zero, 7).expect("it is not trapped");
        vcpu.inject(0);
        assert_eq!(vcpu.acknowledges(ONE), 0);
        (1..3).for_each(|number| vcpu.inject(number));
        assert!(vcpu.signals());
        let one = if first == ONE { 1 } else { 2 };
        vcpu.table.interrupt(id(one)).set_enabled(false);
        assert!(!vcpu.signals(), "group 0 alone");
        vcpu.registers.0.write_bpr(hw::Group::Zero, 5).expect("it is not trapped");
        assert!(vcpu.signals());
    }
}

#[test]
fn what_was_made_inactive_wakes_a_vcpu_with_the_news_of_that_as_it_is_entered_then() {
    for others in [0, 4] {
        let mut vcpu = Vcpu::small(&[(0x80, ONE); 5]);
        (1..=others).for_each(|number| vcpu.inject(number));
        vcpu.inject(0);
        (1..=others).for_each(|number| _ = vcpu.table.interrupt(id(number)).unlatch());
        vcpu.table.interrupt(id(0)).set_active(true);
        vcpu.looks(0);
        assert!(!vcpu.signals());
        vcpu.table.interrupt(id(0)).set_active(false);
        assert!(!vcpu.signals(), "the news is on its way");
        vcpu.looks(0);
        assert!(vcpu.signals());
        assert_eq!(vcpu.acknowledges(ONE), 0);
    }
}

fn sequence(seed: u64) {
    const COUNT: u32 = 24;
    let mut random = Random::new(seed);
    let (priority_bits, preemption_bits) =
        [(5, 5), (6, 5), (7, 6), (8, 7)][random.below(4) as usize];
    let lrs = 1 + random.below(if seed.is_multiple_of(2) { 4 } else { 16 }) as u8;
    let implementation =
        hw::Implementation::new(lrs, priority_bits, preemption_bits).expect("it is legal");
    let few = random.one_in(2);
    let interrupts: Vec<_> = (0..COUNT)
        .map(|_| {
            let priority =
                if few { random.below(8) << 5 | random.below(2) } else { random.below(256) };
            (priority as u8, if random.one_in(3) { ZERO } else { ONE })
        })
        .collect();
    let mut vcpu = Vcpu::new(implementation, &interrupts);
    vcpu.registers.0.set_vmcr(random.bits() | 0xff << 24 | 0b11);
    let drops_only = hw::vmcr::VEOIM.is_set(vcpu.registers.0.vmcr());
    let mut running = Vec::new();
    for _ in 0..64 {
        let number = random.below(COUNT);
        let interrupt = vcpu.table.interrupt(id(number));
        match random.below(8) {
            0..=3 => _ = interrupt.latch(),
            4 => _ = interrupt.unlatch(),
            5 => _ = interrupt.set_enabled(!interrupt.state().is_enabled()),
            6 => vcpu.groups[number as usize % 2] = !random.one_in(3),
            _ => vcpu.sets_mask(if random.one_in(2) { 0xff } else { random.bits() as u8 }),
        }
        vcpu.looks(number);
        let (signals, ties) = (vcpu.signals(), vcpu.groups_of_the_highest() == [true; 2]);
        vcpu.enter();
        let interface = &mut vcpu.registers.0;
        match interface.signals() {
            Some(_) => assert!(signals, "a guest sleeps on that would get an interrupt"),
            // The other one of the two is as good.
            None if ties => {}
            None => assert!(!signals, "a guest wakes up and gets nothing"),
        }
        let group = hardware(if random.one_in(2) { ZERO } else { ONE });
        if random.one_in(2) {
            let got = interface.read_iar(group).expect("it is not trapped");
            running.extend((got != hw::IntId::SPURIOUS).then_some((got, group)));
        } else if let Some((got, group)) = running.pop() {
            let _ = interface.write_eoir(group, got).expect("it is not trapped");
            if drops_only {
                vcpu.leave();
                let vmcr = vcpu.registers.0.vmcr();
                assert!(vcpu.list.deactivate(&vcpu.table, id(got.number()), vmcr));
                continue;
            }
        } else {
            interface.write_igrpen(group, !random.one_in(3)).expect("it is not trapped");
        }
        vcpu.leave();
    }
}

#[test]
fn what_is_said_of_a_guest_before_its_entry_is_what_its_cpu_signals_after_it() {
    for seed in 0..20_000 {
        if let Err(panic) = std::panic::catch_unwind(|| sequence(seed)) {
            eprintln!("in sequence {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
