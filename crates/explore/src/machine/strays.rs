//! Real threads that use simulated objects: they are no contexts, so nothing that they do is
//! explored.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often that has happened in this process.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// The name of the thread that did so last.
static LAST: Mutex<String> = Mutex::new(String::new());

/// How often it has happened.
#[inline]
pub(crate) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Says so of the calling thread, which explores nothing, to whoever explores now: which of them it
/// belongs to, nobody knows.
#[cold]
pub(crate) fn refuse() -> ! {
    let thread = std::thread::current();
    let name =
        thread.name().map_or_else(|| format!("{:?}", thread.id()), |name| format!("{name:?}"));
    *LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = name.clone();
    COUNT.fetch_add(1, Ordering::Relaxed);
    panic!(
        "a simulated object was used outside of an exploration, by the thread {name}: contexts are started by \
         `Machine::task` or `doorbell_explore::spawn`, not by `std::thread`"
    )
}

/// A sentence about the last one, for a report.
pub(crate) fn sentence() -> String {
    let name = LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    format!(
        "The thread {name}, which is a real one and no context, used a simulated object meanwhile: contexts are started by \
         `Machine::task` or `doorbell_explore::spawn`, not by `std::thread`."
    )
}
