//! What list registers are few for: many interrupts at once, pending and active.

mod registers;

use doorbell_gic::spec::Vtr;
use doorbell_gic::{ApList, CpuInterface, Ended, Group, IntId, Interrupt, Interrupts, Priority, Trigger, VcpuId};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{Counting, Counts, CpuId, IrqGuard, Platform, Std};
use doorbell_post::{Bit, Guest, Notice, Post, Software, TwoLevel};

use registers::Registers;

const VCPU: VcpuId = VcpuId::new(0).unwrap();

struct Table<P: Platform>(Vec<Interrupt<P>>);

impl<P: Platform> Interrupts<P> for Table<P> {
    fn interrupt(&self, id: IntId) -> &Interrupt<P> {
        &self.0[id.number() as usize]
    }
}

/// A vCPU, and the interrupts from 32 on of a VM.
struct Vcpu<P: Platform> {
    table: Table<P>,
    list: ApList,
    registers: Registers,
}

/// The first of them.
const FIRST: u32 = 32;

impl<P: Platform> Vcpu<P> {
    /// One with 5 bits of priority and so many list registers, whose guest drops and deactivates
    /// apart or not.
    fn new(lrs: u8, drops_only: bool, triggers: &[Trigger], priority: impl Fn(u32) -> u8) -> Self {
        let implementation = hw::Implementation::new(lrs, 5, 5).expect("it is legal");
        let mut registers = Registers(VirtualInterface::new(implementation));
        registers.0.set_vmcr(0xf8 << 24 | 0b11 | u64::from(drops_only) << 9);
        let private = std::iter::repeat_n(&Trigger::Edge, FIRST as usize);
        let table = Table(private.chain(triggers).map(|&trigger| Interrupt::new(trigger, VCPU)).collect());
        for number in FIRST..FIRST + triggers.len() as u32 {
            let interrupt = table.interrupt(id(number));
            interrupt.configure(Priority(priority(number - FIRST)), Group::One, None);
            interrupt.set_enabled(true);
        }
        Vcpu { table, list: ApList::new(Vtr::from_bits(implementation.vtr()), VCPU, 1020), registers }
    }

    fn inject(&mut self, number: u32) {
        self.table.interrupt(id(number)).latch();
        let vmcr = self.registers.0.vmcr();
        self.list.look(&self.table, id(number), vmcr);
    }

    fn enter(&mut self) {
        self.list.flush(&self.table, &mut self.registers, [true; 2], true);
        assert_eq!(self.registers.0.misr(), 0);
    }

    /// Leaves the guest and enters it again.
    fn exit(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.list.fold(&self.table, &mut self.registers);
        self.list.take_ended(&self.table, |end| ended.push(end));
        self.enter();
        ended
    }

    fn acknowledge(&mut self) -> u32 {
        self.registers.0.read_iar(hw::Group::One).expect("it is not trapped").number()
    }

    fn end(&mut self, number: u32) {
        let number = hw::IntId::new(number).expect("it is small");
        let _ = self.registers.0.write_eoir(hw::Group::One, number).expect("it is not trapped");
    }

    fn maintains(&self) -> bool {
        self.registers.0.maintenance()
    }

    fn is_armed(&self, field: hw::Field) -> bool {
        field.is_set(self.registers.0.hcr())
    }
}

fn id(number: u32) -> IntId {
    IntId::new(number).expect("it is small")
}

#[test]
fn thirty_two_interrupts_of_one_priority_take_eight_entries_through_four_list_registers() {
    let mut vcpu = Vcpu::<Std>::new(4, false, &[Trigger::Edge; 32], |_| 0x80);
    (FIRST..FIRST + 32).for_each(|number| vcpu.inject(number));
    vcpu.enter();
    let (mut entries, mut handled) = (1, Vec::new());
    loop {
        match vcpu.acknowledge() {
            1023 => break,
            number => {
                handled.push(number);
                vcpu.end(number);
            }
        }
        if vcpu.maintains() {
            assert!(vcpu.exit().is_empty());
            entries += 1;
        }
    }
    handled.sort_unstable();
    assert_eq!((handled, entries), ((FIRST..FIRST + 32).collect(), 8));
}

#[test]
fn five_interrupts_that_are_dropped_and_not_deactivated_do_not_keep_a_sixth_from_coming() {
    // With EOImode 1 a guest may deactivate later, in any order (IHI 0069H, section 4.1).
    let mut vcpu = Vcpu::<Std>::new(4, true, &[Trigger::Level; 6], |_| 0x80);
    let mut active = Vec::new();
    for number in FIRST..FIRST + 6 {
        vcpu.inject(number);
        vcpu.exit();
        assert_eq!(vcpu.acknowledge(), number);
        vcpu.end(number);
        active.push(number);
    }
    vcpu.exit();
    for number in [34, 32, 37, 33, 36, 35] {
        let trapped = vcpu.registers.0.write_dir(hw::IntId::new(number).expect("it is small"));
        assert!(trapped.is_err(), "SPIs may be deactivated by another vCPU");
        vcpu.list.fold(&vcpu.table, &mut vcpu.registers);
        let vmcr = vcpu.registers.0.vmcr();
        assert!(vcpu.list.deactivate(&vcpu.table, id(number), vmcr));
        let mut ended = Vec::new();
        vcpu.list.take_ended(&vcpu.table, |end| ended.push(end));
        assert_eq!(ended, [Ended::Level(id(number))]);
        vcpu.enter();
    }
    assert!(!vcpu.list.deactivate(&vcpu.table, id(FIRST), vcpu.registers.0.vmcr()), "it is not active any more");
}

