//! `doorbell bench explore`: the explorer, measured.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::args::TableFormat;
use crate::engine::{BenchRow, Engine, stopped};
use crate::words::{count, rate, time};
use crate::{Fault, INTERRUPTED, OK, Terminal};

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    row: &'a BenchRow,
    executions_per_second: f64,
    steps_per_second: f64,
}

pub(crate) fn explore(format: TableFormat, engine: &dyn Engine, terminal: &mut Terminal<'_>) -> Result<u8, Fault> {
    if format == TableFormat::Table {
        let titles = format!(
            "{:<20}  {:>12}  {:>12}  {:>10}  {:>13}  {:>13}",
            "program", "executions", "optimum", "time", "executions", "steps"
        );
        let titles = terminal.ink(&titles, "1");
        writeln!(terminal.out, "{titles}")?;
    }
    let stop = terminal.stop.clone();
    let mut failed = Ok(());
    engine.bench_explore(&stop, &mut |row| {
        if failed.is_ok() {
            failed = print(&row, format, terminal.out);
        }
    });
    failed?;
    Ok(if stopped(&stop) { INTERRUPTED } else { OK })
}

fn print(row: &BenchRow, format: TableFormat, out: &mut dyn Write) -> io::Result<()> {
    let elapsed = Duration::from_secs_f64(row.millis.max(0.0) / 1e3);
    match format {
        TableFormat::Json => {
            let per_second = |n: u64| n as f64 / elapsed.as_secs_f64().max(1e-9);
            let row = Row {
                row,
                executions_per_second: per_second(row.executions).round(),
                steps_per_second: per_second(row.steps).round(),
            };
            serde_json::to_writer(&mut *out, &row)?;
            writeln!(out)?;
        }
        TableFormat::Table => writeln!(
            out,
            "{:<20}  {:>12}  {:>12}  {:>10}  {:>13}  {:>13}",
            row.program,
            count(row.executions),
            row.optimum.map_or_else(|| "-".to_owned(), count),
            time(elapsed),
            rate(row.executions, elapsed),
            rate(row.steps, elapsed),
        )?,
    }
    out.flush()
}
