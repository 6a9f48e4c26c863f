//! Tasks that a check waits for.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use doorbell_hv::bare::Bare;
use doorbell_hv::task::Task;
use doorbell_platform::{Completion, CpuId, ParkCompletion, Platform};

/// What a check says: why it has failed.
pub type Checked = Result<(), &'static str>;

/// Returns the CPUs that there are.
pub fn cpus() -> impl Iterator<Item = CpuId> + Clone {
    (0..Bare::cpu_count()).map(CpuId)
}

/// Runs `f` in a task on each of some CPUs at once, and waits until all have returned. Returns how
/// many have said `true`.
pub fn on_each(
    cpus: impl Iterator<Item = CpuId>,
    f: impl Fn(CpuId) -> bool + Send + Sync + 'static,
) -> u32 {
    let (f, right) = (Arc::new(f), Arc::new(AtomicU32::new(0)));
    let all: alloc::vec::Vec<Arc<ParkCompletion<Bare>>> = cpus
        .map(|cpu| {
            let done = Arc::new(ParkCompletion::new("done"));
            let (f, right, theirs) = (f.clone(), right.clone(), done.clone());
            let spawned = Task::spawn(cpu, move || {
                right.fetch_add(u32::from(f(cpu)), SeqCst);
                drop(f);
                theirs.complete_all();
            });
            assert!(spawned.is_some(), "there are too many tasks");
            done
        })
        .collect();
    all.iter().for_each(|done| done.wait());
    right.load(SeqCst)
}

/// Returns `Ok` if `right` is true.
pub fn verdict(right: bool, otherwise: &'static str) -> Checked {
    if right { Ok(()) } else { Err(otherwise) }
}

/// Calls `f` until it says `true`, without sleeping.
pub fn spin_until(mut f: impl FnMut() -> bool) {
    while !f() {
        Bare::cpu_relax();
    }
}
