//! Seed 002: a grace period is awaited under the mutex that the workers who must run it queue for.
//!
//! A file each: the reported code (`kvm`), the parameters and the machine that they stand for (`scope`), and Doorbell's
//! own irqfds on the same machine (`shipped`).

mod kvm;
mod scope;
mod shipped;

use doorbell_explore::sim::{Preempted, PreemptionOff};
use doorbell_explore::trace::FailureKind;

use crate::{Case, Expected, Variant};
use kvm::Wait;
use scope::{Assign, At, Kind, LINUX, REPORTED, Rules, Scope};
use shipped::Actor;

const DEADLOCK: Expected = Expected::Found(FailureKind::Deadlock);

fn variant(name: &'static str, expected: Expected, why: &'static str, scope: Scope) -> Variant {
    Variant::new(name, expected, why, scope.to_string(), move |m| scope.program(m))
}

/// A plain pool: it deadlocks if and only if there are as many cleanups as workers, wherever the wait is.
fn plain() -> Vec<Variant> {
    let inside = REPORTED;
    let outside = Scope { wait: Wait::Outside, ..REPORTED };
    vec![
        variant(
            "plain-reported",
            DEADLOCK,
            "one worker waits for a grace period under the mutex, the other for the mutex: none is left to run it",
            inside,
        ),
        variant(
            "plain-proposed",
            DEADLOCK,
            "out of the mutex, both workers wait for grace periods instead: none is left to run them all the same",
            outside,
        ),
        variant(
            "plain-reported-one-cleanup",
            Expected::Exhausted,
            "a worker is always left to run the grace period",
            Scope { cleanups: 1, ..inside },
        ),
        variant(
            "plain-proposed-one-cleanup",
            Expected::Exhausted,
            "a worker is always left to run the grace period",
            Scope { cleanups: 1, ..outside },
        ),
        variant(
            "plain-reported-rescuer",
            Expected::Exhausted,
            "the rescuer of the grace periods' workqueue runs them when every worker waits",
            Scope { rescuer: true, ..inside },
        ),
        variant(
            "plain-proposed-rescuer",
            Expected::Exhausted,
            "the rescuer of the grace periods' workqueue runs them when every worker waits",
            Scope { rescuer: true, ..outside },
        ),
        variant(
            "plain-reported-elsewhere",
            Expected::Exhausted,
            "grace periods run on a pool whose workers none of this keeps busy",
            Scope { grace_period: At::OtherPool, ..inside },
        ),
    ]
}

