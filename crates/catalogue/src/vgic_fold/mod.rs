//! Document 003: a walk along a list that others change, from an interrupt that was remembered
//! across the guest's run.
//!
//! An interrupt that the guest has acknowledged stays active until the guest ends it, and there are
//! fewer list registers than interrupts. What is active and in none is still on the vCPU's list
//! (`ap_list`), behind those that are; when the guest ends it, hardware only counts (EOIcount). The
//! fold that follows the guest's run goes along the list, from the last interrupt that had got a
//! list register (`last_lr_irq`), and ends as many active ones as were counted. It takes no lock.
//!
//! A file each: interrupts and lists (`irq`), what others do to a list (`kvm`), the vCPU's own task
//! (`vcpu`), the parameters (`scope`); another race of the same code, which is a case of its own
//! (`prune`); and what Doorbell does (`shipped`).
//!
//! What `explain vgic-fold/as-reported` shows is the document's flow, in its order: vCPU0 flushes,
//! and remembers the LPI that it has put into its list register; the guest runs; another vCPU
//! clears `EnableLPIs` in vCPU0's `GICR_CTLR`; the LPI is removed from vCPU0's list with
//! `list_del`, which poisons its pointer; vCPU0 follows the pointer. That the removal comes as late
//! as can be is the search's choice: any moment since the flush will do (`locked`). The document
//! names two places: the interrupt that was remembered (`as-reported`), and one that the walk has
//! come to (`as-reported-mid-walk`). What it does not say:
//!
//! - The walk reads the first pointer before it sees that there is nothing to end. So the memory is
//!   touched with an empty count, too (`as-reported-no-overflow`), which is why Linux no longer
//!   remembers an interrupt if nothing is behind it.
//! - "Interrupts are off" is no excuse for what is remembered: they are, but the guest runs in
//!   between, and for RCU that is a quiescent state (`rcu-removal-proposed`).
//! - Of the writers that it names, one can harm the walk. A vCPU prunes its own list only, after
//!   its own fold: here, too, `prune` of a list is called by that vCPU alone. What another vCPU's
//!   prune does is to hand an interrupt over, and that, like an injection, is an insertion at the
//!   tail (`as-reported-prunes`, `as-reported-injects`). Such an insertion is not made for readers
//!   without a lock, as a maintainer remarks, but `irq_lock` is held meanwhile, and the walk takes
//!   the `irq_lock` of each interrupt before it reads its pointer. So not even the order of the two
//!   stores matters (`as-reported-injects-reordered`, and `as-reported-injects-unlocked` without
//!   that lock). Besides, only the walk of a guest that ends more than is active comes to the tail.
//! - `list_del_rcu` keeps the pointer until the interrupt is put on a list again, which no grace
//!   period delays: it may be another vCPU's list, whose head is not the one at which the walk ends
//!   (`rcu-removal-queued-elsewhere`), or the same one, at the tail, with nothing behind
//!   (`rcu-removal-queued-here`).
//! - The lock alone cures what happens during the walk (`locked-mid-walk`), not what happened
//!   before it (`locked`). With the reference and the look at whose list it is on, no memory is
//!   touched that is not the walk's. But the count cannot be replayed from an interrupt that has
//!   left (`proposed`) or that has come back at the tail (`proposed-queued-here`): what the guest
//!   has ended stays active.
//! - The maintainer's question, whether a fold can come to the code that queues interrupts, has the
//!   answer yes, by way of the eventfd of a resampling irqfd (`locked-notifies`).
//! - To notify after the unlock is not to notify with interrupts on: the fold runs with interrupts
//!   off, in the proposal, too. Where regular spin locks sleep, the eventfd's must not be taken
//!   there (`proposed-sleeping-locks`).
//! - A reference that a fold drops may be the last one. The proposal releases after the unlock,
//!   because the lock of the table of LPIs comes before a list's in the kernel's order. That table
//!   has no lock here; a look-up in it is one step.
//!
//! Not here: priorities, since there are few interrupts; and deactivation by a write to `DIR`,
//! which names its interrupt and walks along nothing.
//!
//! GICv2's fold has the same shape, with two differences. It tells the irqfd before it changes the
//! interrupt, whether that was active or not; and its guests have no LPIs, so nobody takes an
//! interrupt off another vCPU's list (`gicv2`).
//!
//! `pinned` and `stopped` come after the document: Linux of October 2026 keeps the reference and
//! the unlocked walk, and a series of that autumn stops all vCPUs before LPIs are disabled. That is
//! a cure if a vCPU is outside of its guest when it has folded, and not when the guest has exited
//! (`stopped-early`), and if a request to leave is seen also by who has flushed and not entered yet
//! (`stopped-taken-back`).
//!
//! | statement | variants |
//! |---|---|
//! | the fold walks without the list's lock | `as-reported*` |
//! | relying on RCU for memory, and on interrupts being off | `as-reported-no-overflow`, `rcu-removal-proposed` |
//! | another vCPU disables LPIs: `list_del` clobbers the pointer of the node that was remembered | `as-reported` |
//! | or of one that the walk has come to | `as-reported-mid-walk` |
//! | first proposal: `list_del_rcu` for that one writer | `rcu-removal-alone`, `rcu-removal-proposed` |
//! | objection: that makes no RCU list: insertions are not safe | harmless: `as-reported-injects`, `as-reported-injects-reordered`, against `as-reported-injects-unlocked`; re-insertion is not: `rcu-removal-queued-*` |
//! | nor are removals by a prune | harmless: `as-reported-prunes`; the prune's own race is `vgic-prune/*` |
//! | the flaw is that the fold does not take the lock | `locked`, `locked-mid-walk` |
//! | can a fold come to the code that queues, which takes it? | `locked-notifies`: yes |
//! | "no deadlock problem" with the whole proposal | `proposed-notifies` |
//! | the node that was remembered may have left, or be freed, in the guest's run | `locked`, `locked-checks` |
//! | the last reference is dropped after the unlock, as the table of LPIs has a lock that comes first | none: here that table has no lock |
//! | pin the node during the guest's run | `proposed-discarded`; the pin alone: `pinned` |
//! | walk only if it is on this vCPU's list | `proposed-queued-elsewhere`; not enough: `proposed`, `proposed-queued-here` |
//! | notify of the end of an interrupt after the unlock | `proposed-notifies` |
//! | because the eventfd's is a regular spin lock | `proposed-sleeping-locks`: interrupts are off there, too |
//! | which `as-reported` does under no lock | `as-reported-notifies` |
//! | deactivation by a write notifies at once, as before | none: it walks along nothing |
//! | the walk relies on the list being sorted by priority | none: no priorities here |
//! | GICv2 in the same way | `gicv2`: nobody removes there |

