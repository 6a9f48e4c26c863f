//! What list registers are few for: many interrupts at once, pending and active.

mod heap;
mod registers;

use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    Affinity, ApList, CpuInterface, Ended, Frame, Gic, Group, Host, IntId, Interrupt, Interrupts,
    Kick, ListRegisters,
};
use doorbell_gic::{PhysicalIntId, Priority, Trigger, VcpuId, Width};
use doorbell_hardware::gic::spec as hw;
use doorbell_hardware::gic::{Physical, VirtualInterface};
use doorbell_platform::{Counting, Counts, CpuId, IrqGuard, Platform, Std};
use doorbell_post::Notice;

use registers::Registers;

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

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
        let table =
            Table(private.chain(triggers).map(|&trigger| Interrupt::new(trigger, VCPU)).collect());
        for number in FIRST..FIRST + triggers.len() as u32 {
            let interrupt = table.interrupt(id(number));
            interrupt.configure(Priority(priority(number - FIRST)), Group::One, None);
            interrupt.set_enabled(true);
        }
        Vcpu { table, list: ApList::new(Vtr::from_bits(implementation.vtr()), VCPU), registers }
    }

    fn inject(&mut self, number: u32) {
        self.table.interrupt(id(number)).latch();
        self.look(number);
    }

    fn look(&mut self, number: u32) {
        let vmcr = self.registers.0.vmcr();
        self.list.look(&self.table, id(number), vmcr);
    }

    fn enter(&mut self) {
        self.list.flush(&self.table, &mut self.registers, [true; 2]);
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
    assert!(
        !vcpu.list.deactivate(&vcpu.table, id(FIRST), vcpu.registers.0.vmcr()),
        "it is not active any more"
    );
}

#[test]
fn the_ends_of_edges_outside_are_told_only_when_eoicount_could_not_count_them() {
    // Each preempts the one before: 32 levels of priority, of which the lowest is never signalled.
    let mut vcpu =
        Vcpu::<Std>::new(1, false, &[Trigger::Edge; 31], |number| (30 - number as u8) << 3);
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
    let active =
        (FIRST..FIRST + 31).filter(|&number| vcpu.table.interrupt(id(number)).state().is_active());
    assert_eq!(active.count(), 0);
}

#[test]
fn a_disabled_group_leaves_the_list_register_to_the_other_one_and_is_heard_when_it_is_enabled() {
    let mut vcpu =
        Vcpu::<Std>::new(1, false, &[Trigger::Edge; 2], |number| 0x40 + 8 * number as u8);
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
    assert_eq!(
        vcpu.registers.0.read_iar(hw::Group::Zero).expect("it is not trapped").number(),
        FIRST
    );
}

#[test]
fn what_waits_alone_and_has_another_priority_by_now_is_not_left_for_the_next_entry() {
    let mut vcpu = Vcpu::<Std>::new(1, false, &[Trigger::Edge], |_| 0x80);
    vcpu.inject(FIRST);
    vcpu.table.interrupt(id(FIRST)).configure(Priority(0x40), Group::One, None);
    vcpu.enter();
    assert!(!vcpu.is_armed(hw::hcr::NPIE));
    assert_eq!(vcpu.acknowledge(), FIRST);
}

#[test]
fn what_has_another_priority_by_now_comes_before_what_it_came_after() {
    let mut vcpu = Vcpu::<Std>::new(1, false, &[Trigger::Edge; 2], |_| 0x80);
    (FIRST..FIRST + 2).for_each(|number| vcpu.inject(number));
    for number in FIRST..FIRST + 2 {
        vcpu.table.interrupt(id(number)).configure(
            Priority(0x40 + 8 * (number - FIRST) as u8),
            Group::One,
            None,
        );
        vcpu.look(number);
    }
    vcpu.enter();
    assert!(vcpu.is_armed(hw::hcr::NPIE));
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.end(FIRST);
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST + 1);
}

/// Returns what the list registers say of an interrupt: pending and active.
fn says(registers: &Registers, number: u32) -> Vec<(bool, bool)> {
    let lrs = registers.0.implemented_lrs().iter().filter(|lr| lr.intid().number() == number);
    let states = lrs.map(|lr| (lr.bits() >> 62 & 1 != 0, lr.bits() >> 63 != 0));
    states.filter(|&state| state != (false, false)).collect()
}

