//! The hypervisor: runs the VMs of the bundle that is in `-initrd`.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image {
    use doorbell_hv::say;

    doorbell_hv::image!(main);

    fn main() {
        if let Err(why) = doorbell_hv::hypervisor::run() {
            say!("no VM: {why}");
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
