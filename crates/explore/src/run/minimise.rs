//! Making a failing run minimal in preemptions.

use std::time::{Duration, Instant};

use crate::limit::Until;
use crate::machine::Machine;
use crate::machine::failed::FailedRun;
use crate::run::executor::{self, Executor, RunEnd, calmly, room_for_tries};
use crate::run::explore::Explore;
use crate::search::{Replay, Settings, Strategy};

/// How long the search for a smaller failing run may take, all bounds together.
const PATIENCE: Duration = Duration::from_secs(4);

/// A failing run with the fewest preemptions, and whether that is known: the bound is raised from 0
/// until a run fails.
pub(crate) fn minimise(
    explore: &Explore,
    program: &(impl Fn(&Machine) + Send + Sync),
    failed: FailedRun,
) -> (FailedRun, bool) {
    let Some(preemptions) = preemptions(explore, program, &failed) else { return (failed, false) };
    if !explore.minimise {
        return (failed, preemptions == 0);
    }
    let started = Instant::now();
    for bound in 0..preemptions {
        match calmly(|| search(explore, program, bound, started)) {
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

fn search(
    explore: &Explore,
    program: &(impl Fn(&Machine) + Send + Sync),
    bound: u32,
    started: Instant,
) -> Bounded {
    let until = Until {
        deadline: started.checked_add(PATIENCE).map(|end| (end, PATIENCE)),
        stop: explore.stop.clone(),
    };
    let settings =
        Settings { bound: Some(bound), until: until.clone(), ..explore.settings.clone() };
    let mut executor = Executor::new(explore, Strategy::Reduced, settings);
    for run in 0u64.. {
        match executor.execute(program) {
            RunEnd::Failed(failed) => return Bounded::Failed(failed),
            RunEnd::Halted(_) => return Bounded::Unknown,
            RunEnd::Ended => {}
        }
        if !room_for_tries() || run.is_multiple_of(64) && until.reached().is_some() {
            return Bounded::Unknown;
        }
        if !executor.search(|search| search.backtrack()) {
            return Bounded::Passed;
        }
    }
    unreachable!("a tree has an end")
}

fn preemptions(
    explore: &Explore,
    program: &(impl Fn(&Machine) + Send + Sync),
    failed: &FailedRun,
) -> Option<u32> {
    let replay = Replay { schedule: failed.schedule.clone(), ..Replay::default() };
    executor::replay(explore, program, replay).ok().map(|replayed| replayed.recorder.preemptions())
}
