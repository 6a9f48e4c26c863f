//! Making a failing run minimal in preemptions.

use std::time::{Duration, Instant};

use crate::executor::{Executor, FailedRun, RunEnd};
use crate::explore::Explore;
use crate::machine::Machine;
use crate::search::{Replay, Settings, Strategy};

/// How long the search for a smaller failing run may take, all bounds together.
const PATIENCE: Duration = Duration::from_secs(4);

/// A failing run with the fewest preemptions, and whether that is known: the bound is raised from 0 until a run fails.
pub(crate) fn minimise(
    explore: &Explore,
    program: &(impl Fn(&Machine) + Send + Sync),
    failed: FailedRun,
) -> (FailedRun, bool) {
    let preemptions = preemptions(explore, program, &failed);
    if !explore.minimise {
        return (failed, preemptions == 0);
    }
    let started = Instant::now();
    for bound in 0..preemptions {
        match search(explore, program, bound, started) {
            Bounded::Failed(smaller) if smaller.kind == failed.kind => return (smaller, true),
            Bounded::Passed => {}
            // A run that fails in another way hides what comes after it.
            Bounded::Failed(_) | Bounded::Unknown => return (failed, false),
        }
    }
    (failed, true)
}

enum Bounded {
    Failed(FailedRun),
    Passed,
    Unknown,
}

fn search(explore: &Explore, program: &(impl Fn(&Machine) + Send + Sync), bound: u32, started: Instant) -> Bounded {
    let settings = Settings { bound: Some(bound), ..explore.settings.clone() };
    let mut executor = Executor::new(explore, Strategy::Reduced, settings);
    for run in 0u64.. {
        if let RunEnd::Failed(failed) = executor.execute(program) {
            return Bounded::Failed(failed);
        }
        if run.is_multiple_of(64) && started.elapsed() > PATIENCE {
            return Bounded::Unknown;
        }
        if !executor.search(|search| search.backtrack()) {
            return Bounded::Passed;
        }
    }
    unreachable!("a tree has an end")
}

fn preemptions(explore: &Explore, program: &(impl Fn(&Machine) + Send + Sync), failed: &FailedRun) -> u32 {
    let replay = Replay { schedule: failed.schedule.clone(), ..Replay::default() };
    let (_, recorder) = Executor::for_replay(explore, true).replay(program, replay);
    recorder.preemptions()
}