mod irq;
mod kvm;
pub(crate) mod prune;
mod scope;
mod shipped;
#[cfg(test)]
mod tests;
mod vcpu;

use doorbell_explore::trace::FailureKind;

use crate::{Case, Expected, Variant};
use irq::{Insertion, Removal};
use scope::{
    Cursor, Does, End, Eventfd, Gic, Guest, Listed, Locking, Notifies, REPORTED, Scope, Stops,
};

const INVARIANT: Expected = Expected::Found(FailureKind::Invariant);
const FREED: Expected = Expected::Found(FailureKind::UseAfterFree);
const LOST: Expected = Expected::Found(FailureKind::Quiescence);
const EXHAUSTED: Expected = Expected::Exhausted;

const DISABLES: &[&[Does]] = &[&[Does::DisablesLpis]];
const DISABLES_AND_DISCARDS: &[&[Does]] = &[&[Does::DisablesLpis], &[Does::Discards]];
const QUEUED_HERE: &[&[Does]] = &[&[Does::DisablesLpis, Does::SignalsHere]];
const QUEUED_ELSEWHERE: &[&[Does]] = &[&[Does::DisablesLpis, Does::SignalsThere]];
const INJECTS: &[&[Does]] = &[&[Does::Injects]];
const PRUNES: &[&[Does]] = &[&[Does::Prunes]];

/// A variant as it is stated.
struct Stated {
    name: &'static str,
    expected: Expected,
    why: &'static str,
    scope: Scope,
}

fn variant(name: &'static str, expected: Expected, why: &'static str, scope: Scope) -> Stated {
    Stated { name, expected, why, scope }
}

