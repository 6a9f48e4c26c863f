//! The hypervisor: runs one VM, of the bundle that is in `-initrd`.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image {
    use doorbell_hv::say;
    use doorbell_hv::vcpu::{self, Vcpu};
    use doorbell_hv::vm::Vm;

    doorbell_hv::image!(main);

    fn main() {
        vcpu::init();
        match Vm::new("vm0").and_then(Vcpu::new) {
            Ok(mut vcpu) => vcpu.run(),
            Err(why) => say!("no VM: {why}"),
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
