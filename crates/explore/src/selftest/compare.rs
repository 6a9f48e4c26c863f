//! One program, searched in every way, and what must agree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::coverage::Feature;
use super::interpret::set_up;
use super::program::Program;
use crate::executor::{Executor, RunEnd};
use crate::explore::{Explore, Report, Schedules, Verdict};
use crate::machine::Machine;
use crate::search::{Fault, Strategy};
use crate::trace::FailureKind;

/// Executions that brute force may take for one program.
const MOST: u64 = 3_000;

/// Which of the comparisons are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ways {
    /// Preemption bounds: these and those below.
    pub bounds: u32,
    /// OS threads of one more search with the reduction; fewer than 2 for none.
    pub jobs: usize,
    /// Whether the search that stops at stuck sets is compared, too.
    pub stuck: bool,
}

/// What agreed.
#[derive(Default, Debug)]
pub(super) struct Agreed {
    pub brute: u64,
    pub reduced: u64,
    pub cut: u64,
    pub bounded: u64,
    pub outcomes: usize,
    pub features: u32,
}

pub(super) enum Compared {
    Agreed(Agreed),
    /// Brute force would take too long.
    TooLarge,
    /// What differs.
    Differs(String),
}

/// Searches `program` in all `ways`; `fault` is planted into those with the reduction.
pub(super) fn compare(program: &Program, ways: Ways, fault: Option<Fault>) -> Compared {
    let program = Arc::new(program.clone());
    let seen = Arc::new(AtomicU32::new(0));
    let subject = Subject { program, seen, fault };
    match subject.compare(ways) {
        Ok(Some(agreed)) => Compared::Agreed(agreed),
        Ok(None) => Compared::TooLarge,
        Err(what) => Compared::Differs(what),
    }
}

struct Subject {
    program: Arc<Program>,
    seen: Arc<AtomicU32>,
    fault: Option<Fault>,
}

impl Subject {
    fn explore(&self, schedules: Schedules, bound: Option<u32>) -> Explore {
        let explore = Explore::new("selftest").schedules(schedules).bound(bound).minimise(false).max_steps(400);
        let explore = if bound.is_some() { explore.validate(false) } else { explore };
        match self.fault {
            Some(fault) if schedules == Schedules::Reduced => explore.plant(fault),
            _ => explore,
        }
    }

    fn run(&self, explore: Explore) -> Result<Report, String> {
        let report = explore.run(|machine: &Machine| set_up(&self.program, machine, &self.seen));
        if let Some(failure) = &report.failure {
            return Err(format!("a run fails ({:?}): {}", failure.kind, failure.trace.why));
        }
        if report.abandoned != 0 {
            return Err(format!("{} stacks were left behind", report.abandoned));
        }
        Ok(report)
    }

    fn compare(&self, ways: Ways) -> Result<Option<Agreed>, String> {
        let brute = self.run(self.explore(Schedules::All, None).collect_outcomes().max_executions(MOST))?;
        if brute.verdict != Verdict::Exhausted {
            return Ok(None);
        }
        let reduced = self.run(self.explore(Schedules::Reduced, None).collect_outcomes())?;
        same("with the reduction", &reduced.outcomes, &brute.outcomes)?;
        same("lock-order edges with the reduction", &edges(&reduced), &edges(&brute))?;
        same("IRQ usages with the reduction", &usages(&reduced), &usages(&brute))?;
        if reduced.executions > brute.executions {
            return Err(format!("{} executions with the reduction, {} without", reduced.executions, brute.executions));
        }
        if ways.jobs > 1 {
            let jobs = self.run(self.explore(Schedules::Reduced, None).collect_outcomes().jobs(ways.jobs))?;
            same(&format!("with the reduction on {} threads", ways.jobs), &jobs.outcomes, &brute.outcomes)?;
            same("lock-order edges on several threads", &edges(&jobs), &edges(&brute))?;
        }
        let mut bounded = 0;
        for bound in 0..=ways.bounds {
            let all = self.run(self.explore(Schedules::All, Some(bound)).collect_outcomes())?;
            let some = self.run(self.explore(Schedules::Reduced, Some(bound)).collect_outcomes())?;
            same(&format!("with the reduction and bound {bound}"), &some.outcomes, &all.outcomes)?;
            bounded += some.executions;
            if all.verdict == Verdict::Exhausted {
                break;
            }
        }
        if ways.stuck {
            self.compare_stuck(brute.outcomes.iter().any(|outcome| outcome.contains(' ') && waits(outcome)))?;
        }
        Ok(Some(Agreed {
            brute: brute.executions,
            reduced: reduced.executions,
            cut: reduced.cut,
            bounded,
            outcomes: brute.outcomes.len(),
            features: self.seen.load(Relaxed) | features(&brute),
        }))
    }

