//! Accesses of a guest to its MSI registers, with any offsets, sizes and bits, while its device
//! signals: what `msi_model` of `doorbell-host` does with random input.

use crate::bytes::Bytes;

#[path = "../../crates/host/tests/msi_model/world.rs"]
mod world;

/// Runs the operations that the bytes say.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let kind = bytes.u8();
    let mut ops: Vec<world::Op> = Vec::new();
    while !bytes.is_empty() {
        ops.push((bytes.u8(), bytes.u64(), bytes.u64()));
    }
    world::run(kind, &ops);
}
