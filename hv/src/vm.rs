//! A virtual machine: its memory, its devices, and what its vCPUs share.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64};

use doorbell_gic::{
    Affinity, Ended, Frame, Gic, Host, IntId, Kick, Line, PhysicalIntId, Redistributor, VcpuId,
};
use doorbell_platform::{CpuId, Lock, LockClass, OnceCell, Platform, WaitType};
use doorbell_post::{Mode, Notice, Requests};

use crate::bare::Bare;
use crate::bundle::{self, Places};
use crate::console;
use crate::device_tree;
use crate::input;
use crate::irq::{self, KICK, VIRTUAL_TIMER};
use crate::pl011::{self, Pl011};
use crate::pl031::Pl031;
use crate::psci::{Power, Start};
use crate::say;
use crate::stage2::Stage2;
use crate::sysreg::read_sysreg;
use crate::task::Task;
use crate::time;
use crate::trap::Memory;
use crate::watchdog::Seen;

/// The memory map, which is that of QEMU's virt machine. There is room for an ITS behind the
/// distributor at 0x0808_0000.
const GICD: Range<u64> = 0x0800_0000..0x0801_0000;
const GICR: Range<u64> = 0x080a_0000..0x0900_0000;
const UART: Range<u64> = 0x0900_0000..0x0900_1000;
const RTC: Range<u64> = 0x0901_0000..0x0901_1000;
/// Where RAM begins.
const RAM: u64 = 0x4000_0000;

/// The SPI of the UART.
const UART_SPI: u32 = 33;
/// How many SPIs there are.
const SPIS: u32 = 256;
/// How large a redistributor is: two frames of 64 KiB.
const REDISTRIBUTOR: u64 = 0x2_0000;

/// What is requested of a vCPU whose VM has stopped.
const STOP: Requests = Requests(1);
/// What is requested of a vCPU that is to show where its guest is.
const SHOW: Requests = Requests(2);

static DEVICES: LockClass = LockClass::new("hv.pl011", WaitType::Spin).leaf();
static CLOCKS: LockClass = LockClass::new("hv.pl031", WaitType::Spin).leaf();
static POWER: LockClass = LockClass::new("hv.power", WaitType::Spin).leaf();

/// What a VM is made of, each time that it begins.
pub struct Plan {
    description: bundle::Vm<'static>,
    places: Places,
    /// Where its RAM is in the machine's.
    ram: u64,
    /// Tells it from the others for the TLBs.
    vmid: u8,
    /// Whether what it writes comes out as it is.
    raw: bool,
    /// Whether it is measured how long exits take.
    measure: bool,
}

/// How a VM goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The VM does not go on.
    Off,
    /// The VM begins again.
    Reset,
}

const RUNS: u32 = 0;
const IS_OFF: u32 = 1;
const RESETS: u32 = 2;

/// A virtual machine, from its reset to the next one.
pub struct Vm {
    pub(crate) name: &'static str,
    pub(crate) gic: Gic<Bare>,
    uart: Lock<Bare, Pl011>,
    raw: bool,
    rtc: Lock<Bare, Pl031>,
    stage2: Stage2,
    vmid: u8,
    /// CNTVOFF_EL2: when it began.
    pub(crate) began: u64,
    ram: Range<u64>,
    pub(crate) vcpus: Box<[Shared]>,
    /// Whether it runs, or how it ends.
    state: AtomicU32,
    /// How many vCPUs are on.
    on: AtomicU32,
    /// How often a vCPU has gone to another CPU.
    pub(crate) moves: AtomicU32,
    /// Whether it is measured how long exits take.
    pub(crate) measure: bool,
    /// How many ticks of the counter its longest exit has taken.
    pub(crate) longest: AtomicU64,
}

/// What others use of a vCPU, besides its redistributor.
pub(crate) struct Shared {
    /// The task that runs it.
    pub(crate) task: OnceCell<Bare, &'static Task>,
    power: Lock<Bare, Power>,
    /// How often its guest has made progress. Written by its task.
    progress: AtomicU32,
    /// The PC and PSTATE of its guest when it was asked or blocked last. Written by its task.
    pub(crate) shown: [AtomicU64; 2],
}

impl Plan {
    /// Returns a plan for a VM with that much RAM from `ram` on. By nobody else for that RAM.
    ///
    /// # Errors
    /// Says in a line what is wrong.
    pub fn new(
        description: bundle::Vm<'static>,
        bundle: &bundle::Bundle<'static>,
        ram: u64,
        vmid: u8,
    ) -> Result<Self, &'static str> {
        let places = description.places().ok_or("it has too little RAM for its images")?;
        let (raw, measure) = (bundle.raw, bundle.measure);
        Ok(Plan { description, places, ram, vmid, raw, measure })
    }

    /// Returns the name of the VM.
    pub fn name(&self) -> &'static str {
        self.description.name
    }
}

