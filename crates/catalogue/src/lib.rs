#![doc = include_str!("../README.md")]

mod case;
mod count;

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
mod pending_attribute;
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
        pending_attribute::case(),
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
/// [`Malformed`](ReplayError::Malformed) if it is not a token;
/// [`OtherProgram`](ReplayError::OtherProgram) if none of the variants made it, or one did when the
/// sources were others; [`Stale`](ReplayError::Stale) if the run does not come out as it did then.
pub fn replay(token: &str) -> Result<Replayed, ReplayError> {
    for case in cases() {
        for variant in case.variants {
            match variant.replay(token) {
                Ok(failure) => {
                    return Ok(Replayed {
                        case: case.name,
                        variant: variant.name,
                        trace: failure.trace,
                    });
                }
                // Tokens do not name their variant.
                Err(ReplayError::OtherProgram) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(ReplayError::OtherProgram)
}
