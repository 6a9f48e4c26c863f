//! A descriptor of VMX: senders and an IOMMU post to a vCPU that sleeps, is preempted at any
//! moment, and moves.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::removal::Program;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_hardware::posts::{Posts, coalescing};
use doorbell_hardware::vcpu::{self, A, B, Delivery};
use doorbell_platform::{Atomic, CpuId};
use doorbell_post::{Layout, PiGate, Requests};

use crate::gates::{nothing_pending, senders};

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    let one = |name: &str, scope| Program::new(name, move |m| program(m, scope));
    let sleeps = Scope { life: Life::Sleeps, ..SENDER };
    let synchronizes = Scope { life: Life::Synchronizes, preempted: true, ..SENDER };
    let device = |scope| Scope { senders: &[], devices: &[0], ..scope };
    let both = |scope| Scope { senders: &[1], devices: &[0], ..scope };
    vec![
        one(
            "coalescing: runs, sleeps and is preempted, one sender",
            Scope { preempted: true, ..sleeps },
        ),
        one("an IOMMU posts to a vCPU that sleeps", device(sleeps)),
        one(
            "an IOMMU posts two to a vCPU that sleeps",
            Scope { senders: &[], devices: &[0, 1], ..sleeps },
        ),
        one("an IOMMU and a sender post to a vCPU that sleeps", both(sleeps)),
        one(
            "an IOMMU posts to a vCPU that is preempted, and sleeps",
            Scope { preempted: true, ..device(sleeps) },
        ),
        one("a sender posts to a vCPU that is preempted", Scope { preempted: true, ..SENDER }),
        one(
            "an IOMMU posts to a vCPU that is preempted",
            Scope { preempted: true, ..device(SENDER) },
        ),
        one(
            "an IOMMU and a sender post to a vCPU that is preempted",
            Scope { preempted: true, ..both(SENDER) },
        ),
        one("a sender posts to a vCPU that takes what is posted in the host", synchronizes),
        one("an IOMMU posts to a vCPU that takes it in the host", device(synchronizes)),
        one("an IOMMU and a sender post to a vCPU that takes it in the host", both(synchronizes)),
        one(
            "a sender posts to a vCPU that takes it in the host, and sleeps",
            Scope { life: Life::SynchronizesAndSleeps, ..synchronizes },
        ),
        one(
            "an IOMMU posts to a vCPU that fell asleep elsewhere and is asked",
            Scope { life: Life::Asked, on: B, ..device(SENDER) },
        ),
    ]
}

#[derive(Clone, Copy)]
struct Scope {
    senders: &'static [usize],
    devices: &'static [usize],
    life: Life,
    /// Where it begins, and falls asleep first.
    on: CpuId,
    /// Once, at any moment: it goes on elsewhere.
    preempted: bool,
}

/// What was posted before a vCPU takes that in the host.
const BEFORE: usize = 5;

/// What the vCPU does.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    /// The vCPU stays in the guest.
    Stays,
    /// The vCPU sleeps, on the list of a CPU, whenever it has nothing to do.
    Sleeps,
    /// The vCPU takes what is posted in the host, with interrupts on, and something is; then it
    /// stays in the guest.
    Synchronizes,
    /// The vCPU takes what is posted in the host, and then sleeps whenever it has nothing to do.
    SynchronizesAndSleeps,
    /// The vCPU sleeps once, and then stays in the guest: meanwhile it is asked for something, then
    /// posted to.
    Asked,
}

const SENDER: Scope =
    Scope { senders: &[0], devices: &[], life: Life::Stays, on: A, preempted: false };

fn program(m: &Machine, scope: Scope) {
    let vcpu = Posts::new(coalescing(), scope.on, true);
    for cpu in [A, B] {
        if matches!(scope.life, Life::Sleeps | Life::SynchronizesAndSleeps | Life::Asked) {
            vcpu.wakes_on(m, cpu);
        }
    }
    let mut before = 0;
    if matches!(scope.life, Life::Synchronizes | Life::SynchronizesAndSleeps) {
        vcpu.send(BEFORE);
        before = 1 << BEFORE;
    }
    let mut wanted = scope
        .devices
        .iter()
        .chain(scope.senders)
        .fold(before, |wanted, number| wanted | 1 << number);
    vcpu::task(m, &vcpu, move |vcpu| match scope.life {
        Life::Stays => vcpu.stay(),
        Life::Sleeps => vcpu.run_and_sleep(wanted),
        Life::Synchronizes => {
            synchronize(vcpu);
            vcpu.stay();
        }
        Life::SynchronizesAndSleeps => {
            synchronize(vcpu);
            vcpu.run_and_sleep(wanted);
        }
        Life::Asked => {
            vcpu.sleep();
            vcpu.stay();
        }
    });
    if scope.life == Life::Asked {
        wanted |= 1 << 9;
        let vcpu = Arc::clone(&vcpu);
        m.task_on(CpuId(3), "asks, then posts", move || {
            vcpu.act(vcpu.post.run_state().request(Requests(1)));
            vcpu.send(9);
        });
    }
    if scope.preempted {
        vcpu::preempt(m, &vcpu, 1);
    }
    for &number in scope.devices {
        let vcpu = Arc::clone(&vcpu);
        m.hardware(format!("IOMMU {number}"), move || vcpu.device(number));
    }
    senders(m, &vcpu, scope.senders);
    nothing_pending(m, &vcpu, wanted);
}

fn synchronize(vcpu: &Posts<PiGate<Sim>>) {
    let _taken = vcpu.post.synchronize(|bits| vcpu.take(bits));
}

/// The task is preempted between "ON is clear" and the taking, and finds the bits when it runs
/// again: ON is set once more, and nothing is pending. It looks once more, and goes on.
#[test]
fn an_on_without_bits_is_left_by_a_hook_and_loses_nothing() {
    let stale = Explore::new("stale").run(|m| {
        let vcpu = Posts::new(coalescing(), A, true);
        vcpu::task(m, &vcpu, synchronize);
        vcpu::preempt(m, &vcpu, 1);
        senders(m, &vcpu, &[0]);
        m.at_quiescence("ON says that a bit is pending", move || {
            let (on, any) = (vcpu.post.gate().load().outstanding(), vcpu.post.layout().any());
            (on == any).then_some(()).ok_or("none is".into())
        });
    });
    stale.assert_found(FailureKind::Quiescence);
    for (name, sleeps) in [("then in the guest", false), ("then asleep", true)] {
        let report = Explore::new(name).run(move |m| {
            let vcpu = Posts::new(coalescing(), A, true);
            [A, B].into_iter().for_each(|cpu| vcpu.wakes_on(m, cpu));
            // As it is left: ON, and no bits.
            vcpu.post.gate().word().fetch_or(1, SeqCst);
            vcpu::task(
                m,
                &vcpu,
                move |vcpu| if sleeps { vcpu.run_and_sleep(0b11) } else { vcpu.stay() },
            );
            let device = Arc::clone(&vcpu);
            m.hardware("IOMMU", move || device.device(0));
            senders(m, &vcpu, &[1]);
            nothing_pending(m, &vcpu, 0b11);
        });
        report.assert_exhausted();
    }
}
