//! A program that allocates as real code does.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::{Machine, Sim};
use doorbell_platform::{Atomic, AtomicInt, Lock, LockClass, Platform, WaitType};

static LIST: LockClass = LockClass::new("list", WaitType::Spin);

/// Two tasks push to a list behind a lock, and count.
pub fn arcs_and_vecs(m: &Machine) {
    let list = Arc::new(Lock::<Sim, Vec<Arc<u64>>>::new(&LIST, Vec::new()));
    let word = Arc::new(<Sim as Platform>::AtomicU64::new(0));
    for task in 0..2 {
        let (list, word) = (Arc::clone(&list), Arc::clone(&word));
        m.task("task", move || {
            for _ in 0..8 {
                let count = word.fetch_add(1, SeqCst);
                if count.is_multiple_of(4) {
                    list.lock().push(Arc::new(count + task));
                }
            }
        });
    }
}