#[test]
fn an_edge_that_comes_again_is_signalled_after_its_end_without_an_exit_if_nothing_waits() {
    let mut vcpu =
        Vcpu::<Std>::new(2, false, &[Trigger::Edge; 3], |number| 0x40 + 0x10 * number as u8);
    vcpu.inject(FIRST);
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.inject(FIRST);
    vcpu.exit();
    assert_eq!(says(&vcpu.registers, FIRST), [(true, true)]);
    vcpu.end(FIRST);
    assert!(!vcpu.maintains());
    assert_eq!(vcpu.acknowledge(), FIRST);
    // One that waits outside would come after it, whatever its priority: the end is heard instead.
    (FIRST..FIRST + 3).for_each(|number| vcpu.inject(number));
    vcpu.exit();
    assert_eq!(says(&vcpu.registers, FIRST), [(false, true)]);
    assert_eq!(says(&vcpu.registers, FIRST + 1), [(true, false)]);
    vcpu.end(FIRST);
    assert!(vcpu.maintains());
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST);
}

#[test]
fn an_active_edge_takes_a_list_register_only_while_something_follows_its_end() {
    let mut vcpu = Vcpu::<Std>::new(4, false, &[Trigger::Edge], |_| 0x40);
    vcpu.inject(FIRST);
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.exit();
    assert_eq!(says(&vcpu.registers, FIRST), []);
    vcpu.list.fold(&vcpu.table, &mut vcpu.registers);
    // It has come again, and that was taken back.
    vcpu.inject(FIRST);
    vcpu.table.interrupt(id(FIRST)).unlatch();
    vcpu.look(FIRST);
    vcpu.enter();
    assert_eq!(says(&vcpu.registers, FIRST), []);
    assert!(!vcpu.is_armed(hw::hcr::LRENPIE));
}

#[test]
fn what_a_physical_interrupt_backs_ends_with_it_in_its_list_register() {
    let mut vcpu = Vcpu::<Std>::new(4, false, &[Trigger::Edge], |_| 0x40);
    let physical = PhysicalIntId::new(77);
    vcpu.table.interrupt(id(FIRST)).configure(Priority(0x40), Group::One, physical);
    vcpu.inject(FIRST);
    vcpu.enter();
    for _ in 0..2 {
        let bits = vcpu.registers.list_register(0);
        assert_eq!((bits >> 61 & 1, bits >> 32 & 0x1fff), (1, 77), "HW and pINTID");
        if vcpu.acknowledge() == FIRST {
            vcpu.exit();
        }
    }
    let number = hw::IntId::new(FIRST).expect("it is small");
    let ended = vcpu.registers.0.write_eoir(hw::Group::One, number).expect("it is not trapped");
    assert!(matches!(ended, Physical::Deactivated(of) if u32::from(of.number()) == 77));
    assert!(vcpu.exit().is_empty(), "nothing is left to deactivate");
}

/// A level that a physical interrupt backs is acknowledged and ends, in the list register or, if
/// the guest deactivates apart, outside. Returns who is told.
fn ends_of_a_physical_level(drops_only: bool, source: bool) -> Vec<Ended> {
    let mut vcpu = Vcpu::<Std>::new(4, drops_only, &[Trigger::Level], |_| 0x40);
    let interrupt = vcpu.table.interrupt(id(FIRST));
    interrupt.configure(Priority(0x40), Group::One, PhysicalIntId::new(77));
    if source {
        interrupt.set_level(5, true);
    } else {
        interrupt.latch();
    }
    vcpu.look(FIRST);
    vcpu.enter();
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.end(FIRST);
    if !drops_only {
        return vcpu.exit();
    }
    assert_eq!(vcpu.exit(), []);
    let vmcr = vcpu.registers.0.vmcr();
    assert!(vcpu.list.deactivate(&vcpu.table, id(FIRST), vmcr));
    let mut ended = Vec::new();
    vcpu.list.take_ended(&vcpu.table, |end| ended.push(end));
    ended
}

#[test]
fn the_end_of_a_level_that_a_physical_interrupt_backs_is_told_only_while_a_source_gives_it() {
    let physical = Ended::Physical(PhysicalIntId::new(77).expect("it is small"));
    let level = Ended::Level(id(FIRST));
    assert_eq!(ends_of_a_physical_level(false, false), []);
    assert_eq!(ends_of_a_physical_level(false, true), [level]);
    assert_eq!(ends_of_a_physical_level(true, false), [physical]);
    assert_eq!(ends_of_a_physical_level(true, true), [physical, level]);
}

