//! See `doorbell_fuzz::tokens`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::tokens::run(bytes));
