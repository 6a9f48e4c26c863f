//! How fast the explorer is on this machine: the standard programs, measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, Ordering::SeqCst};
use std::time::Duration;

use doorbell_platform::{
    Atomic, AtomicInt, CpuId, Lock, LockClass, Mutex, Platform, Vector, WaitType,
};
use serde::Serialize;

use crate::machine::Machine;
use crate::run::{Explore, Verdict};
use crate::sim::Sim;

/// What was measured of one program.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The program, such as `inc 2x8`: two tasks, eight steps each.
    pub program: &'static str,
    /// How many OS threads explored it.
    pub jobs: usize,
    /// Executions until the tree was exhausted.
    pub executions: u64,
    /// The least number of executions that can do that, where it is known.
    pub optimum: Option<u64>,
    /// Visible steps in all of them.
    pub steps: u64,
    /// How long one exhaustive search takes, in seconds: the fastest of several.
    pub seconds: f64,
    /// Executions per second and OS thread.
    pub executions_per_second: f64,
    /// Visible steps per second, of all OS threads together.
    pub steps_per_second: f64,
    /// How many times as fast as with one OS thread, if that was measured, too.
    pub scaling: Option<f64>,
    /// The largest resident set of the process so far, in KiB, where the system tells.
    pub peak_kib: Option<u64>,
}

/// A program to be measured.
pub struct Program {
    name: &'static str,
    optimum: Option<u64>,
    set_up: fn(&Machine),
}

doorbell_platform::opaque_debug!([] Program; name);

impl Program {
    /// The program's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Sets up one execution.
    pub fn set_up(&self, machine: &Machine) {
        (self.set_up)(machine);
    }
}

/// Returns the standard programs, those with a million executions and more last.
pub fn programs() -> &'static [Program] {
    &PROGRAMS
}

static PROGRAMS: [Program; 8] = [
    Program { name: "inc 2x8", optimum: Some(12_870), set_up: inc::<2, 8> },
    Program { name: "inc 3x3", optimum: Some(1_680), set_up: inc::<3, 3> },
    Program { name: "racy 2x3", optimum: Some(328), set_up: racy::<2, 3> },
    Program { name: "mutex 3x3", optimum: Some(1_680), set_up: mutex::<3, 3> },
    Program { name: "phil 5", optimum: None, set_up: philosophers::<5> },
    Program { name: "locks 3x2", optimum: None, set_up: nested::<3, 2> },
    Program { name: "irq 2x2", optimum: None, set_up: interrupts::<2, 2> },
    Program { name: "inc 2x12", optimum: Some(2_704_156), set_up: inc::<2, 12> },
];

/// For how long a small program is explored over and over.
const MEASURE: Duration = Duration::from_millis(400);

/// Measures all programs, the last one also with 2 and 4 OS threads where there are as many CPUs.
/// Each row is handed over as soon as it is known. Ends soon after `stop` is set, without the row
/// that is being measured.
pub fn explore(stop: &Arc<AtomicBool>, mut row: impl FnMut(Row)) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    for (index, program) in PROGRAMS.iter().enumerate() {
        let large = index == PROGRAMS.len() - 1;
        let jobs: &[usize] = if large { &[1, 2, 4] } else { &[1] };
        let mut alone = None;
        for &jobs in jobs.iter().filter(|&&jobs| jobs == 1 || jobs <= cpus) {
            let Some(mut measured) = measure(program, jobs, stop) else { return };
            let rate = measured.executions_per_second * jobs as f64;
            measured.scaling = alone.map(|alone| rate / alone);
            alone.get_or_insert(rate);
            row(measured);
        }
    }
}

/// Explores `program` until it is exhausted, again and again for a while, and reports the fastest
/// time; `None` if `stop` was set before that.
///
/// # Panics
/// If the search fails or needs other than the known number of executions.
pub fn measure(program: &Program, jobs: usize, stop: &Arc<AtomicBool>) -> Option<Row> {
    let mut best: Option<crate::Report> = None;
    let mut spent = Duration::ZERO;
    while spent < MEASURE {
        let report = Explore::new(program.name)
            .jobs(jobs)
            .stop_when(Arc::clone(stop))
            .run(|machine| program.set_up(machine));
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        assert!(report.verdict == Verdict::Exhausted, "{}: {:?}", program.name, report.failure);
        if let (Some(optimum), 1) = (program.optimum, jobs) {
            assert_eq!(report.executions, optimum, "{}", program.name);
        }
        spent += report.elapsed;
        if best.as_ref().is_none_or(|best| report.elapsed < best.elapsed) {
            best = Some(report);
        }
    }
    let report = best?;
    let seconds = report.elapsed.as_secs_f64().max(1e-9);
    Some(Row {
        program: program.name,
        jobs,
        executions: report.executions,
        optimum: program.optimum,
        steps: report.steps,
        seconds,
        executions_per_second: report.executions as f64 / seconds / jobs as f64,
        steps_per_second: report.steps as f64 / seconds,
        scaling: None,
        peak_kib: peak_kib(),
    })
}

