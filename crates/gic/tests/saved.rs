//! A state that is saved and restored: in another VM it goes on where it was.

#[allow(dead_code, reason = "other test files use the rest")]
mod registers;
#[allow(dead_code, reason = "other test files use the rest")]
mod vm;

use std::sync::Arc;

use doorbell_gic::spec::Vtr;
use doorbell_gic::{Affinity, Ended, Frame, Gic, GicState, NotToBeHad, StateError, Width};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{CpuId, IrqGuard, Std};
use vm::{Vcpu, Vm, intid, vcpu};

const EDGE: u32 = 40;
const LEVEL: u32 = 41;
const OTHERS: u32 = 42;

/// A VM whose CPUs have 8 bits of priority, of which 7 preempt.
fn finest() -> (Gic<Std>, Vec<Vcpu>) {
    let implementation = hw::Implementation::new(4, 8, 7).expect("it is legal");
    let gic = Gic::new(Vtr::from_bits(implementation.vtr()), 32, &[Affinity(0)])
        .expect("there can be one");
    let interface = gic.cpu_interface(vcpu(0)).expect("nobody has it");
    let registers = registers::Registers(VirtualInterface::new(implementation));
    (gic, vec![Vcpu { interface, registers }])
}

fn save(vm: &mut Vm) -> Result<GicState, StateError> {
    vm.gic.save(vm.vcpus.iter_mut().map(|vcpu| &mut vcpu.interface))
}

fn restore(vm: &mut Vm, state: &GicState) -> Result<(), StateError> {
    let vcpus = vm.vcpus.iter_mut().map(|Vcpu { interface, registers }| (interface, &*registers));
    vm.gic.restore(state, vcpus, &mut vm.asked)
}

/// Two vCPUs, with an interrupt active on the first, one pending there, one pending on the second,
/// and one active by a write.
fn busy() -> Vm {
    let mut vm = Vm::new(2, 32);
    for spi in [EDGE, LEVEL, OTHERS] {
        vm.enable_spi(spi);
    }
    vm.write(Frame::Distributor, 0xc08, 0b10 << 16);
    let _ = vm
        .gic
        .write(Frame::Distributor, 0x400 + LEVEL, Width::Byte, 0x40, &mut vm.asked)
        .wait(&mut vm.asked);
    let _ = vm
        .gic
        .write(Frame::Distributor, 0x400 + EDGE, Width::Byte, 0x80, &mut vm.asked)
        .wait(&mut vm.asked);
    vm.write(Frame::Distributor, 0x6000 + 8 * OTHERS, 1);
    let line = |number| vm.gic.spi(intid(number)).expect("there is one");
    line(EDGE).edge(&mut vm.asked);
    assert_eq!(vm.acknowledges(0), EDGE);
    let line = |number| vm.gic.spi(intid(number)).expect("there is one");
    line(EDGE).edge(&mut vm.asked);
    line(LEVEL).set_level(3, true, &mut vm.asked);
    line(OTHERS).edge(&mut vm.asked);
    vm.write(Frame::Redistributor(vcpu(1)), 0x1_0300, 1 << 20);
    vm
}

/// Another VM, whose CPUs have what those of the first one had.
fn moved(from: &Vm) -> Vm {
    let mut vm = Vm::new(2, 32);
    for (to, from) in vm.vcpus.iter_mut().zip(&from.vcpus) {
        to.registers.0.set_vmcr(from.registers.0.vmcr());
        for group in [hw::Group::Zero, hw::Group::One] {
            let bits = from.registers.0.active_priorities(group, 0).expect("there is one");
            to.registers.0.set_active_priorities(group, 0, bits).expect("there is one");
        }
    }
    vm
}

