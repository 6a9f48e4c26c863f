//! A message again, with the vectors and descriptors of `doorbell-host`: what arrives late is
//! counted, and its vector is another's only when its CPU has looked.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use doorbell_explore::Machine;
use doorbell_explore::sim::{DropUnlocked, Ghost};
use doorbell_explore::trace::FailureKind;
use doorbell_hardware::msix::Kind;
use doorbell_host::vector::{Cleaned, Irq, Unhandled};
use doorbell_host::{Handler, IrqReturn};
use doorbell_platform::CpuId;

use crate::case::{self, variant};
use crate::host::{Driver, Host, Line, Reads};
use crate::{Expected, Variant};

const OTHERS: CpuId = CpuId(0);
/// Where both devices' interrupts go.
const TO: CpuId = CpuId(1);
const FREED: Irq = Irq(0);
const OTHER: Irq = Irq(1);

/// What is explored.
#[derive(Clone, Copy)]
struct Scope {
    /// Another device gets the vector, and has one event.
    reused: bool,
    reads: Reads,
    ordered: bool,
    /// The CPU is asked to look at any moment, as when it has come online.
    looks: bool,
}

const ONE: Scope = Scope { reused: false, reads: Reads::UnderTheLock, ordered: true, looks: false };

pub(super) fn variants() -> Vec<Variant> {
    let exhausted = Expected::Exhausted;
    let found = Expected::Found(FailureKind::Invariant);
    let reused = Scope { reused: true, ..ONE };
    let looks = Scope { looks: true, ..ONE };
    vec![
        variant(
            "shipped",
            exhausted,
            "the late interrupt meets a mark, is counted, and does no harm",
            ONE,
        ),
        variant(
            "shipped-reused",
            exhausted,
            "there is one vector, and the other device gets it when its CPU has seen that its IRR is clear",
            reused,
        ),
        variant(
            "shipped-looks",
            exhausted,
            "nor is the vector free too early if its CPU is asked to look at some other moment, too",
            looks,
        ),
        variant(
            "shipped-irr-before-lock",
            found,
            "an IRR that is read before the lock is taken says nothing of a vector that is in quarantine since",
            Scope { reads: Reads::Before, ..looks },
        ),
        variant(
            "shipped-in-flight",
            found,
            "if the message may still be on its way when the device is masked, an IRR that is clear says nothing",
            Scope { ordered: false, ..reused },
        ),
    ]
}

impl case::Scope for Scope {
    fn text(self) -> String {
        let reused =
            if self.reused { "; its vector, the only one, goes to another, 1 event" } else { "" };
        let looks = if self.looks { "; its CPU looks once more" } else { "" };
        format!("1 device, 1 event, freed on another CPU{reused}{looks}")
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

/// A driver that is gone when its interrupt is freed.
struct Leaves {
    driver: Arc<Driver>,
    memory: Ghost,
    _dropped: DropUnlocked,
}

impl Handler for Leaves {
    fn handle(&self) -> IrqReturn {
        self.memory.access();
        self.driver.handle()
    }
}

fn program(m: &Machine, scope: Scope) {
    let kind = Kind { ordered: scope.ordered, ..Kind::PLAIN };
    let devices = [(kind, TO, 1), (kind, OTHERS, 1)];
    let host = Host::new(2, 1, &devices[..=usize::from(scope.reused)]);
    let leaves = Arc::new(Leaves {
        driver: Driver::of(host.line(FREED)),
        memory: Ghost::new("driver"),
        _dropped: DropUnlocked("drops a driver"),
    });
    let handler: Arc<dyn Handler> = leaves.clone();
    host.requests(FREED, &handler);
    if scope.reused {
        // It has no vector yet: what it had is quiet.
        host.line(OTHER).device.mask(true);
        let cpu = host.vectors.deactivate(OTHER).expect("it has a vector").cpu();
        assert_eq!(host.vectors.cleanup(cpu, |_| false), Cleaned::All);
    }
    host.run(m, [TO], scope.reads);
    {
        let host = Rc::clone(&host);
        m.task_on(OTHERS, "driver", move || {
            host.frees(FREED, &handler);
            leaves.memory.free();
            if scope.reused {
                let other: Arc<dyn Handler> = Driver::of(host.line(OTHER));
                host.requests_again(OTHER, &other, TO);
            }
        });
    }
    if scope.looks {
        let host = Rc::clone(&host);
        m.task_on(CpuId(2), "asks", move || host.asks(host.online[TO.0 as usize]));
    }
    m.at_quiescence(
        "what was sent is handled or counted, the other is heard, and no vector leaks",
        move || {
            host.clean()?;
            let unseen = |irq: Irq| host.line(irq).device.observe().unseen;
            if scope.reused && unseen(OTHER) > 0 {
                return Err("the other device waits for ever".to_owned());
            }
            let sum = |f: fn(&Line) -> u32| host.lines.iter().map(f).sum::<u32>();
            let (sent, arrived) =
                (sum(|line| line.sent.load(Relaxed)), sum(|line| line.arrived.get()));
            let unhandled = host.unhandled();
            let counted = Unhandled { late: sent - arrived, ..Unhandled::default() };
            (unhandled == counted)
                .then_some(())
                .ok_or_else(|| format!("{sent} sent, {arrived} arrived, {unhandled:?}"))
        },
    );
}