#[test]
fn an_edge_that_was_taken_again_in_its_list_register_is_forgotten_when_it_has_ended() {
    let mut vcpu = Vcpu::<Std>::new(2, false, &[Trigger::Edge], |_| 0x40);
    vcpu.inject(FIRST);
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.inject(FIRST);
    vcpu.exit();
    vcpu.end(FIRST);
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.exit();
    vcpu.end(FIRST);
    vcpu.exit();
    assert!(!vcpu.table.interrupt(id(FIRST)).state().is_active());
    // It may be active on another vCPU by now.
    let vmcr = vcpu.registers.0.vmcr();
    vcpu.table.interrupt(id(FIRST)).set_active(true);
    assert!(!vcpu.list.deactivate(&vcpu.table, id(FIRST), vmcr));
}

#[test]
fn an_edge_that_comes_again_and_is_disabled_is_not_signalled_beside_one_that_is_enabled() {
    let mut vcpu =
        Vcpu::<Std>::new(4, false, &[Trigger::Edge; 2], |number| 0x40 - 0x10 * number as u8);
    for number in FIRST..FIRST + 2 {
        vcpu.inject(number);
        vcpu.exit();
        assert_eq!(vcpu.acknowledge(), number);
    }
    vcpu.table.interrupt(id(FIRST)).set_enabled(false);
    (FIRST..FIRST + 2).for_each(|number| vcpu.inject(number));
    vcpu.exit();
    assert_eq!(says(&vcpu.registers, FIRST), [(false, true)]);
    assert_eq!(says(&vcpu.registers, FIRST + 1), [(true, true)]);
}

#[test]
fn what_was_made_inactive_while_it_ran_is_not_ended_by_what_runs_at_its_priority_next() {
    for changes_priority in [false, true] {
        let mut vcpu = Vcpu::<Std>::new(4, false, &[Trigger::Edge; 2], |_| 0x40);
        vcpu.inject(FIRST);
        vcpu.exit();
        assert_eq!(vcpu.acknowledge(), FIRST);
        vcpu.exit();
        if changes_priority {
            vcpu.table.interrupt(id(FIRST)).set_priority(Priority(0x80));
        }
        vcpu.table.interrupt(id(FIRST)).set_active(false);
        vcpu.list.fold(&vcpu.table, &mut vcpu.registers);
        vcpu.look(FIRST);
        // The guest ends it, and takes another one.
        vcpu.enter();
        vcpu.end(FIRST);
        vcpu.inject(FIRST + 1);
        vcpu.exit();
        assert_eq!(vcpu.acknowledge(), FIRST + 1);
        // Meanwhile the first one is made active by a write, of which the vCPU has not heard.
        vcpu.table.interrupt(id(FIRST)).set_active(true);
        vcpu.exit();
        let active =
            [0, 1].map(|number| vcpu.table.interrupt(id(FIRST + number)).state().is_active());
        assert_eq!(active, [true, true], "{changes_priority}");
    }
}

#[test]
fn an_edge_that_comes_again_with_another_priority_is_signalled_by_that_one() {
    let mut vcpu =
        Vcpu::<Std>::new(4, false, &[Trigger::Edge; 2], |number| 0x40 + 0x40 * number as u8);
    vcpu.inject(FIRST);
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.table.interrupt(id(FIRST)).configure(Priority(0xc0), Group::One, None);
    (FIRST..FIRST + 2).for_each(|number| vcpu.inject(number));
    vcpu.exit();
    assert_eq!(says(&vcpu.registers, FIRST), [(false, true)]);
    vcpu.end(FIRST);
    assert!(vcpu.maintains());
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST + 1);
    vcpu.end(FIRST + 1);
    assert_eq!(vcpu.acknowledge(), FIRST);
}

#[test]
fn what_is_pending_has_all_the_room_beside_what_is_active() {
    let mut vcpu = Vcpu::<Std>::new(
        4,
        false,
        &[Trigger::Level, Trigger::Edge, Trigger::Edge, Trigger::Edge],
        |number| 0x80 - 0x10 * number as u8,
    );
    vcpu.inject(FIRST);
    vcpu.exit();
    assert_eq!(vcpu.acknowledge(), FIRST);
    (FIRST + 1..FIRST + 4).for_each(|number| vcpu.inject(number));
    vcpu.exit();
    assert_eq!(says(&vcpu.registers, FIRST), [(false, true)]);
    for number in FIRST + 1..FIRST + 4 {
        assert_eq!(says(&vcpu.registers, number), [(true, false)]);
    }
    assert!(!vcpu.is_armed(hw::hcr::NPIE));
}

