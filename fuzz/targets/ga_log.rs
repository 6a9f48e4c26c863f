//! See `doorbell_fuzz::ga_log`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::ga_log::run(bytes));
