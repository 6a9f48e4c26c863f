//! A virtual machine: its memory, its devices, and what its vCPUs share.

use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

use doorbell_gic::{Affinity, Ended, Frame, Gic, Host, IntId, Kick, VcpuId, Width};
use doorbell_platform::{CpuId, Lock, LockClass, OnceCell, Platform, WaitType};
use doorbell_post::Notice;

use crate::bare::Bare;
use crate::bundle::{Bundle, Wrong};
use crate::device_tree;
use crate::irq::{KICK, VIRTUAL_TIMER};
use crate::machine;
use crate::pl011::Pl011;
use crate::say;
use crate::stage2::{BLOCK, Stage2};
use crate::task::Task;
use crate::trap::Memory;

/// The memory map, which is that of QEMU's virt machine. There is room for an ITS behind the
/// distributor at 0x0808_0000.
const GICD: Range<u64> = 0x0800_0000..0x0801_0000;
const GICR: Range<u64> = 0x080a_0000..0x0900_0000;
const UART: Range<u64> = 0x0900_0000..0x0900_1000;
/// Where RAM begins.
const RAM: u64 = 0x4000_0000;
/// How much RAM a VM has at most.
const MOST_RAM: u64 = 256 << 20;

/// The SPI of the UART.
const UART_SPI: u32 = 33;
/// How many SPIs there are.
const SPIS: u32 = 224;
/// How large a redistributor is: two frames of 64 KiB.
const REDISTRIBUTOR: u64 = 0x2_0000;

/// The vCPU that there is.
pub(crate) const FIRST: VcpuId = match VcpuId::new(0) {
    Some(first) => first,
    None => unreachable!(),
};

static DEVICES: LockClass = LockClass::new("hv.pl011", WaitType::Spin).leaf();

