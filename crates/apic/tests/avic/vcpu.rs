//! A vCPU's hooks, and the copies of its mode.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::GuestVector;
use doorbell_apic::avic::spec::register;
use doorbell_apic::avic::{AvicVcpu, Vmrun};
use doorbell_platform::{CpuId, IrqGuard, Std};
use doorbell_post::{Awake, Mode, Notice, Requests};

use crate::{GUEST_MODE, Host, Irte, LOG, RUN, address, bind, cpu, table, unbind, vcpu};

fn vector(number: u8) -> GuestVector {
    GuestVector::new(number).unwrap()
}

#[test]
fn an_irte_says_what_the_physical_id_table_says_and_asks_for_log_entries_while_the_vcpu_sleeps() {
    let table = table::<Std>();
    let vcpu = vcpu(&table, 0);
    let irte = Arc::new(Irte::default());
    vcpu.load(cpu(7));
    bind(&vcpu, &irte);
    assert_eq!(irte.says(), GUEST_MODE | RUN | 7);
    let sleeping = vcpu.block().unwrap();
    assert_eq!((irte.says(), table.entry(0).running()), (GUEST_MODE | LOG, None));
    vcpu.put();
    assert_eq!(irte.says(), GUEST_MODE | LOG, "switched away from, it still sleeps");
    vcpu.load(cpu(8));
    assert_eq!(irte.says(), GUEST_MODE | LOG, "it is not awake yet");
    drop(sleeping);
    assert_eq!((irte.says(), table.entry(0).running()), (GUEST_MODE | RUN | 8, Some(cpu(8))));
    vcpu.put();
    assert_eq!((irte.says(), vcpu.run_state().mode()), (GUEST_MODE, Mode::Preempted));
}

#[test]
fn inhibited_a_vcpu_is_kicked_and_software_interrupts_it() {
    let table = table::<Std>();
    let vcpu = vcpu(&table, 0);
    let irte = Arc::new(Irte::default());
    vcpu.load(cpu(1));
    bind(&vcpu, &irte);
    vcpu.inhibit(true);
    assert_eq!((irte.says(), table.entry(0).running()), (GUEST_MODE | LOG, None));
    assert_eq!(vcpu.post(vector(0x41)), Notice::Nothing);
    let irqs_off = IrqGuard::<Std>::new();
    let mut injected = None;
    let (in_guest, vmrun) = vcpu
        .enter(&irqs_off, CpuId(1), |page| {
            injected = page.deliverable();
            page.accept(vector(0x41));
        })
        .unwrap();
    assert_eq!(vmrun, Vmrun::WithoutAvic { intercept_cr8: false });
    assert_eq!(injected, Some(vector(0x41)));
    assert_eq!(vcpu.post(vector(0x52)), Notice::Kick(CpuId(1)));
    in_guest.exited();
    vcpu.inhibit(false);
    assert_eq!(irte.says(), GUEST_MODE | RUN | 1);
    let (in_guest, vmrun) =
        vcpu.enter(&irqs_off, CpuId(1), |_| panic!("the CPU looks itself")).unwrap();
    assert_eq!(vmrun, Vmrun::WithAvic);
    assert_eq!(
        vcpu.logged(),
        Notice::Notify(CpuId(1)),
        "0x52 is there, and may not have been seen"
    );
    in_guest.exited();
}

