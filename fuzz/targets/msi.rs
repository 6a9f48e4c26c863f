//! See `doorbell_fuzz::msi`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::msi::run(bytes));
