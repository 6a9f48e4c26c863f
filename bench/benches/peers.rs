//! The same programs explored by Doorbell, loom and shuttle, in one run, each on the thread that
//! calls it. Rates are per second of that thread's CPU time.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use doorbell_bench::args::{About, Format};
use doorbell_bench::clock::thread_time;
use doorbell_bench::table::{count, rate};
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::{Atomic, AtomicInt, Platform};

/// `threads` threads do `steps` of something each.
#[derive(Clone, Copy)]
struct Program {
    name: &'static str,
    threads: usize,
    steps: usize,
    what: What,
}

/// What they do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// Atomic increments.
    Count,
    /// A load and a store in place of each.
    Racy,
    /// Each waits, with a mutex and a condition variable, until it is its turn, and tells the others
    /// that it is that of the next.
    Turns,
}

/// What a thread of [`What::Turns`] does, whichever explorer's the mutex is.
macro_rules! turns {
    ($program:expr, $shared:expr, $thread:expr) => {
        for step in 0..$program.steps {
            let mut turn = $shared.0.lock().expect("nobody panics");
            while *turn != step * $program.threads + $thread {
                turn = $shared.1.wait(turn).expect("nobody panics");
            }
            *turn += 1;
            $shared.1.notify_all();
        }
    };
}

/// What a thread of a program does with the word, whichever explorer's it is.
macro_rules! steps {
    ($program:expr, $word:expr) => {
        for _ in 0..$program.steps {
            if $program.what == What::Racy {
                $word.store($word.load(SeqCst) + 1, SeqCst);
            } else {
                $word.fetch_add(1, SeqCst);
            }
        }
    };
}

const PROGRAMS: [Program; 6] = [
    Program { name: "inc 2x2", threads: 2, steps: 2, what: What::Count },
    Program { name: "inc 2x3", threads: 2, steps: 3, what: What::Count },
    Program { name: "inc 3x2", threads: 3, steps: 2, what: What::Count },
    Program { name: "racy 2x2", threads: 2, steps: 2, what: What::Racy },
    Program { name: "inc 2x8", threads: 2, steps: 8, what: What::Count },
    Program { name: "turns 3x1", threads: 3, steps: 1, what: What::Turns },
];

/// What one explorer made of one program.
struct Measured {
    /// Executions to exhaust it; `None` if the time did not suffice.
    exhausted: Option<u64>,
    per_second: f64,
}

/// Calls `explore`, which returns how many executions it ran and how many exhausted the program,
/// over and over while that is quick. To ask for the thread's CPU time is a system call, and may
/// take as long as a small exploration: so that is done once for many of them.
fn rate_of(patience: Duration, explore: impl Fn() -> (u64, Option<u64>)) -> Measured {
    let (mut executions, mut exhausted) = (0, None);
    let mut at_once = 1u32;
    let started = thread_time();
    let mut spent = Duration::ZERO;
    while spent < patience / 4 {
        for _ in 0..at_once {
            let (done, all) = explore();
            executions += done;
            exhausted = all;
        }
        let before = spent;
        spent = thread_time() - started;
        if spent - before < patience / 400 {
            at_once *= 2;
        }
    }
    Measured { exhausted, per_second: executions as f64 / spent.as_secs_f64() }
}

/// Counts executions.
type Meter = Arc<AtomicU64>;

/// [`rate_of`] an explorer of others. It is told how many executions it may run, and ends without
/// having exhausted the program if it needs more.
fn measure(patience: Duration, limit: u64, explore: impl Fn(Meter)) -> Measured {
    rate_of(patience, || {
        let meter = Meter::default();
        explore(Arc::clone(&meter));
        let done = meter.load(Relaxed);
        (done, (done < limit).then_some(done))
    })
}

/// Enough to exhaust all but the largest program, and some seconds of work for the slowest
/// explorer.
const LIMIT: usize = 100_000;

fn doorbell(program: Program, patience: Duration) -> Measured {
    if program.what == What::Turns {
        return doorbell_turns(program, patience);
    }
    rate_of(patience, || {
        let report = Explore::new(program.name).run(|m: &Machine| {
            let word = Arc::new(<Sim as Platform>::AtomicU64::new(0));
            for _ in 0..program.threads {
                let word = Arc::clone(&word);
                m.task("task", move || {
                    steps!(program, word);
                });
            }
        });
        report.assert_exhausted();
        (report.executions, Some(report.executions))
    })
}

fn doorbell_turns(program: Program, patience: Duration) -> Measured {
    use doorbell_explore::sync::{Condvar, Mutex};
    rate_of(patience, || {
        let report = Explore::new(program.name).run(|m: &Machine| {
            let shared = Arc::new((Mutex::new(0), Condvar::new()));
            for thread in 0..program.threads {
                let shared = Arc::clone(&shared);
                m.task("task", move || {
                    turns!(program, shared, thread);
                });
            }
        });
        report.assert_exhausted();
        (report.executions, Some(report.executions))
    })
}

