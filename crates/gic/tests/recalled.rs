//! Accesses while another vCPU is in the guest: who is kicked for them, what they wait for, and
//! what RWP says meanwhile.

#[allow(dead_code, reason = "other test files use the rest")]
mod registers;
#[allow(dead_code, reason = "other test files use the rest")]
mod vm;

use std::sync::Arc;

use doorbell_gic::{Ended, Frame, Gic, PhysicalIntId, VcpuId, Width};
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{CpuId, IrqGuard, Std};
use doorbell_post::{InGuest, Notice};
use vm::{Vcpu, Vm, intid, vcpu};

const D: Frame = Frame::Distributor;
const CTLR: u32 = 0x0000;
const WAKER: u32 = 0x0014;
/// The INTIDs from 32 on.
const ISENABLER: u32 = 0x0104;
const ICENABLER: u32 = 0x0184;
const ISPENDR: u32 = 0x0204;
const ICPENDR: u32 = 0x0284;
const ISACTIVER: u32 = 0x0304;
const ICACTIVER: u32 = 0x0384;
const IPRIORITYR: u32 = 0x0400;
const ICFGR: u32 = 0x0c08;
const IROUTER: u32 = 0x6000;
/// In the frame of a redistributor.
const SGI_BASE: u32 = 0x1_0000;

const SPI: u32 = 40;
const OTHER: u32 = 41;
const HIGH: u32 = 42;
const IDLE: u32 = 43;
const PPI: u32 = 20;

fn redistributor(number: u32) -> Frame {
    Frame::Redistributor(vcpu(number))
}

fn bit(id: u32) -> u64 {
    1 << (id % 32)
}

/// Two vCPUs. The second gets an SPI and a PPI, which are pending.
fn two() -> Vm {
    let mut vm = Vm::new(2, 32);
    for id in [SPI, OTHER, HIGH, IDLE] {
        vm.write(D, IROUTER + 8 * id, 1);
    }
    vm.enable_spi(SPI);
    vm.write(redistributor(1), SGI_BASE + 0x100, bit(PPI));
    vm.write(D, ISPENDR, bit(SPI));
    vm.write(redistributor(1), SGI_BASE + 0x200, bit(PPI));
    vm
}

fn enters<'a>(
    vm: &mut Vm,
    gic: &'a Gic<Std>,
    irqs_off: &'a IrqGuard<Std>,
    number: u32,
) -> InGuest<'a, Std> {
    let Vcpu { interface, registers } = &mut vm.vcpus[number as usize];
    let entered = interface.enter(gic, irqs_off, CpuId(number), registers, &mut vm.asked);
    vm.asked.notices.clear();
    entered.expect("nothing was requested")
}

fn exits(vm: &mut Vm, in_guest: InGuest<'_, Std>, number: u32) -> bool {
    let gic = Arc::clone(&vm.gic);
    let Vcpu { interface, registers } = &mut vm.vcpus[number as usize];
    interface.exit(&gic, in_guest, registers, &mut vm.asked)
}

fn kicked(vm: &mut Vm) -> Vec<VcpuId> {
    let kick = |(vcpu, notice): (VcpuId, Notice<CpuId>)| {
        assert_eq!(notice, Notice::Kick(CpuId(vcpu.number())));
        vcpu
    };
    std::mem::take(&mut vm.asked.notices).into_iter().map(kick).collect()
}

/// Returns RWP of the distributor and of each redistributor.
fn write_pending(vm: &mut Vm) -> Vec<bool> {
    let mut rwp = vec![vm.read(D, CTLR) >> 31 & 1 != 0];
    rwp.extend(
        (0..vm.vcpus.len() as u32).map(|number| vm.read(redistributor(number), CTLR) >> 3 & 1 != 0),
    );
    rwp
}

