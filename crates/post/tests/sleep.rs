//! A vCPU's task that waits for something to do, and one that does not.

use std::sync::{Arc, OnceLock};

use doorbell_explore::{Explore, Machine, Sim, sim};
use doorbell_platform::{Platform, Std, Vector};
use doorbell_post::{Destination, Layout, Mode, Notice, Pending, PiDescriptor, PiGate};

fn descriptor<P: Platform>() -> PiDescriptor<P> {
    PiDescriptor::new(Pending::new(), PiGate::new(Destination::x2apic(0), Vector(0xf2)))
}

#[test]
fn a_vcpu_that_waits_goes_on_when_something_is_pending_and_not_before() {
    let report = Explore::new("waits").run(|m: &Machine| {
        let vcpu = Arc::new(descriptor::<Sim>());
        let task = Arc::new(OnceLock::new());
        let (sender, waiting) = (Arc::clone(&vcpu), Arc::clone(&task));
        m.task("vCPU", move || {
            let _ = task.set(Sim::current_task());
            if let Ok(blocked) = vcpu.block() {
                blocked.wait();
            }
            if !vcpu.layout().any() {
                sim::fail("it goes on for nothing");
            }
        });
        m.task("sender", move || {
            if sender.post(0x41.into()) == Notice::Wake {
                Sim::wake(waiting.get().expect("it sleeps"));
            }
        });
    });
    report.assert_exhausted();
}

#[test]
fn a_vcpu_that_does_not_wait_any_more_is_in_the_host() {
    let vcpu = descriptor::<Std>();
    let blocked = vcpu.block().expect("nothing is pending");
    assert!(blocked.asleep());
    drop(blocked);
    assert_eq!(vcpu.run_state().mode(), Mode::Host);
    assert_eq!(vcpu.post(0x41.into()), Notice::Nothing, "it looks by itself");
}
