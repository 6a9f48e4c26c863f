//! What `doorbell-host` does: one store or one exchange of the whole entry, and where the interrupt
//! arrives in the host kept beside it for as long as it is posted.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::sim::Model;
use doorbell_explore::{Machine, Sim};
use doorbell_host::{AmdBinding, AmdInterrupt, AvicTarget, Posting, RemapTable};
use doorbell_platform::{Atomic, Platform};
use doorbell_post::{Mirror, Residency, ResidencyCopies};

use super::irte::{GUEST, NEW, OLD, RUNS, name, remap};
use crate::{Expected, Variant};

type Memory = Box<[<Sim as Platform>::AtomicU128]>;

/// What happens beside the change of affinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Posted {
    Never,
    /// The interrupt is bound to a vCPU, which then runs.
    Bound,
    /// And unbound again.
    Unbound,
}

pub(super) fn variants() -> Vec<Variant> {
    let variant = |name, why, posted| {
        let posts = match posted {
            Posted::Never => "",
            Posted::Bound => "; 1 vCPU that it is bound to, and that begins to run",
            Posted::Unbound => {
                "; 1 vCPU that it is bound to, that begins to run, and that it is taken from"
            }
        };
        let text = format!("1 entry, 1 change of affinity, 1 interrupt{posts}");
        Variant::new(name, Expected::Exhausted, why, text, move |m| program(m, posted))
    };
    vec![
        variant("shipped", "one exchange of 128 bits", Posted::Never),
        variant(
            "shipped-posted",
            "a change of affinity that meets an entry in guest mode leaves it alone, and is found when it leaves that",
            Posted::Bound,
        ),
        variant(
            "shipped-posted-and-back",
            "whoever has written the entry looks again whether it is what the host wants",
            Posted::Unbound,
        ),
    ]
}

/// The entry of the table of physical IDs is not what this is about.
struct NoOwnEntry;

impl Mirror for NoOwnEntry {
    fn reflect(&self, _: Residency) {}
}

struct Vcpu(ResidencyCopies<Sim, NoOwnEntry, AmdInterrupt<Sim, Memory>>);

impl AvicTarget<Sim, Memory> for Vcpu {
    type Own = NoOwnEntry;
    fn copies(&self) -> &ResidencyCopies<Sim, NoOwnEntry, AmdInterrupt<Sim, Memory>> {
        &self.0
    }
}

/// The binding is given up with the execution: hardware is no more, so nothing has to be waited
/// for.
struct Bindings(RefCell<AmdBinding<Sim, Memory, Vcpu>>);

impl Drop for Bindings {
    fn drop(&mut self) {
        if let Ok(invalidate) = self.0.get_mut().unbind() {
            drop(invalidate.by(|_| ()));
        }
    }
}

fn program(m: &Machine, posted: Posted) {
    let memory: Memory = Box::new([<Sim as Platform>::AtomicU128::new(0).named("IRTE")]);
    let entry = RemapTable::new(memory)
        .expect("its words are lock-free")
        .allocate()
        .expect("it has one entry");
    let binding = Rc::new(Bindings(RefCell::new(AmdBinding::new(AmdInterrupt::new(entry, OLD)))));
    let interrupt = Arc::clone(binding.0.borrow().interrupt());
    let vcpu = Arc::new(Vcpu(ResidencyCopies::new(NoOwnEntry)));
    let arrived = Rc::new(Model::new("arrived", false));
    {
        let interrupt = Arc::clone(&interrupt);
        m.task("affinity", move || interrupt.set_host(NEW).by(|_| ()));
    }
    if posted != Posted::Never {
        let (binding, to) = (Rc::clone(&binding), Arc::clone(&vcpu));
        let posting =
            Posting { backing_page: GUEST.backing_page, vector: GUEST.vector, tag: GUEST.tag };
        m.task("bind", move || {
            binding.0.borrow_mut().bind(to, posting).expect("it is not bound").by(|_| ());
            if posted == Posted::Unbound {
                drop(binding.0.borrow_mut().unbind().expect("it is bound").by(|_| ()));
            }
        });
        m.task("vCPU", move || vcpu.0.set(RUNS));
    }
    {
        let (interrupt, arrived) = (Arc::clone(&interrupt), Rc::clone(&arrived));
        m.hardware("IOMMU", move || {
            if remap(interrupt.load(), true) {
                arrived.change(|arrived| *arrived = true);
            }
        });
    }
    m.at_quiescence(
        "the interrupt has arrived, and the entry says what was written last",
        move || {
            let irte = interrupt.load();
            let last = match posted {
                Posted::Bound => irte.as_guest().is_some_and(|guest| guest.residency == RUNS),
                _ => irte.as_host() == Some(NEW),
            };
            // Not before now: it holds the entry that was looked at.
            drop(binding);
            match (arrived.observe(|arrived| *arrived), last) {
                (false, _) => Err("it has not arrived".to_owned()),
                (_, false) => Err(format!("it says {}", name(irte))),
                _ => Ok(()),
            }
        },
    );
}