#[test]
fn a_write_that_a_vcpu_has_to_fold_for_is_pending_until_it_has() {
    let writes = [
        (D, ICENABLER, bit(SPI)),
        (redistributor(1), SGI_BASE + 0x180, bit(PPI)),
        (D, CTLR, 1),
        (redistributor(1), CTLR, 1 << 25),
        (redistributor(1), WAKER, 2),
    ];
    for (frame, offset, value) in writes {
        let mut vm = two();
        let (gic, irqs_off) = (Arc::clone(&vm.gic), IrqGuard::<Std>::new());
        assert_eq!(write_pending(&mut vm), [false; 3]);
        let in_guest = enters(&mut vm, &gic, &irqs_off, 1);
        vm.write(frame, offset, value);
        assert_eq!(kicked(&mut vm), [vcpu(1)], "{offset:#x}");
        for _ in 0..2 {
            assert_eq!(write_pending(&mut vm), [true, false, true], "{offset:#x}");
        }
        // Only what reads as enabled, or as asleep, is so at once.
        let asleep = vm.read(redistributor(1), WAKER);
        assert_eq!(
            asleep,
            if offset == WAKER { 2 } else { 0 },
            "ChildrenAsleep is set when it has folded"
        );
        let _ = exits(&mut vm, in_guest, 1);
        assert_eq!(vm.read(redistributor(1), WAKER), asleep * 3);
        assert_eq!(write_pending(&mut vm), [false; 3], "{offset:#x}");
        let in_guest = enters(&mut vm, &gic, &irqs_off, 1);
        assert_eq!(write_pending(&mut vm), [false; 3], "{offset:#x}: it is in the guest once more");
        // And once more, though one was complete.
        vm.write(D, ICENABLER, bit(SPI));
        vm.write(D, CTLR, 3);
        vm.write(D, CTLR, 0);
        assert_eq!(write_pending(&mut vm), [true, false, true], "{offset:#x}");
        let _ = exits(&mut vm, in_guest, 1);
        assert_eq!(write_pending(&mut vm), [false; 3], "{offset:#x}");
    }
}

#[test]
fn a_write_that_nobody_has_to_fold_for_is_complete_and_kicks_nobody() {
    let mut vm = two();
    // Pending, and not enabled: in no list register.
    vm.write(D, ISPENDR, bit(OTHER));
    // Pending and enabled, by its level.
    vm.enable_spi(HIGH);
    let high = Arc::clone(&vm.gic);
    high.spi(intid(HIGH)).expect("there is one").set_level(0, true, &mut vm.asked);
    let (gic, irqs_off) = (Arc::clone(&vm.gic), IrqGuard::<Std>::new());
    let in_guest = enters(&mut vm, &gic, &irqs_off, 1);
    let writes = [
        (D, ICENABLER, bit(OTHER)),
        (D, ICPENDR, bit(OTHER)),
        (D, ISPENDR, bit(OTHER)),
        (D, ISENABLER, bit(SPI) | bit(HIGH) | bit(IDLE)),
        (D, ICENABLER, bit(IDLE)),
        (redistributor(1), SGI_BASE + 0x180, bit(PPI + 1)),
        // Of others than the interrupts that are there.
        (D, 0x84, 0xffff_ffff & !bit(OTHER)),
        (D, IPRIORITYR + OTHER / 4 * 4, 0x4000),
        (D, ICFGR, 0b10 << (2 * (OTHER % 16))),
        (D, IPRIORITYR + OTHER / 4 * 4, 0),
        (D, 0x84, 0xffff_ffff),
        (D, IPRIORITYR + SPI, 0),
        (D, ICFGR, 0),
        (D, CTLR, 3),
        (D, IROUTER + 8 * OTHER, 0),
        (redistributor(1), WAKER, 0),
        (redistributor(1), CTLR, 0),
        (redistributor(0), CTLR, 1 << 25),
        (redistributor(0), WAKER, 2),
    ];
    for (frame, offset, value) in writes {
        vm.write(frame, offset, value);
        assert_eq!(kicked(&mut vm), [], "{offset:#x}");
        assert_eq!(write_pending(&mut vm), [false; 3], "{offset:#x}");
    }
    for offset in
        [0x84, ISENABLER, ICENABLER, IPRIORITYR + SPI / 4 * 4, ICFGR, IROUTER + 8 * SPI, CTLR]
    {
        let _ = vm.read(D, offset);
        assert_eq!(kicked(&mut vm), [], "{offset:#x} is read");
    }
    // The edge that it has in a list register may have been acknowledged. (The level is pending as
    // long as it is high, whatever became of it there.)
    let _ = vm.read(D, ISPENDR);
    assert_eq!(kicked(&mut vm), [vcpu(1)]);
    let _ = exits(&mut vm, in_guest, 1);
}

