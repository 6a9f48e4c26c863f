//! The same with the vectors and descriptors of `doorbell-host`, in which both places, and the one
//! between, are installed before the device is written to. So no interrupt is spurious, and nothing
//! has to be looked for or sent once more.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::Machine;
use doorbell_explore::trace::FailureKind;
use doorbell_hardware::msix::{Device, Kind};
use doorbell_host::Handler;
use doorbell_host::vector::{Irq, Move, Unhandled, Update};
use doorbell_platform::CpuId;

use crate::case::{self, variant};
use crate::count::count;
use crate::host::{Driver, Host, Reads, message};
use crate::{Expected, Variant};

const HERE: CpuId = CpuId(0);
const THERE: CpuId = CpuId(1);

/// What is explored.
#[derive(Clone, Copy)]
struct Scope {
    events: u32,
    /// One has the device's vector on the new CPU; another the next one on the old CPU.
    neighbours: u32,
    /// How many events each neighbour has.
    neighbour_events: u32,
    ordered: bool,
    gives: fn(&Device, &Move),
}

const ONE: Scope =
    Scope { events: 1, neighbours: 0, neighbour_events: 0, ordered: true, gives: data_first };

/// As [`Update::WordByWord`] wants it.
fn data_first(device: &Device, moved: &Move) {
    if moved.between().is_some() {
        device.write_data(moved.to().vector);
    }
    device.write_address(moved.to().cpu);
}

fn address_first(device: &Device, moved: &Move) {
    device.write_message(message(moved.to()));
}

pub(super) fn variants() -> Vec<Variant> {
    let exhausted = Expected::Exhausted;
    let spurious = Expected::Found(FailureKind::Invariant);
    let neighbour = Scope { neighbours: 1, neighbour_events: 1, ..ONE };
    vec![
        variant(
            "shipped",
            exhausted,
            "where the vector is free on the new CPU, too, one write moves the interrupt",
            ONE,
        ),
        variant(
            "shipped-2-events",
            exhausted,
            "both of two events are handled, each by one call at most",
            Scope { events: 2, ..ONE },
        ),
        variant(
            "shipped-neighbour",
            exhausted,
            "where a neighbour has that vector, the two writes go by a vector that is the interrupt's own on both CPUs",
            neighbour,
        ),
        variant(
            "shipped-neighbour-2-events",
            exhausted,
            "nor is either of two events lost there, or taken for the neighbour's",
            Scope { events: 2, neighbour_events: 0, ..neighbour },
        )
        .full_only(),
        variant(
            "shipped-neighbours",
            exhausted,
            "a vector that is a neighbour's on either CPU is not the one that the writes go by",
            Scope { neighbours: 2, ..ONE },
        ),
        variant(
            "shipped-address-first",
            spurious,
            "in the other order the message between the two writes is the neighbour's: only one order is installed",
            Scope { gives: address_first, ..neighbour },
        ),
        variant(
            "shipped-in-flight",
            Expected::Found(FailureKind::Invariant),
            "if a message is on its way still when the write has completed, the CPU looks before it comes",
            Scope { ordered: false, ..ONE },
        ),
    ]
}

impl case::Scope for Scope {
    fn text(self) -> String {
        let Scope { events, neighbour_events: theirs, .. } = self;
        let neighbours = match self.neighbours {
            0 => String::new(),
            1 => {
                format!("; a neighbour with its vector on the new CPU, {}", count(theirs, "event"))
            }
            _ => format!(
                "; neighbours with its vector on the new CPU and the next one on the old, {theirs} events"
            ),
        };
        format!(
            "1 move to another CPU, 1 device that cannot mask, {}{neighbours}",
            count(events, "event")
        )
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

fn program(m: &Machine, scope: Scope) {
    let kind = Kind { ordered: scope.ordered, masks: false, ..Kind::PLAIN };
    let devices = [
        (kind, HERE, scope.events),
        (kind, THERE, scope.neighbour_events),
        (kind, HERE, scope.neighbour_events),
    ];
    let host = Host::new(2, 3, &devices[..=scope.neighbours as usize]);
    for line in &host.lines {
        let driver: Arc<dyn Handler> = Driver::of(line);
        host.requests(line.irq, &driver);
    }
    host.run(m, [HERE, THERE], Reads::UnderTheLock);
    let moves = Rc::clone(&host);
    m.task_on(CpuId(2), "affinity", move || {
        let by = |device: &Device, moved: &Move| {
            assert_eq!(
                moved.between().is_some(),
                scope.neighbours > 0,
                "its vector is free there if no neighbour has it"
            );
            (scope.gives)(device, moved);
        };
        moves.moves_by(Irq(0), THERE, Update::WordByWord, by).expect("there is room");
    });
    m.at_quiescence("nothing is lost, nothing is spurious, and no vector leaks", move || {
        host.quiet()?;
        host.clean()?;
        let unhandled = host.unhandled();
        (unhandled == Unhandled::default())
            .then_some(())
            .ok_or_else(|| format!("for nothing: {unhandled:?}"))
    });
}
