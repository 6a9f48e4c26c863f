//! Senders, and a vCPU that enters, leaves, and sleeps, with each gate.

use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::removal::Program;
use doorbell_post::{Level, Notice, Requests};

use crate::machine::{CPU, Ran, Send, Until, Vcpu, coalescing, nothing_pending, senders};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("coalescing: runs and sleeps, two senders", |m| sleeps(m, coalescing())),
        Program::new("level: runs and sleeps, two senders", |m| sleeps(m, Level::new())),
        Program::new("coalescing: stays in the guest, two senders", |m| stays(m, coalescing(), true, &[0, 1])),
        Program::new("level: stays in the guest, two senders", |m| stays(m, Level::new(), true, &[0, 1])),
        Program::new("coalescing: stays in the guest, one vector twice", |m| stays(m, coalescing(), true, &[0, 0])),
        Program::new("level: stays in the guest, one vector twice", |m| stays(m, Level::new(), true, &[0, 0])),
        Program::new("coalescing: the CPU does not take what is posted", |m| stays(m, coalescing(), false, &[0, 1])),
        Program::new("level: the CPU does not take what is posted", |m| stays(m, Level::new(), false, &[0, 1])),
        Program::new("coalescing: posting is inhibited at any moment", |m| inhibited(m, coalescing())),
        Program::new("level: posting is inhibited at any moment", |m| inhibited(m, Level::new())),
        Program::new("level: two ask a vCPU that sleeps for something", asked),
    ]
}

fn sleeps<G: Send>(m: &Machine, gate: G) {
    let vcpu = Vcpu::new(m, gate);
    let runs = Rc::clone(&vcpu);
    m.task_on(CPU, "vCPU", move || runs.run_and_sleep(0b11));
    senders(m, &vcpu, &[0, 1]);
    nothing_pending(m, &vcpu, 0b11);
}

fn stays<G: Send>(m: &Machine, gate: G, posted: bool, numbers: &[usize]) {
    let vcpu = Vcpu::new(m, gate);
    let runs = Rc::clone(&vcpu);
    m.task_on(CPU, "vCPU", move || while runs.run(posted, Until::Kicked) != Ran::Over {});
    senders(m, &vcpu, numbers);
    nothing_pending(m, &vcpu, numbers.iter().fold(0, |wanted, number| wanted | 1 << number));
}

/// Two ask a vCPU that sleeps for something.
fn asked(m: &Machine) {
    let vcpu = Vcpu::new(m, Level::new());
    let runs = Rc::clone(&vcpu);
    m.task_on(CPU, "vCPU", move || {
        runs.begin();
        while runs.served.get() != 0b11 {
            if runs.run(true, Until::Halts) == Ran::Exited
                && let Ok(blocked) = runs.post.block()
            {
                blocked.wait();
            }
        }
    });
    for request in [0b01, 0b10] {
        let vcpu = Rc::clone(&vcpu);
        m.task(format!("request {request:#b}"), move || vcpu.act(vcpu.post.run_state().request(Requests(request))));
    }
}

/// Posting is inhibited at any moment, and the vCPU asked to enter without it (X06).
fn inhibited<G: Send>(m: &Machine, gate: G) {
    let vcpu = Vcpu::new(m, gate);
    let runs = Rc::clone(&vcpu);
    m.task_on(CPU, "vCPU", move || {
        let mut posted = true;
        loop {
            match runs.run(posted, Until::Kicked) {
                Ran::Requested => posted = false,
                Ran::Exited => {}
                Ran::Over => return,
            }
        }
    });
    senders(m, &vcpu, &[0]);
    nothing_pending(m, &vcpu, 1);
    let serves = Rc::clone(&vcpu);
    m.at_quiescence("the request was served", move || {
        (serves.served.get() == 1).then_some(()).ok_or("it was not".into())
    });
    m.task("inhibit", move || {
        let notice: Notice<G::Notification> = vcpu.post.run_state().request(Requests(1));
        vcpu.act(notice);
    });
}
