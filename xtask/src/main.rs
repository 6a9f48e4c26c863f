//! `cargo xtask`: builds the hypervisor and its guests, and runs them in QEMU.

mod build;
mod bundle;
mod linux;
mod qemu;
mod vm_test;

use std::process::ExitCode;

use clap::Parser;

/// Builds Doorbell's hypervisor and runs it in QEMU.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Runs the test images, and ends with one line that counts passes and failures.
    VmTest(vm_test::Options),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::VmTest(options) => vm_test::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(missing) => {
            eprintln!("{missing}");
            ExitCode::from(2)
        }
    }
}