fn reported() -> Vec<Stated> {
    let to_the_tail = Scope { guest: Guest::EndsOneTooMany, ..REPORTED };
    vec![
        variant(
            "as-reported",
            INVARIANT,
            "the interrupt that the flush has remembered is taken off the list, and then the walk follows its pointer, which is poison",
            Scope { others: DISABLES, ..REPORTED },
        ),
        variant(
            "as-reported-mid-walk",
            INVARIANT,
            "an LPI that the walk has come to is taken off under its feet",
            Scope { list: Listed::LpiBetween, others: DISABLES, ..REPORTED },
        ),
        variant(
            "as-reported-no-overflow",
            FREED,
            "with nothing to end, the walk reads a first pointer all the same, of an LPI that was freed while the guest ran",
            Scope { list: Listed::LpiAlone, others: DISABLES_AND_DISCARDS, ..REPORTED },
        ),
        variant(
            "as-reported-injects",
            EXHAUSTED,
            "an interrupt at the tail has a pointer of its own before one leads to it",
            Scope { others: INJECTS, ..to_the_tail },
        ),
        variant(
            "as-reported-injects-reordered",
            EXHAUSTED,
            "the walk waits for the irq_lock of an interrupt before it reads its pointer, and whoever inserts it holds that",
            Scope { others: INJECTS, insertion: Insertion::Reordered, ..to_the_tail },
        ),
        variant(
            "as-reported-injects-unlocked",
            INVARIANT,
            "inserted without its irq_lock, an interrupt is walked to before it has a pointer of its own: a planted fault",
            Scope { others: INJECTS, insertion: Insertion::Unlocked, ..to_the_tail },
        ),
        variant(
            "as-reported-prunes",
            EXHAUSTED,
            "a vCPU prunes its own list only, and what it hands over comes in at the other's tail",
            Scope { others: PRUNES, ..to_the_tail },
        ),
        variant(
            "as-reported-notifies",
            EXHAUSTED,
            "without the list's lock, whoever hears of the end of an interrupt may inject another one",
            Scope { eventfd: Eventfd::Injects, others: INJECTS, ..REPORTED },
        ),
        variant(
            "gicv2",
            EXHAUSTED,
            "a guest of a GICv2 has no LPIs, so others only add to the list",
            Scope {
                gic: Gic::V2,
                list: Listed::Spis,
                others: &[&[Does::Injects, Does::Prunes]],
                ..to_the_tail
            },
        ),
    ]
}

fn rcu_removal() -> Vec<Stated> {
    let proposed = Scope { removal: Removal::KeepsNext, ..REPORTED };
    vec![
        variant(
            "rcu-removal-alone",
            EXHAUSTED,
            "the LPI that was taken off leads where it led before, and nobody else is there",
            Scope { others: DISABLES, ..proposed },
        ),
        variant(
            "rcu-removal-proposed",
            FREED,
            "the guest's run is a quiescent state: a grace period ends in it, and the LPI that was remembered is freed",
            Scope { others: DISABLES_AND_DISCARDS, ..proposed },
        ),
        variant(
            "rcu-removal-queued-elsewhere",
            INVARIANT,
            "queued to another vCPU no grace period later, the LPI leads to a head at which the walk does not end",
            Scope { others: QUEUED_ELSEWHERE, ..proposed },
        ),
        variant(
            "rcu-removal-queued-here",
            LOST,
            "queued to the same vCPU again, the LPI has nothing behind it, and the count is used for nothing",
            Scope { others: QUEUED_HERE, ..proposed },
        ),
    ]
}

/// With `ap_list_lock` taken, and nothing else changed.
const LOCKED: Scope = Scope { locking: Locking::Locked, ..REPORTED };

fn locked() -> Vec<Stated> {
    vec![
        variant(
            "locked",
            INVARIANT,
            "the LPI had been taken off before the lock was taken",
            Scope { others: DISABLES, ..LOCKED },
        ),
        variant(
            "locked-mid-walk",
            EXHAUSTED,
            "what is on the list when the lock is taken stays on it during the walk",
            Scope { list: Listed::LpiBetween, others: DISABLES, ..LOCKED },
        ),
        variant(
            "locked-notifies",
            Expected::Found(FailureKind::LockRule),
            "whoever hears of the end of an interrupt injects another one at once, and needs the lock that the fold holds",
            Scope { eventfd: Eventfd::Injects, ..LOCKED },
        ),
        variant(
            "locked-checks",
            FREED,
            "whether the LPI is on this list is read from memory that was freed while the guest ran",
            Scope {
                checks: true,
                others: DISABLES_AND_DISCARDS,
                end: End::NothingLostUnlessSkipped,
                ..LOCKED
            },
        ),
    ]
}

