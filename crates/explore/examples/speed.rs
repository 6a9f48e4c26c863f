//! Measures how fast the explorer is on atomic increments.
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::{Atomic, AtomicInt, Platform};

fn main() {
    let k: usize = std::env::args().nth(1).map_or(8, |k| k.parse().unwrap());
    let jobs: usize = std::env::args().nth(2).map_or(1, |k| k.parse().unwrap());
    let rounds =
        if k <= 8 { std::env::args().nth(3).map_or(200, |r| r.parse().unwrap()) } else { 1 };
    let (mut executions, mut steps, mut time) = (0, 0, 0.0);
    for _ in 0..rounds {
        let report = Explore::new("inc").jobs(jobs).run(move |m: &Machine| {
            let word = Arc::new(<Sim as Platform>::AtomicU64::new(0));
            for _ in 0..2 {
                let word = Arc::clone(&word);
                m.task("inc", move || {
                    for _ in 0..k {
                        word.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        report.assert_exhausted();
        executions += report.executions;
        steps += report.steps;
        time += report.elapsed.as_secs_f64();
    }
    println!(
        "{executions} executions, {:.0}/s, {:.1} M steps/s",
        executions as f64 / time,
        steps as f64 / time / 1e6
    );
}
