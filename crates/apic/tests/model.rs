//! Random lives of a few vCPUs, on one thread, against a plain model: where notifications go, who
//! is on which map, and who is woken. `DOORBELL_CASES` says how many lives, instead of 10,000.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use doorbell_apic::vmx::{PiHooks, PiHost, PiVcpu, WakeupVcpus};
use doorbell_platform::{CpuId, Platform, ReadDomain, Std, Vector};
use doorbell_post::{
    Awake, Destination, Gate, Layout, Mode, Notice, Pending, PiControl, PiDescriptor, PiGate,
    SelfNotify,
};
use proptest::prelude::*;

const NOTIFY: Vector = Vector(0xf2);
const WAKE_UP: Vector = Vector(0xf1);
const VCPUS: usize = 4;
const SLOTS: usize = 3;
const CPUS: u32 = 2;

#[derive(Clone, Debug)]
enum Op {
    Register(usize),
    Drop(usize),
    Load(usize, u32),
    Put(usize, bool),
    Block(usize),
    /// An IOMMU posts.
    Device(usize, u8),
    /// Software posts.
    Send(usize, u8),
    Take(usize),
    WakeUp(u32),
    Evacuate(u32),
}

/// Not by `prop_oneof`, which spends more time on random numbers than all the rest takes.
fn op() -> impl Strategy<Value = Op> {
    let parts = (0..45u32, 0..VCPUS, 0..CPUS, 16..20u8, any::<bool>());
    parts.prop_map(|(kind, n, cpu, vector, preempted)| match kind {
        0..4 => Op::Register(n),
        4 => Op::Drop(n),
        5..13 => Op::Load(n, cpu),
        13..21 => Op::Put(n, preempted),
        21..29 => Op::Block(n),
        29..34 => Op::Device(n, vector),
        34..36 => Op::Send(n, vector),
        36..40 => Op::Take(n),
        40..44 => Op::WakeUp(cpu),
        _ => Op::Evacuate(cpu),
    })
}

struct Vcpu {
    number: usize,
    post: PiDescriptor<Std>,
}