/// A virtual machine.
pub struct Vm {
    name: &'static str,
    pub(crate) gic: Gic<Bare>,
    uart: Lock<Bare, Pl011>,
    stage2: Stage2,
    /// Where its first vCPU begins, and where its device tree is.
    pub(crate) begin: (u64, u64),
    /// The tasks of its vCPUs.
    tasks: [OnceCell<Bare, &'static Task>; 1],
    off: AtomicBool,
}

impl Vm {
    /// Returns a VM with one vCPU, of what was given to the hypervisor. By a task, before any vCPU
    /// runs, and once: the VM is there for ever, and has the RAM that is free.
    ///
    /// # Errors
    /// Says in a line what is wrong.
    pub fn new(name: &'static str) -> Result<&'static Vm, &'static str> {
        let memory = machine::memory();
        if memory.bundle.is_empty() {
            return Err("there is nothing to run: -initrd");
        }
        // SAFETY: the bootloader has put it there, and nobody writes to it.
        let file = unsafe {
            let start = core::ptr::with_exposed_provenance(memory.bundle.start);
            core::slice::from_raw_parts(start, memory.bundle.len())
        };
        let bundle = Bundle::parse(file).map_err(Wrong::text)?;
        let ram = (memory.free.len() as u64 / BLOCK * BLOCK).min(MOST_RAM);
        let (kernel, needed) = bundle.kernel.place();
        // The device tree is at the end, and the initramfs before it.
        let room = (|| {
            let tree = ram.checked_sub(BLOCK)?;
            let initramfs = tree.checked_sub(bundle.initramfs.len() as u64)? & !0xfff;
            (kernel + needed <= initramfs).then_some((tree, initramfs))
        })();
        let (tree_at, initramfs_at) = room.ok_or("there is not enough RAM for the VM: -m")?;
        let initramfs = RAM + initramfs_at;
        let tree = device_tree::write(&device_tree::Vm {
            ram: RAM..RAM + ram,
            vcpus: 1,
            initramfs: initramfs..initramfs + bundle.initramfs.len() as u64,
            arguments: "console=ttyAMA0",
        });
        let tree = tree.map_err(|_| "the device tree is not to be written")?;
        let at = memory.free.start as u64;
        for (offset, bytes) in [(kernel, bundle.kernel.image()), (initramfs_at, bundle.initramfs), (tree_at, &tree)] {
            let to: *mut u8 = core::ptr::with_exposed_provenance_mut((at + offset) as usize);
            // SAFETY: it is within the free RAM, which is nobody else's, as there is one VM.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
        let mut stage2 = Stage2::new();
        stage2.map(RAM..RAM + ram, at).map_err(|_| "a VM has whole blocks of 2 MiB")?;
        let gic = Gic::new(crate::ich::vtr(), SPIS, &[Affinity(0)]).map_err(|_| "there is no such GIC")?;
        Ok(Box::leak(Box::new(Vm {
            name,
            gic,
            uart: Lock::new(&DEVICES, Pl011::new()),
            stage2,
            begin: (RAM + kernel, RAM + tree_at),
            tasks: [const { OnceCell::new() }; 1],
            off: AtomicBool::new(false),
        })))
    }

    /// Returns VTTBR_EL2.
    pub(crate) fn vttbr(&self) -> u64 {
        self.stage2.vttbr(1)
    }

    /// Says which task runs a vCPU. By that task.
    pub(crate) fn runs(&self, vcpu: VcpuId, task: &'static Task) {
        if let Some(cell) = self.tasks.get(vcpu.number() as usize) {
            let _ = cell.set(Box::new(task));
        }
    }

    /// Does what a guest has done to a device. By the task of a vCPU, outside of the guest. Returns
    /// what was read; none if there is nothing at that address.
    pub(crate) fn access(&self, access: &Memory, value: u64) -> Option<u64> {
        let (address, mut host) = (access.address, self);
        let width = Width::from_bytes(access.bytes.into())?;
        let frame = if GICD.contains(&address) {
            (Frame::Distributor, address - GICD.start)
        } else if GICR.contains(&address) {
            let offset = address - GICR.start;
            let vcpu =
                VcpuId::new((offset / REDISTRIBUTOR) as u32).filter(|vcpu| self.gic.redistributor(*vcpu).is_ok())?;
            (Frame::Redistributor(vcpu), offset % REDISTRIBUTOR)
        } else if UART.contains(&address) {
            return Some(self.uart((address - UART.start) as u32, access.write.then_some(value as u32)));
        } else {
            return None;
        };
        let (frame, offset) = (frame.0, frame.1 as u32);
        Some(if access.write {
            self.gic.write(frame, offset, width, value, &mut host).wait(&mut host)
        } else {
            self.gic.read(frame, offset, width, &mut host).wait(&mut host)
        })
    }

    fn uart(&self, offset: u32, written: Option<u32>) -> u64 {
        let mut uart = self.uart.lock_irqsave();
        let Some(value) = written else { return uart.read(offset).into() };
        let mut line = [0; 256];
        let mut length = None;
        uart.write(offset, value, |text| {
            // The console's lock is taken when this one is gone.
            line[..text.len()].copy_from_slice(text.as_bytes());
            length = Some(text.len());
        });
        let high = uart.interrupt();
        drop(uart);
        if let Some(text) = length.and_then(|length| core::str::from_utf8(&line[..length]).ok()) {
            say!("{}| {text}", self.name);
        }
        if let Some(spi) = IntId::new(UART_SPI).and_then(|id| self.gic.spi(id).ok()) {
            spi.set_level(0, high, &mut &*self);
        }
        0
    }

    /// Ends the VM. By the task of a vCPU. Returns when nobody else has.
    pub(crate) fn power_off(&self, why: core::fmt::Arguments<'_>) {
        if !self.off.swap(true, SeqCst) {
            say!("{} is off: {why}", self.name);
        }
    }

    /// Returns whether it has ended. By anybody.
    pub fn is_off(&self) -> bool {
        self.off.load(SeqCst)
    }

    pub(crate) fn set_timer(&self, vcpu: VcpuId, high: bool) {
        if let Some(line) = self.timer(vcpu) {
            line.set_level(0, high, &mut &*self);
        }
    }

    /// Returns the virtual timer's interrupt of a vCPU.
    pub(crate) fn timer(&self, vcpu: VcpuId) -> Option<doorbell_gic::Line<'_, Bare>> {
        self.gic.private(vcpu, IntId::new(VIRTUAL_TIMER)?).ok()
    }
}

impl Kick for &Vm {
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        match notice {
            Notice::Nothing => {}
            Notice::Kick(cpu) | Notice::Notify(cpu) => Bare::send_ipi(cpu, KICK),
            Notice::Wake => {
                if let Some(task) = self.tasks.get(vcpu.number() as usize).and_then(OnceCell::get) {
                    task.wake();
                }
            }
        }
    }
}

impl Host for &Vm {
    fn ended(&mut self, ended: Ended) {
        match ended {
            // The timer's: what still holds the physical interrupt interrupts again.
            Ended::Level(id) if id.number() == VIRTUAL_TIMER => self.set_timer(FIRST, false),
            Ended::Level(_) => {}
            Ended::Physical(id) => crate::irq::deactivate(id.number()),
        }
    }
}
