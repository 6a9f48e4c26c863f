//! Accesses of a guest to its MSI-X table and pending bits, with any offsets, sizes and bits, while
//! its device signals: what `msix_model` of `doorbell-host` does with random input.

use crate::bytes::Bytes;

#[path = "../../crates/host/tests/msix_model/world.rs"]
mod world;

/// Runs the operations that the bytes say.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let size = bytes.u8();
    let mut ops: Vec<world::Op> = Vec::new();
    while !bytes.is_empty() {
        ops.push((bytes.u8(), bytes.u64(), bytes.u64()));
    }
    world::run(size, &ops);
}
