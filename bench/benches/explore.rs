//! The explorer's standard programs, measured.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use doorbell_bench::args::{About, Format};
use doorbell_bench::table::{count, rate};
use doorbell_explore::bench;

fn main() {
    let about = About {
        name: "explore",
        what: "Measures the explorer on its standard programs.",
        option: None,
    };
    let args = about.args();
    if args.format == Format::Table {
        println!(
            "{:<10}  {:>4}  {:>11}  {:>11}  {:>18}  {:>13}  {:>7}  {:>9}",
            "program",
            "jobs",
            "executions",
            "optimum",
            "executions/s/job",
            "steps/s",
            "scaling",
            "peak"
        );
    }
    bench::explore(&Arc::new(AtomicBool::new(false)), |row| match args.format {
        Format::Json => println!("{}", serde_json::to_string(&row).expect("numbers and names")),
        Format::Table => println!(
            "{:<10}  {:>4}  {:>11}  {:>11}  {:>18}  {:>13}  {:>7}  {:>9}",
            row.program,
            row.jobs,
            count(row.executions),
            row.optimum.map_or_else(|| "-".to_owned(), count),
            rate(row.executions_per_second),
            rate(row.steps_per_second),
            row.scaling.map_or_else(|| "-".to_owned(), |scaling| format!("{scaling:.2}")),
            row.peak_kib.map_or_else(|| "-".to_owned(), |kib| format!("{} KiB", count(kib))),
        ),
    });
}
