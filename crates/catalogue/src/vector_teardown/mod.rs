//! Document 004: an interrupt that waits at its CPU while it is freed and requested again.
//!
//! A file each: the host's vector tables (`kernel`), who does what (`parties`).
//!
//! What `explain vector-teardown/as-reported` shows is the flow that the document's author
//! reconstructed, in his order: raised and not handled, masked, synchronized, message zeroed,
//! 'shutdown', handled and 'shutdown' seen, installed, 'unused' written. That the last comes after
//! the unmask here, and before it there, is the same run. What the document does not say:
//!
//! - The message may be on its way still when the device is masked; it need not have come as far as
//!   the IRR.
//! - An interrupt that comes when its action is gone and its vector is not yet must be kept and
//!   sent again, or there is another way to lose it. Here it is.
//! - That a driver of the host loses nothing takes a driver that looks at its device when it
//!   enables it (`reevaluate-driver-blind`).
//! - The guest of the document has masked its vector. That changes no verdict (`*-masked`) but one:
//!   to inject before the switch is as good as after it then (`inject-before-masked`). To inject
//!   does not mend what was overwritten (`inject-after-overwritten`).
//! - A device that sends though it is masked is broken, as the document says; but whoever injects
//!   afterwards has made good for it, too (`inject-after-late-device`).
//!
//! The cure was merged as "x86/irq: Plug vector setup race", with a second trigger in its text: a
//! spurious interrupt at a vector that is set up (`as-reported-spurious`, `reevaluate-spurious`).
//!
//! | statement | variants |
//! |---|---|
//! | the guest masks, which has the user of VFIO switch | `*-masked`; with a table that the guest writes: `shipped-masked*` |
//! | it happens to guests that do so often | none: once will do, in all; `inject-after-2-switches` |
//! | the switch frees the interrupt and requests it | all but `*-driver*`, `*-spurious`, `*-desc-*` |
//! | the entry writes "unused" without a lock | `as-reported*` |
//! | so interrupts do not arrive any more | `as-reported-driver-stalls`, `inject-after-overwritten` |
//! | not VFIO alone: drivers of the host, too | `as-reported-driver`, `as-reported-driver-stalls` |
//! | a function that repairs the table does not cure it | `repair`, `repair-masked`, `repair-driver` |
//! | steps 1 to 7, of free and request | all, in their order |
//! | A: the device has raised the old vector before it is masked | all; after that it is broken: `*-late-device` |
//! | B: the CPU handles it late | all: the search lets time pass at any point |
//! | C: no synchronization can see the IRR of another CPU | all: what waits in an IRR is not waited for |
//! | D to G: "shutdown" seen, installed, "unused" written | `as-reported`, in its trace |
//! | the same vector is given out again | all; another is nobody's to overwrite: `shipped-driver` |
//! | look again under the vector lock | `reevaluate-driver`, `reevaluate-vfio*`, `reevaluate-spurious` |
//! | which does not rely on a later interrupt | `reevaluate-driver`: 2 events, or 1 |
//! | and says by its result who ends the interrupt | `reevaluate-wrong-return` |
//! | the descriptor is safe to use, by RCU | `reevaluate-desc-freed`, `reevaluate-desc-freed-at-once` |
//! | what was nobody's is logged | none: of words |
//! | VFIO alone: what meets "shutdown" is ended and lost | `reevaluate-vfio-waits*`, `repair-lost*` |
//! | if the device waits for its driver | against `reevaluate-vfio`, which does not |
//! | until a time-out, or its driver looks | a look: `reevaluate-driver`, against `reevaluate-driver-blind`; no timer comes to the rescue here |
//! | for a driver of the host the cure is enough | `reevaluate-driver`; one that looks: against `reevaluate-driver-blind` |
//! | no interrupt is to be freed before its device is silent | `reevaluate-driver`, against `reevaluate-vfio-waits` |
//! | inject once after each switch, whatever the device has said | `inject-after*`, against `inject-before*` |
//! | other architectures have the loss, not the overwrite | none: the tables are x86's; but the loss does not depend on the entry: `repair-lost`, `reevaluate-vfio-waits` |
//! | merged text: a spurious interrupt will do | `as-reported-spurious`, `reevaluate-spurious` |

mod kernel;
mod parties;
mod shipped;

use doorbell_explore::trace::FailureKind;

use crate::case::variant;
use crate::{Case, Expected, Variant};
use kernel::{DescFreed, EntryCode};
use parties::{End, Form, Guard, Inject, REPORTED, Scope};

const INVARIANT: Expected = Expected::Found(FailureKind::Invariant);
const LOST: Expected = Expected::Found(FailureKind::Quiescence);

/// With the entry code that looks again under the vector lock.
const REEVALUATED: Scope =
    Scope { code: EntryCode::Reevaluates, end: End::NothingLost, ..REPORTED };

/// A vector that was shut down is set up again, and a spurious interrupt comes to it.
const SET_UP: Scope = Scope { form: Form::SetUp, ..REEVALUATED };

fn reported() -> Vec<Variant> {
    let driver = Scope { form: Form::Driver, ..REPORTED };
    vec![
        variant(
            "as-reported",
            INVARIANT,
            "the entry has read 'shutdown', the vector is installed again, and the entry writes 'unused'",
            REPORTED,
        ),
        variant(
            "as-reported-masked",
            INVARIANT,
            "the guest's mask is the user's affair: the host's vector is shut down and installed as without it",
            Scope { masked: true, ..REPORTED },
        ),
        variant(
            "as-reported-late-device",
            INVARIANT,
            "a broken device that sends though it is masked adds nothing: it had time enough before",
            Scope { late: true, ..REPORTED },
        ),
        variant(
            "as-reported-spurious",
            INVARIANT,
            "a spurious interrupt at a vector that was shut down long ago is as good for the overwrite as a late one",
            Scope { form: Form::SetUp, ..REPORTED },
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
            Scope { guard: Guard::Nothing, end: End::NothingLost, events: 2, ..driver },
        ),
    ]
}

