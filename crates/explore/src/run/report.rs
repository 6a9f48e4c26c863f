//! What came of an exploration.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use doorbell_platform::LockClass;
use serde::Serialize;

use crate::ids::{CtxId, CtxSet};
use crate::limit::Limit;
use crate::machine::failed::FailedRun;
use crate::machine::recorder::Recorder;
use crate::machine::spin::SpinLoop;
use crate::trace::{FailureKind, Trace};
use crate::validate::{Answer, Question, Rules, Validator};

/// How far a search got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A failing run was found.
    Found,
    /// Every interleaving that matters was run, and none fails.
    Exhausted,
    /// The search ended at its bound or budget, and no run so far fails.
    BoundReached,
}

/// A failing run.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// What [`Explore::replay`](crate::Explore::replay) takes to run it again. Empty if the program
    /// is not deterministic.
    pub token: String,
    /// The run.
    pub trace: Trace,
}

/// What came of an exploration.
#[derive(Debug)]
pub struct Report {
    /// How far the search got.
    pub verdict: Verdict,
    /// The failing run, if one was found.
    pub failure: Option<Failure>,
    /// How many executions were run to their end. With
    /// [`Schedules::Reduced`](crate::Schedules::Reduced) on one OS thread and without a bound no
    /// two of them are equivalent.
    pub executions: u64,
    /// How many further executions were cut, because all that could follow was run elsewhere.
    pub cut: u64,
    /// How many visible steps were taken, those of replayed prefixes included.
    pub steps: u64,
    /// The bound on preemptions under which the search ran.
    pub bound: Option<u32>,
    /// What ended the search early. `None` if nothing did: it found a failing run, or ran all there
    /// are.
    pub limit: Option<Limit>,
    /// How long it took.
    pub elapsed: Duration,
    /// The outcomes, if they were collected.
    pub outcomes: BTreeSet<String>,
    /// How many of the executions are not equivalent to another one, if that was counted.
    pub traces: Option<u64>,
    /// The loops with `cpu_relax` that somebody came to rest in, each with what it does when nobody
    /// writes.
    pub spins: Vec<SpinLoop>,
    /// How many runs it took to find that out. They are no executions.
    pub probes: u64,
    /// How many executions there were in which destructors took steps while a panic unwound. Those
    /// steps were explored as one with the step before them: nobody else had a turn between.
    pub unwound: u64,
    /// What the lock validator has seen.
    pub locks: Validator,
    /// How many stacks of failing runs were left behind.
    pub abandoned: usize,
    /// What was set up and ran in no execution, though nothing says that it need not
    /// ([`HandlerHandle::may_not_run`](crate::HandlerHandle::may_not_run)): handlers that were
    /// never entered, tasks and hardware that never took a step. Of these, an exhausted search says
    /// nothing.
    pub never_ran: Vec<String>,
    /// The names of the contexts, by number, as the last execution had them.
    pub contexts: Vec<String>,
}

impl Report {
    /// Insists that every interleaving was run, none fails, and all that was set up ran in some.
    ///
    /// # Panics
    /// With the trace of the failing run, or what ended the search early, or [what never
    /// ran](Report::never_ran).
    #[track_caller]
    pub fn assert_exhausted(&self) {
        if let Some(failure) = &self.failure {
            let trace = crate::render::text(&failure.trace, &crate::render::Options::default());
            panic!("{trace}\n{}", failure.again());
        }
        if let Some(limit) = self.limit {
            panic!("not exhausted: {limit}; of {} executions none failed", self.executions);
        }
        assert!(
            self.never_ran.is_empty(),
            "never ran, in any of {} executions: {}; if that is meant, `may_not_run` on its handle says so",
            self.executions,
            self.never_ran.join(", "),
        );
    }

    /// Insists that a failing run of that kind was found, and returns it.
    ///
    /// # Panics
    /// If there is none, or it fails in another way.
    #[track_caller]
    pub fn assert_found(&self, kind: FailureKind) -> &Failure {
        match &self.failure {
            Some(failure) if failure.kind == kind => failure,
            Some(failure) => {
                let trace = crate::render::text(&failure.trace, &crate::render::Options::default());
                panic!("expected {kind:?}, found {:?}:\n{trace}\n{}", failure.kind, failure.again())
            }
            None => {
                let limit = self.limit.map(|limit| format!(", then {limit}")).unwrap_or_default();
                panic!("expected {kind:?}, but {} executions passed{limit}", self.executions)
            }
        }
    }
}

impl Report {
    /// Returns what the lock validator asked, and what the search answers. Within the scope of the
    /// program, an inversion is [`Reachable`](Answer::Reachable) if the run that was found is the
    /// deadlock it asks for, and [`Unreachable`](Answer::Unreachable) if the search was exhaustive
    /// and has not found it.
    pub fn lock_questions(&self) -> Vec<(&Question, Answer)> {
        let exhausted = self.verdict == Verdict::Exhausted;
        self.locks
            .questions()
            .into_iter()
            .map(|question| (question, self.locks.answer(question, exhausted)))
            .collect()
    }

