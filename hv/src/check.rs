//! What the test images say: one line a check, and one that counts.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::say;

static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// Writes how a check went. By any task.
pub fn check(name: &str, result: Result<(), &str>) {
    match result {
        Ok(()) => {
            PASSED.fetch_add(1, SeqCst);
            say!("check {name}: passed");
        }
        Err(why) => {
            FAILED.fetch_add(1, SeqCst);
            say!("check {name}: failed: {why}");
        }
    }
}

/// Writes how many checks there were. By any task, after the last.
pub fn result() {
    say!("result: {} passed, {} failed", PASSED.load(SeqCst), FAILED.load(SeqCst));
}
