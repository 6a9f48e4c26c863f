//! A test image: EL2 with its MMU, atomics, and the console.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod image {
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use doorbell_hv::check::{check, result};

    doorbell_hv::image!(main);

    static WORD: AtomicU64 = AtomicU64::new(41);

    fn main() {
        let was = WORD.fetch_add(1, SeqCst);
        let passed = was == 41 && WORD.load(SeqCst) == 42;
        check("a word is changed atomically", if passed { Ok(()) } else { Err("it is not") });
        result();
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
