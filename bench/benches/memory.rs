//! Ten million executions, and what they leave behind.

use std::time::Instant;

use doorbell_bench::args::{About, Format};
use doorbell_bench::program::arcs_and_vecs;
use doorbell_bench::table::{count, rate};
use doorbell_explore::{Explore, bench::peak_kib};

fn main() {
    let about = About {
        name: "memory",
        what: "Runs executions of a program with Arc and Vec, and reports the largest resident set.",
        option: Some(("--millions", "how many million executions [default: 10]")),
    };
    let args = about.args();
    let wanted = (args.number.unwrap_or(10.0) * 1e6) as u64;
    let started = Instant::now();
    let mut executions = 0;
    while executions < wanted {
        let report = Explore::new("memory").max_executions(wanted - executions).run(arcs_and_vecs);
        assert!(report.failure.is_none(), "{:?}", report.failure);
        executions += report.executions;
    }
    let per_second = executions as f64 / started.elapsed().as_secs_f64();
    let peak = peak_kib();
    match args.format {
        Format::Table => println!(
            "{} executions, {}, peak {}",
            count(executions),
            rate(per_second),
            peak.map_or_else(|| "unknown".to_owned(), |kib| format!("{} KiB", count(kib)))
        ),
        Format::Json => {
            println!(
                "{}",
                serde_json::json!({ "executions": executions, "per_second": per_second, "peak_kib": peak })
            )
        }
    }
}
