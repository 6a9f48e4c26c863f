//! Slots, and who is woken, on one thread.

use std::sync::Arc;

use doorbell_apic::vmx::{MOST_SLOTS, NoSlot, PiHost, PiVcpu, TooMany, WakeupVcpus};
use doorbell_platform::{CpuId, Platform, ReadDomain, Std, Vector};
use doorbell_post::{
    Destination, Gate, Layout, Mode, Notice, Pending, PiDescriptor, PiGate, SelfNotify,
};

const NOTIFY: Vector = Vector(0xf2);
const WAKE_UP: Vector = Vector(0xf1);

struct Vcpu {
    number: usize,
    post: PiDescriptor<Std>,
}

impl PiVcpu<Std> for Vcpu {
    fn descriptor(&self) -> &PiDescriptor<Std> {
        &self.post
    }
}

fn vcpu(number: usize) -> Arc<Vcpu> {
    let gate = PiGate::new(Destination::x2apic(0), NOTIFY);
    Arc::new(Vcpu { number, post: PiDescriptor::new(Pending::new(), gate) })
}

struct Rig {
    rcu: Arc<<Std as Platform>::Rcu>,
    wakeup_vcpus: Arc<WakeupVcpus<Std, Vcpu>>,
}

fn rig(slots: usize) -> Rig {
    let rcu = Arc::new(<Std as Platform>::Rcu::new("vCPUs"));
    Rig {
        wakeup_vcpus: WakeupVcpus::new(PiHost::x2apic(NOTIFY, WAKE_UP, [0, 1]), slots, &rcu)
            .unwrap(),
        rcu,
    }
}

#[test]
fn more_slots_than_a_handler_can_look_through_are_refused_before_memory_is_taken() {
    let rcu = Arc::new(<Std as Platform>::Rcu::new("vCPUs"));
    let host = || PiHost::x2apic(NOTIFY, WAKE_UP, [0]);
    let new = |slots| WakeupVcpus::<Std, Vcpu>::new(host(), slots, &rcu).err();
    assert_eq!(
        [new(usize::MAX), new(MOST_SLOTS + 1), new(MOST_SLOTS)],
        [Some(TooMany), Some(TooMany), None]
    );
}

impl Rig {
    fn woken(&self, cpu: u32) -> Vec<usize> {
        let mut woken = Vec::new();
        self.wakeup_vcpus.handle_wakeup(CpuId(cpu), |vcpu| woken.push(vcpu.number));
        woken
    }

    fn evacuated(&self, cpu: u32) -> Vec<usize> {
        let mut woken = Vec::new();
        self.wakeup_vcpus.offline(CpuId(cpu), |vcpu| woken.push(vcpu.number));
        woken
    }
}

/// What an IOMMU does, if nobody else posts.
fn device(vcpu: &Vcpu, vector: u8) -> Option<(Vector, u32)> {
    let _ = vcpu.post.layout().publish(vector.into());
    let control = vcpu.post.gate().load();
    if control.suppressed() {
        return None;
    }
    let seen = vcpu.post.gate().announce()?;
    Some((seen.vector(), seen.destination().bits()))
}

fn sleep(vcpu: &Vcpu) {
    std::mem::forget(vcpu.post.block().expect("nothing is pending"));
}

#[test]
fn only_who_sleeps_on_the_cpu_and_was_notified_is_woken() {
    let rig = rig(130);
    let vcpus: Vec<_> = (0..130).map(vcpu).collect();
    let mut hooks: Vec<_> =
        vcpus.iter().map(|vcpu| rig.wakeup_vcpus.register(vcpu.clone()).unwrap()).collect();
    for (vcpu, hooks) in vcpus.iter().zip(&mut hooks) {
        hooks.load(CpuId(vcpu.number as u32 % 2));
        sleep(vcpu);
        assert_eq!(hooks.put(false), SelfNotify(false));
    }
    for number in [0, 63, 64, 128, 129] {
        assert_eq!(device(&vcpus[number], 0x41), Some((WAKE_UP, number as u32 % 2)));
    }
    assert_eq!(rig.woken(0), [0, 64, 128]);
    assert_eq!(rig.woken(0), []);
    assert_eq!(rig.woken(1), [63, 129]);
}

