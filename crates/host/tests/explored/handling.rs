//! An interrupt comes, at one CPU or two, while it is disabled, freed, moved.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{DropUnlocked, Ghost, Model};
use doorbell_explore::{Machine, Sim};
use doorbell_host::{CpuSet, Enabled, Handler, IrqDesc, IrqReturn, Sharing};
use doorbell_platform::{CpuId, IrqGuard, ReadDomain, Vector};

use crate::machine::{HERE, OTHERS, THERE};

const VECTOR: Vector = Vector(0x31);

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("it comes at two CPUs", |m| drop(Line::new(m, 2))),
        Program::new("it comes while it is disabled and enabled", |m| disabled(m, 1)),
        Program::new("it comes at two CPUs while it is disabled and enabled", |m| disabled(m, 2)),
        Program::new("it comes while it is disabled, and stays so", stays_disabled),
        Program::new("its handler is freed while it comes", freed),
        Program::new("one waits until it is not handled", synchronized),
        Program::new("nobody claims it, at two CPUs", unclaimed),
        Program::new("it is to be moved when it comes next", deferred),
        Program::new("it is to be moved, and then elsewhere, when it comes next", deferred_twice),
        Program::new("its CPU goes away while it is moved", left),
        Program::new("it is disabled on the CPU that it interrupts", interrupted),
    ]
}

/// What the driver finds at its device.
struct Device {
    events: Model<u32>,
    seen: Model<u32>,
    /// Somebody is in the handler.
    busy: Model<bool>,
    claims: bool,
    memory: Ghost,
    _dropped: DropUnlocked,
}

impl Device {
    fn new(claims: bool) -> Arc<Self> {
        Arc::new(Device {
            events: Model::new("events", 0),
            seen: Model::new("seen", 0),
            busy: Model::new("handler", false),
            claims,
            memory: Ghost::new("driver"),
            _dropped: DropUnlocked("drops a driver"),
        })
    }
}

impl Handler for Device {
    fn handle(&self) -> IrqReturn {
        self.memory.access();
        self.busy.change(|busy| assert!(!std::mem::replace(busy, true), "two call the handler"));
        let events = self.events.observe(|events| *events);
        self.seen.change(|seen| *seen = events);
        self.busy.change(|busy| *busy = false);
        if self.claims { IrqReturn::Handled } else { IrqReturn::None }
    }
}

/// A line with a driver, whose interrupts come at CPUs 0 and up, once at each.
struct Line {
    desc: IrqDesc<Sim>,
    device: Arc<Device>,
    mask: Model<bool>,
}

impl Line {
    fn new(m: &Machine, cpus: u32) -> Rc<Self> {
        let line = Self::of(Device::new(true));
        for cpu in 0..cpus {
            line.comes_at(m, CpuId(cpu));
        }
        line.is_seen(m);
        line
    }

    fn of(device: Arc<Device>) -> Rc<Self> {
        let here = CpuSet::of([HERE]);
        let desc = IrqDesc::new(&Arc::new(ReadDomain::new("irq")), here.clone(), &here)
            .expect("it is online");
        desc.request(device.clone(), Sharing::Exclusive).expect("it has none").synchronize();
        Rc::new(Line { desc, device, mask: Model::new("mask", false) })
    }

    fn comes_at(self: &Rc<Self>, m: &Machine, cpu: CpuId) {
        let (this, raises) = (Rc::clone(self), Rc::clone(self));
        let handler = m.handler(cpu, VECTOR, "interrupt", move || this.handle());
        m.hardware("device", move || {
            raises.device.events.change(|events| *events += 1);
            handler.raise();
        });
    }

    /// What the host's entry does.
    fn handle(&self) {
        loop {
            let handling = self.desc.handle();
            handling.wake.act();
            assert!(!handling.spurious_disabled);
            if handling.mask {
                self.desc.mask(|mask| self.mask.change(|masked| *masked = mask));
            }
            if handling.moves {
                drop(self.desc.take_deferred());
            }
            if !handling.resend {
                break;
            }
        }
    }

    fn is_seen(self: &Rc<Self>, m: &Machine) {
        let this = Rc::clone(self);
        m.at_quiescence("what the device raised was seen, and it is not masked", move || {
            let events = this.device.events.observe(|events| *events);
            let seen = this.device.seen.observe(|seen| *seen);
            let masked = this.mask.observe(|mask| *mask);
            (events == seen && !masked)
                .then_some(())
                .ok_or(format!("{seen} of {events}, masked: {masked}"))
        });
    }

    fn disable_and_enable(&self) {
        self.desc.disable();
        if let Enabled::Unmask { resend } = self.desc.enable().expect("it was disabled") {
            self.mask.change(|masked| *masked = false);
            if resend {
                let _off = IrqGuard::<Sim>::new();
                self.handle();
            }
        }
    }
}

