//! A vCPU that waits for an interrupt is woken by whatever makes one deliverable, and by the time
//! it looks, it is.

#[allow(dead_code, reason = "other test files use the rest")]
mod registers;
#[allow(dead_code, reason = "other test files use the rest")]
mod vm;

use std::sync::Arc;

use doorbell_gic::{Frame, SgiRegister};
use doorbell_hardware::gic::spec as hw;
use doorbell_post::{Mode, Notice};
use vm::{Vcpu, Vm, intid, vcpu};

const SPI: u32 = 40;

fn signals(vm: &mut Vm, number: usize) -> bool {
    let Vcpu { interface, registers } = &mut vm.vcpus[number];
    interface.signals(&vm.gic, registers, &mut vm.asked)
}

/// vCPU 1 blocks. Then `happens` wakes it, and there is something to wake up for.
fn wakes(vm: &mut Vm, happens: impl FnOnce(&mut Vm)) {
    assert!(!signals(vm, 1), "there is something before it happens");
    let gic = Arc::clone(&vm.gic);
    let redistributor = gic.redistributor(vcpu(1)).expect("there is one");
    let blocked = redistributor.news().block().expect("there are no news");
    vm.asked.notices.clear();
    happens(vm);
    assert_eq!(vm.asked.notices, [(vcpu(1), Notice::Wake)]);
    assert!(!blocked.asleep());
    drop(blocked);
    assert_eq!(redistributor.news().run_state().mode(), Mode::Host);
    assert!(signals(vm, 1), "it was woken for nothing");
}

fn line(vm: &mut Vm) {
    let gic = Arc::clone(&vm.gic);
    gic.spi(intid(SPI)).expect("there is one").edge(&mut vm.asked);
}

/// A VM of two vCPUs, with the SPI enabled and routed to the second.
fn vm() -> Vm {
    let mut vm = Vm::new(2, 32);
    vm.enable_spi(SPI);
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1);
    vm
}

#[test]
fn an_spi_that_comes_wakes_it() {
    wakes(&mut vm(), line);
}

#[test]
fn an_spi_that_is_pending_and_enabled_wakes_it() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x184, 1 << (SPI % 32));
    line(&mut vm);
    wakes(&mut vm, |vm| vm.enable_spi(SPI));
}

#[test]
fn an_spi_that_is_routed_to_it_wakes_it_though_it_was_in_the_lists_of_another_vcpu() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 0);
    line(&mut vm);
    assert!(signals(&mut vm, 0), "it is the first one's");
    wakes(&mut vm, |vm| vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1));
    assert_eq!(vm.acknowledges(0), 1023);
    assert_eq!(vm.acknowledges(1), SPI);
}

/// The vCPU has it in the list of group 1 still.
#[test]
fn an_spi_that_comes_back_in_another_group_is_not_left_in_the_list_where_it_was() {
    let mut vm = vm();
    let route = |vm: &mut Vm, to| vm.write(Frame::Distributor, 0x6000 + 8 * SPI, to);
    line(&mut vm);
    assert!(signals(&mut vm, 1));
    route(&mut vm, 0);
    vm.write(Frame::Distributor, 0x84, !(1 << (SPI % 32)));
    let _ = signals(&mut vm, 0);
    // Group 0 alone, in which it is by now.
    vm.write(Frame::Distributor, 0, 1);
    let _ = signals(&mut vm, 1);
    wakes(&mut vm, |vm| route(vm, 1));
}

#[test]
fn a_group_that_the_distributor_enables_wakes_it() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0, 0);
    line(&mut vm);
    wakes(&mut vm, |vm| vm.write(Frame::Distributor, 0, 2));
}

#[test]
fn a_redistributor_that_is_woken_wakes_it() {
    let mut vm = vm();
    vm.write(Frame::Redistributor(vcpu(1)), 0x14, 2);
    line(&mut vm);
    wakes(&mut vm, |vm| vm.write(Frame::Redistributor(vcpu(1)), 0x14, 0));
}

#[test]
fn what_any_vcpu_may_have_wakes_the_one_that_still_takes_part() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1 << 31);
    vm.write(Frame::Redistributor(vcpu(1)), 0, 1 << 25);
    line(&mut vm);
    assert!(signals(&mut vm, 0));
    vm.write(Frame::Redistributor(vcpu(1)), 0, 0);
    wakes(&mut vm, |vm| vm.write(Frame::Redistributor(vcpu(0)), 0, 1 << 25));
}