/// [`What::Turns`] by the explorer `$peer`, whose types are shaped as those of `std`.
macro_rules! peer_turns {
    ($peer:ident, $program:expr) => {{
        let program = $program;
        let shared =
            $peer::sync::Arc::new(($peer::sync::Mutex::new(0), $peer::sync::Condvar::new()));
        let threads: Vec<_> = (1..program.threads)
            .map(|thread| {
                let shared = $peer::sync::Arc::clone(&shared);
                $peer::thread::spawn(move || {
                    turns!(program, shared, thread);
                })
            })
            .collect();
        turns!(program, shared, 0);
        for thread in threads {
            thread.join().expect("it does not panic");
        }
    }};
}

fn loom(program: Program, patience: Duration) -> Measured {
    measure(patience, LIMIT as u64, move |meter| {
        let mut model = loom::model::Builder::new();
        model.max_branches = 10_000;
        model.max_permutations = Some(LIMIT);
        model.check(move || {
            meter.fetch_add(1, Relaxed);
            if program.what == What::Turns {
                return peer_turns!(loom, program);
            }
            let word = loom::sync::Arc::new(loom::sync::atomic::AtomicU64::new(0));
            let work = move |word: &loom::sync::atomic::AtomicU64| {
                steps!(program, word);
            };
            // loom's main thread is one of its threads.
            let threads: Vec<_> = (1..program.threads)
                .map(|_| {
                    let word = loom::sync::Arc::clone(&word);
                    loom::thread::spawn(move || work(&word))
                })
                .collect();
            work(&word);
            for thread in threads {
                thread.join().expect("it does not panic");
            }
        });
    })
}

fn shuttle(program: Program, patience: Duration) -> Measured {
    measure(patience, LIMIT as u64, move |meter| {
        shuttle::check_dfs(
            move || {
                meter.fetch_add(1, Relaxed);
                if program.what == What::Turns {
                    return peer_turns!(shuttle, program);
                }
                let word = Arc::new(shuttle::sync::atomic::AtomicU64::new(0));
                let work = move |word: &shuttle::sync::atomic::AtomicU64| {
                    steps!(program, word);
                };
                let threads: Vec<_> = (1..program.threads)
                    .map(|_| {
                        let word = Arc::clone(&word);
                        shuttle::thread::spawn(move || work(&word))
                    })
                    .collect();
                work(&word);
                for thread in threads {
                    thread.join().expect("it does not panic");
                }
            },
            Some(LIMIT),
        );
    })
}

fn main() {
    let about = About {
        name: "peers",
        what: "Explores the same programs with Doorbell, loom and shuttle (depth first), on one core each.",
        option: Some(("--seconds", "patience for one program of one explorer [default: 4]")),
    };
    let args = about.args();
    let patience = Duration::from_secs_f64(args.number.unwrap_or(4.0));
    if args.format == Format::Table {
        println!(
            "{:<9} {:>11} {:>14}   {:>11} {:>10} {:>7}   {:>11} {:>11} {:>7}",
            "program",
            "executions",
            "Doorbell",
            "executions",
            "loom",
            "ratio",
            "executions",
            "shuttle",
            "ratio"
        );
    }
    // All of loom before any of shuttle: the panic hook that shuttle leaves behind makes loom slow.
    let loom: Vec<Measured> = PROGRAMS.iter().map(|&program| loom(program, patience)).collect();
    for (program, loom) in PROGRAMS.into_iter().zip(loom) {
        let ours = doorbell(program, patience);
        let shuttle = shuttle(program, patience);
        let (to_loom, to_shuttle) =
            (ours.per_second / loom.per_second, ours.per_second / shuttle.per_second);
        let shown = |exhausted: Option<u64>| exhausted.map_or_else(|| "more".to_owned(), count);
        match args.format {
            Format::Table => println!(
                "{:<9} {:>11} {:>14}   {:>11} {:>10} {:>6.1}×   {:>11} {:>11} {:>6.1}×",
                program.name,
                shown(ours.exhausted),
                rate(ours.per_second),
                shown(loom.exhausted),
                rate(loom.per_second),
                to_loom,
                shown(shuttle.exhausted),
                rate(shuttle.per_second),
                to_shuttle,
            ),
            Format::Json => println!(
                "{}",
                serde_json::json!({
                    "program": program.name,
                    "doorbell": { "executions": ours.exhausted, "per_second": ours.per_second },
                    "loom": { "executions": loom.exhausted, "per_second": loom.per_second, "ratio": to_loom },
                    "shuttle": { "executions": shuttle.exhausted, "per_second": shuttle.per_second, "ratio": to_shuttle },
                })
            ),
        }
    }
}
