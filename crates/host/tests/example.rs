//! The example that leads through all the crates does what it says.
#![cfg(target_os = "linux")]

#[path = "../examples/device_to_vcpu.rs"]
mod device_to_vcpu;

#[test]
fn an_interrupt_gets_from_its_device_to_a_vcpus_thread_whichever_way_it_goes() {
    for _ in 0..20 {
        device_to_vcpu::main().expect("each step does what the example says");
    }
}