#[test]
fn the_ends_of_edges_outside_are_told_only_when_eoicount_could_not_count_them() {
    // Each preempts the one before: 32 levels of priority, of which the lowest is never signalled.
    let mut vcpu = Vcpu::<Std>::new(1, false, &[Trigger::Edge; 31], |number| (30 - number as u8) << 3);
    vcpu.enter();
    for number in 0..31 {
        vcpu.inject(FIRST + number);
        assert!(vcpu.exit().is_empty());
        // The list register is for what is pending.
        let outside = number;
        assert_eq!(vcpu.is_armed(hw::hcr::LRENPIE), outside > 24, "{outside} outside");
        assert_eq!(vcpu.acknowledge(), FIRST + number);
    }
    for number in (0..31).rev() {
        vcpu.end(FIRST + number);
        if vcpu.maintains() {
            vcpu.exit();
        }
    }
    vcpu.exit();
    let active = (FIRST..FIRST + 31).filter(|&number| vcpu.table.interrupt(id(number)).state().is_active());
    assert_eq!(active.count(), 0);
}

#[test]
fn a_disabled_group_leaves_the_list_register_to_the_other_one_and_is_heard_when_it_is_enabled() {
    let mut vcpu = Vcpu::<Std>::new(1, false, &[Trigger::Edge; 2], |number| 0x40 + 8 * number as u8);
    vcpu.table.interrupt(id(FIRST)).configure(Priority(0x40), Group::Zero, None);
    vcpu.registers.0.write_igrpen(hw::Group::Zero, false).expect("it is not trapped");
    (FIRST..FIRST + 2).for_each(|number| vcpu.inject(number));
    vcpu.enter();
    assert!(vcpu.is_armed(hw::hcr::VGRP0EIE) && !vcpu.is_armed(hw::hcr::NPIE));
    assert_eq!(vcpu.acknowledge(), FIRST + 1);
    vcpu.end(FIRST + 1);
    assert!(!vcpu.maintains());
    vcpu.registers.0.write_igrpen(hw::Group::Zero, true).expect("it is not trapped");
    assert!(vcpu.maintains());
    vcpu.exit();
    assert_eq!(vcpu.registers.0.read_iar(hw::Group::Zero).expect("it is not trapped").number(), FIRST);
}

#[test]
fn what_waits_alone_and_has_another_priority_by_now_is_not_left_for_the_next_entry() {
    let mut vcpu = Vcpu::<Std>::new(1, false, &[Trigger::Edge; 2], |_| 0x80);
    (FIRST..FIRST + 2).for_each(|number| vcpu.inject(number));
    for number in FIRST..FIRST + 2 {
        vcpu.table.interrupt(id(number)).configure(Priority(0x40 + 8 * (number - FIRST) as u8), Group::One, None);
    }
    vcpu.enter();
    assert!(vcpu.is_armed(hw::hcr::NPIE));
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.end(FIRST);
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST + 1);
}

type Counted = Counting<Std>;

#[test]
fn an_edge_takes_five_read_modify_writes_from_its_injection_to_its_end_and_no_lock() {
    let mut vcpu = Vcpu::<Counted>::new(4, false, &[Trigger::Edge], |_| 0x80);
    let post = Post::<Counted, TwoLevel<Counted, 16>, _>::new(TwoLevel::new(), Software::new());
    let bit = || Bit::new(FIRST as usize).expect("it is small");
    let mut cycle = |injects: bool| {
        Counted::measure(|| {
            if injects {
                vcpu.table.interrupt(id(FIRST)).latch();
                assert_eq!(post.post(bit()), Notice::Nothing);
            }
            let irqs_off = IrqGuard::new();
            let entering = post.enter(&irqs_off, Guest { cpu: CpuId(0), posted: false }).expect("nothing is requested");
            let vmcr = vcpu.registers.0.vmcr();
            let (in_guest, _) = entering.rescan(|bits| {
                bits.take(|bit| vcpu.list.look(&vcpu.table, id(bit.number() as u32), vmcr));
            });
            vcpu.enter();
            if injects {
                assert_eq!(vcpu.acknowledge(), FIRST);
                vcpu.end(FIRST);
            }
            in_guest.fold(|| vcpu.list.fold(&vcpu.table, &mut vcpu.registers));
        })
        .1
    };
    // The first one sets the summary, and an idle entry clears it.
    cycle(true);
    let Counts { rmws, stores, spins: locks, fences, .. } = cycle(true);
    // Two of the word and two of the news, and one that lets go; the stores are of the mode.
    assert_eq!((rmws, stores, locks, fences), (5, 2, 0, 0));
    cycle(false);
    let Counts { rmws, stores, loads, spins: locks, .. } = cycle(false);
    assert_eq!((rmws, stores, loads, locks), (0, 2, 2, 0), "nothing is pending or active");
}

#[test]
fn an_interrupt_takes_sixteen_bytes_and_a_vcpu_at_most_four_thousand() {
    assert_eq!(size_of::<Interrupt<Std>>(), 16);
    let private = 32 * size_of::<Interrupt<Std>>();
    let posted = size_of::<Post<Std, TwoLevel<Std, 16>, Software<Std>>>();
    // The lists of all 988 SPIs, and a head for each of 32 priorities of two groups, and as many
    // holders.
    let lists = (IntId::COUNT + 2 * 32 + 2 * 32) * size_of::<u16>();
    assert!(size_of::<CpuInterface>() + lists + private + posted <= 4096 + 512);
}
