//! Document 004: an interrupt that waits at its CPU while it is freed and requested again.
//!
//! A file each: the host's vector tables (`kernel`), who does what (`parties`).
//!
//! What `explain vector-teardown/as-reported` shows is the flow that the document's author reconstructed, in his order:
//! raised and not handled, masked, synchronized, message zeroed, 'shutdown', handled and 'shutdown' seen, installed,
//! 'unused' written. That the last comes after the unmask here, and before it there, is the same run. What the document
//! does not say:
//!
//! - The message may be on its way still when the device is masked; it need not have come as far as the IRR.
//! - An interrupt that comes when its action is gone and its vector is not yet must be kept and sent again, or there is
//!   another way to lose it. Here it is.
//! - That a driver of the host loses nothing takes a driver that looks at its device when it enables it
//!   (`reevaluate-driver-blind`).
//! - To inject before the switch is as good as after it if the guest has the vector masked (`inject-before-masked`); and
//!   to inject does not mend what was overwritten (`inject-after-overwritten`).

mod kernel;
mod parties;
mod shipped;

use doorbell_explore::trace::FailureKind;

use crate::{Case, Expected, Variant};
use kernel::EntryCode;
use parties::{End, Form, Guard, Inject, Parties, REPORTED};

const INVARIANT: Expected = Expected::Found(FailureKind::Invariant);
const LOST: Expected = Expected::Found(FailureKind::Quiescence);

/// With the entry code that looks again under the vector lock.
const REEVALUATED: Parties = Parties { code: EntryCode::Reevaluates, end: End::NothingLost, ..REPORTED };

fn variant(name: &'static str, expected: Expected, why: &'static str, parties: Parties) -> Variant {
    Variant::new(name, expected, why, parties.to_string(), move |m| parties.program(m))
}

fn reported() -> Vec<Variant> {
    let driver = Parties { form: Form::Driver, ..REPORTED };
    vec![
        variant(
            "as-reported",
            INVARIANT,
            "the entry has read 'shutdown', the vector is installed again, and the entry writes 'unused'",
            REPORTED,
        ),
        variant(
            "as-reported-driver",
            INVARIANT,
            "a driver that silences its device first is hit as well: the interrupt had reached the CPU before that",
            driver,
        ),
        variant(
            "as-reported-driver-stalls",
            LOST,
            "the vector is nobody's after that, so the next event is not heard, and the device waits for its driver",
            Parties { guard: Guard::Nothing, end: End::NothingLost, events: 2, ..driver },
        ),
    ]
}

fn repair() -> Vec<Variant> {
    let repaired = Parties { repairs: true, ..REPORTED };
    vec![
        variant(
            "repair",
            INVARIANT,
            "the entry may write after the repair as it may before",
            Parties { guard: Guard::OverwriteAfterRepair, ..repaired },
        ),
        variant(
            "repair-driver",
            INVARIANT,
            "nor does it help a driver of the host, which would have to call it",
            Parties { form: Form::Driver, guard: Guard::OverwriteAfterRepair, ..repaired },
        ),
        variant(
            "repair-lost",
            LOST,
            "where nothing was overwritten, an interrupt that met 'shutdown' is lost all the same",
            Parties { guard: Guard::Nothing, end: End::NothingLostUnlessOverwritten, ..repaired },
        ),
    ]
}

fn reevaluated() -> Vec<Variant> {
    let exhausted = Expected::Exhausted;
    vec![
        variant(
            "reevaluate-driver",
            exhausted,
            "under the vector lock 'shutdown' is still what the entry says, and what was lost came before the driver looked",
            Parties { form: Form::Driver, events: 2, ..REEVALUATED },
        ),
        variant(
            "reevaluate-driver-blind",
            LOST,
            "a driver that does not look at its device when it enables it does lose what met 'shutdown'",
            Parties { form: Form::Driver, looks: false, ..REEVALUATED },
        ),
        variant(
            "reevaluate-vfio",
            exhausted,
            "nothing is overwritten, so a device that does not wait is heard at its next event",
            Parties { waits_for_driver: false, end: End::NextArrives, ..REEVALUATED },
        ),
        variant(
            "reevaluate-vfio-waits",
            LOST,
            "an interrupt that meets 'shutdown' is acknowledged and dropped, and the device waits for a driver that nobody tells",
            REEVALUATED,
        ),
    ]
}

fn injected() -> Vec<Variant> {
    let exhausted = Expected::Exhausted;
    let before = Parties { inject: Inject::BeforeTheSwitch, ..REEVALUATED };
    let after = Parties { inject: Inject::AfterTheSwitch, ..REEVALUATED };
    vec![
        variant(
            "inject-before",
            LOST,
            "the guest has seen to the injected interrupt before the one is raised that the switch loses",
            before,
        ),
        variant(
            "inject-before-masked",
            exhausted,
            "what is injected while the guest masks the vector waits for the end of the switch",
            Parties { masked: true, ..before },
        ),
        variant(
            "inject-after",
            exhausted,
            "the guest looks at its device when whatever met 'shutdown' is past, for at most one extra interrupt",
            after,
        ),
        variant(
            "inject-after-extra",
            INVARIANT,
            "that extra interrupt does occur: the guest is interrupted although its device has said nothing",
            Parties { extra: 0, ..after },
        ),
        variant(
            "inject-after-masked",
            exhausted,
            "what is injected while the guest masks the vector is taken when it does no longer",
            Parties { masked: true, ..after },
        ),
        variant(
            "inject-after-2-events",
            exhausted,
            "what the device says when it was looked at comes by the new vector",
            Parties { events: 2, ..after },
        ),
        variant(
            "inject-after-2-switches",
            exhausted,
            "two switches, at most two extra interrupts",
            Parties { switches: 2, ..after },
        ),
        variant(
            "inject-after-overwritten",
            LOST,
            "to inject does not put back the vector that was overwritten: the next event is not heard",
            Parties { code: EntryCode::Unlocked, guard: Guard::Nothing, events: 2, ..after },
        ),
    ]
}

/// The case.
pub(crate) fn case() -> Case {
    Case::new(
        "vector-teardown",
        "an interrupt waits at its CPU while its vector is shut down and installed again",
        "document 004: vector tables, and VFIO's free and request of a live interrupt",
        [reported(), repair(), reevaluated(), injected(), shipped::variants()].into_iter().flatten().collect(),
    )
}
