//! A host on `doorbell-host`: vectors and descriptors, and the entry code that joins them to the local APICs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::sim::{fail, note};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::lapic::{Lapics, Message};
use doorbell_hardware::msix::{Device, Kind};
use doorbell_host::vector::{Arrived, Cleaned, Cleanup, Irq, Place, Update, VectorError, Vectors, Where};
use doorbell_host::{CpuSet, Handler, IrqDesc, Sharing};
use doorbell_platform::{CpuId, IrqGuard, Platform, Vector};

/// Of the lowest priority: what waits at the CPU comes before.
const CLEANUP: Vector = Vector(0x20);
/// The first of those that devices get.
const FIRST: u8 = 0x41;

/// One interrupt of the host, and the device that sends it.
pub(super) struct Line {
    pub irq: Irq,
    pub desc: IrqDesc<Sim>,
    pub device: Arc<Device>,
}

pub(super) struct Host {
    pub vectors: Vectors<Sim>,
    pub lines: Vec<Line>,
    apics: Rc<Lapics>,
    free: u32,
    /// Which device has sent what is on its way to a CPU, or waits there: ghost state.
    senders: RefCell<BTreeMap<(u32, u8), Irq>>,
    /// Interrupts that nobody's driver was called for.
    pub late: Cell<u32>,
}

impl Host {
    /// With so many devices, whose interrupts go to CPUs 0 and up, and so many vectors on each CPU.
    pub(super) fn new(cpus: u32, vectors: u8, devices: &[(Kind, CpuId, u32)]) -> Rc<Self> {
        let table = Vectors::new(cpus, devices.len() as u32, FIRST..=FIRST + (vectors - 1));
        for cpu in 0..cpus {
            assert_eq!(table.online(CpuId(cpu)).expect("it is offline").cpu(), CpuId(cpu));
        }
        let free = table.free();
        let lines = devices.iter().zip(0..).map(|(&(kind, cpu, events), number)| {
            let (irq, here) = (Irq(number), CpuSet::of([cpu]));
            let place = table.activate(irq, Where::In(&here)).expect("one is free");
            let desc = IrqDesc::new(here.clone(), &here).expect("it is online");
            let name = ["device", "other device"][number as usize];
            Line { irq, desc, device: Device::new(name, kind, message(place), events) }
        });
        let lines = lines.collect();
        let senders = RefCell::default();
        Rc::new(Host { vectors: table, lines, apics: Lapics::new(cpus as usize), free, senders, late: Cell::new(0) })
    }

    /// Has the devices run, and the CPUs take their interrupts.
    pub(super) fn run(self: &Rc<Self>, m: &Machine, cpus: impl IntoIterator<Item = CpuId>) {
        for line in &self.lines {
            let (this, irq) = (Rc::clone(self), line.irq);
            line.device.run(m, &self.apics, move |sent| {
                let former = this.senders.borrow_mut().insert((sent.cpu.0, sent.vector.0), irq);
                if former.is_some_and(|former| former != irq) {
                    fail(format!("two devices send to {sent}"));
                }
            });
        }
        for cpu in cpus {
            let this = Rc::clone(self);
            self.apics.on_interrupt(m, cpu, move |vector| this.interrupt(cpu, vector));
        }
        self.apics.carry_ipis(m);
    }

    pub(super) fn requests(&self, irq: Irq, handler: &Arc<dyn Handler>) {
        self.line(irq).desc.request(Arc::clone(handler), Sharing::Exclusive).expect("it has none").synchronize();
    }

    pub(super) fn line(&self, irq: Irq) -> &Line {
        &self.lines[irq.0 as usize]
    }

    /// The entry code.
    fn interrupt(&self, cpu: CpuId, vector: Vector) {
        if vector == CLEANUP {
            self.cleans(cpu);
        } else {
            self.takes(cpu, vector);
        }
        self.apics.eoi();
    }

    pub(super) fn cleans(&self, cpu: CpuId) {
        if let Cleaned::Again(cleanup) = self.vectors.cleanup(cpu, |vector| self.apics.is_requested(vector)) {
            note(|| "something waits: to be looked at again".to_owned());
            self.asks(cleanup);
        }
    }

    fn takes(&self, cpu: CpuId, vector: Vector) {
        let sender = self.senders.borrow_mut().remove(&(cpu.0, vector.0));
        match self.vectors.cpu(cpu).expect("it is there").arrived(vector) {
            Arrived::Irq(irq) => {
                if sender.is_some_and(|sender| sender != irq) {
                    fail(format!("what another device has sent is taken for {irq}'s"));
                }
                self.handles(irq);
            }
            Arrived::Unhandled => {
                note(|| "nobody's: counted".to_owned());
                self.late.set(self.late.get() + 1);
            }
        }
    }

