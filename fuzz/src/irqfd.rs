//! Any calls of a VM's irqfds, on one thread, against a plain model: what `model` of
//! `doorbell-irqfd` does with random ones.

use doorbell_irqfd::{Gsi, Msi, Pin, Route};

use crate::bytes::Bytes;

#[path = "../../crates/irqfd/tests/common/mod.rs"]
mod common;
#[path = "../../crates/irqfd/tests/model/world.rs"]
mod world;

use world::{GSIS, Op, PINS, SOURCES};

/// Runs the calls that the bytes say.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let first = routes(&mut bytes);
    let mut ops = Vec::new();
    while !bytes.is_empty() {
        ops.push(op(&mut bytes));
    }
    world::run(first, ops);
}

fn op(bytes: &mut Bytes<'_>) -> Op {
    let kind = bytes.u8();
    let source = usize::from(kind / 16) % SOURCES;
    let gsi = |bytes: &mut Bytes<'_>| Gsi(u32::from(bytes.below(GSIS as u8 + 1)));
    match kind % 16 {
        0 | 1 => Op::Assign(source, gsi(bytes)),
        2 | 3 => Op::Resample(source, gsi(bytes)),
        4 => Op::Deassign(source),
        5 => Op::Begin(source),
        6 => Op::Finish(source),
        7..=9 => Op::Signal(source),
        10 => Op::Replace(source),
        11 | 12 => Op::Ack(pin(bytes)),
        13 => Op::NotifyAck(gsi(bytes)),
        14 => Op::Reroute(routes(bytes)),
        // Nothing is assigned any more from then on: not often.
        _ if bytes.u8() == 0xff => Op::Close,
        _ => Op::Signal(source),
    }
}

fn pin(bytes: &mut Bytes<'_>) -> Pin {
    Pin::new(0, u32::from(bytes.u8()) % PINS)
}

/// Routes of each GSI, whose kind is a byte.
fn routes(bytes: &mut Bytes<'_>) -> Vec<(Gsi, Route)> {
    let mut routes = Vec::new();
    for gsi in (0..GSIS).map(Gsi) {
        let kind = bytes.u8();
        let one = Pin::new(0, u32::from(kind / 8) % PINS);
        let other =
            Pin::new(0, (u32::from(kind / 8) + 1 + u32::from(kind / 32) % (PINS - 1)) % PINS);
        match kind % 8 {
            0 | 1 => {}
            2 => routes.push((gsi, Route::Msi(Msi::new(0xfee0_0000, bytes.u32())))),
            3 => routes.push((gsi, Route::Msi(Msi::from_device(bytes.u32(), 0x1000, bytes.u32())))),
            4 => routes.push((gsi, Route::Edge(one))),
            5 => routes.push((gsi, Route::Level(one))),
            6 => routes.push((gsi, Route::Pin(one))),
            _ => routes.extend([(gsi, Route::Edge(one)), (gsi, Route::Level(other))]),
        }
    }
    routes
}
