//! A guest that counts its interrupts, on `/dev/kvm`: with a split irqchip, whose IOAPIC is here
//! (`ioapic.rs`), and with KVM's own. What the devices do, and what assigns their eventfds
//! (`machine.rs`), is the same for both.
//!
//! `cargo run --example kvm_split [interrupts]`

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod guest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod ioapic;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machine;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), machine::Failed> {
    let interrupts = std::env::args().nth(1).map_or(Ok(2_000), |count| count.parse())?;
    machine::run(interrupts)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("skipped: the guest is one of x86, under Linux");
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    #[test]
    fn the_guest_handles_each_interrupt_of_each_source_and_none_after_deassign() {
        super::machine::run(2_000).unwrap();
    }
}
