//! Accesses of a guest to its MSI-X table and pending bits, with any offsets, sizes and bits, while its device signals:
//! what `cargo test --test msix_model` does with random input.

#![no_main]

#[path = "../../tests/msix_model/world.rs"]
mod world;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<world::Op>)| world::run(input.0, &input.1));
