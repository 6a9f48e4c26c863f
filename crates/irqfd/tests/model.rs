//! Ten thousand random lives of a VM against a plain model, on one thread: what arrives, what is
//! refused, who is notified, which lines are up, and that nothing leaks.

mod common;
#[path = "model/world.rs"]
mod world;

use doorbell_irqfd::{Gsi, Msi, Pin, Route};
use proptest::prelude::*;
use world::{GSIS, Op, PINS, SOURCES};

fn op() -> impl Strategy<Value = Op> {
    let source = 0..SOURCES;
    let gsi = (0..GSIS + 1).prop_map(Gsi);
    prop_oneof![
        4 => (source.clone(), gsi.clone()).prop_map(|(n, gsi)| Op::Assign(n, gsi)),
        6 => (source.clone(), gsi.clone()).prop_map(|(n, gsi)| Op::Resample(n, gsi)),
        3 => source.clone().prop_map(Op::Deassign),
        2 => source.clone().prop_map(Op::Begin),
        2 => source.clone().prop_map(Op::Finish),
        10 => source.clone().prop_map(Op::Signal),
        1 => source.prop_map(Op::Replace),
        4 => (0..PINS).prop_map(|n| Op::Ack(Pin::new(0, n))),
        1 => gsi.prop_map(Op::NotifyAck),
        3 => routes().prop_map(Op::Reroute),
        1 => prop_oneof![9 => Just(Op::Signal(0)), 1 => Just(Op::Close)],
    ]
}

fn routes() -> impl Strategy<Value = Vec<(Gsi, Route)>> {
    let pin = (0..PINS).prop_map(|n| Pin::new(0, n));
    let one = prop_oneof![
        1 => Just(vec![]),
        2 => any::<u32>().prop_map(|data| vec![Route::Msi(Msi::new(0xfee0_0000, data))]),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(id, data)| vec![Route::Msi(Msi::from_device(id, 0x1000, data))]),
        2 => pin.clone().prop_map(|pin| vec![Route::Edge(pin)]),
        3 => pin.clone().prop_map(|pin| vec![Route::Level(pin)]),
        3 => pin.clone().prop_map(|pin| vec![Route::Pin(pin)]),
        2 => (pin.clone(), pin, any::<bool>()).prop_filter_map("the same pin", |(a, b, pin)| {
            let other = if pin { Route::Pin(b) } else { Route::Level(b) };
            (a != b).then(|| vec![Route::Edge(a), other])
        }),
    ];
    prop::collection::vec(one, GSIS as usize).prop_map(|gsis| {
        let numbered = gsis.into_iter().zip(0..);
        numbered
            .flat_map(|(routes, gsi)| routes.into_iter().map(move |route| (Gsi(gsi), route)))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also the body of the fuzz target `irqfd`.
    #[test]
    fn any_sequence_of_calls_does_what_a_plain_model_does(ops in prop::collection::vec(op(), 1..40), first in routes()) {
        world::run(first, ops);
    }
}
