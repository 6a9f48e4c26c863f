//! What ends a search before all has been run: each limit by its name.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::count::count_of;

/// What ended a search early, so that it is not exhaustive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The number of executions ([`Explore::max_executions`](crate::Explore::max_executions)).
    Executions(u64),
    /// The number of random schedules that are drawn if nothing else limits them
    /// ([`Explore::DEFAULT_SAMPLES`](crate::Explore::DEFAULT_SAMPLES)).
    Samples(u64),
    /// The time ([`Explore::budget`](crate::Explore::budget)).
    Budget(Duration),
    /// The flag of [`Explore::stop_when`](crate::Explore::stop_when).
    Stopped,
    /// The bound on preemptions, within which all has been run
    /// ([`Explore::bound`](crate::Explore::bound)).
    Preemptions(u32),
    /// The number of times that a context may give up a wait while others can go on
    /// ([`Explore::lapses`](crate::Explore::lapses)).
    Lapses(u32),
    /// What is known of a loop: it was taken for one that only waits for others, and others use
    /// what it changes ([`Report::spins`](crate::Report::spins)).
    MistakenLoop,
    /// The number of contexts that never ended, whose stacks one search leaves behind.
    AbandonedStacks(usize),
    /// The number of those that all searches of the process may leave behind together.
    AbandonedByProcess(usize),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Executions(most) => write!(f, "the limit of {most} executions was reached"),
            Limit::Samples(most) => write!(
                f,
                "{most} random schedules were run, which is the limit where none is stated (`Explore::max_executions`)"
            ),
            Limit::Budget(time) => write!(f, "the budget of {time:?} was spent"),
            Limit::Stopped => f.write_str("it was told to stop"),
            Limit::Preemptions(most) => {
                write!(f, "runs with more than {} were left out", count_of(*most as usize, "preemption"))
            }
            Limit::Lapses(most) => {
                write!(
                    f,
                    "runs in which a context gives up more than {} while others can go on were left out",
                    count_of(*most as usize, "wait")
                )
            }
            Limit::MistakenLoop => {
                f.write_str("a loop was taken for one that only waits for others, and others use what it changes")
            }
            Limit::AbandonedStacks(most) => {
                write!(
                    f,
                    "{most} contexts that wait for ever left their stacks behind, which is the most for one search"
                )
            }
            Limit::AbandonedByProcess(most) => {
                write!(f, "all searches of this process have left {most} stacks behind, which is the most for them")
            }
        }
    }
}

/// Until when a search goes on: what it looks at now and then, also while an execution runs.
#[derive(Clone, Default)]
pub(crate) struct Until {
    pub deadline: Option<(Instant, Duration)>,
    pub stop: Option<Arc<AtomicBool>>,
}

impl Until {
    /// What has been reached by now.
    pub(crate) fn reached(&self) -> Option<Limit> {
        if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Some(Limit::Stopped);
        }
        let (_, budget) = self.deadline.filter(|(deadline, _)| Instant::now() >= *deadline)?;
        Some(Limit::Budget(budget))
    }
}
