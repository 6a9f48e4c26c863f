//! Document 004: an interrupt that waits at its CPU while it is freed and requested again.
//!
//! A file each: the host's vector tables (`kernel`), who does what (`parties`).

mod kernel;
mod parties;
mod shipped;

use doorbell_explore::trace::FailureKind;

use crate::{Case, Expected, Variant};
use kernel::EntryCode;
use parties::{End, Form, Guard, Inject, Parties, REPORTED};

const OVERWRITTEN: Expected = Expected::Found(FailureKind::Invariant);
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
            OVERWRITTEN,
            "the entry has read 'shutdown', the vector is installed again, and the entry writes 'unused'",
            REPORTED,
        ),
        variant(
            "as-reported-driver",
            OVERWRITTEN,
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
            OVERWRITTEN,
            "the entry may write after the repair as it may before",
            Parties { guard: Guard::OverwriteAfterRepair, ..repaired },
        ),
        variant(
            "repair-driver",
            OVERWRITTEN,
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
