//! A host on `doorbell-host`, for what is shipped: vectors and descriptors, and the entry code that
//! joins them to the local APICs. Of whatever is done, it says if a device's interrupt is taken for
//! another's, or a handler called for nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use doorbell_explore::sim::{DropUnlocked, fail, note};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::lapic::{Lapics, Message};
use doorbell_hardware::msix::{Device, Kind};
use doorbell_host::vector::{
    Affinity, Arrived, Cleaned, Cleanup, CpuVector, Irq, Move, Unhandled, Update, VectorError,
    Vectors,
};
use doorbell_host::{CpuSet, Handler, IrqDesc, IrqReturn, Sharing};
use doorbell_platform::{CpuId, IrqGuard, Platform, ReadDomain, Vector};

/// A vector of the lowest priority: what waits at the CPU comes before.
const CLEANUP: Vector = Vector(0x20);
/// The first of those that devices get.
const FIRST: u8 = 0x41;

/// One interrupt of the host, and the device that sends it.
pub(crate) struct Line {
    pub irq: Irq,
    pub desc: IrqDesc<Sim>,
    pub device: Arc<Device>,
    /// Messages that have left the device: ghost state.
    pub sent: Arc<AtomicU32>,
    /// Those of them that have arrived as this interrupt: ghost state.
    pub arrived: Cell<u32>,
}

/// A driver of the host.
pub(crate) struct Driver {
    device: Arc<Device>,
    sent: Arc<AtomicU32>,
    /// How often it was called: ghost state.
    calls: AtomicU32,
    _dropped: DropUnlocked,
}

impl Driver {
    pub(crate) fn of(line: &Line) -> Arc<Self> {
        Arc::new(Driver {
            device: Arc::clone(&line.device),
            sent: Arc::clone(&line.sent),
            calls: AtomicU32::new(0),
            _dropped: DropUnlocked("drops a driver"),
        })
    }
}

impl Handler for Driver {
    fn handle(&self) -> IrqReturn {
        // Part of the step that acknowledges the device, which each message that has left it has to
        // do with.
        self.device.acknowledge();
        let calls = self.calls.fetch_add(1, Relaxed) + 1;
        if calls > self.sent.load(Relaxed) {
            fail("a handler is called for nothing that its device has sent");
        }
        IrqReturn::Handled
    }
}

pub(crate) struct Host {
    pub vectors: Vectors<Sim>,
    pub lines: Vec<Line>,
    apics: Rc<Lapics>,
    /// What each CPU was to do when it came online: nothing is in quarantine then.
    pub online: Vec<Cleanup>,
    per_cpu: u8,
    free: u32,
    /// The devices that have sent what is on its way to a CPU, or waits there: ghost state.
    senders: RefCell<BTreeMap<(u32, u8), Irq>>,
    /// This CPU has handed over all that it will not take.
    gone: Cell<Option<CpuId>>,
}

/// When the CPU that cleans up reads its IRR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reads {
    /// When [`Vectors::cleanup`] asks, which is under the lock.
    UnderTheLock,
    /// Before it calls that.
    Before,
}

impl Host {
    /// With so many vectors on each CPU, and devices: where their interrupts go, and how many
    /// events they have.
    pub(crate) fn new(cpus: u32, vectors: u8, devices: &[(Kind, CpuId, u32)]) -> Rc<Self> {
        let table = Vectors::new(cpus, devices.len() as u32, FIRST..=FIRST + (vectors - 1))
            .expect("not too many");
        let online =
            (0..cpus).map(|cpu| table.online(CpuId(cpu)).expect("it is offline")).collect();
        let free = table.free();
        let lines = devices.iter().zip(0..).map(|(&(kind, cpu, events), number)| {
            let (irq, here) = (Irq(number), CpuSet::of([cpu]));
            let place = table.activate(irq, Affinity::In(&here)).expect("one is free");
            let desc = IrqDesc::new(&Arc::new(ReadDomain::new("irq actions")), here.clone(), &here)
                .expect("it is online");
            let name = ["device", "other device", "third device"][number as usize];
            let device = Device::new(name, kind, message(place), events);
            Line { irq, desc, device, sent: Arc::default(), arrived: Cell::new(0) }
        });
        let lines = lines.collect();
        let senders = RefCell::default();
        let apics = Lapics::new(cpus as usize);
        Rc::new(Host {
            vectors: table,
            lines,
            apics,
            online,
            per_cpu: vectors,
            free,
            senders,
            gone: Cell::new(None),
        })
    }

    /// Has the devices run, and those CPUs take their interrupts that any come to.
    pub(crate) fn run(
        self: &Rc<Self>,
        m: &Machine,
        cpus: impl IntoIterator<Item = CpuId>,
        irr: Reads,
    ) {
        for line in &self.lines {
            let (this, irq) = (Rc::clone(self), line.irq);
            line.device.run(m, &self.apics, move |sent| {
                this.line(irq).sent.fetch_add(1, Relaxed);
                let former = this.senders.borrow_mut().insert((sent.cpu.0, sent.vector.0), irq);
                if former.is_some_and(|former| former != irq) {
                    fail(format!("two devices send to {sent}"));
                }
            });
        }
        for cpu in cpus {
            let this = Rc::clone(self);
            self.apics.on_interrupt(m, cpu, move |vector| this.interrupt(cpu, vector, irr));
        }
        self.apics.carry_ipis(m);
    }

    pub(crate) fn requests(&self, irq: Irq, handler: &Arc<dyn Handler>) {
        self.line(irq)
            .desc
            .request(Arc::clone(handler), Sharing::Exclusive)
            .expect("it has none")
            .synchronize();
    }

    pub(crate) fn line(&self, irq: Irq) -> &Line {
        &self.lines[irq.0 as usize]
    }