#[test]
fn what_was_pending_and_active_is_so_in_another_vm_and_ends_there() {
    let mut before = busy();
    let state = save(&mut before).expect("all are stopped");
    let bytes = postcard::to_allocvec(&state).expect("there is room");
    let read: GicState = postcard::from_bytes(&bytes).expect("it is whole");
    assert_eq!(read, state);
    let mut vm = moved(&before);
    restore(&mut vm, &read).expect("it is of such a VM");
    assert_eq!(save(&mut vm).expect("all are stopped"), state);

    // The level preempts the edge that is active; then both end, and the edge comes again.
    assert_eq!(vm.acknowledges(0), LEVEL);
    vm.gic.spi(intid(LEVEL)).expect("there is one").set_level(3, false, &mut vm.asked);
    vm.ends(0, LEVEL);
    assert_eq!(vm.asked.ended, [Ended::Level(intid(LEVEL))]);
    assert_eq!(vm.acknowledges(0), 1023, "the edge is active");
    vm.ends(0, EDGE);
    assert_eq!(vm.acknowledges(0), EDGE);
    assert_eq!(vm.acknowledges(1), OTHERS);
    assert_eq!(vm.read(Frame::Redistributor(vcpu(1)), 0x1_0300), 1 << 20);
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut vm = busy();
    let good = save(&mut vm).expect("all are stopped");
    let refuses = |vm: &mut Vm, change: fn(&mut GicState), error: StateError| {
        let mut state = Vm::new(2, 32);
        let mut state = save(&mut state).expect("all are stopped");
        change(&mut state);
        assert_eq!(restore(vm, &state), Err(error));
        assert_eq!(save(vm).expect("all are stopped"), good);
    };
    refuses(&mut vm, |state| state.version = 2, StateError::Version(2));
    refuses(&mut vm, |state| _ = state.redistributors.pop(), StateError::Vcpus);
    refuses(&mut vm, |state| state.redistributors[1].affinity = 7, StateError::Vcpus);
    refuses(&mut vm, |state| state.enabled_groups = 4, StateError::Vcpus);
    refuses(&mut vm, |state| _ = state.spis.pop(), StateError::Spis(31));
    refuses(
        &mut vm,
        |state| _ = state.redistributors[1].private.pop(),
        StateError::Redistributor(vcpu(1)),
    );
    refuses(&mut vm, |state| state.redistributors[0].dpg = 4, StateError::Redistributor(vcpu(0)));
    let holds =
        |state: &mut GicState| state.redistributors[0].active_priorities = vec![(64, 1, 0x80)];
    refuses(&mut vm, holds, StateError::Redistributor(vcpu(0)));
    let holds =
        |state: &mut GicState| state.redistributors[0].active_priorities = vec![(40, 1, 0x81)];
    refuses(&mut vm, holds, StateError::Redistributor(vcpu(0)));
    let holds =
        |state: &mut GicState| state.redistributors[0].active_priorities = vec![(1023, 1, 0x80)];
    refuses(&mut vm, holds, StateError::Redistributor(vcpu(0)));
    let holds =
        |state: &mut GicState| state.redistributors[0].active_priorities = vec![(40, 2, 0x80)];
    refuses(&mut vm, holds, StateError::Redistributor(vcpu(0)));
    refuses(
        &mut vm,
        |state| state.redistributors[1].private[3].edge = false,
        StateError::Interrupt(3),
    );
    refuses(
        &mut vm,
        |state| state.redistributors[1].private[15].edge = false,
        StateError::Interrupt(15),
    );
    refuses(
        &mut vm,
        |state| state.redistributors[1].private[16].group = 2,
        StateError::Interrupt(16),
    );
    refuses(
        &mut vm,
        |state| state.redistributors[1].private[17].holder = None,
        StateError::Interrupt(17),
    );
    refuses(&mut vm, |state| state.spis[31].priority = 0xff, StateError::Interrupt(63));
    refuses(
        &mut vm,
        |state| state.redistributors[1].private[20].holder = Some(0),
        StateError::Interrupt(20),
    );
    refuses(&mut vm, |state| state.spis[1].holder = Some(2), StateError::Interrupt(33));
    refuses(&mut vm, |state| state.spis[2].priority = 0x84, StateError::Interrupt(34));
    refuses(&mut vm, |state| state.spis[3].group = 2, StateError::Interrupt(35));
    refuses(&mut vm, |state| state.spis[4].physical = Some(1020), StateError::Interrupt(36));
}

