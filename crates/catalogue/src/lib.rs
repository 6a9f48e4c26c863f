//! The documented races of interrupt delivery, as cases to be explored.
//!
//! A [`Case`] is a system from a document; its [`Variant`]s are the code as it was reported (a small rendering in our
//! own words), each way out that was proposed or taken, and, as `shipped`, the real code of Doorbell's crates. Each
//! variant states the verdict that it must get, the scope within which that verdict holds, and in one sentence the
//! reason. Together they are a regression suite, and the documentation of why the code is shaped as it is.
//!
//! A case is one file (or a directory) with a function `case() -> Case`, and one line in [`cases`]:
//!
//! ```
//! use doorbell_catalogue::{Case, Expected, Variant};
//! use doorbell_explore::Sim;
//! use doorbell_explore::trace::FailureKind;
//! use doorbell_platform::{Atomic, AtomicInt, Platform};
//! use std::sync::Arc;
//! use std::sync::atomic::Ordering::SeqCst;
//!
//! fn case() -> Case {
//!     let variant = |name, whole, expected, summary| {
//!         Variant::new(name, expected, summary, "2 tasks, 1 increment each", move |m| {
//!             let word = Arc::new(<Sim as Platform>::AtomicU32::new(0));
//!             for task in ["one", "two"] {
//!                 let word = word.clone();
//!                 m.task(task, move || {
//!                     if whole {
//!                         word.fetch_add(1, SeqCst);
//!                     } else {
//!                         let seen = word.load(SeqCst);
//!                         word.store(seen + 1, SeqCst);
//!                     }
//!                 });
//!             }
//!             m.at_quiescence("word == 2", move || match word.load(SeqCst) {
//!                 2 => Ok(()),
//!                 other => Err(format!("it is {other}")),
//!             });
//!         })
//!     };
//!     Case::new("counter", "two increments make one", "folklore", vec![
//!         variant("as-reported", false, Expected::Found(FailureKind::Quiescence), "both read before either writes"),
//!         variant("fixed", true, Expected::Exhausted, "reading and writing are one step"),
//!     ])
//! }
//!
//! for variant in case().variants {
//!     assert!(variant.agrees(&variant.run(&Default::default())), "{}", variant.name);
//! }
//! ```

mod case;

use doorbell_explore::ReplayError;
use doorbell_explore::trace::Trace;

pub use case::{Case, Expected, Inversions, RunOptions, Variant};

mod apic_map_dirty;
mod avic_inhibit;
mod avic_irte;
mod free_in_flight;
mod host;
mod irqfd_resampler;
mod irqfd_routing_teardown;
mod irte_window;
mod lazy_eoi_recursion;
mod msi_torn_update;
mod pi_blocked_list;
mod pi_self_post;
mod pi_suppress;
mod pi_wakeup;
mod vector_teardown;
mod vfio_intx_teardown;
mod vgic_fold;

/// All cases, in the order in which they are shown.
pub fn cases() -> Vec<Case> {
    vec![
        avic_irte::case(),
        avic_irte::stale::case(),
        avic_inhibit::case(),
        pi_wakeup::case(),
        pi_suppress::case(),
        pi_blocked_list::case(),
        pi_self_post::case(),
        irqfd_resampler::case(),
        apic_map_dirty::case(),
        irqfd_routing_teardown::case(),
        lazy_eoi_recursion::case(),
        vector_teardown::case(),
        vgic_fold::case(),
        vgic_fold::prune::case(),
        msi_torn_update::case(),
        irte_window::case(),
        free_in_flight::case(),
        vfio_intx_teardown::case(),
    ]
}

/// A failing run that was run once more.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The case that the token stands for.
    pub case: &'static str,
    /// The variant that the token stands for.
    pub variant: &'static str,
    /// The run.
    pub trace: Trace,
}

/// Runs the failing run of a token once more, of whichever variant it is.
///
/// # Errors
/// [`Malformed`](ReplayError::Malformed) if it is not a token; [`OtherProgram`](ReplayError::OtherProgram) if none of
/// the variants made it, or one did when the sources were others; [`Stale`](ReplayError::Stale) if the run does not come
/// out as it did then.
pub fn replay(token: &str) -> Result<Replayed, ReplayError> {
    for case in cases() {
        for variant in case.variants {
            match variant.replay(token) {
                Ok(failure) => return Ok(Replayed { case: case.name, variant: variant.name, trace: failure.trace }),
                // Tokens do not name their variant.
                Err(ReplayError::OtherProgram) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(ReplayError::OtherProgram)
}
