//! An entry of the remapping table is given back, and another interrupt gets it, while the IOMMU
//! has it cached.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::sim::fail;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_hardware::entry_cache::EntryCache;
use doorbell_host::irte::amd::AmdIrte;
use doorbell_host::{AmdInterrupt, RemapTable};
use doorbell_platform::{Atomic, Platform};

use crate::machine::{Memory, Shared, host};

/// Where the interrupts of the former and of the new device arrive.
const FORMER: u32 = 1;
const NEW: u32 = 2;

/// The table has one entry. `waits` for the invalidation, as
/// [`Invalidate`](doorbell_host::Invalidate) has everybody do who does not say what is not true.
fn reused(waits: bool) -> Report {
    Explore::new("reused").run(move |m: &Machine| {
        let memory: Memory = Arc::new([Atomic::new(0)]);
        let table = RemapTable::<Sim, _>::new(Shared(Arc::clone(&memory)))
            .expect("its words are lock-free");
        let former = AmdInterrupt::new(table.allocate().expect("there is one"), host(FORMER));
        let unit = Rc::new(EntryCache::new("IOMMU"));
        unit.keep(former.load());
        let gives_back = Rc::clone(&unit);
        m.task("gives it back", move || {
            let retired = former.retire();
            if waits {
                drop(retired.by(|_| gives_back.invalidate()));
            } else {
                drop(retired.by(|_| ()));
                gives_back.invalidate();
            }
        });
        m.task("gets it", move || {
            let entry = loop {
                match table.allocate() {
                    Ok(entry) => break entry,
                    Err(_) => Sim::cpu_relax(),
                }
            };
            let index = entry.index().number();
            let _interrupt = AmdInterrupt::new(entry, host(NEW));
            // Its device sends one.
            let used = unit.comes().unwrap_or_else(|| {
                let read =
                    AmdIrte::from_bits(memory[index].load(std::sync::atomic::Ordering::SeqCst));
                unit.keep(read);
                read
            });
            if used.as_host().map(|host| host.destination) != Some(NEW) {
                fail("it arrives as what another device's was");
            }
            unit.done();
        });
    })
}

#[test]
fn an_entry_is_used_again_only_when_the_iommu_has_forgotten_it() {
    reused(true).assert_exhausted();
    reused(false).assert_found(FailureKind::Invariant);
}
