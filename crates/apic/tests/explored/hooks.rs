//! A vCPU sleeps, is preempted, moves, and goes, while devices post to it.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_apic::vmx::PiHooks;
use doorbell_explore::removal::Program;
use doorbell_explore::sim::Model;
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::vcpu::{self, A, B, Delivery};
use doorbell_platform::{CpuId, Platform};
use doorbell_post::Notice;

use crate::machine::{Cpus, Vcpu, all_delivered, devices, load, put};

/// What software sends.
const SENT: u8 = 2;
/// What was posted before a vCPU takes that in the host.
const BEFORE: u8 = 3;

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    let lives = |name: &str, life| Program::new(name, move |m| lives(m, life));
    let preempted = Life { preempted: true, ..RUNS };
    vec![
        lives(
            "sleeps where it runs, one device",
            Life { sleeps: true, on: A, moves: false, ..RUNS },
        ),
        lives(
            "sleeps where it runs, two devices",
            Life { sleeps: true, on: A, moves: false, devices: &[1, 2], ..RUNS },
        ),
        lives("is woken elsewhere, one device", Life { sleeps: true, ..RUNS }),
        lives("is woken elsewhere, two devices", Life { sleeps: true, devices: &[1, 2], ..RUNS }),
        lives(
            "is preempted and moves, one device and one sender",
            Life { sender: true, ..preempted },
        ),
        lives(
            "is preempted on its way to sleep, or in the guest",
            Life { sleeps: true, ..preempted },
        ),
        lives(
            "is preempted where it takes what is posted, one device",
            Life { synchronizes: true, ..preempted },
        ),
        lives(
            "is preempted where it takes what is posted, one sender",
            Life { synchronizes: true, devices: &[], sender: true, ..preempted },
        ),
        Program::new("two, of which one leaves the map that the other enters", two),
        Program::new("two are registered at once", registered),
        Program::new("is dropped while the handler looks", dropped),
        Program::new("is dropped, and another has its slot", another),
        Program::new("gives its slot back while another asks for one", handed_over),
        Program::new("its CPU goes offline", offline),
    ]
}

/// What one vCPU does, before it stays in the guest, and what is posted to it.
#[derive(Clone, Copy)]
struct Life {
    /// Where it begins.
    on: CpuId,
    /// Whenever it is switched away from.
    moves: bool,
    /// The vCPU takes what is posted in the host, and something is.
    synchronizes: bool,
    sleeps: bool,
    /// Once, at any moment.
    preempted: bool,
    devices: &'static [u8],
    sender: bool,
}

const RUNS: Life = Life {
    on: B,
    moves: true,
    synchronizes: false,
    sleeps: false,
    preempted: false,
    devices: &[1],
    sender: false,
};

fn lives(m: &Machine, life: Life) {
    let seated = Cpus::new(m, 1).seated(life.on, life.moves);
    if life.synchronizes {
        assert_eq!(seated.vcpu.post.post(BEFORE.into()), Notice::Nothing, "it is in the host");
    }
    vcpu::task(m, &seated, move |seated| {
        if life.synchronizes {
            seated.synchronize();
        }
        if life.sleeps {
            seated.sleep();
        }
        seated.stay();
    });
    if life.preempted {
        vcpu::preempt(m, &seated, 1);
    }
    devices(m, &seated.vcpu, life.devices);
    if life.sender {
        let sends = Arc::clone(&seated);
        m.task_on(CpuId(3), "sender", move || sends.act(sends.vcpu.post.post(SENT.into())));
    }
    let sent = u64::from(life.sender) << SENT | u64::from(life.synchronizes) << BEFORE;
    all_delivered(m, &seated.vcpu, life.devices.iter().fold(sent, |all, vector| all | 1 << vector));
}

/// One fell asleep on A, and runs on B; the other falls asleep on A.
fn two(m: &Machine) {
    let cpus = Cpus::new(m, 2);
    let (one, mut leaves) = cpus.vcpu(A);
    let (other, mut enters) = cpus.vcpu(A);
    std::mem::forget(one.post.block().expect("nothing is pending"));
    assert!(!leaves.put(false).0);
    m.task_on(B, "vCPU that runs", move || {
        load(&mut leaves, B);
        // Not dropped: that is another program's.
        std::mem::forget(leaves);
    });
    let (sleeps, machine) = (Arc::clone(&other), Rc::clone(&cpus));
    m.task_on(A, "vCPU that sleeps", move || {
        sleeps.hardware.begins();
        posted_asleep(&machine, &sleeps, &mut enters, A);
        std::mem::forget(enters);
    });
    all_delivered(m, &other, 0b10);
    m.at_quiescence("nobody is in the map", move || {
        cpus.wakeup_vcpus
            .is_empty(A)
            .then_some(())
            .ok_or("the handler of its CPU would look for ever".into())
    });
}

