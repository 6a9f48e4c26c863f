//! Producers and consumers that come, go, and change their route.

use std::convert::Infallible;
use std::sync::Arc;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{DropUnlocked, Ghost, Model, fail};
use doorbell_explore::{Machine, Sim};
use doorbell_host::{Bypass, Consumer, Followed, Producer, Token};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("both are registered", |m| program(m, &[Act::Produce, Act::Consume])),
        Program::new("both are registered, and one of them leaves", |m| {
            program(m, &[Act::Produce, Act::ConsumeAndLeave])
        }),
        Program::new("both are registered and leave", |m| {
            program(m, &[Act::ProduceAndLeave, Act::ConsumeAndLeave])
        }),
        Program::new("both are registered, and the route changes", |m| {
            program(m, &[Act::Produce, Act::ConsumeAndFollow])
        }),
        Program::new("a producer leaves, and the route changes", |m| {
            program(m, &[Act::ProduceAndLeave, Act::ConsumeAndFollow])
        }),
        Program::new("two want to be the producer", |m| {
            program(m, &[Act::Produce, Act::Produce, Act::Consume])
        }),
        Program::new("two changes of the route", two_changes),
        Program::new("the route changes, and the consumer leaves", leaves_meanwhile),
    ]
}

const TOKEN: Token = Token(1);

type Bypassed = Bypass<Sim, Device, Irqfd>;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Act {
    Produce,
    ProduceAndLeave,
    Consume,
    ConsumeAndLeave,
    /// The route changes, then the connection follows.
    ConsumeAndFollow,
}

struct Device {
    memory: Ghost,
    _dropped: DropUnlocked,
}

impl Producer for Device {}

struct Irqfd {
    memory: Ghost,
    _dropped: DropUnlocked,
    route: Model<u32>,
    state: Model<State>,
}

#[derive(Default)]
struct State {
    /// What a connected producer's interrupts go by.
    entry: Option<u32>,
    changing: bool,
}

impl Irqfd {
    fn change(&self, producer: &Device, connected: bool, to: impl Fn() -> Option<u32>) {
        self.memory.access();
        producer.memory.access();
        self.state.change(|state| {
            if state.changing || state.entry.is_some() != connected {
                fail("two change the same pair, or it is connected twice");
            }
            state.changing = true;
        });
        let entry = to();
        self.state.change(|state| *state = State { entry, changing: false });
        self.memory.access();
        producer.memory.access();
    }

    fn route(&self) -> Option<u32> {
        Some(self.route.observe(|route| *route))
    }
}

impl Consumer<Device> for Irqfd {
    type Link = Arc<Device>;
    type Refusal = Infallible;

    fn connect(&self, producer: &Arc<Device>) -> Result<Arc<Device>, Infallible> {
        self.change(producer, false, || self.route());
        Ok(Arc::clone(producer))
    }

    fn follow(&self, link: &mut Arc<Device>) -> Followed {
        Followed::by(|| self.change(link, true, || self.route()))
    }

    fn disconnect(&self, _: &Arc<Device>, link: Arc<Device>) {
        self.change(&link, true, || None);
    }
}

fn irqfd() -> Arc<Irqfd> {
    Arc::new(Irqfd {
        _dropped: DropUnlocked("drops an irqfd"),
        memory: Ghost::new("irqfd"),
        route: Model::new("route", 1),
        state: Model::new("connection", State::default()),
    })
}

fn reroute(irqfd: &Irqfd, bypass: &Bypassed) {
    let route = irqfd.route.change(|route| {
        *route += 1;
        *route
    });
    bypass.follow(TOKEN);
    if irqfd.state.observe(|state| state.entry.is_some_and(|entry| entry < route)) {
        fail("the route has changed, and interrupts go by the former one");
    }
}

fn program(m: &Machine, acts: &'static [Act]) {
    let bypass = Bypassed::new();
    let irqfd = irqfd();
    for &act in acts {
        let (bypass, irqfd) = (Arc::clone(&bypass), Arc::clone(&irqfd));
        m.task(format!("{act:?}"), move || match act {
            Act::Produce | Act::ProduceAndLeave => {
                let device = Arc::new(Device {
                    memory: Ghost::new("device"),
                    _dropped: DropUnlocked("drops a device"),
                });
                let Ok(produces) = bypass.produce(TOKEN, Arc::clone(&device)) else {
                    return device.memory.free();
                };
                if act == Act::ProduceAndLeave {
                    drop(produces);
                    device.memory.free();
                } else {
                    std::mem::forget(produces);
                }
            }
            Act::Consume | Act::ConsumeAndLeave | Act::ConsumeAndFollow => {
                let consumes = bypass.consume(TOKEN, Arc::clone(&irqfd)).expect("the only one");
                match act {
                    Act::ConsumeAndLeave => {
                        drop(consumes);
                        if irqfd.state.observe(|state| state.entry.is_some()) {
                            fail("it has left, and interrupts go by its route");
                        }
                        return irqfd.memory.free();
                    }
                    Act::ConsumeAndFollow => reroute(&irqfd, &bypass),
                    _ => {}
                }
                std::mem::forget(consumes);
            }
        });
    }
    let leaves = acts.iter().any(|act| matches!(act, Act::ProduceAndLeave | Act::ConsumeAndLeave));
    let route = if acts.contains(&Act::ConsumeAndFollow) { 2 } else { 1 };
    m.at_quiescence("they are connected, if both are there, by the current route", move || {
        let entry = irqfd.state.observe(|state| state.entry);
        (entry == (!leaves).then_some(route)).then_some(()).ok_or_else(|| format!("{entry:?}"))
    });
}

fn two_changes(m: &Machine) {
    let bypass = Bypassed::new();
    let irqfd = irqfd();
    let device =
        Arc::new(Device { memory: Ghost::new("device"), _dropped: DropUnlocked("drops a device") });
    std::mem::forget(bypass.produce(TOKEN, device).expect("the only one"));
    std::mem::forget(bypass.consume(TOKEN, Arc::clone(&irqfd)).expect("the only one"));
    for _ in 0..2 {
        let (irqfd, bypass) = (Arc::clone(&irqfd), Arc::clone(&bypass));
        m.task("changes the route", move || reroute(&irqfd, &bypass));
    }
    m.at_quiescence("the connection follows the last route", move || {
        (irqfd.state.observe(|state| state.entry) == Some(3))
            .then_some(())
            .ok_or("it does not".into())
    });
}

/// Whoever has changed the route may free what the former one refers to.
fn leaves_meanwhile(m: &Machine) {
    let bypass = Bypassed::new();
    let irqfd = irqfd();
    let device =
        Arc::new(Device { memory: Ghost::new("device"), _dropped: DropUnlocked("drops a device") });
    std::mem::forget(bypass.produce(TOKEN, device).expect("the only one"));
    let consumes = bypass.consume(TOKEN, Arc::clone(&irqfd)).expect("the only one");
    let leaves = Arc::clone(&irqfd);
    m.task("leaves", move || {
        drop(consumes);
        leaves.memory.free();
    });
    m.task("changes the route", move || {
        irqfd.route.change(|route| *route += 1);
        bypass.follow(TOKEN);
        if irqfd.state.observe(|state| state.entry == Some(1)) {
            fail("the route has changed, and interrupts go by the former one");
        }
    });
}