/// A source of an SPI of the second vCPU gives a level while that is in the guest, which it has
/// entered since the level before. Returns whether it is kicked.
fn kicks(vm: &mut Vm, id: u32, source: u32, high: bool) -> bool {
    let (gic, irqs_off) = (Arc::clone(&vm.gic), IrqGuard::<Std>::new());
    let in_guest = enters(vm, &gic, &irqs_off, 1);
    gic.spi(intid(id)).expect("there is one").set_level(source, high, &mut vm.asked);
    let kicked = kicked(vm);
    let _ = exits(vm, in_guest, 1);
    assert!(kicked.is_empty() || kicked == [vcpu(1)]);
    !kicked.is_empty()
}

#[test]
fn a_level_kicks_when_the_first_source_rises_and_when_the_last_falls_before_it_is_acknowledged() {
    let mut vm = two();
    vm.write(D, ICPENDR, bit(SPI));
    vm.write(redistributor(1), SGI_BASE + 0x280, bit(PPI));
    let changes = [(0, true, true), (31, true, false), (0, false, false), (31, false, true)];
    for (source, high, expected) in changes {
        assert_eq!(kicks(&mut vm, SPI, source, high), expected, "{source} {high}");
    }
    // There are 32.
    assert!(kicks(&mut vm, SPI, 33, true));
    assert_eq!(vm.gic.spi(intid(SPI)).expect("there is one").state().sources(), 1 << 1);
    assert!(
        !kicks(&mut vm, SPI, 32, true)
            && !kicks(&mut vm, SPI, 1, false)
            && kicks(&mut vm, SPI, 32, false)
    );
    // What is active is looked at when it has ended.
    assert!(kicks(&mut vm, SPI, 5, true));
    assert_eq!(vm.acknowledges(1), SPI);
    assert!(
        !kicks(&mut vm, SPI, 5, false)
            && !kicks(&mut vm, SPI, 5, true)
            && !kicks(&mut vm, SPI, 6, true)
    );
    vm.ends(1, SPI);
    // In no list register, for its group is disabled: there is nothing to take out.
    vm.write(D, CTLR, 1);
    assert!(!kicks(&mut vm, SPI, 5, false) && !kicks(&mut vm, SPI, 6, false));
    // Nor is there if it is disabled itself, or pending by software.
    vm.write(D, CTLR, 3);
    vm.write(D, ICENABLER, bit(SPI));
    assert!(!kicks(&mut vm, SPI, 5, true) && !kicks(&mut vm, SPI, 5, false));
}

#[test]
fn an_edge_kicks_when_a_source_rises_and_it_was_not_latched_before() {
    let mut vm = two();
    vm.write(redistributor(1), SGI_BASE + 0x280, bit(PPI));
    vm.write(D, ICPENDR, bit(SPI));
    vm.write(D, ICFGR, 0b10 << (2 * (SPI % 16)));
    // A list register takes it each time.
    for (source, high, expected) in
        [(0, true, true), (0, true, false), (31, true, true), (31, false, false), (64, true, false)]
    {
        assert_eq!(kicks(&mut vm, SPI, source, high), expected, "{source} {high}");
    }
    // None does, while the group is disabled.
    vm.write(D, CTLR, 1);
    vm.write(D, ICPENDR, bit(SPI));
    for (source, high, expected) in
        [(0, false, false), (0, false, false), (0, true, true), (1, true, false), (1, false, false)]
    {
        assert_eq!(kicks(&mut vm, SPI, source, high), expected, "{source} {high}");
    }
    assert!(vm.gic.spi(intid(SPI)).expect("there is one").state().is_pending());
}

