//! The parties: drivers, who moves an interrupt, a CPU that goes away, and the guest behind VFIO
//! with its user.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::sim::{DropUnlocked, Model, fail, note};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::msix::{Device, Kind};
use doorbell_host::msi::{ConsumerSwitch, Drain, FreedLine, MsiConsumer, Signal};
use doorbell_host::vector::{Irq, Update};
use doorbell_host::{Handler, IrqReturn};
use doorbell_platform::CpuId;

use crate::count::count;
use crate::host::{Driver, Host, Line, Reads};

/// Where the first device's interrupts go at first, and whose.
const HERE: CpuId = CpuId(0);
const THERE: CpuId = CpuId(1);

/// How the user of VFIO has the interrupts of the first device go to itself, and back, as it does
/// when a guest masks and unmasks them. (A guest that does is in [`masked`](super::masked).)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Switch {
    None,
    /// Exchanging the consumer.
    InPlace,
    /// Freeing the interrupt and requesting it again, once, with an injection after that.
    Reopened,
}

/// Behind the first device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Guest {
    /// The host's own driver.
    None,
    /// A guest, whose device waits for it.
    Waits,
}

/// What is explored.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub devices: u32,
    pub events: u32,
    pub vectors: u8,
    pub moves: Option<Update>,
    pub teardown: bool,
    pub offline: bool,
    pub switch: Switch,
    pub guest: Guest,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (devices, events) = (count(self.devices, "device"), count(self.events, "event"));
        write!(f, "2 CPUs, {devices}, {events} each")?;
        if self.moves.is_some() {
            write!(f, "; one move")?;
        }
        if self.teardown {
            write!(f, "; one teardown and request")?;
        }
        if self.offline {
            write!(f, "; one CPU goes offline")?;
        }
        match self.switch {
            Switch::None => Ok(()),
            Switch::InPlace => write!(f, "; the consumer changes to the user of VFIO, and back"),
            Switch::Reopened => write!(f, "; one free and request by VFIO"),
        }
    }
}

/// The guest's vector as it is delivered to: coalescing, as a bit does.
#[derive(Clone)]
pub(super) struct Injected(Arc<Model<bool>>);

impl Injected {
    pub(super) fn new() -> Self {
        Injected(Arc::new(Model::new("guest's vector", false)))
    }
}

impl Signal for Injected {
    fn signal(&self, _: u64) {
        self.0.change(|pending| *pending = true);
        note(|| "interrupts the guest".to_owned());
    }
}

/// The eventfd of the user of VFIO, who reads it when it goes back to the guest, and not before.
#[derive(Clone)]
pub(super) struct EventFd(Arc<Model<u64>>);

impl EventFd {
    pub(super) fn new() -> Self {
        EventFd(Arc::new(Model::new("eventfd", 0)))
    }
}

impl Signal for EventFd {
    fn signal(&self, count: u64) {
        self.0.change(|waits| *waits += count);
        note(|| "signals the eventfd".to_owned());
    }
}

impl Drain for EventFd {
    fn drain(&self) -> u64 {
        let count = self.0.change(std::mem::take);
        note(|| format!("reads {count} from the eventfd"));
        count
    }
}

pub(super) type Consumers = ConsumerSwitch<Sim, Injected, EventFd>;

/// VFIO's handler.
pub(super) struct Vfio {
    consumers: Arc<Consumers>,
    _dropped: DropUnlocked,
}

impl Vfio {
    pub(super) fn new(consumers: &Arc<Consumers>) -> Self {
        Vfio { consumers: Arc::clone(consumers), _dropped: DropUnlocked("drops a handler") }
    }
}

impl Handler for Vfio {
    fn handle(&self) -> IrqReturn {
        self.consumers.signal();
        IrqReturn::Handled
    }
}

