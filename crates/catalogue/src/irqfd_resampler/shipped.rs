//! Doorbell's own irqfds (`doorbell-irqfd`), on the pools of the report.
//!
//! Two irqfds resample on one GSI. Each actor is a party that can act on them at any time; a
//! cleanup is a piece of work that takes one irqfd off and leaves the rest to a grace period, as
//! all of Doorbell's deferred work does.

use std::sync::Arc;

use doorbell_explore::sim::Model;
use doorbell_explore::{Machine, Sim};
use doorbell_irqfd::{
    Controller, Gsi, Irqfd, Irqfds, Limits, Msi, Notify, Pin, Route, RoutingTable, SourceId,
};

use super::scope::Scope;

const GSI: Gsi = Gsi(0);
const PINS: [Pin; 2] = [Pin::new(0, 0), Pin::new(0, 1)];

/// The actors beside the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Actor {
    /// Assigns a third irqfd to the GSI.
    Assign,
    /// Both irqfds hang up: a cleanup is queued for each.
    Shutdown,
    /// The device of the first irqfd signals it.
    Inject,
    /// The guest acknowledges the interrupt.
    Ack,
    /// The GSI moves to the other pin.
    Reroute,
    /// Deassigns the first irqfd and waits for the end of it.
    Deassign,
}

/// All that the report's parties do.
pub(super) const ALL: [Actor; 5] =
    [Actor::Assign, Actor::Shutdown, Actor::Inject, Actor::Ack, Actor::Reroute];

/// The actors at once, for people.
pub(super) fn names(actors: &[Actor]) -> String {
    let names: Vec<_> = actors.iter().map(|actor| format!("{actor:?}").to_lowercase()).collect();
    names.join(" ‖ ")
}

type Vm = Irqfds<Sim, Chip>;

/// The interrupt controller: one step per call.
struct Chip(Arc<Model<State>>);

#[derive(Clone, Copy, PartialEq, Default)]
struct State {
    /// What resampling irqfds give to each pin.
    high: [bool; 2],
    /// The first irqfd's device has not heard that its event was acknowledged.
    owed: bool,
    /// The first irqfd is gone for good.
    gone: bool,
    /// The irqfd was signalled or notified all the same.
    late: bool,
}

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, chip: u16) -> u32 {
        if chip == 0 { PINS.len() as u32 } else { 0 }
    }

    fn set_irq(&self, pin: Pin, _source: SourceId, level: bool) {
        self.0.change_if(|state| {
            let before = *state;
            state.high[pin.number as usize] = level;
            // Only the first irqfd is ever signalled.
            state.owed |= level;
            state.late |= level && state.gone;
            *state != before
        });
    }

    fn edge(&self, _pin: Pin) {}

    fn msi(&self, _msi: Msi) {}
}

fn table(pin: Pin) -> RoutingTable {
    RoutingTable::new(&[(GSI, Route::Level(pin))]).expect("one route is not too many")
}

/// The program: `actors` act at once.
pub(super) fn program(m: &Machine, scope: Scope, actors: &[Actor]) {
    let cleanups = scope.build(m);
    let chip = Arc::new(Model::new("interrupt controller", State::default()));
    let vm: Vm = Irqfds::new(Chip(Arc::clone(&chip)), Limits { gsis: 1, routes: 1, irqfds: 3 });
    let _ = vm.reroute(table(PINS[0])).expect("the pin exists");
    let deaf: Arc<dyn Notify> = Arc::new(|| ());
    let first = Arc::new(vm.irqfd());
    let heard = Arc::clone(&chip);
    let device = move || {
        heard.change_if(|state| {
            let before = *state;
            state.owed = false;
            state.late |= state.gone;
            *state != before
        });
    };
    first.assign_resample(GSI, Arc::new(device)).expect("the GSI has a pin");
    let second = Arc::new(vm.irqfd());
    second.assign_resample(GSI, Arc::clone(&deaf)).expect("the GSI has a pin");
    let third = Arc::new(vm.irqfd());
    for actor in actors {
        let vm = vm.clone();
        let (first, second, third) = (Arc::clone(&first), Arc::clone(&second), Arc::clone(&third));
        match actor {
            Actor::Assign => {
                let deaf = Arc::clone(&deaf);
                m.task("assign", move || {
                    third.assign_resample(GSI, deaf).expect("the GSI has a pin")
                });
            }
            Actor::Shutdown => {
                // Queued before anything runs: a worker may begin at any time after all the same.
                for irqfd in [first, second] {
                    cleanups.queue(move || hang_up(&irqfd));
                }
            }
            Actor::Inject => {
                m.task("device", move || {
                    first.signal();
                });
            }
            Actor::Ack => {
                m.task("guest", move || vm.ack(PINS[0]));
            }
            Actor::Reroute => {
                m.task("reroute", move || {
                    drop(vm.reroute(table(PINS[1])).expect("the pin exists"))
                });
            }
            Actor::Deassign => {
                let chip = Arc::clone(&chip);
                m.task("deassign", move || {
                    first.deassign().expect("it is assigned");
                    chip.change(|state| state.gone = true);
                });
            }
        }
    }
    let rerouted = actors.contains(&Actor::Reroute);
    m.at_quiescence("no level is stuck, no event lost, and nothing comes late", move || {
        // They live until here: dropping one deassigns it.
        let _others = (second, third);
        let assigned = vm.assigned();
        let kept = first.take_pending();
        chip.observe(|state| {
            let high = state.high[usize::from(rerouted)];
            if rerouted && state.high[0] {
                Err("the pin that the GSI has left is high".to_owned())
            } else if high && assigned == 0 {
                Err("the line is high, and no irqfd is left whose acknowledgement lowers it"
                    .to_owned())
            } else if state.owed && !high && first.is_assigned() {
                Err("the line is low, and the device that raised it was not told".to_owned())
            } else if kept && first.is_assigned() {
                Err("an event is kept by an irqfd that could deliver it".to_owned())
            } else if state.late {
                Err("an irqfd that was gone signalled, or was notified".to_owned())
            } else {
                Ok(())
            }
        })
    });
}

/// A worker's job: never waits.
fn hang_up(irqfd: &Irqfd<Sim, Chip>) {
    if let Ok(leaving) = irqfd.deassign_begin() {
        leaving.later();
    }
}
