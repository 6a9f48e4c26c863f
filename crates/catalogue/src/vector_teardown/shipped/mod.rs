//! The same with the vectors, descriptors and consumers of `doorbell-host`.

mod masked;
mod parties;

use doorbell_explore::trace::FailureKind;
use doorbell_host::vector::Update;

use crate::{Expected, Variant, case};
use masked::Unmasks;
use parties::{Guest, Scope, Switch};

const LOST: Expected = Expected::Found(FailureKind::Quiescence);

fn variant(name: &'static str, why: &'static str, scope: Scope) -> Variant {
    case::variant(name, Expected::Exhausted, why, scope)
}

/// What each of them begins with: one device, one event, and nobody does anything.
const ONE: Scope = Scope {
    devices: 1,
    events: 1,
    vectors: 2,
    moves: None,
    teardown: false,
    offline: false,
    switch: Switch::None,
    guest: Guest::None,
};

const ONE_MASKED: masked::Scope =
    masked::Scope { events: 1, moves: None, unmasks: Unmasks::OpensThenSwitches };
const TWO_EVENTS: masked::Scope = masked::Scope { events: 2, ..ONE_MASKED };
const MOVED: masked::Scope = masked::Scope { moves: Some(Update::Whole), ..ONE_MASKED };

pub(super) fn variants() -> Vec<Variant> {
    [hosts(), guest_masks()].into_iter().flatten().collect()
}

/// The guest masks its interrupt, moves it to another vector of its own, and unmasks it.
fn guest_masks() -> Vec<Variant> {
    let variant = |name, expected, why, masked: masked::Scope| {
        Variant::new(name, expected, why, masked.to_string(), move |m| masked.program(m))
    };
    let one = ONE_MASKED;
    vec![
        variant(
            "shipped-masked",
            Expected::Exhausted,
            "what comes while the guest masks it is kept as a pending bit, or in the eventfd, and delivered by the new route",
            one,
        ),
        variant(
            "shipped-masked-not-delivered",
            LOST,
            "a pending bit that the guest's unmasking has taken is delivered by nobody else: a planted fault",
            masked::Scope { unmasks: Unmasks::DropsPending, ..one },
        ),
        variant(
            "shipped-masked-not-drained",
            LOST,
            "what the eventfd still has when the user looks no more is delivered by whoever switches: a planted fault",
            masked::Scope { unmasks: Unmasks::ForgetsToSwitch, ..one },
        ),
        variant(
            "shipped-masked-2-events",
            Expected::Exhausted,
            "what the device says when the guest has looked comes by the same way, or the direct one",
            TWO_EVENTS,
        ),
        variant(
            "shipped-masked-and-moved",
            Expected::Exhausted,
            "the host moves the line meanwhile: the guest's mask and the host's are each other's business nowhere",
            MOVED,
        ),
    ]
}

fn hosts() -> Vec<Variant> {
    vec![
        variant(
            "shipped-driver",
            "what arrives late meets a mark that nobody overwrites, and the vector is not given out before its CPU has looked",
            Scope { teardown: true, events: 2, ..ONE },
        ),
        variant(
            "shipped-driver-same-vector",
            "there is no other vector: it is given out again when its CPU has seen its IRR clear",
            Scope { teardown: true, vectors: 1, ..ONE },
        ),
        variant(
            "shipped-driver-neighbour",
            "what arrives late for one device is never taken for the other's, which gets its vector",
            Scope { teardown: true, devices: 2, vectors: 2, ..ONE },
        ),
        variant(
            "shipped-move",
            "both places are installed until the former one's CPU has looked",
            Scope { moves: Some(Update::Whole), events: 2, ..ONE },
        ),
        variant(
            "shipped-move-word-by-word",
            "each message that the device can put together names a place of its own interrupt",
            Scope { moves: Some(Update::WordByWord), events: 2, ..ONE },
        ),
        variant(
            "shipped-offline",
            "the CPU hands over what waits in its IRR",
            Scope { offline: true, events: 2, ..ONE },
        ),
        variant(
            "shipped-offline-while-moved",
            "the CPU waits for whoever moves the interrupt already",
            Scope { offline: true, moves: Some(Update::Whole), ..ONE },
        ),
        variant(
            "shipped-vfio",
            "the consumer changes in place: no vector is given back, nothing is lost, and nothing is injected",
            Scope { switch: Switch::InPlace, guest: Guest::Waits, events: 2, ..ONE },
        ),
        variant(
            "shipped-vfio-reopened",
            "a host that frees and requests injects once afterwards: at most one extra interrupt",
            Scope { switch: Switch::Reopened, guest: Guest::Waits, ..ONE },
        ),
        variant(
            "shipped-moved-and-switched",
            "one device is moved, and its consumer switched meanwhile",
            Scope {
                devices: 2,
                vectors: 3,
                moves: Some(Update::Whole),
                switch: Switch::InPlace,
                guest: Guest::Waits,
                ..ONE
            },
        ),
        variant(
            "shipped-torn-down-and-moved",
            "one device is torn down, the other moved",
            Scope { devices: 2, vectors: 3, moves: Some(Update::Whole), teardown: true, ..ONE },
        ),
        variant(
            "shipped-torn-down-and-switched",
            "one device is torn down, the other switched",
            Scope {
                devices: 2,
                vectors: 3,
                teardown: true,
                switch: Switch::InPlace,
                guest: Guest::Waits,
                ..ONE
            },
        ),
        variant(
            "shipped",
            "one device is torn down, the other moved, and its consumer switched meanwhile",
            Scope {
                devices: 2,
                vectors: 3,
                moves: Some(Update::Whole),
                teardown: true,
                switch: Switch::InPlace,
                guest: Guest::Waits,
                ..ONE
            },
        )
        .full_only(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunOptions;

    #[test]
    fn what_the_user_of_vfio_does_wrong_when_the_guest_unmasks_is_found_in_each_scope() {
        for scope in [ONE_MASKED, TWO_EVENTS, MOVED] {
            for unmasks in [Unmasks::DropsPending, Unmasks::ForgetsToSwitch] {
                let masked = masked::Scope { unmasks, ..scope };
                let planted = Variant::new("planted", LOST, "", masked.to_string(), move |m| {
                    masked.program(m)
                });
                assert!(
                    planted.agrees(&planted.run(&RunOptions::default())),
                    "{masked}, {unmasks:?}"
                );
            }
        }
    }
}