#[test]
fn a_vcpu_that_is_powered_off_leaves_what_any_may_have_to_the_one_that_waits() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1 << 31);
    vm.write(Frame::Redistributor(vcpu(1)), 0, 1 << 25);
    line(&mut vm);
    assert!(signals(&mut vm, 0));
    vm.write(Frame::Redistributor(vcpu(1)), 0, 0);
    wakes(&mut vm, |vm| vm.vcpus[0].interface.power_off(&vm.gic, &mut vm.asked));
}

#[test]
fn what_is_inactive_by_a_write_and_pending_again_wakes_it() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x304, 1 << (SPI % 32));
    line(&mut vm);
    wakes(&mut vm, |vm| vm.write(Frame::Distributor, 0x384, 1 << (SPI % 32)));
}

#[test]
fn an_sgi_wakes_it() {
    let mut vm = vm();
    vm.write(Frame::Redistributor(vcpu(1)), 0x1_0100, 1 << 3);
    wakes(&mut vm, |vm| {
        let sent =
            vm.gic.generate_sgi(vcpu(0), SgiRegister::Sgi1R, 3 << 24 | 1 << 1, &mut vm.asked);
        sent.expect("there is such a vCPU");
    });
}

#[test]
fn a_guest_that_disables_the_group_leaves_what_any_may_have_to_the_one_that_waits() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1 << 31);
    vm.write(Frame::Redistributor(vcpu(1)), 0, 1 << 25);
    line(&mut vm);
    assert!(signals(&mut vm, 0));
    vm.write(Frame::Redistributor(vcpu(1)), 0, 0);
    wakes(&mut vm, |vm| {
        vm.runs(0, |guest| guest.write_igrpen(hw::Group::One, false).expect("it is not trapped"))
    });
}

#[test]
fn a_guest_that_enables_the_group_again_gets_what_nobody_could_have() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1 << 31);
    for number in 0..2 {
        vm.runs(number, |guest| {
            guest.write_igrpen(hw::Group::One, false).expect("it is not trapped")
        });
    }
    line(&mut vm);
    // Each that hears of it finds out that it takes no part.
    for number in [0, 1, 0, 1] {
        assert!(!signals(&mut vm, number));
    }
    assert_eq!(vm.gic.spi(intid(SPI)).expect("there is one").state().holder(), None);
    vm.runs(1, |guest| guest.write_igrpen(hw::Group::One, true).expect("it is not trapped"));
    // The vCPU may find out that it takes part only when it has looked: then it does not block, and
    // looks once more.
    let gic = Arc::clone(&vm.gic);
    let blocks = || gic.redistributor(vcpu(1)).expect("there is one").news().block().is_ok();
    assert!(signals(&mut vm, 1) || !blocks(), "it blocks, and has not been told");
    assert!(signals(&mut vm, 1));
}

#[test]
fn a_guest_that_has_enabled_neither_group_leaves_what_any_may_have_of_both_to_another() {
    let mut vm = vm();
    let spis = [SPI, SPI + 1];
    vm.enable_spi(SPI + 1);
    vm.write(Frame::Distributor, 0x84, u64::from(u32::MAX) & !(1 << (SPI % 32)));
    let vmcr = vm.vcpus[0].registers.0.vmcr();
    vm.vcpus[0].registers.0.set_vmcr(vmcr & !0b11);
    let gic = Arc::clone(&vm.gic);
    let line = |spi| gic.spi(intid(spi)).expect("there is one");
    for spi in spis {
        vm.write(Frame::Distributor, 0x6000 + 8 * spi, 0);
        vm.write(Frame::Distributor, 0x6000 + 8 * spi, 1 << 31);
        line(spi).edge(&mut vm.asked);
        assert_eq!(line(spi).state().holder(), Some(vcpu(0)));
    }
    assert!(!signals(&mut vm, 0));
    assert_eq!(spis.map(|spi| line(spi).state().holder()), [Some(vcpu(1)); 2]);
    assert!(signals(&mut vm, 1));
}

#[test]
fn a_vcpu_that_enters_the_guest_hands_over_what_is_not_for_it_before() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 0);
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1 << 31);
    line(&mut vm);
    let gic = Arc::clone(&vm.gic);
    let vmcr = vm.vcpus[0].registers.0.vmcr();
    vm.vcpus[0].registers.0.set_vmcr(vmcr & !0b11);
    let spi = gic.spi(intid(SPI)).expect("there is one");
    assert_eq!(spi.state().holder(), Some(vcpu(0)));
    vm.runs(0, |_| assert_eq!(spi.state().holder(), Some(vcpu(1)), "it waits for the exit"));
}