/// Returns the largest resident set that this process has had, in KiB; `None` where `/proc` does
/// not tell.
pub fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

type Word = <Sim as Platform>::AtomicU64;

static SLEEPING: LockClass = LockClass::new("mutex", WaitType::Sleep);
static OUTER: LockClass = LockClass::new("outer", WaitType::Spin);
static INNER: LockClass = LockClass::new("inner", WaitType::Spin);

/// `N` tasks, each doing `f` of what they share and its own number.
fn tasks<T: 'static>(n: usize, machine: &Machine, shared: T, f: fn(&T, usize)) {
    let shared = Arc::new(shared);
    for number in 0..n {
        let shared = Arc::clone(&shared);
        machine.task("task", move || f(&shared, number));
    }
}

fn inc<const N: usize, const K: usize>(machine: &Machine) {
    tasks(N, machine, Word::new(0), |word, _| {
        for _ in 0..K {
            word.fetch_add(1, SeqCst);
        }
    });
}

fn racy<const N: usize, const K: usize>(machine: &Machine) {
    tasks(N, machine, Word::new(0), |word, _| {
        for _ in 0..K {
            let value = word.load(SeqCst);
            word.store(value + 1, SeqCst);
        }
    });
}

fn mutex<const N: usize, const K: usize>(machine: &Machine) {
    tasks(N, machine, Mutex::<Sim, u64>::new(&SLEEPING, 0), |mutex, _| {
        for _ in 0..K {
            *mutex.lock() += 1;
        }
    });
}

/// Each takes the two forks beside it, the lower one first.
fn philosophers<const N: usize>(machine: &Machine) {
    let forks: [Mutex<Sim, ()>; N] = std::array::from_fn(|_| Mutex::new(&SLEEPING, ()));
    tasks(N, machine, forks, |forks, seat| {
        let (left, right) = (seat, (seat + 1) % N);
        let _first = forks[left.min(right)].lock();
        let _second = forks[left.max(right)].lock();
    });
}

/// Two spin locks, one in the other: most steps are acquisitions, which the lock validator looks
/// at.
fn nested<const N: usize, const K: usize>(machine: &Machine) {
    let locks = (Lock::<Sim, u64>::new(&OUTER, 0), Lock::<Sim, u64>::new(&INNER, 0));
    tasks(N, machine, locks, |(outer, inner), _| {
        for _ in 0..K {
            let mut outer = outer.lock();
            *inner.lock() += 1;
            *outer += 1;
        }
    });
}

/// `N` CPUs whose tasks and handlers share a lock that is taken with interrupts off; each task
/// raises its handler.
fn interrupts<const N: usize, const K: usize>(machine: &Machine) {
    let shared = Arc::new(Lock::<Sim, u64>::new(&OUTER, 0));
    for cpu in 0..N as u32 {
        let (in_handler, in_task) = (Arc::clone(&shared), Arc::clone(&shared));
        let handler =
            machine.handler(CpuId(cpu), Vector(0x40), "handler", move || *in_handler.lock() += 1);
        machine.task_on(CpuId(cpu), "task", move || {
            for round in 0..K {
                if round == 0 {
                    handler.raise();
                }
                *in_task.lock_irqsave() += 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_standard_program_is_exhausted_in_the_known_number_of_executions() {
        for program in programs().iter().filter(|program| program.name() != "inc 2x12") {
            let report = Explore::new(program.name).run(|machine| program.set_up(machine));
            report.assert_exhausted();
            assert!(report.executions > 1, "{}", program.name);
            if let Some(optimum) = program.optimum {
                assert_eq!(report.executions, optimum, "{}", program.name);
            }
        }
    }

    #[test]
    fn a_measurement_that_is_stopped_has_no_rows() {
        explore(&Arc::new(AtomicBool::new(true)), |row| panic!("{row:?}"));
    }
}
