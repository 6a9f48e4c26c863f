//! The VM, its devices, and what each of them interrupts by.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::{error, thread};

use doorbell_irqfd::eventfd::{Descriptor, EventLoop, Irqchip, Offload, of_eventfd};
use doorbell_irqfd::{Gsi, Irqfds, Limits, Msi, Pin, Route, RoutingTable};
use doorbell_platform::{Std, fd};
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::guest::{Guest, PORT, STOP_PORT};
use crate::ioapic::{CHIP, Ioapic, LEVEL, PINS};

pub type Failed = Box<dyn error::Error + Send + Sync>;
type Vm = Irqfds<Std, Ioapic>;
type Sources = Offload<Std, Ioapic, Arc<VmFd>>;

/// An edge that is a message. (The sources are named by their counters in the guest.)
const MESSAGE: u8 = 0;
/// An edge on a pin.
const EDGE: u8 = 1;
/// A level on a pin.
const HELD: u8 = 2;
/// An edge that is now a message, and now on a pin.
const MOVED: u8 = 3;
/// What ends the guest.
const STOP: u8 = Guest::COUNTERS;

/// Runs the guest with each irqchip, and says what has happened.
pub fn run(interrupts: u32) -> Result<(), Failed> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(why) => {
            println!("skipped: no /dev/kvm: {why}");
            return Ok(());
        }
    };
    if !kvm.check_extension(Cap::SplitIrqchip) {
        println!("skipped: KVM has no split irqchip here");
        return Ok(());
    }
    machine(&kvm, Irqchip::Split { pins: PINS }, interrupts)?;
    machine(&kvm, Irqchip::Kernel, interrupts)
}

fn machine(kvm: &Kvm, irqchip: Irqchip, interrupts: u32) -> Result<(), Failed> {
    let machine = Machine::new(kvm, irqchip)?;
    println!("{irqchip:?}:");
    machine.edges("edge (a message)", MESSAGE, interrupts, None)?;
    machine.edges("edge (a pin)", EDGE, interrupts, None)?;
    machine.levels("level (a pin)", HELD, interrupts)?;
    machine.edges("edge (now a message, now a pin)", MOVED, interrupts, Some(1))?;

    // What it was signalled after `deassign` would have come before this.
    let stop = machine.vm.irqfd();
    stop.assign(gsi(STOP))?;
    stop.signal();
    let ends = machine.cpu.join().map_err(|_| "the CPU's thread panicked")??;
    println!("  exits for ends of interrupts: {ends}");
    for source in [MESSAGE, EDGE, HELD, MOVED] {
        let late = machine.guest.count(source) - interrupts;
        if late > 0 {
            return Err(format!("{late} came after deassign").into());
        }
    }
    Ok(())
}

/// A VM with the guest, whose CPU has a thread.
struct Machine {
    vm: Vm,
    sources: Arc<Sources>,
    guest: Guest,
    cpu: thread::JoinHandle<Result<u32, Failed>>,
}

impl Machine {
    fn new(kvm: &Kvm, irqchip: Irqchip) -> Result<Self, Failed> {
        let fd = Arc::new(kvm.create_vm()?);
        fd.set_tss_address(0xfffb_d000)?;
        if irqchip == Irqchip::Kernel {
            fd.create_irq_chip()?;
        } else {
            let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
            split.args[0] = PINS.into();
            fd.enable_cap(&split)?;
        }
        let pins = [(EDGE, 0), (HELD, LEVEL), (MOVED, 0)]
            .map(|(source, mode)| (source.into(), Guest::vector(source) | mode));
        let (guest, cpu) = Guest::boot(&fd, &pins)?;

        let vm = Irqfds::new(Ioapic::new(&fd), Limits::default());
        let sources = Offload::new(&vm, &Arc::new(EventLoop::spawn()?), fd, irqchip)?;
        let sources = Arc::new(sources);
        vm.reroute(table(message(MOVED))?)?.follow(&*sources);
        let its = (vm.clone(), Arc::clone(&sources));
        let machine = Machine {
            vm,
            sources,
            guest,
            cpu: thread::spawn(move || {
                run_cpu(cpu, &its.0, &its.1).inspect_err(|why| eprintln!("CPU 0: {why}"))
            }),
        };
        machine.wait_until(|guest| guest.is_ready())?;
        Ok(machine)
    }