    /// The search that stops at stuck sets finds one if and only if a run leaves somebody blocked.
    fn compare_stuck(&self, expected: bool) -> Result<(), String> {
        let explore = self.explore(Schedules::Reduced, None);
        let settings = crate::search::Settings { contexts_return: true, ..explore.settings.clone() };
        let mut executor = Executor::new(&explore, Strategy::Reduced, settings);
        let found = loop {
            let end = executor.execute(&|machine: &Machine| set_up(&self.program, machine, &self.seen));
            if let RunEnd::Failed(failed) = end {
                break Some(failed);
            }
            if !executor.search(|search| search.backtrack()) {
                break None;
            }
        };
        if executor.abandoned != 0 {
            return Err(format!("{} stacks of a failing run were left behind", executor.abandoned));
        }
        match found {
            Some(failed) if !matches!(failed.kind, FailureKind::Deadlock | FailureKind::SelfDeadlock) => {
                Err(format!("a run fails ({:?}): {}", failed.kind, failed.message))
            }
            Some(failed) if !expected => {
                Err(format!("a stuck set is reported, but no run leaves anybody blocked: {}", failed.message))
            }
            None if expected => Err("a run leaves somebody blocked, but no stuck set is reported".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Behind the last bar stands who waits.
fn waiting(outcome: &str) -> &str {
    outcome.rsplit('|').next().unwrap_or("")
}

fn waits(outcome: &str) -> bool {
    !waiting(outcome).is_empty()
}

fn edges(report: &Report) -> BTreeSet<String> {
    report.locks.order_edges().map(|(from, to)| format!("{from} → {to}")).collect()
}

fn usages(report: &Report) -> BTreeSet<String> {
    let told = |usage: crate::validate::Usage| {
        format!(
            "{}{}{}",
            usage.node,
            if usage.in_handler { " in handler" } else { "" },
            if usage.irqs_on { " irqs on" } else { "" }
        )
    };
    report.locks.usages().map(told).collect()
}

fn features(report: &Report) -> u32 {
    let mut features = 0;
    for outcome in report.outcomes.iter().filter(|outcome| waits(outcome)) {
        let waiting = waiting(outcome);
        features |= Feature::Blocked.bit();
        if waiting.contains(":Lock:") {
            features |= Feature::BlockedOnLock.bit();
        }
        let stuck_handler =
            waiting.contains("handler") && waiting.split(" handler").skip(1).any(|one| !one.contains(":Enter:"));
        if stuck_handler {
            features |= Feature::BlockedInHandler.bit();
            if waiting.contains("task") && !waiting.contains(":Lock:") {
                features |= Feature::BlockedBelowHandler.bit();
            }
        }
    }
    if report.locks.order_edges().next().is_some() {
        features |= Feature::OrderEdge.bit();
    }
    if report.locks.usages().any(|usage| usage.in_handler) {
        features |= Feature::UsedInHandler.bit();
    }
    features
}

/// Insists that what the reduction found is what brute force found.
fn same(what: &str, found: &BTreeSet<String>, all: &BTreeSet<String>) -> Result<(), String> {
    if found == all {
        return Ok(());
    }
    let mut text = format!("{what}: {} instead of {}", found.len(), all.len());
    for missed in all.difference(found).take(3) {
        text.push_str(&format!("\n    missed: {missed}"));
    }
    for extra in found.difference(all).take(3) {
        text.push_str(&format!("\n    should not be: {extra}"));
    }
    Err(text)
}
