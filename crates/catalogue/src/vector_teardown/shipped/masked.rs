//! The guest itself masks its interrupt, gives it another message, and unmasks it, as it does to
//! move the interrupt to another of its CPUs: its writes to an [`Msix`] table are what has the
//! consumer of the host's line change.
//!
//! Three tasks of the user of VFIO and its guest: the vCPU whose writes to the table trap, and who
//! then acts for the user; the user's other thread, which reads the eventfd once, and has what it
//! has got kept as a pending bit or delivered; and the guest's driver.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::sim::{Model, note, remark};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::msix::Kind;
use doorbell_host::Handler;
use doorbell_host::msi::spec::MSIX_ENABLE;
use doorbell_host::msi::{Drain, MsiConsumer, Msix, MsixSignalled, MsixWritten, Signal};
use doorbell_host::vector::{Irq, Update};
use doorbell_platform::CpuId;

use super::parties::{Consumers, EventFd, Injected, Vfio, guest};
use crate::count::count;
use crate::host::{Host, Reads};

/// What is explored.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub events: u32,
    /// The host moves the line to its other CPU.
    pub moves: Option<Update>,
    pub unmasks: Unmasks,
}

/// What the user does when the guest unmasks its interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unmasks {
    /// The unmask opens the table's entry, delivers what was pending, and has the line go to the
    /// guest again.
    OpensThenSwitches,
    /// The unmask does not deliver what was pending: a planted fault.
    DropsPending,
    /// The line stays where it is, though nobody reads there any more: a planted fault.
    ForgetsToSwitch,
}

const LINE: Irq = Irq(0);
const HERE: CpuId = CpuId(0);
const THERE: CpuId = CpuId(1);

/// The guest's messages.
const BEFORE: u32 = 0x41;
const AFTER: u32 = 0x51;

/// Offsets in the first entry of the table.
const DATA: u64 = 8;
const CONTROL: u64 = 12;

/// The user of VFIO.
struct Vmm {
    table: Msix<Sim>,
    /// The data of the message by which the guest is interrupted.
    route: Model<u32>,
    consumers: Arc<Consumers>,
    unmasks: Unmasks,
}

impl Vmm {
    /// Returns one whose guest has its interrupt routed and unmasked.
    fn new(unmasks: Unmasks) -> Rc<Self> {
        let consumers = Consumers::new(Injected::new(), EventFd::new(), MsiConsumer::Direct);
        let vmm = Vmm {
            table: Msix::new(1).expect("a small one"),
            route: Model::new("route", 0),
            consumers: Arc::new(consumers),
            unmasks,
        };
        vmm.table.write_control(MSIX_ENABLE).each(|written| vmm.acts(written));
        vmm.writes(DATA, BEFORE);
        vmm.writes(CONTROL, 0);
        Rc::new(vmm)
    }

    /// A write of the guest to the table.
    fn writes(&self, offset: u64, value: u32) {
        self.acts(self.table.write_table(offset, 4, value.into()));
    }

    fn acts(&self, mut written: MsixWritten<'_, Sim>) {
        while let MsixWritten::Route(reroute) = written {
            let data = reroute.message().data;
            self.route.change(|route| *route = data);
            note(|| format!("the guest's vector is {data:#x}"));
            written = reroute.routed();
        }
        match written {
            MsixWritten::Deliver(_) if self.unmasks == Unmasks::DropsPending => {
                remark(|| "the pending bit is taken, and not delivered".to_owned());
            }
            MsixWritten::Deliver(_) => self.delivers(),
            _ => {}
        }
    }

    fn delivers(&self) {
        self.consumers.direct().signal(1);
    }

    /// The guest moves its interrupt.
    fn guest_moves_it(&self) {
        self.writes(CONTROL, 1);
        remark(|| "the guest has masked it".to_owned());
        self.consumers.switch(MsiConsumer::User);
        remark(|| "the line goes to the eventfd".to_owned());
        self.writes(DATA, AFTER);
        self.writes(CONTROL, 0);
        remark(|| "the guest has unmasked it".to_owned());
        if self.unmasks != Unmasks::ForgetsToSwitch {
            self.consumers.switch(MsiConsumer::Direct);
            remark(|| "the line goes to the guest".to_owned());
        }
    }

    /// The other thread: what the eventfd has is the table's.
    fn reads(&self) {
        if self.consumers.user().drain() > 0 && self.table.signal(0) == Ok(MsixSignalled::Deliver) {
            self.delivers();
        }
    }
}

impl Scope {
    pub(super) fn program(self, m: &Machine) {
        let kind = Kind { waits_for_driver: true, ordered: true, ..Kind::PLAIN };
        let vectors = if self.moves.is_some() { 2 } else { 1 };
        let host = Host::new(2, vectors, &[(kind, HERE, self.events)]);
        let vmm = Vmm::new(self.unmasks);
        let handler: Arc<dyn Handler> = Arc::new(Vfio::new(&vmm.consumers));
        host.requests(LINE, &handler);
        host.run(
            m,
            [HERE, THERE].into_iter().take(if self.moves.is_some() { 2 } else { 1 }),
            Reads::UnderTheLock,
        );
        if let Some(update) = self.moves {
            let host = Rc::clone(&host);
            m.task_on(CpuId(2), "affinity", move || {
                host.moves(LINE, THERE, update).expect("there is room")
            });
        }
        let traps = Rc::clone(&vmm);
        m.task_on(CpuId(3), "vCPU", move || traps.guest_moves_it());
        let reads = Rc::clone(&vmm);
        m.task_on(CpuId(4), "QEMU", move || reads.reads());
        let (device, vector) =
            (Arc::clone(&host.line(LINE).device), vmm.consumers.direct().clone());
        m.task_on(CpuId(5), "guest", move || guest(&device, &vector, 0));
        m.at_quiescence(
            "nothing is lost, and the guest is interrupted as it has asked",
            move || {
                // It lives until here, and with it the handler.
                let _handler = &handler;
                host.quiet()?;
                match vmm.route.observe(|route| *route) {
                    AFTER => host.clean(),
                    route => Err(format!("its message is {route:#x}, instead of {AFTER:#x}")),
                }
            },
        );
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "1 device that waits for its driver, {}; 1 guest that masks, moves and unmasks",
            count(self.events, "event")
        )?;
        f.write_str(", with its table, the eventfd's reader and the host's line")?;
        if self.moves.is_some() { f.write_str(", which is moved") } else { Ok(()) }
    }
}