    /// Returns the classes of the locks that contexts took (or tried to), ordered by name. What is
    /// excused for not being among them in any exploration is better excused by name.
    pub fn lock_classes(&self) -> impl Iterator<Item = &'static LockClass> {
        let mut classes: Vec<_> = self.locks.usages().map(|usage| usage.node.class).collect();
        classes.dedup();
        classes.into_iter()
    }

    /// Returns a report of each question and its answer. If the run that was found answers one,
    /// those that it does not answer are only counted.
    pub fn lock_report(&self) -> String {
        let name =
            |ctx: CtxId| self.contexts.get(ctx.index()).cloned().unwrap_or_else(|| ctx.to_string());
        let mut questions = self.lock_questions();
        let all = questions.len();
        if questions.iter().any(|(_, answer)| matches!(answer, Answer::Reachable { .. })) {
            questions.retain(|(_, answer)| *answer != Answer::Unknown);
        }
        let describe = |(question, answer): &(&Question, Answer)| {
            self.locks.describe(question, Some(answer), &name)
        };
        let mut texts: Vec<_> = questions.iter().map(describe).collect();
        if questions.len() < all {
            texts.push(format!(
                "({} more questioned, and not answered by this run)",
                all - questions.len()
            ));
        }
        texts.join("\n\n")
    }
}

impl Failure {
    /// How to run it again, in a sentence.
    fn again(&self) -> String {
        if self.token.is_empty() {
            let why = match self.kind {
                FailureKind::Nondeterministic => "the program is not deterministic",
                _ => "this process has left too many stacks behind",
            };
            return format!("it cannot be run again: {why}");
        }
        format!(
            "run it again with `Explore::replay(\"{}\", …)` in place of `Explore::run`",
            self.token
        )
    }

    /// A run that cannot be run again has neither token nor steps.
    pub(crate) fn unrepeatable(failed: FailedRun) -> Failure {
        Failure {
            kind: failed.kind,
            token: String::new(),
            trace: Recorder::default().trace(failed, None),
        }
    }
}

/// How far a running search has got.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Executions so far.
    pub executions: u64,
    /// Executions cut so far.
    pub cut: u64,
    /// Steps so far.
    pub steps: u64,
    /// The explored share of the tree, from 0 to 1, if what is known of its breadth now is all
    /// there is.
    pub share: f64,
    /// Time since the start.
    pub elapsed: Duration,
}

/// What a search, or one thread of it, has found.
pub(crate) struct Found {
    pub executions: u64,
    pub cut: u64,
    pub steps: u64,
    /// What kept it from exhausting the tree.
    pub limit: Option<Limit>,
    pub failed: Option<FailedRun>,
    pub outcomes: BTreeSet<String>,
    pub traces: HashSet<u64>,
    pub probes: u64,
    pub unwound: u64,
    /// The contexts that have used each object.
    pub users: Vec<CtxSet>,
    pub validator: Validator,
    pub abandoned: usize,
    pub contexts: Vec<String>,
    /// The contexts that ran in some execution, and those of the set-up that should have.
    pub ran: CtxSet,
    pub expected_to_run: Vec<(CtxId, String)>,
}

impl Found {
    pub(crate) fn new() -> Found {
        Found {
            executions: 0,
            cut: 0,
            steps: 0,
            limit: None,
            failed: None,
            outcomes: BTreeSet::new(),
            traces: HashSet::new(),
            probes: 0,
            unwound: 0,
            users: Vec::new(),
            validator: Validator::new(Rules::default()),
            abandoned: 0,
            contexts: Vec::new(),
            ran: CtxSet::EMPTY,
            expected_to_run: Vec::new(),
        }
    }

    /// Adds what another thread has found.
    pub(crate) fn add(&mut self, found: Found) {
        self.executions += found.executions;
        self.cut += found.cut;
        self.steps += found.steps;
        self.limit = self.limit.or(found.limit);
        self.failed = [self.failed.take(), found.failed]
            .into_iter()
            .flatten()
            .min_by_key(|failed| failed.schedule.len());
        self.outcomes.extend(found.outcomes);
        self.traces.extend(found.traces);
        self.probes += found.probes;
        self.unwound += found.unwound;
        if self.users.len() < found.users.len() {
            self.users.resize(found.users.len(), CtxSet::EMPTY);
        }
        self.users.iter_mut().zip(found.users).for_each(|(all, by)| all.0 |= by.0);
        self.validator.merge(found.validator);
        self.abandoned += found.abandoned;
        if found.contexts.len() > self.contexts.len() {
            self.contexts = found.contexts;
        }
        self.ran.0 |= found.ran.0;
        if found.expected_to_run.len() > self.expected_to_run.len() {
            self.expected_to_run = found.expected_to_run;
        }
    }
}
