//! The values of the entry, and where an interrupt goes by them.

use doorbell_explore::sim::fail;
use doorbell_host::irte::amd::{AmdIrte, GuestMode, HostMode};
use doorbell_post::Residency;

pub(super) const OLD: HostMode = HostMode { destination: 0, logical: false, vector: 0x31, kind: 0 };
pub(super) const NEW: HostMode = HostMode { destination: 1, logical: false, vector: 0x41, kind: 0 };
pub(super) const GUEST: GuestMode =
    GuestMode { backing_page: 1, vector: 0x51, tag: 1, residency: Residency::Away { log: true } };
pub(super) const RUNS: Residency = Residency::Running { apic_id: 3 };

/// What becomes of an interrupt by an entry; an entry that nobody has written is a failure.
pub(super) fn remap(irte: AmdIrte, strict: bool) -> bool {
    let known = match (irte.as_host(), irte.as_guest()) {
        (Some(host), _) => host == OLD || host == NEW,
        (_, Some(guest)) => GuestMode { residency: GUEST.residency, ..guest } == GUEST,
        (None, None) => {
            if strict {
                fail("the entry is off: the interrupt is aborted");
            }
            return false;
        }
    };
    if strict && !known {
        fail(format!("the entry is neither the old one nor the new one: {}", name(irte)));
    }
    known
}

pub(super) fn name(irte: AmdIrte) -> String {
    match (irte.as_host(), irte.as_guest()) {
        (Some(host), _) => format!("CPU{}, {:#x}", host.destination, host.vector),
        (_, Some(GuestMode { residency: Residency::Running { apic_id }, .. })) => {
            format!("guest, on CPU{apic_id}")
        }
        (_, Some(_)) => "guest, away".to_owned(),
        _ => "off".to_owned(),
    }
}