/// The second vCPU acknowledges the SPI, and stays in the guest.
fn acknowledged<'a>(
    vm: &mut Vm,
    gic: &'a Gic<Std>,
    irqs_off: &'a IrqGuard<Std>,
) -> InGuest<'a, Std> {
    vm.write(redistributor(1), SGI_BASE + 0x280, bit(PPI));
    let in_guest = enters(vm, gic, irqs_off, 1);
    let got = vm.vcpus[1].registers.0.read_iar(hw::Group::One).expect("it is not trapped");
    assert_eq!(got.number(), SPI);
    in_guest
}

#[test]
fn an_access_to_what_is_active_waits_for_the_vcpu_that_may_have_acknowledged_it() {
    for (offset, value) in [
        (ISACTIVER, None),
        (ICACTIVER, None),
        (ICACTIVER, Some(bit(SPI))),
        (ISACTIVER, Some(bit(SPI))),
    ] {
        let mut vm = two();
        let (gic, irqs_off) = (Arc::clone(&vm.gic), IrqGuard::<Std>::new());
        let in_guest = acknowledged(&mut vm, &gic, &irqs_off);
        let access = match value {
            None => gic.read(D, offset, Width::Word, &mut vm.asked),
            Some(value) => gic.write(D, offset, Width::Word, value, &mut vm.asked),
        };
        assert_eq!(kicked(&mut vm), [vcpu(1)]);
        let access = access.complete(&mut vm.asked).expect_err("it has not folded");
        assert!(!gic.spi(intid(SPI)).expect("there is one").state().is_active(), "nobody knows");
        let _ = exits(&mut vm, in_guest, 1);
        let read = access.complete(&mut vm.asked).expect("it has folded");
        assert_eq!(read, if value.is_none() { bit(SPI) } else { 0 });
        let active = gic.spi(intid(SPI)).expect("there is one").state().is_active();
        assert_eq!(active, (offset, value) != (ICACTIVER, Some(bit(SPI))));
        // Others are not waited for: neither those that are out, nor for what nobody has.
        let in_guest = enters(&mut vm, &gic, &irqs_off, 1);
        let read = gic.read(D, ISACTIVER + 4, Width::Word, &mut vm.asked);
        assert_eq!(read.complete(&mut vm.asked).ok(), Some(0));
        let written = gic.write(D, ICACTIVER, Width::Word, bit(OTHER), &mut vm.asked);
        assert_eq!(written.complete(&mut vm.asked).ok(), Some(0));
        assert_eq!(kicked(&mut vm), []);
        let _ = exits(&mut vm, in_guest, 1);
    }
}

/// Deactivates an interrupt in the name of a vCPU, as its guest's DIR does.
fn deactivates<'a>(
    vm: &mut Vm,
    gic: &'a Gic<Std>,
    by: u32,
    id: u32,
) -> doorbell_gic::Access<'a, Std> {
    let Vcpu { interface, registers } = &mut vm.vcpus[by as usize];
    interface.deactivate(gic, intid(id), registers, &mut vm.asked)
}

#[test]
fn a_vcpu_that_deactivates_what_another_one_has_waits_for_it_and_tells_the_end_of_a_level() {
    let mut vm = two();
    let (gic, irqs_off) = (Arc::clone(&vm.gic), IrqGuard::<Std>::new());
    let in_guest = acknowledged(&mut vm, &gic, &irqs_off);
    let access = deactivates(&mut vm, &gic, 0, SPI);
    assert_eq!(kicked(&mut vm), [vcpu(1)]);
    let access = access.complete(&mut vm.asked).expect_err("it has not folded");
    let _ = exits(&mut vm, in_guest, 1);
    assert_eq!(access.complete(&mut vm.asked).ok(), Some(0));
    assert!(!gic.spi(intid(SPI)).expect("there is one").state().is_active());
    assert_eq!(std::mem::take(&mut vm.asked.ended), [Ended::Level(intid(SPI))]);
    // What is not active, or is an edge, has no end that anybody waits for.
    for _ in 0..2 {
        assert_eq!(deactivates(&mut vm, &gic, 0, SPI).complete(&mut vm.asked).ok(), Some(0));
        vm.write(D, ICFGR, 0b10 << (2 * (OTHER % 16)));
        vm.write(D, ISACTIVER, bit(OTHER));
        assert_eq!(deactivates(&mut vm, &gic, 0, OTHER).complete(&mut vm.asked).ok(), Some(0));
        assert!(!gic.spi(intid(OTHER)).expect("there is one").state().is_active());
        assert_eq!(vm.asked.ended, []);
    }
}

