//! `doorbell bench explore`: the explorer, measured.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::args::TableFormat;
use crate::engine::{BenchRow, Engine, stopped};
use crate::outcome::{Fault, INTERRUPTED, OK, Terminal};
use crate::record::SCHEMA;
use crate::words::{count, rate, time};

/// A row as JSON.
#[derive(Serialize)]
struct Object<'a> {
    schema: u32,
    #[serde(flatten)]
    row: &'a BenchRow,
}

pub(crate) fn explore(
    format: TableFormat,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    if format == TableFormat::Table {
        let titles = line([
            "program",
            "jobs",
            "executions",
            "optimum",
            "time",
            "executions",
            "steps",
            "scaling",
        ]);
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

/// Rates are those of all threads together.
fn print(row: &BenchRow, format: TableFormat, out: &mut dyn Write) -> io::Result<()> {
    match format {
        TableFormat::Json => {
            serde_json::to_writer(&mut *out, &Object { schema: SCHEMA, row })?;
            writeln!(out)?;
        }
        TableFormat::Table => {
            let elapsed = Duration::from_secs_f64(row.seconds.max(0.0));
            let cells = [
                row.program,
                &row.jobs.to_string(),
                &count(row.executions),
                &row.optimum.map_or_else(|| "-".to_owned(), count),
                &time(elapsed),
                &rate(row.executions, elapsed),
                &rate(row.steps, elapsed),
                &row.scaling.map_or_else(|| "-".to_owned(), |scaling| format!("{scaling:.2}")),
            ];
            writeln!(out, "{}", line(cells))?;
        }
    }
    out.flush()
}

fn line(cells: [&str; 8]) -> String {
    let [program, jobs, executions, optimum, time, rate, steps, scaling] = cells;
    format!(
        "{program:<12}  {jobs:>4}  {executions:>10}  {optimum:>10}  {time:>8}  {rate:>10}  {steps:>10}  {scaling:>7}"
    )
}
