//! What the exchange leaves to be done: the IOMMU may go by what it has cached, until it was told
//! to forget it.

use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{Model, fail, note};
use doorbell_explore::trace::FailureKind;
use doorbell_host::irte::amd::HostMode;

use super::irte::{NEW, OLD};
use crate::{Expected, Variant};

/// What is done between the change of the entry and the moment when the old vector is used for
/// something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flush {
    No,
    /// The invalidation is sent.
    Sent,
    /// And it has completed, before which the IOMMU has dealt with what it had read before.
    Completed,
}

pub(super) fn variants() -> Vec<Variant> {
    let variant = |name, expected, why, flush| {
        let text = "1 entry, which the IOMMU may cache, 1 change of affinity, 2 interrupts";
        Variant::new(name, expected, why, text, move |m| program(m, flush))
    };
    let found = Expected::Found(FailureKind::Invariant);
    vec![
        variant(
            "not-flushed",
            found,
            "the IOMMU goes by the old entry, whose vector is another's by now",
            Flush::No,
        ),
        variant(
            "flush-not-awaited",
            found,
            "to send the invalidation is not enough: what the IOMMU has read before may still be on its way",
            Flush::Sent,
        ),
        variant(
            "flushed",
            Expected::Exhausted,
            "when the invalidation has completed, nothing comes by the old entry any more",
            Flush::Completed,
        ),
    ]
}

struct Iommu {
    entry: HostMode,
    cached: Option<HostMode>,
    /// Interrupts that were remapped and have not arrived.
    under_way: u32,
}

fn program(m: &Machine, flush: Flush) {
    let iommu = Rc::new(Model::new("IOMMU", Iommu { entry: OLD, cached: None, under_way: 0 }));
    let reused = Rc::new(Model::new("old vector", false));
    {
        let (iommu, reused) = (Rc::clone(&iommu), Rc::clone(&reused));
        m.task("affinity", move || {
            iommu.change(|iommu| iommu.entry = NEW);
            note(|| "IRTE := new".to_owned());
            if flush != Flush::No {
                iommu.change(|iommu| iommu.cached = None);
                note(|| "invalidates: the IOMMU forgets the entry".to_owned());
            }
            if flush == Flush::Completed {
                iommu.wait(|iommu| iommu.under_way == 0, |_| ());
                note(|| "the invalidation has completed".to_owned());
            }
            reused.change(|reused| *reused = true);
            note(|| "the old vector is another's".to_owned());
        });
    }
    m.hardware("device", move || {
        for _ in 0..2 {
            let (cached, to) = iommu.change(|iommu| {
                iommu.under_way += 1;
                (iommu.cached.is_some(), *iommu.cached.get_or_insert(iommu.entry))
            });
            note(|| {
                let by = if cached { "by the cached entry" } else { "and caches the entry" };
                format!("remaps to CPU{}, {:#x} {by}", to.destination, to.vector)
            });
            let stale = reused.observe(|reused| *reused) && to == OLD;
            note(|| format!("{:#x} arrives at CPU{}", to.vector, to.destination));
            if stale {
                fail("an interrupt comes by a vector that is another's");
            }
            iommu.change(|iommu| iommu.under_way -= 1);
            note(|| "the IOMMU is done with the interrupt".to_owned());
        }
    });
}