    /// A device that signals its next edge when the guest has handled the last one: else edges
    /// coalesce. The source's route changes, back and forth, after so many.
    fn edges(&self, name: &str, source: u8, count: u32, moves: Option<u32>) -> Result<(), Failed> {
        let event = fd::eventfd()?;
        let assigned = self.sources.assign(Descriptor::eventfd(&event)?, gsi(source))?;
        let mut device = File::from(event);
        let (mut by_kvm, mut to) = (0, [message(source), pin(source)].into_iter().cycle());
        for n in 0..count {
            if moves.is_some_and(|after| n % after == 0) {
                let table = table(to.next().ok_or("it is endless")?)?;
                self.vm.reroute(table)?.follow(&*self.sources);
            }
            by_kvm += u32::from(self.sources.is_offloaded(assigned)?);
            device.write_all(&1_u64.to_ne_bytes())?;
            self.wait_until(|guest| guest.count(source) > n)?;
        }
        self.sources.deassign(assigned)?;
        self.report(name, source, count, by_kvm, &mut device)
    }

    /// A device that raises its level again each time the guest has acknowledged.
    fn levels(&self, name: &str, source: u8, count: u32) -> Result<(), Failed> {
        let (event, resample) = (fd::eventfd()?, EventFd::new(0)?);
        let descriptor = Descriptor::eventfd(&event)?;
        let lent = of_eventfd(&resample);
        let assigned = self.sources.assign_resample(descriptor, gsi(source), lent)?;
        let mut device = File::from(event);
        let mut acknowledged = File::from(lent.as_fd().try_clone_to_owned()?);
        let mut by_kvm = 0;
        for _ in 0..count {
            by_kvm += u32::from(self.sources.is_offloaded(assigned)?);
            device.write_all(&1_u64.to_ne_bytes())?;
            acknowledged.read_exact(&mut [0; 8])?;
        }
        self.sources.deassign(assigned)?;
        self.report(name, source, count, by_kvm, &mut device)
    }

    /// Says what the guest has handled, and signals once more what is not assigned any more.
    fn report(
        &self,
        name: &str,
        source: u8,
        count: u32,
        by_kvm: u32,
        device: &mut File,
    ) -> Result<(), Failed> {
        let handled = self.guest.count(source);
        println!(
            "  {name:32} {handled} of {count}, {by_kvm} by KVM, {} by the loop",
            count - by_kvm
        );
        device.write_all(&1_u64.to_ne_bytes())?;
        // Who has taken it would have delivered it.
        let mut left = [0; 8];
        device.read_exact(&mut left)?;
        let all = handled == count && u64::from_ne_bytes(left) == 1;
        all.then_some(()).ok_or_else(|| format!("{name}: not each event was one interrupt").into())
    }

    fn wait_until(&self, is_so: impl Fn(Guest) -> bool) -> Result<(), Failed> {
        while !is_so(self.guest) {
            if self.cpu.is_finished() {
                return Err("the guest has ended too soon".into());
            }
            thread::yield_now();
        }
        Ok(())
    }
}

/// Runs the CPU until the guest ends. Returns how many exits there were for ends of interrupts.
fn run_cpu(mut cpu: VcpuFd, vm: &Vm, sources: &Sources) -> Result<u32, Failed> {
    let (ioapic, mut ends) = (vm.controller(), 0);
    loop {
        match cpu.run()? {
            VcpuExit::IoOut(STOP_PORT, _) => return Ok(ends),
            VcpuExit::IoOut(PORT, _) => {}
            VcpuExit::MmioWrite(at @ 0xfec0_0000..=0xfec0_0fff, bytes) => {
                let value = bytes.try_into().map(u32::from_le_bytes)?;
                if let Some((pin, entry)) = ioapic.write(at - 0xfec0_0000, value) {
                    sources.redirect(Gsi(pin), entry)?;
                }
            }
            VcpuExit::IoapicEoi(vector) => {
                ends += 1;
                // What devices raise again while they are told is one interrupt with what follows.
                for pin in ioapic.ends(vector) {
                    vm.ack(pin);
                    ioapic.end(pin);
                }
            }
            exit => return Err(format!("the guest has left for {exit:?}").into()),
        }
    }
}

fn pin(source: u8) -> Route {
    Route::Pin(Pin::new(CHIP, source.into()))
}

fn message(source: u8) -> Route {
    Route::Msi(Msi::new(0xfee0_0000, Guest::vector(source)))
}

/// Messages have GSIs above those that a split irqchip reserves.
fn gsi(source: u8) -> Gsi {
    Gsi(if [EDGE, HELD].contains(&source) { source.into() } else { PINS + u32::from(source) })
}

fn table(moved: Route) -> Result<RoutingTable, doorbell_irqfd::Error> {
    let routes = [
        (MESSAGE, message(MESSAGE)),
        (EDGE, pin(EDGE)),
        (HELD, pin(HELD)),
        (MOVED, moved),
        (STOP, message(STOP)),
    ];
    RoutingTable::new(&routes.map(|(source, route)| (gsi(source), route)))
}