impl Scope {
    pub(super) fn program(self, m: &Machine) {
        let behind_vfio = self.guest == Guest::Waits;
        let kind = |waits_for_driver| Kind { waits_for_driver, ordered: true, ..Kind::PLAIN };
        let first = Kind { masks: self.moves != Some(Update::WordByWord), ..kind(behind_vfio) };
        let devices = [(first, HERE, self.events), (kind(false), THERE, self.events)];
        let host = Host::new(2, self.vectors, &devices[..self.devices as usize]);
        let handlers: Vec<_> = host.lines.iter().map(|line| self.handler(line)).collect();
        // With two devices, it is the second that is torn down.
        let (first, last) = (Irq(0), Irq(self.devices - 1));
        for (line, handler) in host.lines.iter().zip(&handlers) {
            host.requests(line.irq, &handler.driver);
        }
        let goes_there = self.devices > 1 || self.moves.is_some() || self.offline;
        host.run(
            m,
            [HERE, THERE].into_iter().take(if goes_there { 2 } else { 1 }),
            Reads::UnderTheLock,
        );
        if let Some(update) = self.moves {
            let host = Rc::clone(&host);
            m.task_on(CpuId(2), "affinity", move || {
                host.moves(first, THERE, update).expect("there is room")
            });
        }
        if self.teardown {
            let (host, driver) = (Rc::clone(&host), Arc::clone(&handlers[last.0 as usize].driver));
            m.task_on(CpuId(3), "driver", move || reset(&host, last, &driver));
        }
        if self.offline {
            let host = Rc::clone(&host);
            m.task_on(HERE, "goes offline", move || host.goes_offline(HERE, THERE));
        }
        let handler = &handlers[0];
        let reopens = self.switch == Switch::Reopened;
        match self.switch {
            Switch::None => {}
            Switch::InPlace => {
                let consumers = Arc::clone(&handler.consumers);
                m.task_on(CpuId(4), "QEMU", move || {
                    consumers.switch(MsiConsumer::User);
                    consumers.switch(MsiConsumer::Direct);
                });
            }
            Switch::Reopened => {
                let (host, driver) = (Rc::clone(&host), Arc::clone(&handler.driver));
                let guest = handler.consumers.direct().clone();
                m.task_on(CpuId(4), "QEMU", move || reopen(&host, &driver, guest));
            }
        }
        if behind_vfio {
            let (device, vector) =
                (Arc::clone(&host.line(first).device), handler.consumers.direct().clone());
            m.task_on(CpuId(5), "guest", move || guest(&device, &vector, u32::from(reopens)));
        }
        m.at_quiescence("nothing is lost, and no vector leaks", move || {
            host.quiet()?;
            if self.offline { Ok(()) } else { host.clean() }
        });
    }

    fn handler(self, line: &Line) -> Handlers {
        let consumers =
            Arc::new(Consumers::new(Injected::new(), EventFd::new(), MsiConsumer::Direct));
        let vfio = self.guest == Guest::Waits && line.irq == Irq(0);
        let driver: Arc<dyn Handler> =
            if vfio { Arc::new(Vfio::new(&consumers)) } else { Driver::of(line) };
        Handlers { driver, consumers }
    }
}

struct Handlers {
    driver: Arc<dyn Handler>,
    consumers: Arc<Consumers>,
}

/// A driver silences its device, frees its interrupt, and requests it again.
fn reset(host: &Host, irq: Irq, driver: &Arc<dyn Handler>) {
    host.line(irq).device.silence();
    host.frees(irq, driver);
    host.requests_again(irq, driver, if irq == Irq(0) { HERE } else { THERE });
    host.line(irq).device.enable(true);
}

/// VFIO frees an interrupt whose device goes on meanwhile, and requests it again.
fn reopen(host: &Host, driver: &Arc<dyn Handler>, guest: Injected) {
    let freed = FreedLine::by(|| host.frees(Irq(0), driver));
    let requested = freed.request(|| {
        host.requests_again(Irq(0), driver, HERE);
        Ok::<_, ()>(guest)
    });
    let Ok(requested) = requested else { unreachable!("it is always granted") };
    requested.inject();
}

/// The driver in the guest, for as long as it is interrupted.
pub(super) fn guest(device: &Device, vector: &Injected, extra: u32) {
    let seen_nothing = Cell::new(0);
    while vector.0.serve(|pending| *pending, |pending| *pending = false).is_ok() {
        note(|| "the guest is interrupted".to_owned());
        if device.acknowledge() == 0 {
            seen_nothing.set(seen_nothing.get() + 1);
        }
        if seen_nothing.get() > extra {
            fail(format!("{} extra interrupts, of {extra}", seen_nothing.get()));
        }
    }
}

impl crate::case::Scope for Scope {
    fn text(self) -> String {
        self.to_string()
    }

    fn program(self, m: &Machine) {
        Scope::program(self, m);
    }
}
