//! See `doorbell_fuzz::messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::messages::run(bytes));
