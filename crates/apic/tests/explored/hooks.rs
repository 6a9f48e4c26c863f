//! A vCPU sleeps, is preempted, moves, and goes, while devices post to it.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_apic::vmx::Seat;
use doorbell_explore::removal::Program;
use doorbell_explore::sim::Model;
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::vtd;
use doorbell_platform::{CpuId, Platform};

use crate::machine::{A, B, Cpus, Vcpu, all_delivered, devices, load, put, sleep};

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("sleeps where it runs, one device", |m| sleeps(m, A, &[1])),
        Program::new("sleeps where it runs, two devices", |m| sleeps(m, A, &[1, 2])),
        Program::new("is woken elsewhere, one device", |m| sleeps(m, B, &[1])),
        Program::new("is woken elsewhere, two devices", |m| sleeps(m, B, &[1, 2])),
        Program::new("is preempted and moves, one device and one sender", preempted),
        Program::new("is preempted on its way to sleep", preempted_on_its_way),
        Program::new("two, of which one leaves the map that the other enters", two),
        Program::new("two are registered at once", registered),
        Program::new("is dropped while the handler looks", dropped),
        Program::new("is dropped, and another has its slot", another),
        Program::new("gives its slot back while another asks for one", handed_over),
        Program::new("its CPU goes offline", offline),
    ]
}

/// Sleeps on `on`, and then stays in the guest on A.
fn sleeps(m: &Machine, on: CpuId, vectors: &[u8]) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut seat) = cpus.vcpu(on);
    let runs = Arc::clone(&vcpu);
    m.task_on(A, "vCPU", move || {
        runs.begin();
        if let Ok(blocked) = runs.post.block() {
            sleep(blocked, &mut seat, on, A);
        }
        load(&mut seat, A);
        while cpus.run(&runs, A) {}
    });
    devices(m, &vcpu, vectors);
    all_delivered(m, &vcpu, vectors.iter().fold(0, |all, vector| all | 1 << vector));
}

fn preempted(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut seat) = cpus.vcpu(B);
    let runs = Arc::clone(&vcpu);
    m.task_on(A, "vCPU", move || {
        runs.begin();
        put(&mut seat, B, true);
        load(&mut seat, A);
        while cpus.run(&runs, A) {}
    });
    devices(m, &vcpu, &[1]);
    let sends = Arc::clone(&vcpu);
    m.task_on(CpuId(3), "sender", move || sends.send(2));
    all_delivered(m, &vcpu, 0b110);
}

fn preempted_on_its_way(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut seat) = cpus.vcpu(B);
    let runs = Arc::clone(&vcpu);
    m.task_on(A, "vCPU", move || {
        runs.begin();
        if let Ok(blocked) = runs.post.block() {
            put(&mut seat, B, true);
            load(&mut seat, A);
            sleep(blocked, &mut seat, A, A);
        }
        load(&mut seat, A);
        while cpus.run(&runs, A) {}
    });
    devices(m, &vcpu, &[1]);
    all_delivered(m, &vcpu, 0b10);
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
        sleeps.begin();
        posted_asleep(&machine, &sleeps, &mut enters, A);
        std::mem::forget(enters);
    });
    all_delivered(m, &other, 0b10);
    m.at_quiescence("nobody is in the map", move || {
        cpus.sleepers.is_empty(A).then_some(()).ok_or("the handler of its CPU would look for ever".into())
    });
}

/// Sleeps until something is posted, which happens then.
fn posted_asleep(cpus: &Cpus, vcpu: &Vcpu, seat: &mut Seat<Sim, Vcpu>, cpu: CpuId) {
    let blocked = vcpu.post.block().expect("nothing is pending");
    put(seat, cpu, false);
    assert!(!cpus.sleepers.is_empty(cpu), "it is in the map");
    vtd::post_to(&vcpu.post, 1);
    while blocked.asleep() {
        Sim::park();
    }
    load(seat, cpu);
    drop(blocked);
    vcpu.take();
}