impl PiVcpu<Std> for Vcpu {
    fn descriptor(&self) -> &PiDescriptor<Std> {
        &self.post
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum At {
    New,
    Loaded(u32),
    Suppressed,
    Listed(u32),
}

/// What is known of one vCPU.
struct Known {
    vcpu: Arc<Vcpu>,
    hooks: Option<PiHooks<Std, Vcpu>>,
    at: At,
    mode: Mode,
    pir: BTreeSet<u8>,
    control: PiControl,
}

impl Known {
    fn new(number: usize) -> Self {
        let destination = Destination::x2apic(0);
        let post = PiDescriptor::new(Pending::new(), PiGate::new(destination, NOTIFY));
        Known {
            vcpu: Arc::new(Vcpu { number, post }),
            hooks: None,
            at: At::New,
            mode: Mode::Host,
            pir: BTreeSet::new(),
            control: PiControl::new(destination, NOTIFY),
        }
    }

    /// Notifications go elsewhere; whether one had been sent, or should have been.
    fn redirect(&mut self, cpu: u32, vector: Vector) -> bool {
        let on = self.control.outstanding() || self.control.suppressed() && !self.pir.is_empty();
        self.control = PiControl::new(Destination::x2apic(cpu), vector).with_outstanding(on);
        on
    }

    fn woken(&mut self) -> bool {
        let asleep = self.mode == Mode::Blocked;
        if asleep {
            self.mode = Mode::Host;
        }
        asleep
    }
}

struct World {
    wakeup_vcpus: Arc<WakeupVcpus<Std, Vcpu>>,
    vcpus: Vec<Known>,
}

impl World {
    fn new() -> Self {
        static RCU: LazyLock<Arc<<Std as Platform>::Rcu>> =
            LazyLock::new(|| Arc::new(ReadDomain::new("vCPUs")));
        let host = PiHost::x2apic(NOTIFY, WAKE_UP, 0..CPUS);
        World {
            wakeup_vcpus: WakeupVcpus::new(host, SLOTS, &RCU).unwrap(),
            vcpus: (0..VCPUS).map(Known::new).collect(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Register(n) => self.register(n),
            Op::Drop(n) => {
                let known = &mut self.vcpus[n];
                known.hooks = None;
                known.at = At::New;
            }
            Op::Load(n, cpu) => self.load(n, cpu),
            Op::Put(n, preempted) => self.put(n, preempted),
            Op::Block(n) => self.block(n),
            Op::Device(n, vector) => self.device(n, vector),
            Op::Send(n, vector) => self.send(n, vector),
            Op::Take(n) => self.take(n),
            Op::WakeUp(cpu) => self.handler(cpu, false),
            Op::Evacuate(cpu) => self.handler(cpu, true),
        }
    }

    fn register(&mut self, n: usize) {
        let taken = self.vcpus.iter().filter(|known| known.hooks.is_some()).count();
        let known = &mut self.vcpus[n];
        if known.hooks.is_none() {
            known.hooks = self.wakeup_vcpus.register(known.vcpu.clone()).ok();
            assert_eq!(known.hooks.is_some(), taken < SLOTS);
        }
    }

    fn load(&mut self, n: usize, cpu: u32) {
        let known = &mut self.vcpus[n];
        let Some(hooks) = &mut known.hooks else { return };
        hooks.load(CpuId(cpu));
        if known.at != At::Loaded(cpu) {
            known.at = At::Loaded(cpu);
            known.redirect(cpu, NOTIFY);
            if known.mode == Mode::Preempted {
                known.mode = Mode::Host;
            }
        }
    }

    fn put(&mut self, n: usize, preempted: bool) {
        let known = &mut self.vcpus[n];
        let Some(hooks) = &mut known.hooks else { return };
        let notify = hooks.put(preempted);
        let At::Loaded(cpu) = known.at else { return assert_eq!(notify, SelfNotify(false)) };
        if !preempted && known.mode == Mode::Blocked {
            known.at = At::Listed(cpu);
            assert_eq!(notify, SelfNotify(known.redirect(cpu, WAKE_UP)));
        } else {
            known.at = At::Suppressed;
            known.control = known.control.with_suppressed(true);
            if known.mode == Mode::Host {
                known.mode = Mode::Preempted;
            }
            assert_eq!(notify, SelfNotify(false));
        }
    }

    fn block(&mut self, n: usize) {
        let known = &mut self.vcpus[n];
        if known.mode != Mode::Host || !matches!(known.at, At::Loaded(_)) {
            return;
        }
        match known.vcpu.post.block() {
            Ok(blocked) => {
                std::mem::forget(blocked);
                known.mode = Mode::Blocked;
                assert!(!known.control.outstanding());
            }
            Err(Awake) => assert!(known.control.outstanding()),
        }
    }

    fn device(&mut self, n: usize, vector: u8) {
        let known = &mut self.vcpus[n];
        let _ = known.vcpu.post.layout().publish(vector.into());
        known.pir.insert(vector);
        if !known.control.suppressed() {
            let first = !known.control.outstanding();
            known.control = known.control.with_outstanding(true);
            assert_eq!(known.vcpu.post.gate().announce(), first.then_some(known.control));
        }
    }

    fn send(&mut self, n: usize, vector: u8) {
        let known = &mut self.vcpus[n];
        let notice = known.vcpu.post.post(vector.into());
        let announces = known.pir.insert(vector) && !known.control.outstanding();
        known.control = known.control.with_outstanding(known.control.outstanding() || announces);
        let wakes = announces && known.woken();
        assert_eq!(notice, if wakes { Notice::Wake } else { Notice::Nothing });
    }

    fn take(&mut self, n: usize) {
        let known = &mut self.vcpus[n];
        let mut taken = BTreeSet::new();
        let _taken = known
            .vcpu
            .post
            .synchronize(|pir| pir.take(|bit| assert!(taken.insert(bit.number() as u8))));
        if known.control.outstanding() {
            known.control = known.control.with_outstanding(false);
            assert_eq!(taken, std::mem::take(&mut known.pir));
        } else {
            assert!(taken.is_empty());
        }
    }

    fn handler(&mut self, cpu: u32, evacuates: bool) {
        let mut woken = BTreeSet::new();
        let wake = |vcpu: &Arc<Vcpu>| assert!(woken.insert(vcpu.number), "woken twice");
        if evacuates {
            self.wakeup_vcpus.offline(CpuId(cpu), wake);
        } else {
            self.wakeup_vcpus.handle_wakeup(CpuId(cpu), wake);
        }
        for known in self.vcpus.iter_mut().filter(|known| known.at == At::Listed(cpu)) {
            let wanted = (evacuates || known.control.outstanding()) && known.woken();
            assert_eq!(woken.remove(&known.vcpu.number), wanted);
        }
        assert_eq!(woken, BTreeSet::new());
    }

    fn check(&self) {
        for known in &self.vcpus {
            assert_eq!(known.vcpu.post.gate().load(), known.control);
            assert_eq!(known.vcpu.post.run_state().mode(), known.mode);
            let listed = if let At::Listed(cpu) = known.at { Some(CpuId(cpu)) } else { None };
            assert_eq!(known.hooks.as_ref().and_then(PiHooks::sleeps_on), listed);
            // Nothing that is posted is without somebody who answers for it.
            let answered =
                known.control.outstanding() || known.control.suppressed() || known.pir.is_empty();
            assert!(answered, "{:?}", known.at);
        }
        for cpu in 0..CPUS {
            let empty = !self.vcpus.iter().any(|known| known.at == At::Listed(cpu));
            assert_eq!(self.wakeup_vcpus.is_empty(CpuId(cpu)), empty);
        }
    }
}

fn cases() -> u32 {
    std::env::var("DOORBELL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_hooks_posts_and_wake_ups_does_what_a_plain_model_does(
        ops in prop::collection::vec(op(), 1..60)
    ) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
            world.check();
        }
    }
}
