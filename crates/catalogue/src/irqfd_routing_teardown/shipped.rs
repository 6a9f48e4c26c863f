//! The same on the real `doorbell-irqfd`.

use std::sync::Arc;

use doorbell_explore::sim::{Ghost, Model, fail};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_irqfd::{Controller, Gsi, Irqfds, Limits, Msi, Pin, Route, RoutingTable, SourceId};

use crate::case::{self, variant};
use crate::{Expected, Variant};

const GSI: Gsi = Gsi(1);
const OLD: Msi = Msi::new(0xfee0_0000, 0x41);
const NEW: Msi = Msi::new(0xfee0_1000, 0x42);

/// The actors.
#[derive(Clone, Copy)]
struct Scope {
    deassign: bool,
    reroute: bool,
    fires: usize,
    hang_up: bool,
    /// Deassign waits for deliveries that are under way before what they use is freed.
    waits: bool,
}

pub(super) fn variants() -> Vec<Variant> {
    let all = Scope { deassign: true, reroute: true, fires: 1, hang_up: true, waits: true };
    let exhausted = Expected::Exhausted;
    vec![
        variant(
            "shipped",
            exhausted,
            "one word says whether an irqfd is active, its route stays, and deassign and reroute wait for deliveries",
            Scope { hang_up: false, ..all },
        ),
        variant(
            "shipped-hang-up",
            exhausted,
            "who takes the irqfd off the list first is the one who has to wait for its deliveries",
            Scope { reroute: false, ..all },
        ),
        variant(
            "shipped-reroute-hang-up",
            exhausted,
            "a routing update does not see an irqfd that hangs up, and waits for its deliveries all the same",
            Scope { deassign: false, ..all },
        ),
        variant(
            "shipped-not-waited",
            Expected::Found(FailureKind::UseAfterFree),
            "only the second half of deassign promises that no delivery is under way: before it, nothing may be freed",
            Scope { reroute: false, hang_up: false, waits: false, ..all },
        ),
        variant("shipped-all", exhausted, "all of them at once", all),
        variant(
            "shipped-2-events",
            exhausted,
            "two events at once",
            Scope { fires: 2, hang_up: false, ..all },
        )
        .full_only(),
        variant(
            "shipped-all-2-events",
            exhausted,
            "two events beside all of them",
            Scope { fires: 2, ..all },
        )
        .full_only(),
    ]
}

impl case::Scope for Scope {
    fn text(self) -> String {
        let Scope { deassign, reroute, fires, hang_up, waits } = self;
        let mut who = Vec::new();
        who.extend(deassign.then_some(if waits { "deassign" } else { "first half of deassign" }));
        who.extend(reroute.then_some("reroute"));
        who.extend(std::iter::repeat_n("event", fires));
        who.extend(hang_up.then_some("hang-up"));
        format!("doorbell-irqfd, 1 irqfd with an MSI route; {}", who.join(" ‖ "))
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

/// Writes down what must not arrive.
struct Chip {
    state: Model<State>,
    /// What a delivery needs, and whoever has deassigned the irqfd may free.
    memory: Ghost,
}

#[derive(Default)]
struct State {
    /// The routing update has returned.
    rerouted: bool,
    messages: usize,
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, _chip: u16) -> u32 {
        0
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, _level: bool) {}
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, msi: Msi) {
        self.memory.access();
        let rerouted = self.state.change(|state| {
            state.messages += 1;
            state.rerouted
        });
        if rerouted && msi == OLD {
            fail("an event goes by the old route, and the routing update has returned");
        }
    }
}

fn table(msi: Msi) -> RoutingTable {
    RoutingTable::new(&[(GSI, Route::Msi(msi))]).expect("a good table")
}

fn program(m: &Machine, scope: Scope) {
    let state = Model::new("interrupt controller", State::default());
    let chip = Arc::new(Chip { state, memory: Ghost::new("what deliveries use") });
    let vm = Irqfds::<Sim, _>::new(chip.clone(), Limits { gsis: 2, ..Limits::default() });
    let _ = vm.reroute(table(OLD)).expect("an open VM");
    let irqfd = Arc::new(vm.irqfd());
    irqfd.assign(GSI).expect("the GSI is routed");
    if scope.deassign {
        let (irqfd, chip) = (irqfd.clone(), chip.clone());
        m.task("deassign", move || {
            let first = match irqfd.deassign_begin() {
                Ok(leaving) if scope.waits => {
                    leaving.wait();
                    true
                }
                Ok(leaving) => {
                    leaving.later();
                    true
                }
                Err(_) => false,
            };
            // If somebody else was first, they are the ones who have to wait.
            if first {
                chip.memory.free();
            }
        });
    }
    if scope.reroute {
        let (vm, chip) = (vm.clone(), chip.clone());
        m.task("reroute", move || {
            let _ = vm.reroute(table(NEW)).expect("an open VM");
            chip.state.change(|state| state.rerouted = true);
        });
    }
    for _ in 0..scope.fires {
        let irqfd = irqfd.clone();
        m.task("device", move || {
            let _ = irqfd.signal();
        });
    }
    if scope.hang_up {
        let irqfd = irqfd.clone();
        m.task("hang-up", move || {
            if let Ok(leaving) = irqfd.deassign_begin() {
                leaving.later();
            }
        });
    }
    m.at_quiescence("every event is delivered or kept", move || {
        let messages = chip.state.observe(|state| state.messages);
        let (fired, kept) = (scope.fires, irqfd.take_pending());
        // Kept events coalesce.
        let all = messages == fired || kept && messages < fired;
        if all {
            Ok(())
        } else {
            Err(format!("{fired} events, {messages} messages, one kept: {kept}"))
        }
    });
}
