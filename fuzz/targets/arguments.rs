//! See `doorbell_fuzz::arguments`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::arguments::run(bytes));