#[test]
fn what_another_vcpu_has_left_in_the_list_registers_is_cleared_at_the_first_entry_there() {
    let mut vcpu = Vcpu::<Std>::new(4, false, &[Trigger::Edge; 2], |_| 0x80);
    let foreign = |vcpu: &mut Vcpu<Std>| {
        let bits = 1 << 62 | 1 << 60 | 0x40 << 48 | 77;
        (0..4).for_each(|number| vcpu.registers.set_list_register(number, bits));
    };
    foreign(&mut vcpu);
    vcpu.enter();
    assert_eq!(says(&vcpu.registers, 77), []);
    vcpu.list.fold(&vcpu.table, &mut vcpu.registers);
    foreign(&mut vcpu);
    vcpu.list.comes_to_cpu();
    vcpu.inject(FIRST);
    vcpu.enter();
    assert_eq!(says(&vcpu.registers, 77), []);
    assert_eq!(vcpu.acknowledge(), FIRST);
    vcpu.end(FIRST);
    assert_eq!(vcpu.acknowledge(), 1023);
}

type Counted = Counting<Std>;

/// What a host has to do: nothing, as long as nobody else is there.
struct Nobody;

impl Kick for Nobody {
    fn notice(&mut self, _: VcpuId, notice: Notice<CpuId>) {
        unreachable!("the vCPU is in the host, and looks by itself: {notice:?}");
    }
}

impl Host for Nobody {
    fn ended(&mut self, ended: Ended) {
        unreachable!("nobody waits for the end of an edge: {ended:?}");
    }
}

/// The edges of a VM with one vCPU, SPIs from 32 on.
struct Vm {
    gic: Gic<Counted>,
    interface: CpuInterface,
    registers: Registers,
}

impl Vm {
    fn new() -> Self {
        let implementation = hw::Implementation::new(4, 5, 5).expect("it is legal");
        let mut registers = Registers(VirtualInterface::new(implementation));
        registers.0.set_vmcr(0xf8 << 24 | 0b11);
        let gic = Gic::new(Vtr::from_bits(implementation.vtr()), 32, &[Affinity(0)])
            .expect("there can be one");
        let interface = gic.cpu_interface(VCPU).expect("nobody has it");
        let write = |frame, offset, value| {
            gic.write(frame, offset, Width::Word, value, &mut Nobody).wait(&mut Nobody);
        };
        write(Frame::Distributor, 0x000, 1 << 1); // GICD_CTLR.EnableGrp1
        write(Frame::Redistributor(VCPU), 0x014, 0); // GICR_WAKER
        write(Frame::Distributor, 0xc08, 0xaaaa_aaaa); // GICD_ICFGR2
        write(Frame::Distributor, 0x104, 0xffff_ffff); // GICD_ISENABLER1
        let mut vm = Vm { gic, interface, registers };
        // The first entry takes the news of all this, and the second one clears the summary.
        (0..2).for_each(|_| _ = vm.cycle(&[], 0));
        vm
    }

    /// One time in the guest, which acknowledges and ends so many interrupts, of those that are
    /// injected before. Returns what was counted but for what the guest does.
    fn cycle(&mut self, injected: &[u32], handled: u32) -> Counts {
        let inject = || {
            for &number in injected {
                self.gic.spi(id(number)).expect("there is one").edge(&mut Nobody);
            }
        };
        Counted::measure(|| {
            inject();
            let irqs_off = IrqGuard::new();
            let registers = &mut self.registers;
            let entered =
                self.interface.enter(&self.gic, &irqs_off, CpuId(0), registers, &mut Nobody);
            let in_guest = entered.expect("nothing is requested");
            for _ in 0..handled {
                let got = registers.0.read_iar(hw::Group::One).expect("it is not trapped");
                let _ = registers.0.write_eoir(hw::Group::One, got).expect("it is not trapped");
            }
            let _ = self.interface.exit(&self.gic, in_guest, registers, &mut Nobody);
        })
        .1
    }
}

impl Vm {
    /// Injects interrupts at once, and enters the guest until it has nothing to acknowledge at its
    /// first look. Returns what it acknowledges, by entry.
    fn handled(&mut self, injected: &[u32]) -> Vec<Vec<u32>> {
        for &number in injected {
            self.gic.spi(id(number)).expect("there is one").edge(&mut Nobody);
        }
        let mut entries = Vec::new();
        loop {
            let irqs_off = IrqGuard::new();
            let registers = &mut self.registers;
            let entered =
                self.interface.enter(&self.gic, &irqs_off, CpuId(0), registers, &mut Nobody);
            let in_guest = entered.expect("nothing is requested");
            let mut handled = Vec::new();
            while !registers.0.maintenance() {
                let got = registers.0.read_iar(hw::Group::One).expect("it is not trapped");
                if got.number() == 1023 {
                    break;
                }
                let _ = registers.0.write_eoir(hw::Group::One, got).expect("it is not trapped");
                handled.push(got.number());
            }
            let _ = self.interface.exit(&self.gic, in_guest, registers, &mut Nobody);
            if handled.is_empty() {
                return entries;
            }
            entries.push(handled);
        }
    }
}

