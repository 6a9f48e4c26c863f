//! One program, searched in every way, and what must agree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::coverage::Feature;
use super::interpret::set_up;
use super::program::Program;
use crate::machine::Machine;
use crate::run::executor::{Executor, RunEnd};
use crate::run::{Explore, Report, Schedules, Verdict};
use crate::search::{Fault, Strategy};
use crate::trace::FailureKind;

/// Executions that brute force may take for one program.
const MOST: u64 = 3_000;

/// The comparisons that are made.
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
        let explore = Explore::new("selftest")
            .schedules(schedules)
            .bound(bound)
            .minimise(false)
            .max_steps(400);
        let explore = if bound.is_some() { explore.validate(false) } else { explore };
        match self.fault {
            Some(fault) if schedules == Schedules::Reduced => explore.plant(fault),
            _ => explore,
        }
    }

    fn run(&self, explore: Explore) -> Result<Report, String> {
        self.run_as(explore, false)
    }

    fn run_as(&self, explore: Explore, plain: bool) -> Result<Report, String> {
        let report =
            explore.run(|machine: &Machine| set_up(&self.program, machine, &self.seen, plain));
        if let Some(failure) = &report.failure {
            return Err(format!("a run fails ({:?}): {}", failure.kind, failure.trace.why));
        }
        if report.abandoned != 0 {
            return Err(format!("{} stacks were left behind", report.abandoned));
        }
        Ok(report)
    }

    fn compare(&self, ways: Ways) -> Result<Option<Agreed>, String> {
        let brute = self
            .explore(Schedules::All, None)
            .collect_outcomes()
            .count_traces()
            .max_executions(MOST);
        let counted = self.program.polls();
        let brute = self.run_as(brute, counted)?;
        if brute.verdict != Verdict::Exhausted {
            return Ok(None);
        }
        let reduced = self.run(self.explore(Schedules::Reduced, None).collect_outcomes())?;
        let told = |report: &Report| match counted {
            true => report.outcomes.iter().map(|outcome| without_places_below(outcome)).collect(),
            false => report.outcomes.clone(),
        };
        let expected = &told(&brute);
        same("with the reduction", &told(&reduced), expected)?;
        same("lock-order edges with the reduction", &edges(&reduced), &edges(&brute))?;
        same("IRQ usages with the reduction", &usages(&reduced), &usages(&brute))?;
        let lapsing = self.explore(Schedules::All, None).count_traces().max_executions(2 * MOST);
        let all = if counted { &self.run(lapsing.collect_outcomes())? } else { &brute };
        let traces = all.traces.unwrap_or_default();
        // How much a step does whose destructors take others shows when it is done: such a context
        // is run more often than it need be.
        let optimal = all.verdict == Verdict::Exhausted && !self.program.panics();
        if optimal && reduced.executions != traces || reduced.executions > all.executions {
            return Err(format!(
                "executions: {} with the reduction, {traces} are not equivalent",
                reduced.executions
            ));
        }
        if ways.jobs > 1 {
            let jobs = self
                .run(self.explore(Schedules::Reduced, None).collect_outcomes().jobs(ways.jobs))?;
            same(&format!("with the reduction on {} threads", ways.jobs), &told(&jobs), expected)?;
            same("lock-order edges on several threads", &edges(&jobs), &edges(&brute))?;
        }
        let mut bounded = 0;
        for bound in 0..=ways.bounds {
            let all = self.run(self.explore(Schedules::All, Some(bound)).collect_outcomes())?;
            let some =
                self.run(self.explore(Schedules::Reduced, Some(bound)).collect_outcomes())?;
            same(&format!("with the reduction and bound {bound}"), &some.outcomes, &all.outcomes)?;
            bounded += some.executions;
            if all.verdict == Verdict::Exhausted {
                break;
            }
        }
        if ways.stuck {
            self.compare_stuck(brute.outcomes.iter().any(|outcome| waits(outcome)))?;
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
        let settings =
            crate::search::Settings { contexts_return: true, ..explore.settings.clone() };
        let mut executor = Executor::new(&explore, Strategy::Reduced, settings);
        let found = loop {
            let end = executor
                .execute(&|machine: &Machine| set_up(&self.program, machine, &self.seen, false));
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
            Some(failed)
                if !matches!(failed.kind, FailureKind::Deadlock | FailureKind::SelfDeadlock) =>
            {
                Err(format!("a run fails ({:?}): {}", failed.kind, failed.message))
            }
            Some(failed) if !expected => Err(format!(
                "a stuck set is reported, but no run leaves anybody blocked: {}",
                failed.message
            )),
            None if expected => {
                Err("a run leaves somebody blocked, but no stuck set is reported".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// One of those who are blocked for ever in an outcome.
#[derive(PartialEq, Eq, Debug)]
struct Blocked<'a> {
    name: &'a str,
    /// What it would do next.
    step: &'a str,
    /// The context does not wait for that itself, but stands still under a handler.
    below: bool,
}

impl Blocked<'_> {
    /// Whether it is a handler that has begun.
    fn in_handler(&self) -> bool {
        self.name.starts_with("handler") && self.step != "Enter"
    }

    fn on_lock(&self) -> bool {
        self.step == "Lock" && !self.below
    }
}

/// Returns who is blocked in an outcome: behind its last bar, in pieces ` name:step:object` or
/// ` name:step:object:below`. Names may have spaces and no colons, the rest has no spaces.
fn blocked(outcome: &str) -> Vec<Blocked<'_>> {
    let mut rest = outcome.rsplit('|').next().unwrap_or("");
    let mut blocked = Vec::new();
    while let Some((name, fields)) = rest.split_once(':') {
        let (fields, others) = fields.split_at(fields.find(' ').unwrap_or(fields.len()));
        let mut fields = fields.split(':');
        let step = fields.next().unwrap_or("");
        blocked.push(Blocked {
            name: name.trim_start(),
            step,
            below: fields.nth(1) == Some("below"),
        });
        rest = others;
    }
    blocked
}

/// An outcome that does not tell at which step somebody stands still under a handler: the oracle
/// does not count looks.
fn without_places_below(outcome: &str) -> String {
    let (state, _) = outcome.rsplit_once('|').unwrap_or((outcome, ""));
    let blocked = blocked(outcome).into_iter().map(|one| match one.below {
        true => format!(" {}:below", one.name),
        false => format!(" {}:{}", one.name, one.step),
    });
    format!("{state}|{}", blocked.collect::<String>())
}

fn waits(outcome: &str) -> bool {
    !blocked(outcome).is_empty()
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
    for one in report.outcomes.iter().flat_map(|outcome| blocked(outcome)) {
        features |= Feature::Blocked.bit();
        for (feature, there) in [
            (Feature::BlockedOnLock, one.on_lock()),
            (Feature::BlockedInHandler, one.in_handler() && !one.below),
            (Feature::BlockedBelowHandler, one.below),
        ] {
            features |= if there { feature.bit() } else { 0 };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::program::{Act, Handler};

    fn program(tasks: Vec<Vec<Act>>, handlers: Vec<Handler>) -> Program {
        Program { tasks, handlers, hardware: Vec::new(), mutex: false }
    }

    /// What its outcomes are, by brute force and with the reduction.
    fn outcomes(program: Program) -> [BTreeSet<String>; 2] {
        let subject = Subject { program: Arc::new(program), seen: Arc::default(), fault: None };
        [Schedules::All, Schedules::Reduced].map(|schedules| {
            subject
                .run(subject.explore(schedules, None).collect_outcomes())
                .expect("it does not fail")
                .outcomes
        })
    }

    #[test]
    fn who_is_blocked_is_read_out_of_an_outcome_exactly() {
        let outcome = "x=0 y=0 f=0 g=0 |1|>||| task 0:Lock:5:below handler 0:Lock:5 hardware:Await:9 handler 1:Enter:7";
        let one = |name, step, below| Blocked { name, step, below };
        let all = [
            one("task 0", "Lock", true),
            one("handler 0", "Lock", false),
            one("hardware", "Await", false),
            one("handler 1", "Enter", false),
        ];
        assert_eq!(blocked(outcome), all);
        assert_eq!(all.each_ref().map(Blocked::on_lock), [false, true, false, false]);
        assert_eq!(all.each_ref().map(Blocked::in_handler), [false, true, false, false]);
        assert!(!waits("x=0 y=0 f=0 g=0 |1|>|||"));
    }

    #[test]
    fn outcomes_in_which_somebody_is_blocked_are_compared_like_the_others() {
        let crossed = |first| vec![Act::Lock(first, vec![Act::Lock(1 - first, vec![])])];
        let [brute, reduced] = outcomes(program(vec![crossed(0), crossed(1)], vec![]));
        assert_eq!(brute, reduced);
        assert_eq!(brute.iter().filter(|outcome| waits(outcome)).count(), 1, "{brute:?}");
        assert_eq!(brute.iter().filter(|outcome| !waits(outcome)).count(), 1, "{brute:?}");
    }

    #[test]
    fn a_task_below_a_handler_that_waits_for_its_lock_does_not_itself_wait() {
        let task = vec![Act::Raise(0), Act::Lock(0, vec![Act::Load(0)])];
        let handler = Handler { cpu: 0, acts: vec![Act::Lock(0, vec![])] };
        let [brute, reduced] = outcomes(program(vec![task], vec![handler]));
        assert_eq!(brute, reduced);
        let stuck: Vec<_> = brute.iter().filter(|outcome| waits(outcome)).collect();
        assert!(!stuck.is_empty());
        for outcome in stuck {
            let blocked = blocked(outcome);
            let by = |name| blocked.iter().find(|one| one.name == name).expect("it is blocked");
            assert!(by("task 0").below && !by("task 0").on_lock(), "{outcome}");
            assert!(by("handler 0").in_handler() && by("handler 0").on_lock(), "{outcome}");
        }
    }
}