/// Sleeps until something is posted, which happens then.
fn posted_asleep(cpus: &Cpus, vcpu: &Vcpu, hooks: &mut PiHooks<Sim, Vcpu>, cpu: CpuId) {
    let blocked = vcpu.post.block().expect("nothing is pending");
    put(hooks, cpu, false);
    assert!(!cpus.wakeup_vcpus.is_empty(cpu), "it is in the map");
    vcpu.device(1);
    while blocked.asleep() {
        Sim::park();
    }
    load(hooks, cpu);
    drop(blocked);
    vcpu.take(vcpu.post.layout());
}

fn registered(m: &Machine) {
    let cpus = Cpus::new(m, 2);
    for (cpu, name) in [(A, "one"), (B, "another")] {
        let vcpu = Vcpu::new(cpu, false);
        devices(m, &vcpu, &[1]);
        all_delivered(m, &vcpu, 0b10);
        let cpus = Rc::clone(&cpus);
        m.task_on(cpu, name, move || {
            vcpu.hardware.begins();
            let mut hooks =
                cpus.wakeup_vcpus.register(Arc::clone(&vcpu)).expect("there is room for two");
            load(&mut hooks, cpu);
            cpus.halt(&vcpu, &mut hooks, cpu, 0b10);
            std::mem::forget(hooks);
        });
    }
}

/// The hooks are dropped while the vCPU sleeps and something is posted.
fn dropped(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut hooks) = cpus.vcpu(A);
    devices(m, &vcpu, &[1]);
    let life = Arc::downgrade(&vcpu);
    m.task_on(B, "owner", move || {
        vcpu.hardware.begins();
        if let Ok(blocked) = vcpu.post.block() {
            put(&mut hooks, A, false);
            drop(blocked);
        }
        drop(hooks);
        drop(vcpu);
        assert!(cpus.wakeup_vcpus.is_empty(A), "nobody is left to sleep there");
    });
    m.at_quiescence("it is gone", move || {
        life.upgrade().is_none().then_some(()).ok_or("somebody keeps it".into())
    });
}

/// Something is posted to a vCPU that sleeps; it is dropped, and its slot is another's, who sleeps
/// where it did.
fn another(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut hooks) = cpus.vcpu(A);
    std::mem::forget(vcpu.post.block().expect("nothing is pending"));
    assert!(!hooks.put(false).0);
    devices(m, &vcpu, &[1]);
    let next = Vcpu::new(A, false);
    let sleeps = Arc::clone(&next);
    m.task_on(A, "owner", move || {
        vcpu.hardware.begins();
        drop(hooks);
        sleeps.hardware.begins();
        let mut hooks = cpus.wakeup_vcpus.register(Arc::clone(&sleeps)).expect("the slot is free");
        load(&mut hooks, A);
        posted_asleep(&cpus, &sleeps, &mut hooks, A);
        std::mem::forget(hooks);
    });
    all_delivered(m, &next, 0b10);
}

/// One gives its slot back while another asks for one. If it gets it, it sleeps, and is woken.
fn handed_over(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (_, hooks) = cpus.vcpu(A);
    m.task_on(A, "owner", move || drop(hooks));
    let next = Vcpu::new(B, false);
    m.task_on(B, "another", move || {
        next.hardware.begins();
        if let Ok(mut hooks) = cpus.wakeup_vcpus.register(Arc::clone(&next)) {
            load(&mut hooks, B);
            posted_asleep(&cpus, &next, &mut hooks, B);
            std::mem::forget(hooks);
        }
    });
}

/// Interrupts do not reach B any more after it was evacuated; the vCPU sleeps there.
fn offline(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut hooks) = cpus.vcpu(B);
    let away = Arc::new(Model::new("CPU of the task", B));
    let (runs, leaves, evacuated) = (Arc::clone(&vcpu), Arc::clone(&away), Rc::clone(&cpus));
    m.task_on(A, "vCPU", move || {
        runs.hardware.begins();
        if let Ok(blocked) = runs.post.block() {
            put(&mut hooks, B, false);
            leaves.change(|cpu| *cpu = A);
            Sim::park();
            load(&mut hooks, A);
            drop(blocked);
        } else {
            leaves.change(|cpu| *cpu = A);
        }
        cpus.halt(&runs, &mut hooks, A, 0b10);
    });
    m.task_on(B, "goes offline", move || {
        away.wait(|cpu| *cpu == A, |_| ());
        evacuated.offline(B);
    });
    devices(m, &vcpu, &[1]);
    all_delivered(m, &vcpu, 0b10);
}
