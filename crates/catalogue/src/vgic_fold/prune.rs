//! G01: a vCPU hands an interrupt over, and others change it meanwhile.
//!
//! After its fold a vCPU cleans its list up (`vgic_prune_ap_list`). What has another target by now
//! goes to that vCPU's list. Two lists' locks are taken in the order of the vCPUs, so all locks are
//! dropped first; then the interrupt may be freed (Linux 7258770e5814), or be on the other list
//! already, put there by whoever took it off this one and signalled it again (0074b82cdfcb). The
//! second needs a third vCPU: one moves the LPI and signals it, one disables the LPIs of the vCPU
//! that cleans up. Either cure leaves the other fault.

use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::trace::FailureKind;
use doorbell_platform::CpuId;

use super::irq::Id;
use super::kvm::Kvm;
use super::scope::{Does, Listed, Migration, REPORTED, Scope};
use super::shipped;
use crate::{Case, Expected, Variant};

const FREED: &[&[Does]] = &[&[Does::DisablesLpis, Does::Discards]];
const QUEUED: &[&[Does]] = &[&[Does::DisablesLpis], &[Does::SignalsThere]];

/// The case.
pub(crate) fn case() -> Case {
    let variant = |name, expected, why, migration, others: &'static [&'static [Does]]| {
        let others_told: Vec<_> = others
            .iter()
            .map(|does| does.iter().map(|does| does.told()).collect::<Vec<_>>().join(", then "))
            .collect();
        let scope = format!(
            "an LPI on the list of vCPU0, for vCPU1; vCPU0 prunes ‖ {}",
            others_told.join(" ‖ ")
        );
        Variant::new(name, expected, why, scope, move |m| {
            program(m, Scope { list: Listed::LpiAlone, migration, others, ..REPORTED });
        })
    };
    let migration = |checks, holds| Migration { checks, holds };
    let freed = Expected::Found(FailureKind::UseAfterFree);
    let corrupt = Expected::Found(FailureKind::Invariant);
    let mut variants = vec![
        variant(
            "as-reported",
            freed,
            "an LPI that is to be handed over is taken off the list and freed, while its vCPU holds no lock",
            migration(false, false),
            FREED,
        ),
        variant(
            "as-reported-queued",
            corrupt,
            "an LPI that others have taken off the list, and may have put on the new vCPU's, is taken off once more",
            migration(false, false),
            QUEUED,
        ),
        variant(
            "checked",
            freed,
            "whether the LPI is on the list is read from memory that was freed",
            migration(true, false),
            FREED,
        ),
        variant(
            "held",
            corrupt,
            "a reference keeps the LPI's memory, not its place on the list",
            migration(false, true),
            QUEUED,
        ),
        variant(
            "fixed",
            Expected::Exhausted,
            "with a reference, the look whether the LPI is on the list is one at an LPI",
            migration(true, true),
            FREED,
        ),
        variant(
            "fixed-queued",
            Expected::Exhausted,
            "an LPI that is on another list is left there",
            migration(true, true),
            QUEUED,
        ),
    ];
    variants.push(shipped::handed_over());
    Case::new(
        "vgic-prune",
        "a vGIC drops its locks to hand an interrupt over, which is freed or queued by others meanwhile",
        "G01: Linux 0074b82cdfcb, 7258770e5814",
        variants,
    )
}

/// vCPU0 cleans its list up, beside all the others.
fn program(m: &Machine, scope: Scope) {
    let kvm = Rc::new(Kvm::new(scope));
    kvm.irq(Id::Lpi).lock().target = 1;
    let prunes = Rc::clone(&kvm);
    m.task_on(CpuId(0), "vCPU0", move || prunes.prune(0));
    for (number, does) in (1..).zip(scope.others) {
        let kvm = Rc::clone(&kvm);
        m.task_on(CpuId(number), format!("vCPU{number}"), move || {
            does.iter().for_each(|does| does.with(&kvm))
        });
    }
}