#[test]
fn inhibited_a_vcpu_in_the_guest_is_kicked_whatever_its_priority_and_then_its_cr8_is_intercepted() {
    let table = table::<Std>();
    let vcpu = vcpu(&table, 0);
    vcpu.load(cpu(1));
    vcpu.inhibit(true);
    vcpu.page().register(register::TPR).store(0x50, SeqCst);
    let irqs_off = IrqGuard::<Std>::new();
    let enter =
        || vcpu.enter(&irqs_off, CpuId(1), |page| assert_eq!(page.deliverable(), None)).unwrap();
    let (in_guest, vmrun) = enter();
    assert_eq!(vmrun, Vmrun::WithoutAvic { intercept_cr8: false }, "nothing is pending");
    assert_eq!(vcpu.logged(), Notice::Nothing, "nothing is pending");
    vcpu.page().register(register::IRR + 0x20).fetch_or(1 << 1, SeqCst);
    assert_eq!((vcpu.logged(), vcpu.logged()), (Notice::Kick(CpuId(1)), Notice::Nothing));
    in_guest.exited();
    let (in_guest, vmrun) = enter();
    assert_eq!(vmrun, Vmrun::WithoutAvic { intercept_cr8: true });
    in_guest.exited();

    let sleeping = vcpu.block().unwrap();
    assert_eq!(vcpu.logged(), Notice::Nothing, "asleep, it does not lower its priority");
    drop(sleeping);
    vcpu.page().register(register::TPR).store(0x30, SeqCst);
    let vector = vector(0x41);
    let (in_guest, vmrun) = vcpu.enter(&irqs_off, CpuId(1), |page| page.accept(vector)).unwrap();
    assert_eq!(vmrun, Vmrun::WithoutAvic { intercept_cr8: false });
    in_guest.exited();
}

#[test]
fn a_new_vcpu_asks_whether_avic_is_inhibited_before_it_enters_or_sleeps() {
    let inhibition = Requests(1 << 3);
    let vcpu =
        AvicVcpu::<Host<Std>>::new(&table(), 0, Box::default(), address(1), inhibition).unwrap();
    vcpu.load(cpu(1));
    assert_eq!(vcpu.block().err(), Some(Awake));
    let irqs_off = IrqGuard::<Std>::new();
    let enter = || vcpu.enter(&irqs_off, CpuId(1), |_| ()).map(|(in_guest, _)| in_guest.exited());
    assert_eq!((enter(), enter()), (Err(inhibition), Ok(())));
}

#[test]
fn a_vcpu_with_something_to_do_or_to_serve_does_not_sleep() {
    let table = table::<Std>();
    let vcpu = vcpu(&table, 0);
    vcpu.load(cpu(1));
    let _ = vcpu.post(vector(0x41));
    assert_eq!(vcpu.block().err(), Some(Awake));
    assert_eq!(table.entry(0).running(), Some(cpu(1)), "it is as it was");
    vcpu.page().accept(vector(0x41));
    let _ = vcpu.run_state().request::<CpuId>(Requests(1));
    assert_eq!(vcpu.block().err(), Some(Awake));
    let served = vcpu.enter(&IrqGuard::<Std>::new(), CpuId(1), |_| ()).err();
    assert_eq!(served, Some(Requests(1)));
}

#[test]
fn one_of_those_who_tell_a_sleeping_vcpu_wakes_it() {
    let table = table::<Std>();
    let vcpu = vcpu(&table, 0);
    let sleeping = vcpu.block().unwrap();
    assert_eq!(vcpu.logged(), Notice::Nothing, "the entry is stale: there is nothing to do");
    assert_eq!(vcpu.post(vector(0x41)), Notice::Wake);
    assert_eq!((vcpu.tell(), vcpu.logged()), (Notice::Nothing, Notice::Nothing));
    assert!(!sleeping.asleep());
    sleeping.wait();
}

#[test]
fn a_vcpu_with_bits_pending_can_go_and_one_with_irtes_cannot() {
    let table = table::<Std>();
    let vcpu = vcpu(&table, 0);
    let irte = Arc::new(Irte::default());
    bind(&vcpu, &irte);
    let _ = vcpu.post(vector(0x41));
    let Err(vcpu) = vcpu.retire() else { panic!("an IRTE posts to it") };
    unbind(&vcpu, &irte);
    assert_eq!(vcpu.logged(), Notice::Nothing, "it looks when it enters");
    let Ok(retiring) = vcpu.retire() else { panic!("no IRTE posts to it") };
    assert!(!table.entry(0).valid());
    let page = retiring.after_all_have_exited();
    assert_eq!(page.deliverable(), Some(vector(0x41)));
    assert_eq!(table.entry(0).page(), address(0));
}
