//! An IOMMU posts to a vCPU that is preempted, sleeps, and moves.

use std::rc::Rc;

use doorbell_explore::removal::Program;
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd::{self, WAKEUP};
use doorbell_platform::{CpuId, Platform};
use doorbell_post::{Coalescing, Destination, Layout, Requests};

use crate::machine::{CPU, Until, Vcpu, coalescing, nothing_pending};

/// Where a vCPU sleeps: it may be woken on another CPU than the one on which it fell asleep.
const OTHER: CpuId = CpuId(1);

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    let of = |name: &str, device: &'static [usize], sender: &'static [usize], life| {
        Program::new(name, move |m| program(m, device, sender, life))
    };
    vec![
        of("an IOMMU posts to a vCPU that sleeps", &[0], &[], Life::Sleeps(CPU)),
        of("an IOMMU posts two to a vCPU that sleeps", &[0, 1], &[], Life::Sleeps(CPU)),
        of("an IOMMU and a sender post to a vCPU that sleeps", &[0], &[1], Life::Sleeps(CPU)),
        of("an IOMMU posts to a vCPU that is preempted", &[0], &[], Life::Preempted),
        of("an IOMMU and a sender post to a vCPU that is preempted", &[0], &[1], Life::Preempted),
        of("an IOMMU posts to a vCPU that fell asleep elsewhere and is asked", &[0], &[], Life::Asked(OTHER)),
    ]
}

/// What the vCPU does.
#[derive(Clone, Copy)]
enum Life {
    /// It sleeps, on the list of a CPU, whenever it has nothing to do.
    Sleeps(CpuId),
    /// It was preempted, and then stays in the guest.
    Preempted,
    /// It sleeps once, and then stays in the guest: meanwhile it is asked for something, then posted to.
    Asked(CpuId),
}

fn program(m: &Machine, device: &[usize], sender: &[usize], life: Life) {
    let sleeps_on = match life {
        Life::Sleeps(cpu) | Life::Asked(cpu) => cpu,
        Life::Preempted => CPU,
    };
    let vcpu = Vcpu::new(m, coalescing());
    let handler = Rc::clone(&vcpu);
    m.ipi_handler(sleeps_on, WAKEUP, "wake-up", move || {
        if handler.post.notified() {
            handler.wake();
        }
    });
    let mut wanted = device.iter().chain(sender).fold(0, |wanted, number| wanted | 1 << number);
    let runs = Rc::clone(&vcpu);
    m.task_on(CPU, "vCPU", move || run(&runs, wanted, life));
    if let Life::Asked(_) = life {
        wanted |= 1 << 9;
        let vcpu = Rc::clone(&vcpu);
        m.task_on(CpuId(2), "asks, then posts", move || {
            vcpu.act(vcpu.post.run_state().request(Requests(1)));
            vcpu.post(9);
        });
    }
    for &number in device {
        let vcpu = Rc::clone(&vcpu);
        m.hardware(format!("IOMMU {number}"), move || vtd::post_to(&vcpu.post, number));
    }
    for &number in sender {
        let vcpu = Rc::clone(&vcpu);
        m.task(format!("sender {number}"), move || vcpu.post(number));
    }
    nothing_pending(m, &vcpu, wanted);
}

fn run(vcpu: &Vcpu<Coalescing<Sim>>, wanted: u64, life: Life) {
    vcpu.begin();
    match life {
        Life::Sleeps(on) => {
            while !vcpu.got(wanted) {
                vcpu.run(true, Until::Halts);
                if vcpu.got(wanted) {
                    return;
                }
                sleep(vcpu, on);
            }
        }
        Life::Preempted => {
            let (gate, state) = (vcpu.post.gate(), vcpu.post.run_state());
            gate.suppress();
            state.preempted();
            state.resumed();
            gate.run_on(Destination::x2apic(CPU.0), NOTIFY, || vcpu.post.layout().any());
            vcpu.stay();
        }
        Life::Asked(on) => {
            sleep(vcpu, on);
            vcpu.stay();
        }
    }
}

/// Sleeps on the list of a CPU.
fn sleep(vcpu: &Vcpu<Coalescing<Sim>>, on: CpuId) {
    let (post, any) = (&vcpu.post, || vcpu.post.layout().any());
    let Ok(blocked) = post.block() else { return };
    if post.gate().wake_with(Destination::x2apic(on.0), WAKEUP, any).0 {
        Sim::send_ipi(on, WAKEUP);
    }
    blocked.wait();
    post.gate().run_on(Destination::x2apic(CPU.0), NOTIFY, any);
}
