//! `cargo xtask`: builds the hypervisor and its guests, and runs them in QEMU; and does by machine
//! what CONTRIBUTING.md would have done by hand.

mod bless;
mod build;
mod bundle;
mod case;
mod linux;
mod qemu;
mod refused;
mod trouble;
mod vm;
mod vm_bench;
mod vm_test;

use std::process::ExitCode;

use clap::Parser;
use trouble::Trouble;

/// Builds Doorbell's hypervisor and runs it in QEMU; makes cases, and prints what tests compare.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Makes the skeleton of a case of the catalogue.
    Case(case::Options),
    /// Prints anew what tests compare: removal tables, pages of races, tables of locks.
    Bless(bless::Options),
    /// Boots a kernel and an initramfs in a VM, and gives a console.
    Vm(vm::Options),
    /// Runs the test images, and ends with one line that counts passes and failures.
    VmTest(vm_test::Options),
    /// Counts the instructions and exits of operations of a guest, and prints a table.
    VmBench(vm_bench::Options),
}

/// What the program exits with if something is missing, and nothing has failed.
const MISSING: u8 = 3;

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Case(options) => case::run(&options),
        Task::Bless(options) => bless::run(&options),
        Task::Vm(options) => vm::run(&options),
        Task::VmTest(options) => vm_test::run(&options),
        Task::VmBench(options) => vm_bench::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Trouble::Failed(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
        Err(Trouble::Missing(what)) => {
            eprintln!("not run: {what}");
            ExitCode::from(MISSING)
        }
    }
}
