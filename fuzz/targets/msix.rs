//! See `doorbell_fuzz::msix`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorbell_fuzz::msix::run(bytes));