#[test]
fn a_trigger_that_makes_it_pending_wakes_it() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0xc08, 0b10 << (2 * (SPI % 16)));
    let gic = Arc::clone(&vm.gic);
    gic.spi(intid(SPI)).expect("there is one").set_level(3, true, &mut vm.asked);
    vm.write(Frame::Distributor, 0x284, 1 << (SPI % 32));
    wakes(&mut vm, |vm| vm.write(Frame::Distributor, 0xc08, 0));
}

#[test]
fn another_group_that_one_vcpu_alone_takes_part_in_wakes_that_one() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 0);
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1 << 31);
    vm.write(Frame::Redistributor(vcpu(0)), 0, 1 << 24);
    line(&mut vm);
    assert!(signals(&mut vm, 0));
    wakes(&mut vm, |vm| {
        vm.write(Frame::Distributor, 0x84, u64::from(u32::MAX) & !(1 << (SPI % 32)))
    });
    assert_eq!(vm.acknowledges(0), 1023);
}

#[test]
fn what_was_active_by_a_write_and_routed_elsewhere_wakes_the_one_that_has_it_when_it_is_inactive() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 0);
    // The first one is not told of that by the time of the second write, or has looked.
    for looks in [false, true] {
        vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 0);
        vm.write(Frame::Distributor, 0x304, 1 << (SPI % 32));
        line(&mut vm);
        if looks {
            assert!(!signals(&mut vm, 0));
        }
        vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1);
        if looks {
            vm.write(Frame::Distributor, 0x384, 1 << (SPI % 32));
            assert!(!signals(&mut vm, 0), "it hands it over");
            assert!(signals(&mut vm, 1));
        } else {
            wakes(&mut vm, |vm| vm.write(Frame::Distributor, 0x384, 1 << (SPI % 32)));
        }
        assert_eq!((vm.acknowledges(0), vm.acknowledges(1)), (1023, SPI));
        vm.ends(1, SPI);
    }
}

#[test]
fn what_any_may_have_stays_where_it_is_or_goes_to_the_next_that_takes_part() {
    let mut vm = Vm::new(4, 32);
    let gic = Arc::clone(&vm.gic);
    let spi = gic.spi(intid(SPI)).expect("there is one");
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 2);
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1 << 31);
    // By 2, who ceases and begins to take part, and has it then.
    let (begins, ceases) = (0, 1 << 25);
    let turns = [
        (0, begins, 2),
        (2, ceases, 3),
        (2, begins, 3),
        (3, ceases, 0),
        (0, ceases, 1),
        (1, ceases, 2),
        (0, begins, 2),
    ];
    for (by, dpg, has) in turns {
        vm.write(Frame::Redistributor(vcpu(by)), 0, dpg);
        assert_eq!(spi.state().holder(), Some(vcpu(has)), "{by} {dpg:#x}");
    }
    // Nobody has it: the first that takes part.
    for (by, has) in [(0, Some(2)), (2, None)] {
        vm.write(Frame::Redistributor(vcpu(by)), 0, ceases);
        assert_eq!(spi.state().holder(), has.map(vcpu));
    }
    for by in [0, 1] {
        vm.write(Frame::Redistributor(vcpu(by)), 0, begins);
        assert_eq!(spi.state().holder(), Some(vcpu(0)));
    }
}

#[test]
fn what_any_may_have_and_comes_again_goes_to_another_one_when_the_guest_disables_its_group() {
    let mut vm = vm();
    vm.write(Frame::Distributor, 0xc08, 0b10 << (2 * (SPI % 16)));
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 0);
    vm.write(Frame::Distributor, 0x6000 + 8 * SPI, 1 << 31);
    line(&mut vm);
    assert_eq!(vm.acknowledges(0), SPI);
    line(&mut vm);
    // Active, and pending again, in its list register.
    vm.runs(0, |guest| {
        let id = hw::IntId::new(SPI).expect("it is small");
        let _ = guest.write_eoir(hw::Group::One, id).expect("it is not trapped");
        assert!(!guest.maintenance());
        guest.write_igrpen(hw::Group::One, false).expect("it is not trapped");
        assert!(guest.maintenance(), "or it stays here until the next exit");
    });
    assert_eq!((vm.acknowledges(0), vm.acknowledges(1)), (1023, SPI));
}
