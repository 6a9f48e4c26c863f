//! The search tested against brute force.
//!
//! Random programs of two or three CPUs, with locks, handlers, inter-processor interrupts, nested
//! enables, wake-ups and retry loops, are searched in two ways: with the reduction, and by running
//! every schedule there is. What can come out must be the same: memory, every value that anyone
//! read, who is blocked where, the orders in which locks were taken and how they were used with
//! respect to interrupts. The same holds under each small bound on preemptions, on several OS
//! threads, and for the question whether a program has a stuck set at all.

mod compare;
mod coverage;
mod generate;
mod interpret;
mod program;
mod shrink;

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compare::{Agreed, Compared, Ways, compare};
use coverage::FEATURES;
use program::Program;

use crate::search::{Fault, Random};

/// What to test.
pub struct Options<'a> {
    /// How many programs. One that is too large for brute force is replaced by another.
    pub programs: u64,
    /// What they are drawn from.
    pub seed: u64,
    /// The number of the first program of the seed, so that one can be run alone.
    pub first: u64,
    /// How many OS threads test, each its own programs; 0 means as many as the machine has CPUs.
    pub jobs: usize,
    /// A fault to be planted into the search: then a mismatch is what must come.
    pub fault: Option<Fault>,
    /// Called now and then with the number of programs that agreed so far.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Ends the test early.
    pub stop: &'a AtomicBool,
}

doorbell_platform::opaque_debug!(['a] Options<'a>; programs, seed, first, jobs);

/// What was tested, and found to agree.
#[derive(Clone, Default, Debug)]
pub struct Summary {
    /// Programs whose outcomes agree.
    pub programs: u64,
    /// Programs that brute force would have taken too long for, and that others replaced.
    pub skipped: u64,
    /// Executions of brute force.
    pub brute_executions: u64,
    /// Executions with the reduction.
    pub reduced_executions: u64,
    /// Executions with the reduction that were cut.
    pub cut: u64,
    /// Executions with the reduction under bounds.
    pub bounded_executions: u64,
    /// Different outcomes, summed over the programs.
    pub outcomes: u64,
    /// How many programs did what, in at least one of their executions.
    pub coverage: Vec<(&'static str, u64)>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Summary {
    fn add(&mut self, agreed: &Agreed) {
        self.programs += 1;
        self.brute_executions += agreed.brute;
        self.reduced_executions += agreed.reduced;
        self.cut += agreed.cut;
        self.bounded_executions += agreed.bounded;
        self.outcomes += agreed.outcomes as u64;
        for ((feature, _), (_, count)) in FEATURES.iter().zip(&mut self.coverage) {
            *count += (agreed.features & feature.bit() != 0) as u64;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} programs agree in {} outcomes ({} too large for brute force were replaced)",
            self.programs, self.outcomes, self.skipped
        )?;
        writeln!(
            f,
            "executions: {} by brute force, {} with the reduction (and {} cut), {} under bounds, in {:.1} s",
            self.brute_executions,
            self.reduced_executions,
            self.cut,
            self.bounded_executions,
            self.elapsed.as_secs_f64()
        )?;
        for (what, count) in &self.coverage {
            writeln!(f, "{count:>8} {what}")?;
        }
        Ok(())
    }
}

/// A program for which the search does not find what brute force finds.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The seed of the test.
    pub seed: u64,
    /// The number of the program.
    pub program: u64,
    /// The program, cut down as far as it still shows a mismatch.
    pub text: String,
    /// What differs.
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "program {} of seed {}, cut down:", self.program, self.seed)?;
        write!(f, "{}", self.text)?;
        write!(f, "{}", self.what)
    }
}

impl std::error::Error for Mismatch {}

/// Tests the search with random programs.
///
/// # Errors
/// The first program that shows a mismatch, cut down.
pub fn run(options: &Options<'_>) -> Result<Summary, Box<Mismatch>> {
    let started = Instant::now();
    let jobs = match options.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let coverage = FEATURES.iter().map(|(_, what)| (*what, 0)).collect();
    let shared = Shared {
        next: AtomicU64::new(0),
        halt: AtomicBool::new(false),
        found: Mutex::new((Summary { coverage, ..Summary::default() }, None)),
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| shared.work(options));
        }
    });
    let (mut summary, mismatch) = shared.found.into_inner().expect("no panic while it is held");
    summary.elapsed = started.elapsed();
    match mismatch {
        Some((number, program, what)) => Err(Box::new(tell(options, number, program, what))),
        None => Ok(summary),
    }
}

/// A program by its number, the program itself, and what differs.
type Differs = (u64, Program, String);

struct Shared {
    next: AtomicU64,
    halt: AtomicBool,
    found: Mutex<(Summary, Option<Differs>)>,
}

impl Shared {
    fn work(&self, options: &Options<'_>) {
        while !self.halt.load(Ordering::Relaxed) && !options.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= options.programs {
                return;
            }
            let number = options.first + number;
            let mut skipped = 0;
            let (program, compared) = loop {
                let program = draw(options.seed, number, skipped);
                match compare(&program, ways(number), options.fault) {
                    Compared::TooLarge => skipped += 1,
                    compared => break (program, compared),
                }
            };
            let mut found = self.found.lock().expect("no panic while it is held");
            found.0.skipped += skipped;
            match compared {
                Compared::Agreed(agreed) => found.0.add(&agreed),
                Compared::Differs(what) => {
                    if found.1.as_ref().is_none_or(|(earlier, ..)| number < *earlier) {
                        found.1 = Some((number, program, what));
                    }
                    self.halt.store(true, Ordering::Relaxed);
                    return;
                }
                Compared::TooLarge => unreachable!("replaced above"),
            }
            let done = found.0.programs;
            drop(found);
            if done.is_multiple_of(64) {
                (options.progress)(done);
            }
        }
    }
}

/// The program of a number; when it is too large, the next attempt.
fn draw(seed: u64, number: u64, attempt: u64) -> Program {
    let mut random = Random::new(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95) ^ attempt << 48);
    generate::program(random.next())
}

/// Some of the comparisons are made for some of the programs only.
fn ways(number: u64) -> Ways {
    Ways {
        bounds: if number.is_multiple_of(4) { 2 } else { 1 },
        jobs: if number.is_multiple_of(16) { 2 + (number / 16 % 2) as usize } else { 1 },
        stuck: number.is_multiple_of(2),
    }
}

/// Cuts a program down and tells of it.
fn tell(options: &Options<'_>, number: u64, program: Program, what: String) -> Mismatch {
    let kind = |what: &str| what.split(':').next().unwrap_or_default().to_owned();
    let first = kind(&what);
    let (program, what) = shrink::shrink(program, what, |smaller| {
        match compare(smaller, ways(number), options.fault) {
            Compared::Differs(what) if kind(&what) == first => Some(what),
            _ => None,
        }
    });
    Mismatch { seed: options.seed, program: number, text: program.to_string(), what }
}