/// The pool that counts its running workers, by Linux's rules and with them broken.
fn managed() -> Vec<Variant> {
    let on = |scope: Scope, rules: Rules| Scope { pool: Kind::Managed(rules), assign: Assign::Nothing, ..scope };
    let outside = Scope { wait: Wait::Outside, ..REPORTED };
    let quiet = Rules { interrupts: 0, ..LINUX };
    let hooks = Rules { preempted: Preempted::RunsHooks, preemption_off: PreemptionOff::OutsideHooks, ..LINUX };
    let dequeued = Rules { preempted: Preempted::IsDequeued, ..LINUX };
    let window_closed = |rules: Rules| Rules { preemption_off: PreemptionOff::UntilAsleep, ..rules };
    let no_memory = Rules { creatable: 0, ..quiet };
    let crowded = Rules { max_active: 2, ..quiet };
    let same_queue = |scope: Scope| Scope { grace_period: At::SameQueue, ..scope };
    vec![
        variant(
            "managed-reported",
            Expected::Exhausted,
            "a worker that sleeps is no longer counted, so another is woken or created: Linux's pool is not exhausted",
            on(REPORTED, LINUX),
        ),
        variant(
            "managed-proposed",
            Expected::Exhausted,
            "nor is it with the wait moved out of the mutex",
            on(outside, LINUX),
        ),
        variant(
            "managed-reported-assign",
            Expected::Exhausted,
            "nor with an assignment that waits under the mutex, too",
            Scope { assign: Assign::Assigns, ..on(REPORTED, quiet) },
        ),
        variant(
            "managed-proposed-assign",
            Expected::Exhausted,
            "nor with an assignment that waits after it has left the mutex",
            Scope { assign: Assign::Assigns, ..on(outside, quiet) },
        )
        .full_only(),
        variant(
            "managed-hooks-on-preemption",
            DEADLOCK,
            "a worker preempted between its mark and the count is counted twice when it runs again: the count stays one \
             too high, and nobody is woken",
            on(REPORTED, hooks),
        ),
        variant(
            "managed-hooks-on-preemption-proposed",
            DEADLOCK,
            "the count is as wrong with the wait outside of the mutex",
            on(outside, hooks),
        ),
        variant(
            "managed-sleeper-dequeued",
            DEADLOCK,
            "a worker preempted in its bookkeeping is taken for a sleeper: nobody finishes the bookkeeping, and the \
             count stays one too high",
            on(REPORTED, dequeued),
        ),
        variant(
            "managed-sleeper-dequeued-proposed",
            DEADLOCK,
            "the count is as wrong with the wait outside of the mutex",
            on(outside, dequeued),
        ),
        variant(
            "managed-hooks-preemption-off",
            Expected::Exhausted,
            "with preemption off from the mark until the worker has left its CPU, no interrupt comes in between",
            on(REPORTED, window_closed(hooks)),
        ),
        variant(
            "managed-dequeued-preemption-off",
            Expected::Exhausted,
            "with preemption off from the mark until the worker has left its CPU, no interrupt comes in between",
            on(REPORTED, window_closed(dequeued)),
        ),
        variant(
            "managed-hooks-preemption-off-in-hooks",
            DEADLOCK,
            "with preemption off in the hook alone, the interrupt comes right before it or right after",
            Scope { cleanups: 1, ..on(outside, Rules { preemption_off: PreemptionOff::InHooks, ..hooks }) },
        ),
        variant(
            "managed-no-worker-created",
            DEADLOCK,
            "the last idle worker has to create another before it works, and cannot",
            on(REPORTED, no_memory),
        ),
        variant(
            "managed-no-worker-created-rescuer",
            Expected::Exhausted,
            "the rescuer of the grace periods' workqueue needs no new worker",
            Scope { rescuer: true, ..on(REPORTED, no_memory) },
        ),
        variant(
            "managed-max-active",
            Expected::Exhausted,
            "with max_active 1 for the cleanups the second waits its turn, and the grace period has a queue of its own",
            on(REPORTED, Rules { max_active: 1, ..quiet }),
        ),
        variant(
            "managed-same-queue",
            DEADLOCK,
            "on the cleanups' own workqueue, max_active 2 is used up by work that waits for the grace period",
            same_queue(on(REPORTED, crowded)),
        ),
        variant(
            "managed-same-queue-proposed",
            DEADLOCK,
            "nor does moving the wait give the grace period a place on that workqueue",
            same_queue(on(outside, crowded)),
        ),
        variant(
            "unbound-hooks-on-preemption",
            Expected::Exhausted,
            "workers of an unbound queue are not counted, so no count is wrong when they are preempted",
            Scope { assign: Assign::Nothing, pool: Kind::Unbound(hooks), ..REPORTED },
        ),
        variant(
            "unbound-sleeper-dequeued",
            Expected::Exhausted,
            "workers of an unbound queue are not counted, so no count is wrong when they are preempted",
            Scope { assign: Assign::Nothing, pool: Kind::Unbound(dequeued), ..REPORTED },
        ),
    ]
}

/// What moving the wait does to a resampler that is made anew meanwhile.
fn made_anew() -> Vec<Variant> {
    let scope = Scope { assign: Assign::AssignsAndInjects, cleanups: 1, grace_period: At::OtherPool, ..REPORTED };
    vec![
        variant(
            "made-anew-reported",
            Expected::Exhausted,
            "under the mutex, the old resampler lowers its line before there is a new one",
            scope,
        ),
        variant(
            "made-anew-proposed",
            Expected::Found(FailureKind::Quiescence),
            "out of the mutex, the old resampler lowers the line that the new one has raised meanwhile: an interrupt is \
             lost",
            Scope { wait: Wait::Outside, ..scope },
        ),
    ]
}