#[test]
fn what_is_cut_off_is_no_state() {
    let state = save(&mut busy()).expect("all are stopped");
    let bytes = postcard::to_allocvec(&state).expect("there is room");
    for length in 0..bytes.len() {
        assert!(postcard::from_bytes::<GicState>(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_vcpu_that_is_missing_or_given_twice_is_named() {
    let mut vm = busy();
    let missing = vm.gic.save(vm.vcpus.iter_mut().skip(1).map(|vcpu| &mut vcpu.interface));
    assert_eq!(missing, Err(StateError::Missing(vcpu(0))));
    let state = save(&mut vm).expect("all are stopped");
    let vcpus =
        vm.vcpus.iter_mut().take(1).map(|Vcpu { interface, registers }| (interface, &*registers));
    assert_eq!(vm.gic.restore(&state, vcpus, &mut vm.asked), Err(StateError::Missing(vcpu(1))));
    let mut other = Vm::new(3, 32);
    let foreign = (vm.vcpus.iter_mut().chain(&mut other.vcpus)).map(|vcpu| &mut vcpu.interface);
    assert_eq!(vm.gic.save(foreign), Err(StateError::Missing(vcpu(0))));
    let foreign = other.vcpus.iter_mut().skip(2).map(|vcpu| &mut vcpu.interface);
    assert_eq!(vm.gic.save(foreign), Err(StateError::Missing(vcpu(2))));
}

#[test]
fn a_vcpu_that_is_in_the_guest_or_has_ends_to_tell_is_not_saved() {
    let mut vm = busy();
    assert_eq!(vm.acknowledges(0), LEVEL);
    let gic = Arc::clone(&vm.gic);
    let Vcpu { interface, registers } = &mut vm.vcpus[0];
    let irqs_off = IrqGuard::<Std>::new();
    let in_guest = (interface.enter(&gic, &irqs_off, CpuId(0), registers, &mut vm.asked))
        .expect("nothing requested");
    let ended = registers.0.write_eoir(hw::Group::One, hw::IntId::new(LEVEL).expect("it is small"));
    let _ = ended.expect("it is not trapped");
    assert_eq!(save(&mut vm), Err(StateError::InGuest(vcpu(0))));
    let Vcpu { interface, registers } = &mut vm.vcpus[0];
    assert!(interface.exit(&gic, in_guest, registers, &mut vm.asked), "the level has ended");
    assert_eq!(save(&mut vm), Err(StateError::Untold(vcpu(0))));
    vm.vcpus[0].interface.tell_ended(&mut vm.asked);
    assert_eq!(vm.asked.ended, [Ended::Level(intid(LEVEL))]);
    assert!(save(&mut vm).is_ok());
}

#[test]
fn after_a_reset_nothing_is_pending_or_active_and_everybody_sleeps() {
    let mut fresh = Vm::new(2, 32);
    let new = save(&mut fresh).expect("all are stopped");
    let mut vm = busy();
    restore(&mut vm, &new).expect("it is of such a VM");
    assert_eq!((vm.acknowledges(0), vm.acknowledges(1)), (1023, 1023));
    assert_eq!(save(&mut vm).expect("all are stopped"), new);
}

#[test]
fn what_a_write_has_made_inactive_is_not_saved_as_running_though_its_vcpu_has_not_looked() {
    let mut vm = busy();
    assert_eq!(
        save(&mut vm).expect("all are stopped").redistributors[0].active_priorities,
        [(EDGE as u16, 1, 0x80)]
    );
    vm.write(Frame::Distributor, 0x384, 1 << (EDGE - 32));
    let state = save(&mut vm).expect("all are stopped");
    assert!(!state.spis[EDGE as usize - 32].active);
    assert_eq!(state.redistributors[0].active_priorities, []);
}

#[test]
fn a_vcpu_whose_group_is_enabled_after_the_restoration_takes_part_and_enters_with_nothing_asserted()
{
    let mut vm = Vm::new(1, 32);
    vm.enable_spi(EDGE);
    vm.write(Frame::Distributor, 0x6000 + 8 * EDGE, 1 << 31);
    vm.gic.spi(intid(EDGE)).expect("there is one").edge(&mut vm.asked);
    let state = save(&mut vm).expect("all are stopped");
    let vmcr = vm.vcpus[0].registers.0.vmcr();
    vm.vcpus[0].registers.0.set_vmcr(vmcr & !0b11);
    restore(&mut vm, &state).expect("it is of such a VM");
    // The host restores the registers of the CPU after all.
    vm.vcpus[0].registers.0.set_vmcr(vmcr);
    vm.runs(0, |guest| assert_eq!(guest.misr(), 0));
    assert_eq!(vm.acknowledges(0), EDGE);
}

#[test]
fn a_state_is_restored_whatever_the_controller_was() {
    let mut before = busy();
    before.write(Frame::Redistributor(vcpu(1)), 0, 0b11 << 24);
    before.write(Frame::Redistributor(vcpu(0)), 0x14, 2);
    before.write(Frame::Distributor, 0, 2);
    let gic = Arc::clone(&before.gic);
    before.vcpus[1].interface.power_off(&gic, &mut before.asked);
    let state = save(&mut before).expect("all are stopped");
    assert!(
        state.redistributors[1].off && state.redistributors[0].asleep && state.enabled_groups == 2
    );
    let mut vm = moved(&before);
    vm.write(Frame::Distributor, 0, 1);
    restore(&mut vm, &state).expect("it is of such a VM");
    assert_eq!(save(&mut vm).expect("all are stopped"), state);
    // And a new one, where nothing of that is.
    let new = save(&mut Vm::new(2, 32)).expect("all are stopped");
    restore(&mut vm, &new).expect("it is of such a VM");
    assert_eq!(save(&mut vm).expect("all are stopped"), new);
    assert_eq!(
        vm.gic.cpu_interface(vcpu(1)).err(),
        Some(NotToBeHad::Owned(vcpu(1))),
        "somebody has it still"
    );
}

#[test]
fn priorities_that_preempt_have_fewer_bits_than_others() {
    let (gic, mut vcpus) = finest();
    let mut state =
        gic.save(vcpus.iter_mut().map(|vcpu| &mut vcpu.interface)).expect("all are stopped");
    let mut restores = |state: &GicState| {
        let vcpus = vcpus.iter_mut().map(|Vcpu { interface, registers }| (interface, &*registers));
        gic.restore(state, vcpus, &mut vm::Asked::default())
    };
    state.spis[0].priority = 0x81;
    state.spis[0].active = true;
    state.redistributors[0].active_priorities = vec![(32, 1, 0x80)];
    assert_eq!(restores(&state), Ok(()));
    state.redistributors[0].active_priorities = vec![(32, 1, 0x81)];
    assert_eq!(restores(&state), Err(StateError::Redistributor(vcpu(0))));
}

#[test]
fn a_vcpu_that_took_no_part_says_so_again_after_the_restoration() {
    let mut vm = Vm::new(2, 32);
    vm.enable_spi(EDGE);
    vm.write(Frame::Distributor, 0x6000 + 8 * EDGE, 1 << 31);
    let gic = Arc::clone(&vm.gic);
    let line = gic.spi(intid(EDGE)).expect("there is one");
    line.edge(&mut vm.asked);
    assert_eq!(line.state().holder(), Some(vcpu(0)));
    let disables = |guest: &mut VirtualInterface| {
        guest.write_igrpen(hw::Group::One, false).expect("it is not trapped")
    };
    vm.runs(0, disables);
    assert_eq!(line.state().holder(), Some(vcpu(1)), "it has left the first one");
    let state = save(&mut vm).expect("all are stopped");
    restore(&mut vm, &state).expect("it is of such a VM");
    // The second one ceases to take part: it is offered to the first one, which says that it does
    // not.
    vm.write(Frame::Redistributor(vcpu(1)), 0, 1 << 25);
    vm.runs(0, |_| ());
    assert_eq!(line.state().holder(), None);
    vm.runs(0, |guest| guest.write_igrpen(hw::Group::One, true).expect("it is not trapped"));
    // The entry finds out, and kicks its own vCPU.
    vm.runs(0, |_| ());
    assert_eq!(vm.acknowledges(0), EDGE);
}
