//! The same on the real `doorbell-irqfd`.

use std::sync::Arc;

use doorbell_explore::sim::{Ghost, Model};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_irqfd::{Controller, Gsi, Irqfds, Limits, Msi, Pin, Route, RoutingTable, SourceId};

use crate::{Expected, Variant};

const GSI: Gsi = Gsi(1);
const OLD: Msi = Msi::new(0xfee0_0000, 0x41);
const NEW: Msi = Msi::new(0xfee0_1000, 0x42);

/// Who is there.
#[derive(Clone, Copy)]
struct Actors {
    deassign: bool,
    reroute: bool,
    fires: usize,
    hang_up: bool,
    /// Deassign waits for deliveries that are under way before what they use is freed.
    waits: bool,
}

pub(super) fn variants() -> Vec<Variant> {
    let all = Actors { deassign: true, reroute: true, fires: 1, hang_up: true, waits: true };
    vec![
        shipped(
            "shipped",
            "one word says whether an irqfd is active, the cached route stays, and deassign and reroute wait for deliveries",
            Actors { hang_up: false, ..all },
        ),
        shipped(
            "shipped-hang-up",
            "whoever takes the irqfd off the list first is the one who has to wait for its deliveries",
            Actors { reroute: false, ..all },
        ),
        Variant {
            expected: Expected::Found(FailureKind::UseAfterFree),
            ..shipped(
                "not-waited",
                "who frees what deliveries use after the first half of deassign frees it under one that is under way",
                Actors { reroute: false, hang_up: false, waits: false, ..all },
            )
        },
        shipped("shipped-reroute-hang-up", "the same, beside a routing update", Actors { deassign: false, ..all }),
        shipped("shipped-2-events", "two events at once", Actors { fires: 2, hang_up: false, ..all }).full_only(),
        shipped("shipped-all", "all of them at once", all).full_only(),
    ]
}

fn shipped(name: &'static str, summary: &'static str, actors: Actors) -> Variant {
    let Actors { deassign, reroute, fires, hang_up, waits } = actors;
    let mut who = Vec::new();
    who.extend(deassign.then_some(if waits { "deassign" } else { "deassign without waiting" }));
    who.extend(reroute.then_some("reroute"));
    who.extend(std::iter::repeat_n("event", fires));
    who.extend(hang_up.then_some("hang-up"));
    let text = format!("doorbell-irqfd, 1 irqfd with an MSI route; {}", who.join(" ‖ "));
    Variant::new(name, Expected::Exhausted, summary, text, move |m| program(m, actors))
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
    /// A message has come by the old route since.
    stale: bool,
    messages: usize,
}

impl Controller for Chip {
    fn pins(&self, _chip: u16) -> u32 {
        0
    }
    fn set_irq(&self, _pin: Pin, _source: SourceId, _level: bool) {}
    fn edge(&self, _pin: Pin) {}
    fn msi(&self, msi: Msi) {
        self.memory.access();
        self.state.change(|state| {
            state.stale |= state.rerouted && msi == OLD;
            state.messages += 1;
        });
    }
}

fn table(msi: Msi) -> RoutingTable {
    RoutingTable::new(&[(GSI, Route::Msi(msi))]).expect("a good table")
}

fn program(m: &Machine, actors: Actors) {
    let state = Model::new("interrupt controller", State::default());
    let chip = Arc::new(Chip { state, memory: Ghost::new("what deliveries use") });
    let vm = Irqfds::<Sim, _>::new(chip.clone(), Limits { gsis: 2, ..Limits::default() });
    vm.reroute(table(OLD)).expect("an open VM");
    let irqfd = Arc::new(vm.irqfd());
    irqfd.assign(GSI).expect("the GSI is routed");
    if actors.deassign {
        let (irqfd, chip) = (irqfd.clone(), chip.clone());
        m.task("deassign", move || {
            let first = match irqfd.deassign_begin() {
                Ok(leaving) if actors.waits => {
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
    if actors.reroute {
        let (vm, chip) = (vm.clone(), chip.clone());
        m.task("reroute", move || {
            vm.reroute(table(NEW)).expect("an open VM");
            chip.state.change(|state| state.rerouted = true);
        });
    }
    for _ in 0..actors.fires {
        let irqfd = irqfd.clone();
        m.task("device", move || {
            let _ = irqfd.signal();
        });
    }
    if actors.hang_up {
        let irqfd = irqfd.clone();
        m.task("hang-up", move || {
            if let Ok(leaving) = irqfd.deassign_begin() {
                leaving.later();
            }
        });
    }
    m.at_quiescence("every event is delivered or kept, and none goes by the old route after the update", move || {
        let (messages, stale) = chip.state.observe(|state| (state.messages, state.stale));
        let kept = irqfd.take_kept();
        // Kept events coalesce.
        let there = messages + usize::from(kept) * (actors.fires - messages).max(1);
        match (there, stale) {
            (_, true) => Err("one did".to_owned()),
            (there, _) if there == actors.fires => Ok(()),
            _ => Err(format!("{} events, {messages} messages, kept: {kept}", actors.fires)),
        }
    });
}