#[test]
fn what_is_passed_on_and_taken_back_before_it_is_acknowledged_is_deactivated_once_and_never_comes()
{
    let mut vm = two();
    let gic = Arc::clone(&vm.gic);
    vm.write(redistributor(1), SGI_BASE + 0x280, bit(PPI));
    vm.write(D, ICPENDR, bit(SPI));
    let line = gic.private(vcpu(1), intid(PPI)).expect("there is one");
    let physical = PhysicalIntId::new(500);
    line.set_physical(physical);
    line.edge(&mut vm.asked);
    line.take_back(&mut vm.asked);
    let ended = [Ended::Physical(physical.expect("it is small"))];
    assert_eq!(std::mem::take(&mut vm.asked.ended), ended);
    // There is nothing to take back by now.
    line.take_back(&mut vm.asked);
    assert_eq!(vm.asked.ended, []);
    assert_eq!(vm.acknowledges(1), 1023);
    // What was acknowledged is not taken back.
    line.edge(&mut vm.asked);
    assert_eq!(vm.acknowledges(1), PPI);
    line.take_back(&mut vm.asked);
    assert_eq!(vm.asked.ended, []);
    assert!(line.state().is_active());
}

#[test]
fn a_vcpu_that_deactivates_its_own_has_told_all_that_there_is_to_tell_when_that_returns() {
    let mut vm = two();
    let gic = Arc::clone(&vm.gic);
    let physical = PhysicalIntId::new(500);
    vm.write(redistributor(1), SGI_BASE + 0x280, bit(PPI));
    vm.write(D, ICPENDR, bit(SPI));
    gic.private(vcpu(1), intid(PPI)).expect("there is one").set_physical(physical);
    vm.runs(1, |guest| guest.write_ctlr(2).expect("it is not trapped"));
    // EOImode 1: acknowledged, dropped, and not deactivated.
    gic.private(vcpu(1), intid(PPI)).expect("there is one").set_level(3, true, &mut vm.asked);
    assert_eq!(vm.acknowledges(1), PPI);
    gic.private(vcpu(1), intid(PPI)).expect("there is one").set_level(3, false, &mut vm.asked);
    vm.ends(1, PPI);
    assert!(gic.private(vcpu(1), intid(PPI)).expect("there is one").state().is_active());
    assert_eq!(vm.asked.ended, []);
    assert_eq!(deactivates(&mut vm, &gic, 1, PPI).complete(&mut vm.asked).ok(), Some(0));
    assert!(!gic.private(vcpu(1), intid(PPI)).expect("there is one").state().is_active());
    // No source gives the level any more, so that none is told.
    let ended = [Ended::Physical(physical.expect("it is small"))];
    assert_eq!(std::mem::take(&mut vm.asked.ended), ended);
    // Another vCPU has made it active by a write, and the owner has not looked yet.
    vm.write(redistributor(1), SGI_BASE + 0x300, bit(PPI));
    assert_eq!(deactivates(&mut vm, &gic, 1, PPI).complete(&mut vm.asked).ok(), Some(0));
    assert!(!gic.private(vcpu(1), intid(PPI)).expect("there is one").state().is_active());
    assert_eq!(vm.asked.ended, ended);
}

