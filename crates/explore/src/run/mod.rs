//! The front door: a program is explored, and what came of it is told.
//!
//! ```text
//!   explore      what to explore, and how far
//!   parallel     the tree on several OS threads, each of which has an
//!   executor       executor: one run after another, as the search plans them
//!   minimise     of a failing run the one with the fewest preemptions
//!   token        the schedule of it in 80 characters; the run is written down as it is replayed
//!   report       the verdict, and all that was counted
//!   shown        progress on a terminal
//! ```
//!
//! A verdict is [`Exhausted`](Verdict::Exhausted) only if nothing ended the search early: every
//! limit is a value, and takes part in deciding it. A failure is told as it fails when it is run
//! again; one that does not is told as that.

pub(crate) mod executor;
mod explore;
mod minimise;
mod parallel;
mod report;
mod shown;
mod token;

use std::time::Instant;

use crate::limit::Limit;
use crate::machine::Machine;
use crate::machine::failed::{FailedRun, StuckLocks};
use crate::machine::spin::Spins;
use crate::trace::FailureKind;

use executor::{Replayed, calmly, no_room, replay};
use token::Token;

pub use explore::{Explore, Schedules};
pub use report::{Failure, Progress, Report, Verdict};
pub use token::ReplayError;

impl Explore {
    /// Explores `program`, which sets up one execution: it creates objects and adds tasks,
    /// handlers, hardware and conditions to the machine. It must do the same each time it is
    /// called.
    pub fn run(&self, program: impl Fn(&Machine) + Send + Sync) -> Report {
        let mut this = Explore { spins: Spins::default(), ..self.clone() };
        let shown = shown::Shown::on(&mut this);
        let report = calmly(|| this.run_this(program));
        drop(shown);
        report
    }

    fn run_this(&self, program: impl Fn(&Machine) + Send + Sync) -> Report {
        let started = Instant::now();
        let shared = parallel::Shared::new(self, started);
        let mut found = parallel::explore(self, &shared, &program);
        let mistaken = self.spins.mistaken(&found.users).map(|_| Limit::MistakenLoop);
        found.limit = found.limit.or(mistaken);
        let failure = found.failed.take().map(|failed| {
            let locks: Vec<_> = failed.locks.clone();
            let members: Vec<_> = locks.iter().map(StuckLocks::view).collect();
            let failure = self.tell(&program, failed);
            if !members.is_empty() {
                found.validator.deadlock_seen(&members, &failure.token);
            }
            failure
        });
        let limit = found.limit.filter(|_| failure.is_none());
        let ran = found.ran;
        let idle = found.expected_to_run.into_iter().filter(|(ctx, _)| !ran.contains(*ctx));
        let never_ran: Vec<String> = idle.map(|(_, what)| what).collect();
        let verdict = match (&failure, limit) {
            (Some(_), _) => Verdict::Found,
            (None, None) => Verdict::Exhausted,
            (None, Some(_)) => Verdict::BoundReached,
        };
        Report {
            verdict,
            failure,
            executions: found.executions,
            cut: found.cut,
            steps: found.steps,
            bound: self.settings.bound,
            limit,
            elapsed: started.elapsed(),
            outcomes: found.outcomes,
            traces: self.count_traces.then_some(found.traces.len() as u64),
            spins: self.spins.told(),
            probes: found.probes,
            unwound: found.unwound,
            locks: found.validator,
            abandoned: found.abandoned,
            never_ran,
            contexts: found.contexts,
        }
    }

    /// Runs the schedule of a token again.
    ///
    /// # Errors
    /// If it is not a token, or one of another program or another state of its source, or if
    /// failing runs have left so many stacks in this process that there is no room for more.
    pub fn replay(
        &self,
        token: &str,
        program: impl Fn(&Machine) + Send + Sync,
    ) -> Result<Failure, ReplayError> {
        let parsed = Token::parse(token)?;
        parsed.check(self)?;
        let this = Explore { spins: Spins::default(), ..self.clone() };
        let replayed = replay(&this, &program, parsed.replay());
        let Replayed { failed, recorder, .. } = replayed.map_err(ReplayError::NoRoom)?;
        match failed {
            Some(failed) if parsed.fits(&failed, &recorder) => Ok(Failure {
                kind: failed.kind,
                token: token.to_owned(),
                trace: recorder.trace(failed, None),
            }),
            _ => Err(ReplayError::Stale),
        }
    }

    /// Makes a failing run fit for people.
    fn tell(&self, program: &(impl Fn(&Machine) + Send + Sync), failed: FailedRun) -> Failure {
        if failed.kind == FailureKind::Nondeterministic {
            return Failure::unrepeatable(failed);
        }
        let (mut failed, minimal) = minimise::minimise(self, program, failed);
        if let Some(token) = Token::of(self, program, &failed)
            && let Ok(Replayed { failed: Some(again), recorder, .. }) =
                replay(self, program, token.replay())
        {
            let trace = recorder.trace(again, Some(minimal));
            return Failure { kind: trace.kind, token: token.to_string(), trace };
        }
        if let Some(limit) = no_room() {
            failed.message = format!("{} The run cannot be shown: {limit}.", failed.message);
            return Failure::unrepeatable(failed);
        }
        failed.message = format!(
            "The program is not deterministic: a run failed once and not again when the same schedule was run. {}",
            failed.message
        );
        failed.kind = FailureKind::Nondeterministic;
        Failure::unrepeatable(failed)
    }
}
