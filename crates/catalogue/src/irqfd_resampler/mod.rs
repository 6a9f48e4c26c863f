//! Document 002: a grace period is awaited under the mutex that the workers who must run it queue
//! for.
//!
//! A file each: the reported code (`kvm`), its lists (`list`), the parameters and the machine that
//! they stand for (`scope`), and Doorbell's own irqfds on the same machine (`shipped`).
//!
//! What `explain irqfd-resampler/plain-reported` shows is the document's figure, row by row: A
//! takes `resampler_lock`, takes its irqfd off the list and begins a grace period; B comes and
//! waits for the lock; the grace period has its work queued, and no worker is left to do it. What
//! the document does not say:
//!
//! - The figure needs a pool that is full. There it does not matter where the wait is: out of the
//!   mutex the second worker waits for a grace period of its own (`plain-proposed`). What is needed
//!   is as many cleanups as workers, in either form.
//! - Linux's pool is not full when its workers sleep: it counts those who run, and another is woken
//!   or created. By its rules nothing of this deadlocks, before the proposal or after
//!   (`managed-reported`, `managed-proposed`, and with an assignment that waits for the mutex,
//!   too).
//! - So to wait for a grace period under a mutex is legitimate, as a maintainer objected: what
//!   hangs is not this code.
//! - The proposal is not free. "Safe because it was removed under the mutex" holds of memory
//!   (`acked-proposed`), and not of the line: out of the mutex the old resampler lowers what a new
//!   one has raised meanwhile (`made-anew-proposed`).
//! - The wait of an assignment can go. Nothing is freed after it, and an acknowledgement lowers the
//!   line before it walks the list that the new irqfd was put on before it went live
//!   (`acked-no-wait-to-join`). If it walked first, the wait would not help (`acked-told-first`).
//!   Explorations are sequentially consistent: what it does for the order of stores and loads is
//!   not seen here.
//!
//! What became of the report: the reporters' logs show the work of the grace periods pending on one
//! CPU's pool for minutes, never begun. The workqueue that it is on has a rescuer
//! (`WQ_MEM_RECLAIM`), and it hung for all that: a rescuer comes when no worker can be created, and
//! a pool that believes that one of its workers runs does not try
//! (`managed-hooks-on-preemption-rescuer`, `managed-sleeper-dequeued-rescuer`). The cause was in
//! the pool's accounting, with changes to the scheduler that are not in Linux; an unmodified kernel
//! does not hang there. An unbound workqueue for the cleanups was the way out (`unbound-*`): its
//! workers are not counted. To have the grace periods' work done on another CPU is half of one. A
//! worker that was dequeued comes back and finishes its bookkeeping
//! (`managed-sleeper-dequeued-elsewhere`); one that was counted twice goes idle with the count one
//! too high, and what is queued behind it is not begun (`managed-hooks-on-preemption-elsewhere`).
//!
//! | statement | variants |
//! |---|---|
//! | shutdown and assign wait for a grace period under `resampler_lock` | all `*-reported*` |
//! | the last one out waits within `kvm_unregister_irq_ack_notifier` | all with two cleanups; `acked-no-wait-to-unregister` |
//! | several workers at once deadlock | `plain-reported`; not `managed-reported` |
//! | so does an assignment beside them | `plain-reported`; not `managed-reported-assign` |
//! | 1: the wait is for a grace period | what each wait is for: `acked-no-wait-to-*` |
//! | 2: which needs a worker | `plain-*`, against `plain-reported-elsewhere` |
//! | 3: those who wait for the mutex occupy the workers | `plain-reported`; not `managed-reported` |
//! | 3, "slots": of the workqueue | `managed-same-queue`, `managed-max-active` |
//! | 4: the holder never releases | `plain-reported`, in its trace |
//! | the cure: release the mutex first | `plain-proposed` (deadlock), `managed-proposed` |
//! | "last" is decided under the mutex | all `*-proposed*` |
//! | safe, since the entries are off their lists | `acked-proposed`; not the line: `made-anew-proposed` |
//! | unregistering has a lock of its own | `irq_lock` in all; `acked-proposed` |
//! | the wait in assign ends before the irqfd goes live | `acked-proposed-joins`; not needed: `acked-no-wait-to-join` |
//! | the order is by the later `srcu_read_lock` | none: a matter of memory ordering |
//! | VMs that are made and torn down in quick succession | none: another VM's cleanups take this VM's workers, not its mutex |
//! | discussion: the wait is legitimate under a mutex | `managed-reported`, `managed-reported-assign` |
//! | discussion: the grace period's work is pending, with a rescuer | `managed-*-rescuer` |
//! | discussion: the count of running workers is one too high | `managed-hooks-*`, `managed-sleeper-*`, `managed-dequeued-*` |
//! | discussion: an unbound workqueue | `unbound-*` |