#[test]
fn a_preempted_vcpu_is_on_no_map_and_load_finds_what_was_posted_meanwhile() {
    let rig = rig(1);
    let vcpu = vcpu(0);
    let mut hooks = rig.wakeup_vcpus.register(vcpu.clone()).unwrap();
    hooks.load(CpuId(0));
    assert_eq!(hooks.put(true), SelfNotify(false));
    assert_eq!((vcpu.post.run_state().mode(), hooks.sleeps_on()), (Mode::Preempted, None));
    assert_eq!(device(&vcpu, 0x41), None);
    assert!(!vcpu.post.gate().load().outstanding());
    hooks.load(CpuId(1));
    let control = vcpu.post.gate().load();
    assert!(control.outstanding() && !control.suppressed());
    assert_eq!((control.vector(), control.destination().bits()), (NOTIFY, 1));
    assert_eq!(vcpu.post.run_state().mode(), Mode::Host);
    assert!(rig.wakeup_vcpus.is_empty(CpuId(0)));
}

#[test]
fn a_vcpu_that_is_preempted_on_its_way_to_sleep_is_woken_when_it_gets_there() {
    let rig = rig(1);
    let vcpu = vcpu(0);
    let mut hooks = rig.wakeup_vcpus.register(vcpu.clone()).unwrap();
    hooks.load(CpuId(0));
    sleep(&vcpu);
    assert_eq!(hooks.put(true), SelfNotify(false));
    assert_eq!(device(&vcpu, 0x41), None);
    hooks.load(CpuId(1));
    assert_eq!(hooks.put(false), SelfNotify(true));
    assert_eq!((hooks.sleeps_on(), rig.woken(0), rig.woken(1)), (Some(CpuId(1)), vec![], vec![0]));
}

#[test]
fn to_put_what_was_not_loaded_and_to_load_twice_changes_nothing() {
    let rig = rig(1);
    let vcpu = vcpu(0);
    let mut hooks = rig.wakeup_vcpus.register(vcpu.clone()).unwrap();
    let before = vcpu.post.gate().load();
    assert_eq!(hooks.put(true), SelfNotify(false));
    assert_eq!(vcpu.post.gate().load(), before);
    hooks.load(CpuId(1));
    hooks.load(CpuId(1));
    sleep(&vcpu);
    assert_eq!(hooks.put(false), SelfNotify(false));
    assert_eq!(hooks.put(false), SelfNotify(false));
    hooks.load(CpuId(0));
    assert!(rig.wakeup_vcpus.is_empty(CpuId(0)) && rig.wakeup_vcpus.is_empty(CpuId(1)));
}

#[test]
fn a_cpu_that_goes_offline_wakes_all_who_sleep_there_notified_or_not() {
    let rig = rig(3);
    let vcpus: Vec<_> = (0..3).map(vcpu).collect();
    let mut hooks: Vec<_> =
        vcpus.iter().map(|vcpu| rig.wakeup_vcpus.register(vcpu.clone()).unwrap()).collect();
    for (hooks, vcpu) in hooks.iter_mut().zip(&vcpus) {
        hooks.load(CpuId(u32::from(vcpu.number == 1)));
        sleep(vcpu);
        assert_eq!(hooks.put(false), SelfNotify(false));
    }
    assert_eq!(vcpus[2].post.run_state().kick::<()>(), Notice::Wake);
    assert_eq!(rig.evacuated(0), [0]);
    assert_eq!(rig.evacuated(0), []);
    // The notification goes to the CPU that is gone; the vCPU is awake.
    assert_eq!(device(&vcpus[0], 0x41), Some((WAKE_UP, 0)));
    hooks[0].load(CpuId(1));
    assert!(vcpus[0].post.block().is_err());
}

#[test]
fn a_slot_is_free_again_when_its_vcpu_is_gone_whatever_was_pending() {
    let rig = rig(2);
    let vcpus: Vec<_> = (0..3).map(vcpu).collect();
    let mut hooks = rig.wakeup_vcpus.register(vcpus[0].clone()).unwrap();
    let other = rig.wakeup_vcpus.register(vcpus[1].clone()).unwrap();
    assert_eq!(rig.wakeup_vcpus.register(vcpus[2].clone()).err(), Some(NoSlot));
    hooks.load(CpuId(0));
    sleep(&vcpus[0]);
    assert_eq!(hooks.put(false), SelfNotify(false));
    assert_eq!(device(&vcpus[0], 0x41), Some((WAKE_UP, 0)));
    drop(hooks);
    assert!(rig.wakeup_vcpus.is_empty(CpuId(0)));
    assert_eq!(rig.woken(0), []);
    let hooks = rig.wakeup_vcpus.register(vcpus[2].clone()).unwrap();
    drop((hooks, other));
    rig.rcu.barrier();
    assert!(vcpus.iter().all(|vcpu| Arc::strong_count(vcpu) == 1));
}
