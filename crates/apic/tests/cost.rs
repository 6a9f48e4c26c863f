//! What the hooks cost, counted.

use std::sync::Arc;

use doorbell_apic::vmx::{PiHooks, PiHost, WakeupVcpus};
use doorbell_platform::{Counting, Counts, CpuId, Platform, ReadDomain, Std, Vector};
use doorbell_post::{Destination, Gate, Layout, Pending, PiDescriptor, PiGate, SelfNotify};

type P = Counting<Std>;

struct Rig {
    wakeup_vcpus: Arc<WakeupVcpus<P, PiDescriptor<P>>>,
    vcpu: Arc<PiDescriptor<P>>,
    hooks: PiHooks<P, PiDescriptor<P>>,
    rcu: Arc<<P as Platform>::Rcu>,
}

fn rig() -> Rig {
    let rcu = Arc::new(<P as Platform>::Rcu::new("vCPUs"));
    let wakeup_vcpus =
        WakeupVcpus::new(PiHost::x2apic(Vector(0xf2), Vector(0xf1), [0, 1]), 128, &rcu).unwrap();
    let gate = PiGate::new(Destination::x2apic(0), Vector(0xf2));
    let vcpu = Arc::new(PiDescriptor::new(Pending::new(), gate));
    let mut hooks = wakeup_vcpus.register(Arc::clone(&vcpu)).unwrap();
    hooks.load(CpuId(0));
    Rig { wakeup_vcpus, vcpu, hooks, rcu }
}

fn of<R>(f: impl FnOnce() -> R) -> (R, Counts) {
    P::measure(f)
}

fn counts(rmws: u64, loads: u64, stores: u64) -> Counts {
    Counts { rmws, loads, stores, ..Counts::default() }
}

#[test]
fn to_go_to_sleep_and_to_run_again_takes_two_read_modify_writes_each() {
    let mut rig = rig();
    std::mem::forget(rig.vcpu.block().unwrap());
    assert_eq!(of(|| rig.hooks.put(false)), (SelfNotify(false), counts(2, 2, 0)));
    assert_eq!(of(|| rig.hooks.load(CpuId(1))), ((), counts(2, 2, 0)));
}

#[test]
fn to_be_preempted_takes_one_and_to_run_again_one_and_a_look_at_the_bits() {
    let mut rig = rig();
    assert_eq!(of(|| rig.hooks.put(true)), (SelfNotify(false), counts(1, 1, 1)));
    assert_eq!(of(|| rig.hooks.load(CpuId(1))), ((), counts(1, 6, 1)));
}

#[test]
fn to_load_where_it_is_takes_nothing() {
    let mut rig = rig();
    assert_eq!(of(|| rig.hooks.load(CpuId(0))).1, counts(0, 0, 0));
}

#[test]
fn the_handler_takes_a_load_for_64_vcpus_and_wakes_with_one_read_modify_write() {
    let mut rig = rig();
    let section = of(|| drop(rig.rcu.read())).1;
    let and =
        |rmws, loads| Counts { rmws: section.rmws + rmws, loads: section.loads + loads, ..section };
    let handler = |rig: &Rig| of(|| rig.wakeup_vcpus.handle_wakeup(CpuId(0), |_| ())).1;
    assert_eq!(handler(&rig), and(0, 2));
    std::mem::forget(rig.vcpu.block().unwrap());
    let _ = rig.hooks.put(false);
    // The slot, and ON.
    assert_eq!(handler(&rig), and(0, 4));
    rig.vcpu.layout().publish(0x41.into());
    rig.vcpu.gate().announce().unwrap();
    // And the mode, which is changed.
    assert_eq!(handler(&rig), and(1, 5));
}