#[test]
fn edges_that_come_at_once_are_all_signalled_the_best_first() {
    let mut vm = Vm::new();
    // The later an interrupt's number, the higher its priority.
    for word in 0..2u64 {
        let priorities =
            (0..4).fold(0, |bytes, at| bytes | (0x80 - 8 * (4 * word + at)) << (8 * at));
        let offset = 0x420 + 4 * word as u32; // GICD_IPRIORITYR<n>
        let access = vm.gic.write(Frame::Distributor, offset, Width::Word, priorities, &mut Nobody);
        access.wait(&mut Nobody);
    }
    for number in 1..=8 {
        let injected: Vec<_> = (FIRST..FIRST + number).collect();
        let expected: Vec<_> = injected.iter().rev().copied().collect();
        for _ in 0..2 {
            let handled = vm.handled(&injected);
            assert_eq!(handled.concat(), expected, "{number} at once: {handled:?}");
            assert_eq!(handled.len(), number.div_ceil(4) as usize, "{handled:?}");
        }
    }
    // One of them is disabled: the others come nevertheless, and it when it is enabled.
    let write = |vm: &mut Vm, offset, value| {
        let access = vm.gic.write(Frame::Distributor, offset, Width::Word, value, &mut Nobody);
        access.wait(&mut Nobody);
    };
    write(&mut vm, 0x184, 1 << 1); // GICD_ICENABLER1
    assert_eq!(vm.handled(&[FIRST, FIRST + 1, FIRST + 2]).concat(), [FIRST + 2, FIRST]);
    write(&mut vm, 0x104, 1 << 1); // GICD_ISENABLER1
    assert_eq!(vm.handled(&[FIRST + 3]).concat(), [FIRST + 3, FIRST + 1]);
}

#[test]
fn an_spi_takes_five_read_modify_writes_from_its_injection_to_its_end_and_no_lock() {
    let mut vm = Vm::new();
    // The first one sets the summary.
    vm.cycle(&[FIRST], 1);
    let Counts { rmws, stores, spins: locks, fences, .. } = vm.cycle(&[FIRST], 1);
    // Its latch, the news of it, and these taken; its latch taken, and the interrupt let go of. The
    // two stores are of the mode, of which one is sequentially consistent.
    assert_eq!((rmws, stores, locks, fences), (5, 2, 0, 0));
}

#[test]
fn an_entry_with_nothing_pending_or_active_takes_two_loads_and_no_read_modify_write() {
    let mut vm = Vm::new();
    vm.cycle(&[FIRST], 1);
    vm.cycle(&[], 0);
    let Counts { rmws, stores, loads, spins: locks, fences, .. } = vm.cycle(&[], 0);
    // Requests and news are loaded, and the mode is stored twice.
    assert_eq!((rmws, stores, loads, locks, fences), (0, 2, 2, 0, 0));
}

#[test]
fn each_of_eight_spis_through_four_list_registers_takes_at_most_five_read_modify_writes() {
    let mut vm = Vm::new();
    let injected: Vec<_> = (FIRST..FIRST + 8).collect();
    let mut handle_all = || vm.cycle(&injected, 4).rmws + vm.cycle(&[], 4).rmws;
    handle_all();
    // The news of all are taken at once. The second entry has none: it clears the summary, which
    // the first injection sets.
    assert_eq!(handle_all(), 8 * 4 + 1 + 2);
}

#[test]
fn an_interrupt_takes_sixteen_bytes_and_a_vcpu_of_all_spis_at_most_four_thousand_and_ninety_six() {
    assert_eq!(size_of::<Interrupt<Std>>(), 16);
    let vtr = Vtr::from_bits(hw::Implementation::new(4, 5, 5).expect("it is legal").vtr());
    let of = |vcpus| {
        let affinities: Vec<_> = (0..vcpus).map(Affinity).collect();
        heap::bytes(|| Gic::<Std>::new(vtr, 988, &affinities).expect("there can be one"))
    };
    let ((gic, two), (_, three)) = (of(2), of(3));
    let (_interface, boxed) = heap::bytes(|| gic.cpu_interface(VCPU).expect("nobody has it"));
    let bytes = three - two + size_of::<CpuInterface>() + boxed;
    assert!(bytes <= 4096, "{bytes}");
}
