//! Senders, and a vCPU that enters, leaves, sleeps, and is preempted, with each gate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use doorbell_explore::Machine;
use doorbell_explore::removal::Program;
use doorbell_hardware::posts::{Few, Hooked, Posts, coalescing};
use doorbell_hardware::vcpu::{self, A, Delivery, Ran, Until};
use doorbell_post::{ModeGate, Requests, SoftwareGate};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("level: runs and sleeps, two senders", |m| sleeps(m, ModeGate::new(), false)),
        Program::new("level: runs, sleeps and is preempted, two senders", |m| {
            sleeps(m, ModeGate::new(), true)
        }),
        Program::new("coalescing: stays in the guest, two senders", |m| {
            stays(m, coalescing(), true, &[0, 1])
        }),
        Program::new("level: stays in the guest, two senders", |m| {
            stays(m, ModeGate::new(), true, &[0, 1])
        }),
        Program::new("coalescing: stays in the guest, one vector twice", |m| {
            stays(m, coalescing(), true, &[0, 0])
        }),
        Program::new("level: stays in the guest, one vector twice", |m| {
            stays(m, ModeGate::new(), true, &[0, 0])
        }),
        Program::new("coalescing: the CPU does not take what is posted", |m| {
            stays(m, coalescing(), false, &[0, 1])
        }),
        Program::new("level: the CPU does not take what is posted", |m| {
            stays(m, ModeGate::new(), false, &[0, 1])
        }),
        Program::new("coalescing: posting is inhibited at any moment", |m| {
            inhibited(m, coalescing())
        }),
        Program::new("level: posting is inhibited at any moment", |m| {
            inhibited(m, ModeGate::new())
        }),
        Program::new("software: runs and sleeps, two senders", |m| {
            sleeps(m, SoftwareGate::new(), false)
        }),
        Program::new("software: the CPU does not take what is posted", |m| {
            stays(m, SoftwareGate::new(), false, &[0, 1])
        }),
        Program::new("level: two ask a vCPU that sleeps for something", asked),
    ]
}

/// Several senders, by their numbers.
pub fn senders<G: Hooked, L: Few>(m: &Machine, vcpu: &Arc<Posts<G, L>>, numbers: &[usize]) {
    for &number in numbers {
        let vcpu = Arc::clone(vcpu);
        m.task(format!("sender {number}"), move || vcpu.send(number));
    }
}

/// In the end the guest has got what is `wanted`, and nothing is pending.
pub fn nothing_pending<G: Hooked, L: Few>(m: &Machine, vcpu: &Arc<Posts<G, L>>, wanted: u64) {
    vcpu::has_got(m, vcpu, wanted);
    let vcpu = Arc::clone(vcpu);
    m.at_quiescence("nothing that was posted is pending", move || {
        (!vcpu.post.layout().any()).then_some(()).ok_or("something is".into())
    });
}

fn sleeps<G: Hooked>(m: &Machine, gate: G, preempted: bool) {
    let vcpu = Posts::<G>::new(gate, A, true);
    vcpu::task(m, &vcpu, |vcpu| vcpu.run_and_sleep(0b11));
    senders(m, &vcpu, &[0, 1]);
    if preempted {
        vcpu::preempt(m, &vcpu, 1);
    }
    nothing_pending(m, &vcpu, 0b11);
}

fn stays<G: Hooked>(m: &Machine, gate: G, posted: bool, numbers: &[usize]) {
    let vcpu = Posts::<_>::new(gate, A, false);
    vcpu.takes_posted(posted);
    vcpu::task(m, &vcpu, Delivery::stay);
    senders(m, &vcpu, numbers);
    nothing_pending(m, &vcpu, numbers.iter().fold(0, |wanted, number| wanted | 1 << number));
}

/// Two ask a vCPU that sleeps for something.
fn asked(m: &Machine) {
    let vcpu = Posts::<_>::new(ModeGate::new(), A, false);
    vcpu::task(m, &vcpu, |vcpu| {
        let mut served = 0;
        while served != 0b11 {
            match vcpu.run(Until::Halts) {
                Ran::Requested(Requests(bits)) => served |= bits,
                Ran::Exited | Ran::Over => vcpu.sleep(),
            }
        }
    });
    for request in [0b01, 0b10] {
        let vcpu = Arc::clone(&vcpu);
        m.task(format!("request {request:#b}"), move || {
            vcpu.act(vcpu.post.run_state().request(Requests(request)))
        });
    }
}

/// Posting is inhibited at any moment, and the vCPU asked to enter without it (X06).
fn inhibited<G: Hooked>(m: &Machine, gate: G) {
    let vcpu = Posts::<_>::new(gate, A, false);
    let served = Arc::new(AtomicU32::new(0));
    let serves = Arc::clone(&served);
    vcpu::task(m, &vcpu, move |vcpu| {
        loop {
            match vcpu.run(Until::Kicked) {
                Ran::Requested(Requests(bits)) => {
                    serves.fetch_or(bits, Ordering::Relaxed);
                    vcpu.takes_posted(false);
                }
                Ran::Exited => {}
                Ran::Over => return,
            }
        }
    });
    senders(m, &vcpu, &[0]);
    nothing_pending(m, &vcpu, 1);
    m.at_quiescence("the request was served", move || {
        (served.load(Ordering::Relaxed) == 1).then_some(()).ok_or("it was not".into())
    });
    m.task("inhibit", move || vcpu.act(vcpu.post.run_state().request(Requests(1))));
}