    /// The entry code.
    fn interrupt(&self, cpu: CpuId, vector: Vector, irr: Reads) {
        if vector == CLEANUP {
            self.cleans(cpu, irr);
        } else {
            self.takes(cpu, vector);
        }
        self.apics.eoi();
    }

    fn cleans(&self, cpu: CpuId, irr: Reads) {
        let requested = |vector| self.apics.is_requested(vector);
        let cleaned = match irr {
            Reads::UnderTheLock => self.vectors.cleanup(cpu, requested),
            Reads::Before => {
                let vectors = (FIRST..FIRST + self.per_cpu).map(Vector);
                let before: Vec<Vector> = vectors.filter(|vector| requested(*vector)).collect();
                self.vectors.cleanup(cpu, |vector| before.contains(&vector))
            }
        };
        if let Cleaned::Again(cleanup) = cleaned {
            note(|| "something waits: to be looked at again".to_owned());
            self.asks(cleanup);
        }
    }

    fn takes(&self, cpu: CpuId, vector: Vector) {
        let sender = self.senders.borrow_mut().remove(&(cpu.0, vector.0));
        match self.vectors.cpu(cpu).expect("it is there").arrived(vector) {
            Arrived::Irq(irq) => {
                if self.gone.get() == Some(cpu) {
                    fail(format!("{cpu} is offline, and handles {irq}"));
                }
                if sender.is_some_and(|sender| sender != irq) {
                    fail(format!("what another device has sent is taken for {irq}'s"));
                }
                let arrived = &self.line(irq).arrived;
                arrived.set(arrived.get() + 1);
                self.handles(irq);
            }
            Arrived::Unhandled => {
                note(|| "nobody's: counted".to_owned());
                if self.unhandled().spurious > 0 {
                    fail(format!("no interrupt has vector {:#x} of {cpu}", vector.0));
                }
            }
        }
    }

    /// What has arrived is handled; also by a CPU that goes offline and will not take it.
    pub(crate) fn handles(&self, irq: Irq) {
        loop {
            let handling = self.line(irq).desc.handle();
            handling.wake.act();
            if !handling.resend {
                break;
            }
        }
    }

    /// A CPU is asked to look at what waits there.
    pub(crate) fn asks(&self, cleanup: Cleanup) {
        self.apics.send_ipi(Message { cpu: cleanup.cpu(), vector: CLEANUP });
    }

    /// The interrupt goes to another CPU.
    pub(crate) fn moves(&self, irq: Irq, to: CpuId, update: Update) -> Result<(), VectorError> {
        self.moves_by(irq, to, update, |device, moved| match update {
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
        })
    }

    /// The same, where `gives` gives the device its new message.
    pub(crate) fn moves_by(
        &self,
        irq: Irq,
        to: CpuId,
        update: Update,
        gives: impl FnOnce(&Device, &Move),
    ) -> Result<(), VectorError> {
        let to = CpuSet::of([to]);
        let Some(moved) = self.vectors.begin_move(irq, Affinity::In(&to), update)? else {
            return Ok(());
        };
        gives(&self.line(irq).device, &moved);
        let change = self.line(irq).desc.set_affinity(to.clone(), &to, drop).expect("it is online");
        if let Some(change) = change {
            change.act();
        }
        self.asks(self.vectors.moved(moved)?);
        Ok(())
    }

    /// The interrupt is freed: nobody handles it, and its vector is in quarantine.
    pub(crate) fn frees(&self, irq: Irq, handler: &Arc<dyn Handler>) {
        let line = self.line(irq);
        let freed = line.desc.free(handler).expect("it was requested");
        line.device.mask(true);
        assert!(freed.last());
        freed.synchronize();
        self.asks(self.vectors.deactivate(irq).expect("it has a vector, and nobody moves it"));
    }

    /// Requests it again, on a CPU of `to`, as soon as there is a vector.
    pub(crate) fn requests_again(&self, irq: Irq, handler: &Arc<dyn Handler>, to: CpuId) {
        let to = CpuSet::of([to]);
        self.requests(irq, handler);
        let place = loop {
            match self.vectors.activate(irq, Affinity::In(&to)) {
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
    pub(crate) fn goes_offline(&self, cpu: CpuId, other: CpuId) {
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
        loop {
            match self.vectors.pending(cpu, irr) {
                Ok(Some(irq)) => {
                    note(|| format!("hands over {irq}"));
                    self.handles(irq);
                }
                Ok(None) => break self.gone.set(Some(cpu)),
                // Somebody has moved it away, and has not said yet that nothing more comes here.
                Err(VectorError::Moving(_)) => Sim::cpu_relax(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What the CPUs have taken that nobody handled, all together.
    pub(crate) fn unhandled(&self) -> Unhandled {
        let each = self
            .online
            .iter()
            .map(|cpu| self.vectors.cpu(cpu.cpu()).expect("it is there").unhandled());
        each.fold(Unhandled::default(), |all, one| Unhandled {
            late: all.late + one.late,
            retriggered: all.retriggered + one.retriggered,
            spurious: all.spurious + one.spurious,
        })
    }

    /// When nothing more can happen: every device's events were seen, and no vector is free that is
    /// used.
    pub(crate) fn quiet(&self) -> Result<(), String> {
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
    pub(crate) fn clean(&self) -> Result<(), String> {
        let used =
            self.lines.iter().filter(|line| self.vectors.place(line.irq).is_some()).count() as u32;
        let free = self.vectors.free();
        (free + used == self.free)
            .then_some(())
            .ok_or(format!("{free} vectors are free, of {}", self.free))
    }
}

pub(crate) fn message(place: CpuVector) -> Message {
    Message { cpu: place.cpu, vector: place.vector }
}