fn registered(m: &Machine) {
    let cpus = Cpus::new(m, 2);
    for (cpu, name) in [(A, "one"), (B, "another")] {
        let vcpu = Vcpu::new(cpu);
        devices(m, &vcpu, &[1]);
        all_delivered(m, &vcpu, 0b10);
        let cpus = Rc::clone(&cpus);
        m.task_on(cpu, name, move || {
            vcpu.begin();
            let mut seat = cpus.sleepers.register(Arc::clone(&vcpu)).expect("there is room for two");
            load(&mut seat, cpu);
            cpus.halt(&vcpu, &mut seat, cpu, 0b10);
            std::mem::forget(seat);
        });
    }
}

/// It sleeps, something is posted, and it is dropped.
fn dropped(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut seat) = cpus.vcpu(A);
    devices(m, &vcpu, &[1]);
    let life = Arc::downgrade(&vcpu);
    m.task_on(B, "owner", move || {
        vcpu.begin();
        if let Ok(blocked) = vcpu.post.block() {
            put(&mut seat, A, false);
            drop(blocked);
        }
        drop(seat);
        drop(vcpu);
        assert!(cpus.sleepers.is_empty(A), "nobody is left to sleep there");
    });
    m.at_quiescence("it is gone", move || life.upgrade().is_none().then_some(()).ok_or("somebody keeps it".into()));
}

/// Something is posted to a vCPU that sleeps; it is dropped, and its slot is another's, who sleeps where it did.
fn another(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut seat) = cpus.vcpu(A);
    std::mem::forget(vcpu.post.block().expect("nothing is pending"));
    assert!(!seat.put(false).0);
    devices(m, &vcpu, &[1]);
    let next = Vcpu::new(A);
    let sleeps = Arc::clone(&next);
    m.task_on(A, "owner", move || {
        vcpu.begin();
        drop(seat);
        sleeps.begin();
        let mut seat = cpus.sleepers.register(Arc::clone(&sleeps)).expect("the slot is free");
        load(&mut seat, A);
        posted_asleep(&cpus, &sleeps, &mut seat, A);
        std::mem::forget(seat);
    });
    all_delivered(m, &next, 0b10);
}

/// One gives its slot back while another asks for one. If it gets it, it sleeps, and is woken.
fn handed_over(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (_, seat) = cpus.vcpu(A);
    m.task_on(A, "owner", move || drop(seat));
    let next = Vcpu::new(B);
    m.task_on(B, "another", move || {
        next.begin();
        if let Ok(mut seat) = cpus.sleepers.register(Arc::clone(&next)) {
            load(&mut seat, B);
            posted_asleep(&cpus, &next, &mut seat, B);
            std::mem::forget(seat);
        }
    });
}

/// Interrupts do not reach B any more after it was evacuated; the vCPU sleeps there.
fn offline(m: &Machine) {
    let cpus = Cpus::new(m, 1);
    let (vcpu, mut seat) = cpus.vcpu(B);
    let away = Arc::new(Model::new("CPU of the task", B));
    let (runs, leaves, evacuated) = (Arc::clone(&vcpu), Arc::clone(&away), Rc::clone(&cpus));
    m.task_on(A, "vCPU", move || {
        runs.begin();
        if let Ok(blocked) = runs.post.block() {
            put(&mut seat, B, false);
            leaves.change(|cpu| *cpu = A);
            Sim::park();
            load(&mut seat, A);
            drop(blocked);
        } else {
            leaves.change(|cpu| *cpu = A);
        }
        cpus.halt(&runs, &mut seat, A, 0b10);
    });
    m.task_on(B, "goes offline", move || {
        away.wait(|cpu| *cpu == A, |_| ());
        evacuated.offline(B);
    });
    devices(m, &vcpu, &[1]);
    all_delivered(m, &vcpu, 0b10);
}
