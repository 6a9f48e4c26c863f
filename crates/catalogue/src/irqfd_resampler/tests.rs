//! What the variants do not say one by one.

use super::*;
use crate::RunOptions;

fn found(scope: Scope, expected: Expected) -> bool {
    expected.is(&variant("planted", expected, "", scope).run(&RunOptions::default()))
}

#[test]
fn a_plain_pool_deadlocks_if_and_only_if_there_are_as_many_cleanups_as_workers() {
    for wait in [Wait::Inside, Wait::Outside] {
        for workers in 1..=3 {
            for cleanups in 1..=3 {
                let scope =
                    Scope { workers, cleanups, assign: Assign::Nothing, ..REPORTED }.wait(wait);
                let deadlocks = cleanups as usize >= workers;
                let expected = if deadlocks { DEADLOCK } else { Expected::Exhausted };
                let variant = variant("grid", expected, "", scope);
                let report = variant.run(&RunOptions::default());
                assert!(expected.is(&report), "{scope}: {:?}", report.verdict);
            }
        }
    }
}

#[test]
fn what_an_acknowledgement_walks_is_freed_too_early_without_a_grace_period_wherever_it_is_awaited()
{
    for wait in [Wait::Inside, Wait::Outside] {
        for grace in [Grace::Leaves, Grace::Unregisters] {
            assert!(found(LEAVES.wait(wait).without(grace), FREED), "{wait:?}, {grace:?}");
        }
    }
}

#[test]
fn an_interrupt_of_a_new_irqfd_is_lost_if_acknowledgements_lower_the_line_last_with_every_wait() {
    for wait in [Wait::Inside, Wait::Outside] {
        assert!(found(JOINS.wait(wait).told_first(), LOST), "{wait:?}");
        assert!(
            found(JOINS.wait(wait).without(Grace::Joins).told_first(), LOST),
            "{wait:?}, none to join"
        );
    }
}