fn repair() -> Vec<Variant> {
    let repaired = Scope { repairs: true, ..REPORTED };
    vec![
        variant(
            "repair",
            INVARIANT,
            "the entry may write after the repair as it may before",
            Scope { guard: Guard::OverwriteAfterRepair, ..repaired },
        ),
        variant(
            "repair-masked",
            INVARIANT,
            "nor does the guest's mask keep the entry from it",
            Scope { guard: Guard::OverwriteAfterRepair, masked: true, ..repaired },
        ),
        variant(
            "repair-driver",
            INVARIANT,
            "nor does it help a driver of the host, which would have to call it",
            Scope { form: Form::Driver, guard: Guard::OverwriteAfterRepair, ..repaired },
        ),
        variant(
            "repair-lost",
            LOST,
            "where nothing was overwritten, an interrupt that met 'shutdown' is lost all the same",
            Scope { guard: Guard::Nothing, end: End::NothingLostUnlessOverwritten, ..repaired },
        ),
        variant(
            "repair-lost-masked",
            LOST,
            "also while the guest masks it: the host has no pending bit for what it drops",
            Scope {
                guard: Guard::Nothing,
                end: End::NothingLostUnlessOverwritten,
                masked: true,
                ..repaired
            },
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
            Scope { form: Form::Driver, events: 2, ..REEVALUATED },
        ),
        variant(
            "reevaluate-driver-blind",
            LOST,
            "a driver that does not look at its device when it enables it does lose what met 'shutdown'",
            Scope { form: Form::Driver, looks: false, ..REEVALUATED },
        ),
        variant(
            "reevaluate-spurious",
            exhausted,
            "a spurious interrupt finds 'shutdown' under the vector lock, or the descriptor, whose handler looks for nothing",
            SET_UP,
        ),
        variant(
            "reevaluate-wrong-return",
            INVARIANT,
            "if the entry says of what it has not handled that it has, nobody ends it, and the CPU takes no more: a planted \
             fault",
            Scope { code: EntryCode::ReevaluatesWrongly, ..REEVALUATED },
        ),
        variant(
            "reevaluate-desc-freed",
            exhausted,
            "the descriptor that the entry has found is not freed before the entry is done with it",
            Scope { desc_freed: Some(DescFreed::AfterGrace), end: End::Anything, ..SET_UP },
        ),
        variant(
            "reevaluate-desc-freed-at-once",
            Expected::Found(FailureKind::UseAfterFree),
            "wherever the entry has found the descriptor, nothing but a grace period keeps it: a planted fault",
            Scope { desc_freed: Some(DescFreed::AtOnce), end: End::Anything, ..SET_UP },
        ),
        variant(
            "reevaluate-vfio-masked",
            exhausted,
            "and so it is while the guest masks it",
            Scope { masked: true, waits_for_driver: false, end: End::NextArrives, ..REEVALUATED },
        ),
        variant(
            "reevaluate-vfio-waits-masked",
            LOST,
            "what meets 'shutdown' while the guest masks it is not pending anywhere",
            Scope { masked: true, ..REEVALUATED },
        ),
        variant(
            "reevaluate-vfio",
            exhausted,
            "nothing is overwritten, so a device that does not wait is heard at its next event",
            Scope { waits_for_driver: false, end: End::NextArrives, ..REEVALUATED },
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
    let before = Scope { inject: Inject::BeforeTheSwitch, ..REEVALUATED };
    let after = Scope { inject: Inject::AfterTheSwitch, ..REEVALUATED };
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
            Scope { masked: true, ..before },
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
            Scope { extra: 0, ..after },
        ),
        variant(
            "inject-after-masked",
            exhausted,
            "what is injected while the guest masks the vector is taken when it does no longer",
            Scope { masked: true, ..after },
        ),
        variant(
            "inject-after-extra-masked",
            INVARIANT,
            "the extra one waits for the end of the mask, and comes then",
            Scope { masked: true, extra: 0, ..after },
        ),
        variant(
            "inject-after-late-device",
            exhausted,
            "what a broken device sends to nowhere, it has said before the guest looks",
            Scope { late: true, ..after },
        ),
        variant(
            "inject-before-late-device",
            LOST,
            "what it sends to nowhere after the injection stays unseen",
            Scope { late: true, ..before },
        ),
        variant(
            "inject-after-2-events",
            exhausted,
            "what the device says when it was looked at comes by the new vector",
            Scope { events: 2, ..after },
        ),
        variant(
            "inject-after-2-switches",
            exhausted,
            "two switches, at most two extra interrupts",
            Scope { switches: 2, ..after },
        ),
        variant(
            "inject-after-overwritten",
            LOST,
            "to inject does not put back the vector that was overwritten: the next event is not heard",
            Scope { code: EntryCode::Unlocked, guard: Guard::Nothing, events: 2, ..after },
        ),
    ]
}

/// The case.
pub(crate) fn case() -> Case {
    Case::new(
        "vector-teardown",
        "an interrupt waits at its CPU while its vector is shut down and installed again",
        "document 004: vector tables, and VFIO's free and request of a live interrupt",
        [reported(), repair(), reevaluated(), injected(), shipped::variants()]
            .into_iter()
            .flatten()
            .collect(),
    )
}