/// Three of the five who can act at once.
const TRIPLES: [(&str, &str, [Actor; 3]); 10] = {
    use Actor::{Ack, Assign, Inject, Reroute, Shutdown};
    [
        ("shipped-assign-shutdown-inject", "shipped-managed-assign-shutdown-inject", [Assign, Shutdown, Inject]),
        ("shipped-assign-shutdown-ack", "shipped-managed-assign-shutdown-ack", [Assign, Shutdown, Ack]),
        ("shipped-assign-shutdown-reroute", "shipped-managed-assign-shutdown-reroute", [Assign, Shutdown, Reroute]),
        ("shipped-assign-inject-ack", "shipped-managed-assign-inject-ack", [Assign, Inject, Ack]),
        ("shipped-assign-inject-reroute", "shipped-managed-assign-inject-reroute", [Assign, Inject, Reroute]),
        ("shipped-assign-ack-reroute", "shipped-managed-assign-ack-reroute", [Assign, Ack, Reroute]),
        ("shipped-shutdown-inject-ack", "shipped-managed-shutdown-inject-ack", [Shutdown, Inject, Ack]),
        ("shipped-shutdown-inject-reroute", "shipped-managed-shutdown-inject-reroute", [Shutdown, Inject, Reroute]),
        ("shipped-shutdown-ack-reroute", "shipped-managed-shutdown-ack-reroute", [Shutdown, Ack, Reroute]),
        ("shipped-inject-ack-reroute", "shipped-managed-inject-ack-reroute", [Inject, Ack, Reroute]),
    ]
};

const SHIPPED: &str = "no worker waits for a grace period, and what is lowered is told to all who may have raised it";

fn one_shipped(name: &'static str, pool: Kind, actors: &'static [Actor]) -> Variant {
    let scope = Scope { pool, ..REPORTED };
    let kind = if pool == Kind::Plain { "plain" } else { "managed" };
    let text = format!("doorbell-irqfd, W=2 N=2, {kind} pool, 2 irqfds on one GSI; {}", shipped::names(actors));
    Variant::new(name, Expected::Exhausted, SHIPPED, text, move |m| shipped::program(m, scope, actors))
}

const ALL_FIVE: &str = "too large to exhaust: without a bound, 2.0 million executions on the plain pool (150 s on one \
                        core) and 4.5 million on the managed one (300 s) came to no failure; within it, all are run";

/// All five at once, within a bound on preemptions.
fn all_five(name: &'static str, pool: Kind) -> Variant {
    let mut all = one_shipped(name, pool, &shipped::ALL);
    all.expected = Expected::BoundReached;
    all.summary = ALL_FIVE;
    all.scope += "; at most 1 preemption";
    all.bound(1).full_only()
}

fn shipped() -> Vec<Variant> {
    let managed = Kind::Managed(Rules { interrupts: 0, ..LINUX });
    let mut variants = Vec::new();
    for (plain_name, managed_name, actors) in &TRIPLES {
        // 2.2 million executions; the others have less than 0.3 million.
        let large = *actors == [Actor::Shutdown, Actor::Inject, Actor::Reroute];
        let plain = one_shipped(plain_name, Kind::Plain, actors);
        let managed = one_shipped(managed_name, managed, actors);
        variants.push(if large { plain.full_only() } else { plain });
        variants.push(managed);
    }
    variants.push(one_shipped(
        "shipped-deassign-inject-ack",
        Kind::Plain,
        &[Actor::Deassign, Actor::Inject, Actor::Ack],
    ));
    variants.push(all_five("shipped-all-five", Kind::Plain));
    variants.push(all_five("shipped-managed-all-five", managed));
    variants
}

/// The case.
pub(crate) fn case() -> Case {
    let variants = [plain(), managed(), made_anew(), shipped()].into_iter().flatten().collect();
    Case::new(
        "irqfd-resampler",
        "a grace period is awaited where the workers that must run it are kept waiting",
        "document 002: irqfd resampler shutdown and assign",
        variants,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunOptions;

    #[test]
    fn a_plain_pool_deadlocks_if_and_only_if_there_are_as_many_cleanups_as_workers() {
        for wait in [Wait::Inside, Wait::Outside] {
            for workers in 1..=3 {
                for cleanups in 1..=3 {
                    let scope = Scope { wait, workers, cleanups, assign: Assign::Nothing, ..REPORTED };
                    let deadlocks = cleanups as usize >= workers;
                    let expected = if deadlocks { DEADLOCK } else { Expected::Exhausted };
                    let variant = variant("grid", expected, "", scope);
                    let report = variant.run(&RunOptions::default());
                    assert!(expected.is(&report), "{scope}: {:?}", report.verdict);
                }
            }
        }
    }
}