#[test]
fn a_vcpu_that_comes_to_a_cpu_says_which_physical_interrupts_have_to_be_active_there() {
    let mut vm = Vm::new(1, 32);
    let gic = Arc::clone(&vm.gic);
    let [idle, level, edge, active] = [20, 21, 22, 23];
    for id in [idle, level, edge, active] {
        let line = gic.private(vcpu(0), intid(id)).expect("there is one");
        line.set_physical(PhysicalIntId::new(id + 100));
    }
    gic.private(vcpu(0), intid(level)).expect("there is one").set_level(0, true, &mut vm.asked);
    gic.private(vcpu(0), intid(edge)).expect("there is one").edge(&mut vm.asked);
    gic.private(vcpu(0), intid(30)).expect("there is one").edge(&mut vm.asked);
    vm.write(redistributor(0), SGI_BASE + 0x300, bit(active));
    let mut said = Vec::new();
    vm.vcpus[0].interface.load(&gic, |physical, active| said.push((physical.number(), active)));
    assert_eq!(said, [(120, false), (121, true), (122, true), (123, true)]);
    // One that was acknowledged, and one that is in a list register no more: it has not ended.
    vm.write(redistributor(0), SGI_BASE + 0x100, bit(edge));
    assert_eq!(vm.acknowledges(0), edge);
    said.clear();
    vm.vcpus[0].interface.load(&gic, |physical, active| said.push((physical.number(), active)));
    assert_eq!(said, [(120, false), (121, true), (122, true), (123, true)]);
}

#[test]
fn a_route_that_is_written_makes_a_vcpu_leave_if_it_changes_what_its_list_registers_are_for() {
    let (irm, first) = (1 << 31, 0);
    // Pending in a list register: any may have it, or another one.
    for route in [irm, first] {
        let mut vm = two();
        let (gic, irqs_off) = (Arc::clone(&vm.gic), IrqGuard::<Std>::new());
        let in_guest = enters(&mut vm, &gic, &irqs_off, 1);
        vm.write(D, IROUTER + 8 * SPI, route);
        assert_eq!(kicked(&mut vm), [vcpu(1)], "{route:#x}");
        let _ = exits(&mut vm, in_guest, 1);
        let _ = gic.spi(intid(SPI)).expect("there is one").state();
        assert_eq!(
            gic.spi(intid(SPI)).expect("there is one").state().holder(),
            Some(vcpu(u32::from(route == irm)))
        );
    }
    // Active and nothing else: it stays, and goes when it has ended.
    let mut vm = two();
    let (gic, irqs_off) = (Arc::clone(&vm.gic), IrqGuard::<Std>::new());
    let in_guest = acknowledged(&mut vm, &gic, &irqs_off);
    let _ = exits(&mut vm, in_guest, 1);
    let in_guest = enters(&mut vm, &gic, &irqs_off, 1);
    vm.write(D, IROUTER + 8 * SPI, first);
    assert_eq!(kicked(&mut vm), []);
    assert_eq!(gic.spi(intid(SPI)).expect("there is one").state().holder(), Some(vcpu(1)));
    let _ = exits(&mut vm, in_guest, 1);
    vm.ends(1, SPI);
    assert_eq!(gic.spi(intid(SPI)).expect("there is one").state().holder(), Some(vcpu(0)));
}

#[test]
fn a_vcpu_that_is_kicked_for_something_else_has_no_write_pending() {
    let mut vm = two();
    let (gic, irqs_off) = (Arc::clone(&vm.gic), IrqGuard::<Std>::new());
    vm.write(D, CTLR, 2);
    vm.enable_spi(OTHER);
    let in_guest = enters(&mut vm, &gic, &irqs_off, 1);
    gic.spi(intid(OTHER)).expect("there is one").edge(&mut vm.asked);
    assert_eq!(kicked(&mut vm), [vcpu(1)]);
    assert_eq!(write_pending(&mut vm), [false; 3]);
    let _ = exits(&mut vm, in_guest, 1);
    // A group that is enabled is looked at, and nothing has to come back for it.
    let in_guest = enters(&mut vm, &gic, &irqs_off, 1);
    vm.write(D, CTLR, 3);
    assert_eq!(kicked(&mut vm), [vcpu(1)]);
    assert_eq!(write_pending(&mut vm), [false; 3]);
    let _ = exits(&mut vm, in_guest, 1);
}
