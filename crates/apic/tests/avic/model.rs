//! Random operations against a plain model. `DOORBELL_CASES` says how many sequences, instead of
//! 500 of 20 operations.

use std::collections::BTreeSet;
use std::sync::Arc;

use doorbell_apic::GuestVector;
use doorbell_apic::avic::{AvicVcpu, Vmrun};
use doorbell_platform::{CpuId, IrqGuard, Std};
use doorbell_post::Notice;
use proptest::prelude::*;

use crate::{GUEST_MODE, Host, Irte, LOG, RUN, bind, cpu, table, unbind, vcpu};

pub fn cases() -> u32 {
    std::env::var("DOORBELL_CASES")
        .ok()
        .map_or(500, |cases| cases.parse().expect("DOORBELL_CASES is a number"))
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Post {
        vcpu: usize,
        vector: u8,
    },
    Load {
        vcpu: usize,
        cpu: u32,
    },
    Put {
        vcpu: usize,
    },
    Inhibit {
        vcpu: usize,
        inhibited: bool,
    },
    /// In and out; somebody posts meanwhile.
    Enter {
        vcpu: usize,
        meanwhile: Option<u8>,
    },
    /// Somebody posts, or the vCPU is awoken for another reason.
    Sleep {
        vcpu: usize,
        meanwhile: Option<u8>,
    },
    Retarget {
        irte: usize,
        to: Option<usize>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let vector = || 16..=255u8;
    prop_oneof![
        (0..2usize, vector()).prop_map(|(vcpu, vector)| Op::Post { vcpu, vector }),
        (0..2usize, 0..4u32).prop_map(|(vcpu, cpu)| Op::Load { vcpu, cpu }),
        (0..2usize).prop_map(|vcpu| Op::Put { vcpu }),
        (0..2usize, any::<bool>()).prop_map(|(vcpu, inhibited)| Op::Inhibit { vcpu, inhibited }),
        (0..2usize, prop::option::of(vector()))
            .prop_map(|(vcpu, meanwhile)| Op::Enter { vcpu, meanwhile }),
        (0..2usize, prop::option::of(vector()))
            .prop_map(|(vcpu, meanwhile)| Op::Sleep { vcpu, meanwhile }),
        (0..3usize, prop::option::of(0..2usize)).prop_map(|(irte, to)| Op::Retarget { irte, to }),
    ]
}

#[derive(Default)]
struct Model {
    pending: BTreeSet<u8>,
    cpu: Option<u32>,
    inhibited: bool,
}

impl Model {
    fn gate(&self, sleeps: bool) -> u64 {
        match self.cpu {
            _ if sleeps => LOG,
            None => 0,
            Some(_) if self.inhibited => LOG,
            Some(cpu) => RUN | u64::from(cpu),
        }
    }
}

fn vector(number: u8) -> GuestVector {
    GuestVector::new(number).expect("a legal vector")
}

/// The guest takes what is pending, each ended at once.
fn takes(vcpu: &AvicVcpu<Host<Std>>) -> BTreeSet<u8> {
    let mut all = BTreeSet::new();
    while let Some(vector) = vcpu.page().deliverable() {
        vcpu.page().accept(vector);
        all.insert(vector.number());
        (0..8).for_each(|index| {
            vcpu.page().register(0x100 + 16 * index).store(0, std::sync::atomic::Ordering::SeqCst)
        });
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_vcpu_does_what_the_model_does(ops in prop::collection::vec(op(), 20)) {
        let table = table::<Std>();
        let vcpus = [vcpu(&table, 0), vcpu(&table, 1)];
        let mut models = [Model::default(), Model::default()];
        let irtes = [(); 3].map(|()| Arc::new(Irte::default()));
        let mut bound = [None; 3];
        for op in ops {
            match op {
                Op::Post { vcpu, vector: number } => {
                    prop_assert_eq!(vcpus[vcpu].post(vector(number)), Notice::Nothing, "it looks when it enters");
                    models[vcpu].pending.insert(number);
                }
                Op::Load { vcpu, cpu: on } => {
                    vcpus[vcpu].load(cpu(on));
                    models[vcpu].cpu = Some(on);
                }
                Op::Put { vcpu } => {
                    vcpus[vcpu].put();
                    models[vcpu].cpu = None;
                }
                Op::Inhibit { vcpu, inhibited } => {
                    vcpus[vcpu].inhibit(inhibited);
                    models[vcpu].inhibited = inhibited;
                }
                Op::Enter { vcpu: at, meanwhile } => {
                    let (vcpu, model) = (&vcpus[at], &mut models[at]);
                    let mut got = BTreeSet::new();
                    let on = CpuId(model.cpu.unwrap_or(0));
                    let irqs_off = IrqGuard::<Std>::new();
                    let in_guest = vcpu.enter(&irqs_off, on, |_| got = takes(vcpu));
                    let (_in_guest, vmrun) = in_guest.expect("nothing is requested");
                    let inhibited = Vmrun::WithoutAvic { intercept_cr8: false };
                    prop_assert_eq!(vmrun, if model.inhibited { inhibited } else { Vmrun::WithAvic });
                    if vmrun == Vmrun::WithAvic {
                        got = takes(vcpu);
                    }
                    prop_assert_eq!(&got, &model.pending);
                    model.pending.clear();
                    if let Some(number) = meanwhile {
                        let notice = if model.inhibited { Notice::Kick(on) } else { Notice::Notify(on) };
                        prop_assert_eq!(vcpu.post(vector(number)), notice);
                        prop_assert_eq!(vcpu.post(vector(number)), Notice::Nothing);
                        model.pending.insert(number);
                    }
                }
                Op::Sleep { vcpu: at, meanwhile } => {
                    let (vcpu, model) = (&vcpus[at], &mut models[at]);
                    let sleeping = vcpu.block();
                    prop_assert_eq!(sleeping.is_ok(), model.pending.is_empty());
                    if let Ok(sleeping) = sleeping {
                        for (irte, to) in irtes.iter().zip(&bound) {
                            prop_assert!(*to != Some(at) || irte.says() == GUEST_MODE | model.gate(true));
                        }
                        if let Some(number) = meanwhile {
                            prop_assert_eq!(vcpu.post(vector(number)), Notice::Wake);
                            model.pending.insert(number);
                        }
                        prop_assert_eq!(sleeping.asleep(), meanwhile.is_none());
                    }
                }
                Op::Retarget { irte, to } => {
                    if let Some(from) = bound[irte].take() {
                        let from: &AvicVcpu<_> = &vcpus[from];
                        unbind(from, &irtes[irte]);
                        prop_assert_eq!(from.logged(), Notice::Nothing);
                    }
                    if let Some(to) = to {
                        bind(&vcpus[to], &irtes[irte]);
                        bound[irte] = Some(to);
                    }
                }
            }
            for (number, (vcpu, model)) in (0..).zip(vcpus.iter().zip(&models)) {
                let running = model.cpu.filter(|_| !model.inhibited).map(cpu);
                prop_assert_eq!(table.entry(number).running(), running);
                prop_assert_eq!(vcpu.page().deliverable().map(GuestVector::number), model.pending.last().copied());
                prop_assert_eq!(vcpu.copies().len(), bound.iter().filter(|to| **to == Some(number as usize)).count());
            }
            for (irte, to) in irtes.iter().zip(&bound) {
                prop_assert_eq!(irte.says(), to.map_or(0, |to: usize| GUEST_MODE | models[to].gate(false)));
            }
        }
    }
}
