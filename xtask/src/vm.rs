//! Boots a kernel and an initramfs, and gives a console.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::build;
use crate::bundle::{self, Vm};
use crate::linux;
use crate::qemu::{self, Machine, Threads};
use crate::trouble::Trouble;

#[derive(Args)]
pub struct Options {
    /// An arm64 Image of Linux, or a flat image for 0x40080000: Debian's kernel, if there is none.
    kernel: Option<PathBuf>,
    /// An initramfs, as the kernel takes it: a shell, if there is no kernel.
    #[arg(long)]
    initramfs: Option<PathBuf>,
    /// What the kernel is told.
    #[arg(long, default_value = "console=ttyAMA0")]
    arguments: String,
    /// How many vCPUs the VM has.
    #[arg(long, default_value_t = 2)]
    vcpus: u32,
    /// How many MiB of RAM the VM has.
    #[arg(long, default_value_t = 256)]
    memory: u32,
    /// How many CPUs the machine has.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// The model of the CPUs.
    #[arg(long, default_value = "max,pauth-impdef=on")]
    cpu: String,
    /// How many seconds the VM may make no progress before the hypervisor tells where its vCPUs
    /// are; 0 for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    watchdog: u64,
}

/// Runs the VM until it is off, or QEMU is ended: Ctrl-A, X.
///
/// # Errors
/// Says what is missing.
pub fn run(options: &Options) -> Result<bool, Trouble> {
    qemu::is_there()?;
    let programs = build::build()?;
    let read =
        |file: &PathBuf| fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
    let (kernel, shell) = match &options.kernel {
        Some(kernel) => (kernel.clone(), Vec::new()),
        None => linux::images(linux::SHELL)?,
    };
    let initramfs = options.initramfs.as_ref().map_or(Ok(shell), read)?;
    let vm = Vm {
        name: "vm0".into(),
        vcpus: options.vcpus,
        memory: options.memory,
        kernel,
        initramfs,
        arguments: options.arguments.clone(),
    };
    // Whoever sits at the console decides what becomes of a VM that is stalled.
    let limit = (options.watchdog > 0).then_some(options.watchdog * 1000);
    let told = bundle::Options { raw: true, watchdog: limit, report: true, ..Default::default() };
    let bundle = bundle::write(&programs.join("vm"), &[vm], told)?;
    let machine = Machine {
        cpu: &options.cpu,
        cpus: options.cpus,
        threads: Threads::Each,
        ..Machine::DEFAULT
    };
    Ok(qemu::interact(
        machine,
        options.memory + 512,
        &build::image(&programs.join("hv"))?,
        &bundle,
    )?)
}