impl Vm {
    /// Returns the VM of a plan after so many resets, whose first vCPU is about to begin. By a
    /// task, once all CPUs have put the one that was before.
    ///
    /// # Errors
    /// Says in a line what is wrong.
    pub fn new(plan: &Plan, resets: u32) -> Result<Arc<Vm>, &'static str> {
        let Plan { description, places, ram: at, vmid, raw, measure } = plan;
        let ram = RAM..RAM + description.memory;
        let initramfs = RAM + places.initramfs.start..RAM + places.initramfs.end;
        let vcpus = description.vcpus;
        let tree = device_tree::write(&device_tree::Vm {
            ram: ram.clone(),
            vcpus: vcpus as u64,
            initramfs,
            arguments: description.arguments,
            resets,
        });
        let tree = tree.map_err(|_| "its device tree is not to be written")?;
        let images = [
            (places.kernel, description.kernel.image()),
            (places.initramfs.start, description.initramfs),
            (places.device_tree, &tree),
        ];
        for (offset, bytes) in images {
            let to: *mut u8 = core::ptr::with_exposed_provenance_mut((at + offset) as usize);
            // SAFETY: it is within the RAM of this VM, which does not run.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
            clean(*at + offset, bytes.len() as u64);
        }
        let mut stage2 = Stage2::new();
        stage2
            .map(ram.clone(), *at)
            .map_err(|_| "a VM has an even number of MiB, and less than 512 GiB")?;
        // SAFETY: makes CPUs forget the stage 2 that had the VMID, and see this one.
        unsafe {
            core::arch::asm!(
                "dsb ishst",
                "tlbi alle1is",
                "ic ialluis",
                "dsb ish",
                "isb",
                options(nostack)
            )
        };
        let affinities: Vec<_> = (0..vcpus as u32).map(Affinity).collect();
        let gic =
            Gic::new(crate::ich::vtr(), SPIS, &affinities).map_err(|_| "there is no such GIC")?;
        for line in
            (0..vcpus).filter_map(|number| timer(&gic, VcpuId::new(number as u32)?, VIRTUAL_TIMER))
        {
            line.set_physical(PhysicalIntId::new(VIRTUAL_TIMER));
        }
        let start = Start { entry: RAM + places.kernel, context: RAM + places.device_tree };
        let shared = |number| {
            let power = if number == 0 { Power::Starting(start) } else { Power::Off };
            Shared {
                task: OnceCell::new(),
                power: Lock::new(&POWER, power),
                progress: AtomicU32::new(0),
                shown: [const { AtomicU64::new(0) }; 2],
            }
        };
        Ok(Arc::new(Vm {
            name: description.name,
            gic,
            uart: Lock::new(&DEVICES, Pl011::new()),
            raw: *raw,
            rtc: Lock::new(&CLOCKS, Pl031::new()),
            stage2,
            vmid: *vmid,
            began: time::now(),
            ram,
            vcpus: (0..vcpus).map(shared).collect(),
            state: AtomicU32::new(RUNS),
            on: AtomicU32::new(1),
            moves: AtomicU32::new(0),
            measure: *measure,
            longest: AtomicU64::new(0),
        }))
    }

    /// Returns the numbers of its vCPUs.
    pub fn vcpus(&self) -> impl Iterator<Item = VcpuId> + use<> {
        (0..self.vcpus.len() as u32).filter_map(VcpuId::new)
    }

    /// Returns VTTBR_EL2.
    pub(crate) fn vttbr(&self) -> u64 {
        self.stage2.vttbr(self.vmid)
    }

    /// Says which task runs a vCPU. By that task.
    pub(crate) fn runs(&self, vcpu: VcpuId, task: &'static Task) {
        if let Some(shared) = self.vcpus.get(vcpu.number() as usize) {
            let _ = shared.task.set(Box::new(task));
        }
    }

    /// Returns whether a vCPU is on. None if there is no such vCPU.
    pub(crate) fn power(
        &self,
        vcpu: VcpuId,
    ) -> Option<doorbell_platform::IrqLockGuard<'_, Bare, Power>> {
        Some(self.vcpus.get(vcpu.number() as usize)?.power.lock_irqsave())
    }

    /// Returns whether there is RAM at an address.
    pub(crate) fn has_ram(&self, address: u64) -> bool {
        self.ram.contains(&address)
    }

    /// Turns a vCPU on. By the task of a vCPU that is. Returns the answer to CPU_ON.
    pub(crate) fn turn_on(&self, vcpu: VcpuId, start: Start) -> Option<u64> {
        let (answer, was_off) = self.power(vcpu)?.turn_on(start);
        if was_off {
            self.on.fetch_add(1, SeqCst);
            self.wake(vcpu);
        }
        Some(answer)
    }

    /// Says that a vCPU is off. By its task.
    pub(crate) fn turned_off(&self, vcpu: VcpuId) {
        if let Some(mut power) = self.power(vcpu) {
            *power = Power::Off;
        }
        // Nobody turns one on any more if this was the last.
        if self.on.fetch_sub(1, SeqCst) == 1 {
            self.stop(End::Off, format_args!("its last vCPU is off"));
        }
    }

    /// Says that the guest of a vCPU makes progress. By the vCPU's task.
    #[inline]
    pub(crate) fn makes_progress(&self, vcpu: VcpuId) {
        if let Some(Shared { progress, .. }) = self.vcpus.get(vcpu.number() as usize) {
            progress.store(progress.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Shows where the guest of a vCPU is. By the vCPU's task.
    pub(crate) fn shows(&self, vcpu: VcpuId, pc: u64, pstate: u64) {
        if let Some(Shared { shown, .. }) = self.vcpus.get(vcpu.number() as usize) {
            shown[0].store(pc, Relaxed);
            shown[1].store(pstate, Relaxed);
        }
    }

    /// Returns what the watchdog sees of the vCPUs. Asks those that are not blocked where they are,
    /// so that the next check can tell; the others stay as they are, or a wake-up that was lost
    /// would be made good. By a task.
    pub(crate) fn seen(&self) -> impl Iterator<Item = Seen> {
        self.vcpus.iter().zip(self.vcpus()).map(|(shared, vcpu)| {
            let news = self.gic.redistributor(vcpu).map(Redistributor::news).ok();
            let on = *shared.power.lock_irqsave() != Power::Off;
            let blocked = news.is_some_and(|news| news.run_state().mode() == Mode::Blocked);
            if let Some(news) = news.filter(|_| on && !blocked) {
                (&mut &*self).notice(vcpu, news.run_state().request(SHOW));
            }
            let news = news.is_some_and(|news| !news.layout().summary().is_empty());
            Seen { on, blocked, news, progress: shared.progress.load(Relaxed) }
        })
    }

    fn wake(&self, vcpu: VcpuId) {
        if let Some(task) =
            self.vcpus.get(vcpu.number() as usize).and_then(|shared| shared.task.get())
        {
            task.wake();
        }
    }

    /// Does what a guest has done to a device. By the task of a vCPU, outside of the guest. Returns
    /// what was read; none if there is nothing at that address.
    #[inline(always)]
    pub(crate) fn access(&self, by: VcpuId, access: &Memory, value: u64) -> Option<u64> {
        let (address, mut host) = (access.address, self);
        let frame = if GICD.contains(&address) {
            (Frame::Distributor, address - GICD.start)
        } else if GICR.contains(&address) {
            let offset = address - GICR.start;
            let vcpu = VcpuId::new((offset / REDISTRIBUTOR) as u32)
                .filter(|vcpu| self.gic.redistributor(*vcpu).is_ok())?;
            (Frame::Redistributor(vcpu), offset % REDISTRIBUTOR)
        } else if UART.contains(&address) {
            if access.is_write() {
                self.makes_progress(by);
            }
            return Some(
                self.uart((address - UART.start) as u32, access.is_write().then_some(value as u32)),
            );
        } else if RTC.contains(&address) {
            return Some(
                self.rtc((address - RTC.start) as u32, access.is_write().then_some(value as u32))
                    .into(),
            );
        } else {
            return None;
        };
        let (frame, offset) = (frame.0, frame.1 as u32);
        Some(if access.is_write() {
            self.gic.write(frame, offset, access.width(), value, &mut host).wait(&mut host)
        } else {
            self.gic.read(frame, offset, access.width(), &mut host).wait(&mut host)
        })
    }

    fn rtc(&self, offset: u32, written: Option<u32>) -> u32 {
        let (mut rtc, now) = (self.rtc.lock_irqsave(), time::of_day());
        match written {
            None => rtc.read(offset, now),
            Some(value) => {
                rtc.write(offset, now, value);
                0
            }
        }
    }

    fn uart(&self, offset: u32, written: Option<u32>) -> u64 {
        let mut uart = self.uart.lock_irqsave();
        // The console's lock is taken when this one is gone.
        let (mut line, mut length) = ([0; 256], None);
        let read = match written {
            None => uart.read(offset),
            Some(value) => {
                uart.write(offset, value, |text| {
                    line[..text.len()].copy_from_slice(text.as_bytes());
                    length = Some(text.len());
                });
                0
            }
        };
        self.sets_interrupt(&uart);
        drop(uart);
        match written {
            None => input::has_room(),
            Some(byte) if self.raw && offset == pl011::DR => console::byte(byte as u8),
            Some(_) if self.raw => {}
            Some(_) => {
                if let Some(text) =
                    length.and_then(|length| core::str::from_utf8(&line[..length]).ok())
                {
                    say!("{}| {text}", self.name);
                }
            }
        }
        read.into()
    }

    /// Sets the level of the UART's interrupt. Under its lock, or a level that is old could come
    /// last; nothing here takes a lock or sleeps.
    fn sets_interrupt(&self, uart: &Pl011) {
        if let Some(spi) = IntId::new(UART_SPI).and_then(|id| self.gic.spi(id).ok()) {
            spi.set_level(0, uart.interrupt(), &mut &*self);
        }
    }

    /// Returns whether its UART has room for what is typed. By anybody.
    pub(crate) fn has_room(&self) -> bool {
        self.uart.lock_irqsave().has_room()
    }

    /// Gives its UART what is typed. By a task.
    pub(crate) fn receive(&self, byte: u8) {
        let mut uart = self.uart.lock_irqsave();
        uart.receive(byte);
        self.sets_interrupt(&uart);
    }

    /// Stops the VM. By the task of a vCPU, which sees it soon, as the others do.
    pub(crate) fn stop(&self, end: End, why: fmt::Arguments<'_>) {
        let (state, how) = match end {
            End::Off => (IS_OFF, "is off"),
            End::Reset => (RESETS, "begins again"),
        };
        if self.state.compare_exchange(RUNS, state, SeqCst, SeqCst).is_err() {
            return;
        }
        if self.measure {
            say!("{}: the longest exit has taken {} ticks", self.name, self.longest.load(SeqCst));
        }
        say!("{} {how}: {why}; {} moves", self.name, self.moves.load(SeqCst));
        for vcpu in self.vcpus() {
            if let Ok(redistributor) = self.gic.redistributor(vcpu) {
                (&mut &*self).notice(vcpu, redistributor.news().run_state().request(STOP));
            }
            // Also one that is off.
            self.wake(vcpu);
        }
    }

    /// Returns how it ends, if it does. By anybody.
    pub fn end(&self) -> Option<End> {
        match self.state.load(SeqCst) {
            RUNS => None,
            IS_OFF => Some(End::Off),
            _ => Some(End::Reset),
        }
    }

    /// Sets the level of a timer of a vCPU. By its task.
    pub(crate) fn set_timer(&self, vcpu: VcpuId, intid: u32, high: bool) {
        if let Some(line) = timer(&self.gic, vcpu, intid) {
            line.set_level(0, high, &mut &*self);
        }
    }

    /// Returns the interrupt of a timer of a vCPU.
    #[inline]
    pub(crate) fn timer(&self, vcpu: VcpuId, intid: u32) -> Option<Line<'_, Bare>> {
        timer(&self.gic, vcpu, intid)
    }
}

#[inline]
fn timer(gic: &Gic<Bare>, vcpu: VcpuId, intid: u32) -> Option<Line<'_, Bare>> {
    gic.private(vcpu, IntId::new(intid)?).ok()
}

/// Makes what was written to RAM visible to a guest that has its caches off (Arm DDI 0487, section
/// D7.5.9).
fn clean(start: u64, length: u64) {
    // CTR_EL0.DminLine: the shortest cache line, in words.
    let line = 4 << (read_sysreg!("ctr_el0") >> 16 & 0xf);
    for address in (start / line * line..start + length).step_by(line as usize) {
        // SAFETY: cleans a cache line, which changes no memory.
        unsafe {
            core::arch::asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags))
        };
    }
}

impl Kick for &Vm {
    #[inline(never)]
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        match notice {
            Notice::Nothing => {}
            Notice::Kick(cpu) | Notice::Notify(cpu) => Bare::send_ipi(cpu, KICK),
            Notice::Wake => self.wake(vcpu),
        }
    }
}

impl Host for &Vm {
    fn ended(&mut self, ended: Ended) {
        match ended {
            // The level of the emulated timer, and of the UART, is what it is until the guest
            // writes; that of the virtual timer interrupts again if it still is one.
            Ended::Level(_) => {}
            Ended::Physical(id) => irq::deactivate(id.number()),
        }
    }
}