/// The proposal of the document's last message.
const PROPOSED: Scope =
    Scope { cursor: Cursor::Pinned, checks: true, notifies: Notifies::After, ..LOCKED };

fn proposed() -> Vec<Stated> {
    let unless_skipped = Scope { end: End::NothingLostUnlessSkipped, ..PROPOSED };
    vec![
        variant(
            "proposed",
            LOST,
            "the walk is skipped, and with it the count: what the guest has ended stays active",
            Scope { others: DISABLES, ..PROPOSED },
        ),
        variant(
            "proposed-queued-here",
            LOST,
            "the LPI is on this list, at its tail now: the walk is not skipped, and finds nothing",
            Scope { others: QUEUED_HERE, ..unless_skipped },
        ),
        variant(
            "proposed-discarded",
            EXHAUSTED,
            "the reference keeps the memory, and a walk that is not skipped loses nothing",
            Scope { others: DISABLES_AND_DISCARDS, ..unless_skipped },
        ),
        variant(
            "proposed-queued-elsewhere",
            EXHAUSTED,
            "an LPI of another list is not walked from",
            Scope { others: QUEUED_ELSEWHERE, ..unless_skipped },
        ),
        variant(
            "proposed-notifies",
            EXHAUSTED,
            "whoever hears of the end of an interrupt hears it when the lock is free",
            Scope { eventfd: Eventfd::Injects, others: INJECTS, ..PROPOSED },
        ),
        variant(
            "proposed-sleeping-locks",
            Expected::Found(FailureKind::SleepInAtomic),
            "the list's lock is free then, but interrupts are off, and a regular spin lock sleeps with PREEMPT_RT",
            Scope { eventfd: Eventfd::Sleeps, ..PROPOSED },
        ),
    ]
}

fn linux() -> Vec<Stated> {
    let pinned = Scope { cursor: Cursor::OnlyOnOverflow, ..REPORTED };
    let stopped = Scope { others: &[&[Does::StopsAndDisablesLpis], &[Does::Discards]], ..REPORTED };
    vec![
        variant(
            "pinned",
            INVARIANT,
            "a reference keeps the memory of the LPI, not its place on the list",
            Scope { others: DISABLES, ..pinned },
        ),
        variant(
            "pinned-no-overflow",
            EXHAUSTED,
            "with nothing to end, nothing is remembered, and no pointer is read",
            Scope { list: Listed::LpiAlone, others: DISABLES_AND_DISCARDS, ..pinned },
        ),
        variant(
            "stopped",
            EXHAUSTED,
            "LPIs are disabled when vCPU0 has folded, or before it flushes, or it folds with an empty count",
            Scope { stops: Stops::SaysOutsideLate, ..stopped },
        ),
        variant(
            "stopped-early",
            INVARIANT,
            "a vCPU that says that it has left its guest, and has still to fold, is no longer waited for",
            Scope { stops: Stops::SaysOutsideEarly, ..stopped },
        ),
        variant(
            "stopped-taken-back",
            INVARIANT,
            "a vCPU that has flushed and not said yet that it enters is not waited for, and no longer finds the request",
            Scope { stops: Stops::TakenBack, ..stopped },
        ),
    ]
}

fn stated() -> impl Iterator<Item = Stated> {
    [reported(), rcu_removal(), locked(), proposed(), linux()].into_iter().flatten()
}

/// The case.
pub(crate) fn case() -> Case {
    Case::new(
        "vgic-fold",
        "a vGIC walks a vCPU's list without its lock, from an interrupt that it has remembered across the guest's run",
        "document 003: KVM's vGIC, list registers that overflow, and LPIs that are disabled meanwhile",
        stated()
            .map(|Stated { name, expected, why, scope }| {
                Variant::new(name, expected, why, scope.to_string(), move |m| scope.program(m))
            })
            .chain(shipped::variants())
            .collect(),
    )
}
