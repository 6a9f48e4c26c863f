//! The machine, as its device tree says, and its firmware.

use alloc::boxed::Box;
use core::ops::Range;

use doorbell_platform::{OnceCell, Platform};
use fdt::Fdt;
use smccc::{Smc, psci};

use crate::bare::Bare;
use crate::console::line_of_nobody_else;
use crate::cpu::CPUS;
use crate::stage2::BLOCK;
use crate::{cpu, heap, irq};

/// The RAM that the hypervisor has not for itself.
pub(crate) struct Memory {
    /// What the bootloader was given for the guests (`-initrd`): empty if there is none.
    pub(crate) bundle: Range<usize>,
    /// What is free.
    pub(crate) free: Range<usize>,
}

static MEMORY: OnceCell<Bare, Memory> = OnceCell::new();

/// Returns the RAM for guests. By any task.
pub(crate) fn memory() -> &'static Memory {
    MEMORY.get().expect("the machine is read before the first task")
}

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
}

/// Reads what the device tree says of the machine, and sets up the heap and the GIC. On the first
/// CPU, before anything else.
///
/// # Panics
/// If the machine is another one, with one line that says so.
///
/// # Safety
/// The device tree is there, and nobody writes to it. Nobody uses the RAM above the image.
pub(crate) unsafe fn init(device_tree: usize) {
    // SAFETY: by the caller's promise.
    let tree = unsafe { Fdt::from_ptr(core::ptr::with_exposed_provenance(device_tree)) };
    let tree = tree.expect("the bootloader passes a device tree");
    let cpus = || tree.cpus().map(|cpu| cpu.ids().first() as u64);
    if cpus().count() > CPUS {
        refuse(format_args!(
            "the machine has {} CPUs, and {CPUS} are possible: -smp",
            cpus().count()
        ));
    }
    cpu::init(cpus());
    let ram = ram(&tree);
    let (image, bundle) = (image(), bundle(&tree));
    let loaded = [bundle.clone(), device_tree..device_tree + tree.total_size()];
    let first = loaded
        .iter()
        .filter(|range| !range.is_empty())
        .map(|range| range.start)
        .min()
        .unwrap_or(ram.end);
    let last = loaded.iter().map(|range| range.end).max().unwrap_or(image.end);
    assert!(image.end < first && last < ram.end, "images are above the hypervisor, and in RAM");
    // SAFETY: between the image and what the bootloader has put above it.
    unsafe { heap::init(image.end..first) };
    let found = Memory { bundle, free: last.next_multiple_of(BLOCK as usize)..ram.end };
    assert!(MEMORY.set(Box::new(found)).is_ok(), "the machine is read once");
    let Some(gic) = tree.find_compatible(&["arm,gic-v3"]) else {
        refuse(format_args!("the machine has no GICv3: -machine gic-version=3"));
    };
    let mut frames =
        gic.reg().expect("the GIC has registers").map(|region| region.starting_address.addr());
    let (distributor, redistributors) =
        frames.next().zip(frames.next()).expect("the GIC has two regions");
    irq::init(distributor, redistributors);
}

/// Says why there is no VM, and ends everything.
fn refuse(why: core::fmt::Arguments<'_>) -> ! {
    line_of_nobody_else(format_args!("no VM: {why}"));
    power_off()
}

/// Returns where the image is, whole pages.
fn image() -> Range<usize> {
    (&raw const image_start).addr()..(&raw const image_end).addr()
}

/// Returns where the RAM is.
fn ram(tree: &Fdt<'_>) -> Range<usize> {
    let region = tree.memory().regions().next().expect("the machine has RAM");
    let start = region.starting_address.addr();
    start..start + region.size.unwrap_or(0)
}

/// Returns where the guests' images are.
fn bundle(tree: &Fdt<'_>) -> Range<usize> {
    let chosen = tree.find_node("/chosen");
    let address = |name| chosen?.property(name)?.as_usize();
    let (start, end) = (address("linux,initrd-start"), address("linux,initrd-end"));
    start.zip(end).map_or(0..0, |(start, end)| start..end)
}

/// Ends everything, QEMU included. By anybody.
pub fn power_off() -> ! {
    let _ = psci::system_off::<Smc>();
    loop {
        Bare::cpu_relax();
    }
}