mod kvm;
mod list;
mod scope;
mod shipped;
#[cfg(test)]
mod tests;

use doorbell_explore::sim::{Preempted, PreemptionOff};
use doorbell_explore::trace::FailureKind;

use crate::case::variant;
use crate::{Case, Expected, Variant};
use kvm::{Grace, Wait};
use scope::{Assign, At, Kind, LINUX, REPORTED, Rules, Scope};
use shipped::Actor;

const DEADLOCK: Expected = Expected::Found(FailureKind::Deadlock);
const FREED: Expected = Expected::Found(FailureKind::UseAfterFree);
const LOST: Expected = Expected::Found(FailureKind::Quiescence);

/// A plain pool: it deadlocks if and only if there are as many cleanups as workers, wherever the
/// wait is.
fn plain() -> Vec<Variant> {
    let inside = REPORTED;
    let outside = REPORTED.wait(Wait::Outside);
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
    let on = |scope: Scope, rules: Rules| Scope {
        pool: Kind::Managed(rules),
        assign: Assign::Nothing,
        ..scope
    };
    let outside = REPORTED.wait(Wait::Outside);
    let quiet = Rules { interrupts: 0, ..LINUX };
    let hooks = Rules {
        preempted: Preempted::RunsHooks,
        preemption_off: PreemptionOff::OutsideHooks,
        ..LINUX
    };
    let dequeued = Rules { preempted: Preempted::IsDequeued, ..LINUX };
    let window_closed =
        |rules: Rules| Rules { preemption_off: PreemptionOff::UntilAsleep, ..rules };
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
            "managed-hooks-on-preemption-rescuer",
            DEADLOCK,
            "a rescuer comes when no worker can be created, and here nobody tries to: the pool believes that one runs",
            Scope { rescuer: true, ..on(REPORTED, hooks) },
        ),
        variant(
            "managed-sleeper-dequeued-rescuer",
            DEADLOCK,
            "a rescuer comes when no worker can be created, and here nobody tries to: the pool believes that one runs",
            Scope { rescuer: true, ..on(REPORTED, dequeued) },
        ),
        variant(
            "managed-hooks-on-preemption-elsewhere",
            LOST,
            "the grace period ends on another CPU, and the worker goes idle: the count stays one too high, and the second \
             cleanup is never begun",
            Scope { grace_period: At::OtherPool, ..on(REPORTED, hooks) },
        ),
        variant(
            "managed-sleeper-dequeued-elsewhere",
            Expected::Exhausted,
            "the grace period ends on another CPU, and that brings back the worker, which then finishes its bookkeeping",
            Scope { grace_period: At::OtherPool, ..on(REPORTED, dequeued) },
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
            Scope {
                cleanups: 1,
                ..on(outside, Rules { preemption_off: PreemptionOff::InHooks, ..hooks })
            },
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

/// Irqfds leave, and an acknowledgement walks.
const LEAVES: Scope = Scope { acked: true, grace_period: At::OtherPool, ..REPORTED };
/// One leaves, one stays, one joins and is signalled, and an acknowledgement walks.
const JOINS: Scope = Scope { assign: Assign::AssignsAndInjects, cleanups: 1, staying: 1, ..LEAVES };

/// What the grace periods are for: an acknowledgement walks, and what was taken off is freed.
fn acked() -> Vec<Variant> {
    let outside = |scope: Scope| scope.wait(Wait::Outside);
    vec![
        variant(
            "acked-reported",
            Expected::Exhausted,
            "whoever is on the list that an acknowledgement walks is not freed before the walk is over",
            LEAVES,
        ),
        variant(
            "acked-proposed",
            Expected::Exhausted,
            "nor is it with the wait outside of the mutex: what is freed was taken off under it",
            outside(LEAVES),
        ),
        variant(
            "acked-no-wait-to-leave",
            FREED,
            "an acknowledgement has come to an irqfd, which is taken off and freed",
            outside(LEAVES).without(Grace::Leaves),
        ),
        variant(
            "acked-no-wait-to-unregister",
            FREED,
            "an acknowledgement has come to an ack notifier, whose resampler is freed, and before it the last irqfd",
            outside(LEAVES).without(Grace::Unregisters),
        ),
        variant(
            "acked-reported-joins",
            Expected::Exhausted,
            "an irqfd is on its list before it goes live, and an acknowledgement lowers the line before it walks that",
            JOINS,
        ),
        variant(
            "acked-proposed-joins",
            Expected::Exhausted,
            "nor is anything lost with the wait outside of the mutex, while the resampler stays",
            outside(JOINS),
        ),
        variant(
            "acked-no-wait-to-join",
            Expected::Exhausted,
            "nor without that grace period: nothing is freed after it, and the order of the two steps is enough",
            outside(JOINS).without(Grace::Joins),
        ),
        variant(
            "acked-told-first",
            LOST,
            "an acknowledgement that walks first lowers what a new irqfd has raised meanwhile, with that grace period, too: \
             a planted fault",
            outside(JOINS).told_first(),
        ),
    ]
}

/// What moving the wait does to a resampler that is made anew meanwhile.
fn made_anew() -> Vec<Variant> {
    let scope = Scope {
        assign: Assign::AssignsAndInjects,
        cleanups: 1,
        grace_period: At::OtherPool,
        ..REPORTED
    };
    vec![
        variant(
            "made-anew-reported",
            Expected::Exhausted,
            "under the mutex, the old resampler lowers its line before there is a new one",
            scope,
        ),
        variant(
            "made-anew-proposed",
            LOST,
            "out of the mutex, the old resampler lowers the line that the new one has raised meanwhile: an interrupt is \
             lost",
            scope.wait(Wait::Outside),
        ),
    ]
}

/// Three of the five who can act at once.
const TRIPLES: [(&str, &str, [Actor; 3]); 10] = {
    use Actor::{Ack, Assign, Inject, Reroute, Shutdown};
    [
        (
            "shipped-assign-shutdown-inject",
            "shipped-managed-assign-shutdown-inject",
            [Assign, Shutdown, Inject],
        ),
        (
            "shipped-assign-shutdown-ack",
            "shipped-managed-assign-shutdown-ack",
            [Assign, Shutdown, Ack],
        ),
        (
            "shipped-assign-shutdown-reroute",
            "shipped-managed-assign-shutdown-reroute",
            [Assign, Shutdown, Reroute],
        ),
        ("shipped-assign-inject-ack", "shipped-managed-assign-inject-ack", [Assign, Inject, Ack]),
        (
            "shipped-assign-inject-reroute",
            "shipped-managed-assign-inject-reroute",
            [Assign, Inject, Reroute],
        ),
        (
            "shipped-assign-ack-reroute",
            "shipped-managed-assign-ack-reroute",
            [Assign, Ack, Reroute],
        ),
        (
            "shipped-shutdown-inject-ack",
            "shipped-managed-shutdown-inject-ack",
            [Shutdown, Inject, Ack],
        ),
        (
            "shipped-shutdown-inject-reroute",
            "shipped-managed-shutdown-inject-reroute",
            [Shutdown, Inject, Reroute],
        ),
        (
            "shipped-shutdown-ack-reroute",
            "shipped-managed-shutdown-ack-reroute",
            [Shutdown, Ack, Reroute],
        ),
        (
            "shipped-inject-ack-reroute",
            "shipped-managed-inject-ack-reroute",
            [Inject, Ack, Reroute],
        ),
    ]
};

const SHIPPED: &str =
    "no worker waits for a grace period, and what is lowered is told to all who may have raised it";

fn one_shipped(name: &'static str, pool: Kind, actors: &'static [Actor]) -> Variant {
    let scope = Scope { pool, ..REPORTED };
    let kind = if pool == Kind::Plain { "plain" } else { "managed" };
    let text = format!(
        "doorbell-irqfd, W=2 N=2, {kind} pool, 2 irqfds on one GSI; {}",
        shipped::names(actors)
    );
    Variant::new(name, Expected::Exhausted, SHIPPED, text, move |m| {
        shipped::program(m, scope, actors)
    })
}

const ALL_FIVE: &str = "too large to exhaust: without a bound, 2.0 million executions on the plain pool (150 s on one \
                        core) and 4.5 million on the managed one (300 s) came to no failure; \
                        the bound is 1 preemption";

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
    let variants =
        [plain(), managed(), acked(), made_anew(), shipped()].into_iter().flatten().collect();
    Case::new(
        "irqfd-resampler",
        "a grace period is awaited where the workers that must run it are kept waiting",
        "document 002: irqfd resampler shutdown and assign",
        variants,
    )
}