    /// What has arrived is handled; also by a CPU that goes offline and will not take it.
    pub(super) fn handles(&self, irq: Irq) {
        loop {
            let handling = self.line(irq).desc.handle();
            handling.wake.act();
            if !handling.again {
                break;
            }
        }
    }

    /// A CPU is asked to look at what waits there.
    pub(super) fn asks(&self, cleanup: Cleanup) {
        self.apics.send_ipi(Message { cpu: cleanup.cpu(), vector: CLEANUP });
    }

    /// The interrupt goes to another CPU.
    pub(super) fn moves(&self, irq: Irq, to: CpuId, update: Update) -> Result<(), VectorError> {
        let to = CpuSet::of([to]);
        let Some(moved) = self.vectors.begin_move(irq, Where::In(&to), update)? else { return Ok(()) };
        let device = &self.line(irq).device;
        match update {
            Update::Whole => {
                device.mask(true);
                device.write_masked_message(message(moved.to()));
                device.mask(false);
            }
            Update::WordByWord => {
                if moved.between().is_some() {
                    device.write_data(moved.to().vector);
                }
                device.write_address(moved.to().cpu);
            }
        }
        let change = self.line(irq).desc.set_affinity(to.clone(), &to, drop).expect("it is online");
        if let Some(change) = change {
            change.act();
        }
        self.asks(self.vectors.moved(moved)?);
        Ok(())
    }

    /// The interrupt is freed: nobody handles it, and its vector is in quarantine.
    pub(super) fn frees(&self, irq: Irq, handler: &Arc<dyn Handler>) {
        let line = self.line(irq);
        let freed = line.desc.free(handler).expect("it was requested");
        line.device.mask(true);
        assert!(freed.last());
        freed.synchronize();
        self.asks(self.vectors.deactivate(irq).expect("it has a vector, and nobody moves it"));
    }

    /// It is requested again, on a CPU of `to`, as soon as there is a vector.
    pub(super) fn requests_again(&self, irq: Irq, handler: &Arc<dyn Handler>, to: CpuId) {
        let to = CpuSet::of([to]);
        self.requests(irq, handler);
        let place = loop {
            match self.vectors.activate(irq, Where::In(&to)) {
                Ok(place) => break place,
                // All are in use or in quarantine, which ends.
                Err(VectorError::Full { .. }) => Sim::cpu_relax(),
                Err(error) => panic!("{error}"),
            }
        };
        let device = &self.line(irq).device;
        device.write_masked_message(message(place));
        device.mask(false);
    }

    /// A CPU goes away, and hands over what it will not take. On that CPU.
    pub(super) fn goes_offline(&self, cpu: CpuId, other: CpuId) {
        self.vectors.begin_offline(cpu).expect("the other has room");
        while let Some(irq) = self.vectors.next_on(cpu) {
            match self.moves(irq, other, Update::Whole) {
                Ok(()) => {}
                // Until the CPU that it comes from has looked.
                Err(VectorError::Moving(_)) => Sim::cpu_relax(),
                Err(error) => panic!("{error}"),
            }
        }
        let _off = IrqGuard::<Sim>::new();
        let irr = |vector| self.apics.is_requested(vector);
        while let Some(irq) = self.vectors.pending(cpu, irr).expect("nothing goes there") {
            note(|| format!("hands over {irq}"));
            self.handles(irq);
        }
    }

    /// When nothing more can happen: every device's events were seen, and no vector is lost.
    pub(super) fn quiet(&self) -> Result<(), String> {
        for line in &self.lines {
            let state = line.device.observe();
            if state.unseen > 0 {
                let waits = if state.waits { ", and the device waits for its driver" } else { "" };
                return Err(format!("an event of {} was not seen{waits}", line.irq));
            }
        }
        let taken = self.free - self.lines.len() as u32;
        let free = self.vectors.free();
        if free > taken { Err("a vector is free that is used".to_owned()) } else { Ok(()) }
    }

    /// When all CPUs have looked: nothing is in quarantine.
    pub(super) fn clean(&self) -> Result<(), String> {
        let used = self.lines.iter().filter(|line| self.vectors.place(line.irq).is_some()).count() as u32;
        let free = self.vectors.free();
        (free + used == self.free).then_some(()).ok_or(format!("{free} vectors are free, of {}", self.free))
    }
}

pub(super) fn message(place: Place) -> Message {
    Message { cpu: place.cpu, vector: place.vector }
}
