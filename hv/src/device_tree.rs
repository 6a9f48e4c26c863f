//! The device tree of a VM: that of QEMU's virt machine, without what is not there.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use vm_fdt::{Error, FdtWriter};

/// What differs from VM to VM.
pub struct Vm<'a> {
    /// The RAM, by guest-physical addresses.
    pub ram: Range<u64>,
    /// How many vCPUs there are.
    pub vcpus: u64,
    /// Where its initramfs is; empty if there is none.
    pub initramfs: Range<u64>,
    /// What the kernel is told.
    pub arguments: &'a str,
    /// How often it was reset, which no kernel knows else.
    pub resets: u32,
}

/// Phandles.
const GIC: u32 = 1;
const CLOCK: u32 = 2;

/// The first cell of an interrupt: shared, or private to a CPU.
const SPI: u32 = 0;
const PPI: u32 = 1;
/// The third cell of an interrupt.
const LEVEL: u32 = 4;

/// Returns a device tree. The addresses are those of [`crate::vm`].
///
/// # Errors
/// If an argument cannot be written.
pub fn write(vm: &Vm<'_>) -> Result<Vec<u8>, Error> {
    let mut tree = FdtWriter::new()?;
    let root = tree.begin_node("")?;
    tree.property_string("compatible", "linux,dummy-virt")?;
    tree.property_u32("#address-cells", 2)?;
    tree.property_u32("#size-cells", 2)?;
    tree.property_u32("interrupt-parent", GIC)?;

    let chosen = tree.begin_node("chosen")?;
    tree.property_string("bootargs", vm.arguments)?;
    tree.property_u32("doorbell,resets", vm.resets)?;
    tree.property_string("stdout-path", "/pl011@9000000")?;
    if !vm.initramfs.is_empty() {
        tree.property_u64("linux,initrd-start", vm.initramfs.start)?;
        tree.property_u64("linux,initrd-end", vm.initramfs.end)?;
    }
    tree.end_node(chosen)?;

    let memory = tree.begin_node(&format!("memory@{:x}", vm.ram.start))?;
    tree.property_string("device_type", "memory")?;
    tree.property_array_u64("reg", &[vm.ram.start, vm.ram.end - vm.ram.start])?;
    tree.end_node(memory)?;

    let psci = tree.begin_node("psci")?;
    tree.property_string_list("compatible", strings(&["arm,psci-1.0", "arm,psci-0.2"]))?;
    tree.property_string("method", "hvc")?;
    tree.end_node(psci)?;

    cpus(&mut tree, vm.vcpus)?;
    devices(&mut tree, vm.vcpus)?;
    tree.end_node(root)?;
    tree.finish()
}

fn cpus(tree: &mut FdtWriter, count: u64) -> Result<(), Error> {
    let cpus = tree.begin_node("cpus")?;
    tree.property_u32("#address-cells", 1)?;
    tree.property_u32("#size-cells", 0)?;
    for number in 0..count as u32 {
        let cpu = tree.begin_node(&format!("cpu@{number:x}"))?;
        tree.property_string("device_type", "cpu")?;
        tree.property_string("compatible", "arm,armv8")?;
        tree.property_string("enable-method", "psci")?;
        tree.property_u32("reg", number)?;
        tree.end_node(cpu)?;
    }
    tree.end_node(cpus)
}

fn devices(tree: &mut FdtWriter, vcpus: u64) -> Result<(), Error> {
    // Secure, physical, virtual and hypervisor timer.
    let timer = tree.begin_node("timer")?;
    tree.property_string("compatible", "arm,armv8-timer")?;
    tree.property_null("always-on")?;
    tree.property_array_u32(
        "interrupts",
        &[PPI, 13, LEVEL, PPI, 14, LEVEL, PPI, 11, LEVEL, PPI, 10, LEVEL],
    )?;
    tree.end_node(timer)?;

    let gic = tree.begin_node("intc@8000000")?;
    tree.property_string("compatible", "arm,gic-v3")?;
    tree.property_null("interrupt-controller")?;
    tree.property_u32("#interrupt-cells", 3)?;
    tree.property_array_u64("reg", &[0x0800_0000, 0x1_0000, 0x080a_0000, vcpus * 0x2_0000])?;
    tree.property_phandle(GIC)?;
    tree.end_node(gic)?;

    let clock = tree.begin_node("apb-pclk")?;
    tree.property_string("compatible", "fixed-clock")?;
    tree.property_u32("#clock-cells", 0)?;
    tree.property_u32("clock-frequency", 24_000_000)?;
    tree.property_string("clock-output-names", "clk24mhz")?;
    tree.property_phandle(CLOCK)?;
    tree.end_node(clock)?;

    let uart = tree.begin_node("pl011@9000000")?;
    tree.property_string_list("compatible", strings(&["arm,pl011", "arm,primecell"]))?;
    tree.property_array_u64("reg", &[0x0900_0000, 0x1000])?;
    tree.property_array_u32("interrupts", &[SPI, 1, LEVEL])?;
    tree.property_array_u32("clocks", &[CLOCK, CLOCK])?;
    tree.property_string_list("clock-names", strings(&["uartclk", "apb_pclk"]))?;
    tree.end_node(uart)?;

    let rtc = tree.begin_node("pl031@9010000")?;
    tree.property_string_list("compatible", strings(&["arm,pl031", "arm,primecell"]))?;
    tree.property_array_u64("reg", &[0x0901_0000, 0x1000])?;
    tree.property_u32("clocks", CLOCK)?;
    tree.property_string("clock-names", "apb_pclk")?;
    tree.end_node(rtc)
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|&text| text.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fdt::Fdt;

    fn written(initramfs: Range<u64>) -> Vec<u8> {
        write(&Vm {
            ram: 0x4000_0000..0x5000_0000,
            vcpus: 2,
            initramfs,
            arguments: "earlycon",
            resets: 3,
        })
        .unwrap()
    }

    #[test]
    fn a_kernel_finds_its_memory_cpus_and_devices() {
        let bytes = written(0x4f00_0000..0x4f10_0000);
        let tree = Fdt::new(&bytes).unwrap();
        let ram = tree.memory().regions().next().unwrap();
        assert_eq!((ram.starting_address.addr(), ram.size), (0x4000_0000, Some(0x1000_0000)));
        assert_eq!(tree.cpus().map(|cpu| cpu.ids().first()).collect::<Vec<_>>(), [0, 1]);
        let gic = tree.find_compatible(&["arm,gic-v3"]).unwrap();
        let frames: Vec<_> =
            gic.reg().unwrap().map(|frame| (frame.starting_address.addr(), frame.size)).collect();
        assert_eq!(frames, [(0x0800_0000, Some(0x1_0000)), (0x080a_0000, Some(0x4_0000))]);
        let resets = tree
            .find_node("/chosen")
            .unwrap()
            .property("doorbell,resets")
            .and_then(|resets| resets.as_usize());
        assert_eq!(resets, Some(3));
        assert!(
            tree.find_compatible(&["arm,psci-0.2"]).is_some()
                && tree.find_compatible(&["arm,pl011"]).is_some()
        );
    }

    #[test]
    fn an_initramfs_is_told_if_there_is_one() {
        let end = |bytes: &[u8]| {
            let tree = Fdt::new(bytes).unwrap();
            tree.find_node("/chosen")
                .unwrap()
                .property("linux,initrd-end")
                .and_then(|property| property.as_usize())
        };
        assert_eq!(end(&written(0x4f00_0000..0x4f10_0000)), Some(0x4f10_0000));
        assert_eq!(end(&written(0..0)), None);
    }
}
