//! A vCPU is asked back what its CPU holds for it.

use std::sync::Arc;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{self, Model};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_hardware::cpu::Cpu;
use doorbell_hardware::posts::Bits;
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::{Guest, Notice, Post, SoftwareGate};

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("recall: a vCPU that runs and halts", |m| recalled(m, 1, Order::FoldsFirst)),
        Program::new("recall: by two at once", |m| recalled(m, 2, Order::FoldsFirst)),
        Program::new("recall: two recall each other", each_other),
    ]
}

/// When a vCPU says that it is out of the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    FoldsFirst,
    /// The fault: the CPU has left the guest, and still holds what it held.
    SaysSoFirst,
}

/// A vCPU, what its CPU holds while it is in the guest, and what memory says.
struct Vcpu {
    post: Post<Sim, Bits, SoftwareGate<Sim>>,
    cpu: Cpu,
    on: CpuId,
    held: Model<u32>,
    folded: Model<u32>,
}

impl Vcpu {
    fn new(on: CpuId) -> Arc<Self> {
        let post = Post::new(Bits::new(), SoftwareGate::new());
        let (held, folded) = (Model::new("list register", 0), Model::new("memory", 0));
        Arc::new(Vcpu { post, cpu: Cpu::new("CPU"), on, held, folded })
    }

    /// Runs its guest, which changes what the CPU holds, and halts or, once, waits for a kick.
    fn run(&self, waits: bool, order: Order) {
        let irqs_off = IrqGuard::<Sim>::new();
        self.cpu.irqs_off();
        let entering = self
            .post
            .enter(&irqs_off, Guest { cpu: self.on, posted: false })
            .expect("nothing is requested");
        let (in_guest, _) = entering.rescan(|_| ());
        self.cpu.enter(false, || {
            self.held.change(|held| *held += 1);
            if waits {
                // Ended, too: nobody recalls it any more.
                let _ = self.cpu.hear();
            }
        });
        self.cpu.leave();
        let fold = || {
            let held = self.held.observe(|held| *held);
            self.folded.change(|folded| *folded = held);
        };
        match order {
            Order::FoldsFirst => in_guest.fold(fold),
            Order::SaysSoFirst => {
                in_guest.exited();
                fold();
            }
        }
        self.cpu.irqs_on();
    }

    /// Recalls it, and sees that it has folded all that its guest had done by then.
    fn recall(&self) {
        let done = self.held.observe(|held| *held);
        let (notice, recall) = self.post.run_state().recall::<CpuId>();
        match notice {
            Notice::Nothing => {}
            Notice::Kick(cpu) if cpu == self.on => self.cpu.kick(),
            other => sim::fail(format!("{other:?}")),
        }
        recall.wait();
        let folded = self.folded.observe(|folded| *folded);
        if folded < done {
            sim::fail(format!("it was recalled, and memory says {folded} of {done}"));
        }
    }
}

fn recalled(m: &Machine, times: usize, order: Order) {
    let vcpu = Vcpu::new(CpuId(0));
    let runs = Arc::clone(&vcpu);
    m.task_on(CpuId(0), "vCPU", move || {
        runs.run(true, order);
        runs.run(false, order);
    });
    for sender in 0..times {
        let recalls = Arc::clone(&vcpu);
        m.task(format!("recall {sender}"), move || recalls.recall());
    }
}

/// Each vCPU recalls the other, and itself, between two runs: it is out of the guest then.
fn each_other(m: &Machine) {
    let vcpus = [Vcpu::new(CpuId(0)), Vcpu::new(CpuId(1))];
    for me in 0..2 {
        let vcpus = vcpus.clone();
        m.task_on(vcpus[me].on, format!("vCPU {me}"), move || {
            vcpus[me].run(false, Order::FoldsFirst);
            vcpus[1 - me].recall();
            vcpus[me].recall();
        });
    }
}

#[test]
fn a_vcpu_that_says_that_it_is_out_of_the_guest_before_it_has_folded_is_recalled_in_vain() {
    let wrong = Explore::new("says so first").run(|m: &Machine| recalled(m, 1, Order::SaysSoFirst));
    wrong.assert_found(FailureKind::Invariant);
    let right = Explore::new("folds first").run(|m: &Machine| recalled(m, 1, Order::FoldsFirst));
    right.assert_exhausted();
}

#[test]
fn a_vcpu_that_sleeps_or_is_preempted_is_neither_woken_nor_waited_for() {
    let report = Explore::new("sleeps").run(|m: &Machine| {
        m.task("recall", || {
            let vcpu = Vcpu::new(CpuId(0));
            let state = vcpu.post.run_state();
            let blocked = vcpu.post.block().expect("nothing is pending");
            vcpu.recall();
            assert!(blocked.asleep());
            drop(blocked);
            state.preempted();
            vcpu.recall();
        });
    });
    report.assert_exhausted();
}
