//! See `doorbell_fuzz::avic_exits`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::avic_exits::run(bytes));