fn disabled(m: &Machine, cpus: u32) {
    let line = Line::new(m, cpus);
    m.task_on(HERE, "driver", move || line.disable_and_enable());
}

/// What comes from then on is kept, and the device masked: it would come again and again.
fn stays_disabled(m: &Machine) {
    let line = Line::of(Device::new(true));
    line.comes_at(m, HERE);
    let disables = Rc::clone(&line);
    m.task_on(OTHERS, "driver", move || disables.desc.disable());
    m.at_quiescence("what was not seen has it masked", move || {
        let events = line.device.events.observe(|events| *events);
        let seen = line.device.seen.observe(|seen| *seen);
        let masked = line.mask.observe(|mask| *mask);
        ((events == seen) != masked)
            .then_some(())
            .ok_or(format!("{seen} of {events}, masked: {masked}"))
    });
}

/// The driver's memory is gone when its handler cannot be called any more.
fn freed(m: &Machine) {
    let line = Line::of(Device::new(true));
    line.comes_at(m, HERE);
    let frees = Rc::clone(&line);
    m.task_on(OTHERS, "driver", move || {
        let handler: Arc<dyn Handler> = frees.device.clone();
        let freed = frees.desc.free(&handler).expect("it was requested");
        assert!(freed.last());
        freed.synchronize();
        frees.device.memory.free();
    });
}

/// The driver's memory is gone when its line is disabled and its handler does not run.
fn synchronized(m: &Machine) {
    let line = Line::of(Device::new(true));
    line.comes_at(m, HERE);
    m.task_on(OTHERS, "driver", move || {
        line.desc.disable();
        line.desc.synchronize();
        line.device.memory.free();
    });
}

/// What is counted is used by one at a time.
fn unclaimed(m: &Machine) {
    let line = Line::of(Device::new(false));
    line.comes_at(m, HERE);
    line.comes_at(m, THERE);
    line.is_seen(m);
}

fn deferred(m: &Machine) {
    let line = Line::new(m, 1);
    let defers = Rc::clone(&line);
    m.task_on(OTHERS, "affinity", move || {
        let there = CpuSet::of([THERE]);
        defers.desc.defer_affinity(there.clone(), &there).expect("it is online");
        // It comes once more.
        let _off = IrqGuard::<Sim>::new();
        defers.handle();
    });
    m.at_quiescence("it was moved when it came", move || {
        line.desc.take_deferred().is_none().then_some(()).ok_or("nobody was told".into())
    });
}

fn deferred_twice(m: &Machine) {
    let line = Line::new(m, 1);
    for (name, cpu) in [("affinity", CpuId(3)), ("other affinity", CpuId(4))] {
        let defers = Rc::clone(&line);
        m.task_on(cpu, name, move || {
            let there = CpuSet::of([THERE]);
            defers.desc.defer_affinity(there.clone(), &there).expect("it is online");
        });
    }
}

fn left(m: &Machine) {
    let line = Line::of(Device::new(true));
    let (leaves, moves) = (Rc::clone(&line), Rc::clone(&line));
    m.task_on(HERE, "goes away", move || {
        let left =
            leaves.desc.migrate_off(HERE, &CpuSet::of([OTHERS]), drop).expect("another is online");
        left.into_iter().for_each(|change| change.act());
    });
    m.task_on(OTHERS, "affinity", move || {
        let there = CpuSet::of([THERE]);
        let change = moves.desc.set_affinity(there.clone(), &there, drop).expect("it is online");
        change.into_iter().for_each(|change| change.act());
    });
    m.at_quiescence("it goes elsewhere", move || {
        (line.desc.cpu() == THERE).then_some(()).ok_or(format!("it goes to {}", line.desc.cpu()))
    });
}

/// All that takes the descriptor's lock, on the CPU that its interrupt interrupts.
fn interrupted(m: &Machine) {
    let line = Line::of(Device::new(true));
    let (handles, uses) = (Rc::clone(&line), Rc::clone(&line));
    let handler = m.handler(HERE, VECTOR, "interrupt", move || {
        handles.handle();
        handles.desc.disable();
        assert!(handles.desc.enable().is_ok());
        handles.desc.take_deferred();
    });
    m.hardware("device", move || handler.raise());
    m.task_on(HERE, "uses it", move || {
        let here = CpuSet::of([HERE]);
        uses.disable_and_enable();
        uses.desc.defer_affinity(here.clone(), &here).expect("it is online");
        uses.desc.take_deferred();
        let left =
            uses.desc.migrate_off(HERE, &CpuSet::of([THERE]), drop).expect("another is online");
        left.expect("it goes there").act();
    });
}
