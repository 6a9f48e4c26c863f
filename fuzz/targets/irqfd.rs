//! See `doorbell_fuzz::irqfd`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::irqfd::run(bytes));
