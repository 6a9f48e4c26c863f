//! See `doorbell_fuzz::gic`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::gic::run(bytes));
