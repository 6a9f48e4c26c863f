//! `doorbell check`: variants run, verdicts compared.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::args::{Check, Search, TableFormat};
use crate::engine::{Engine, Outcome, Settings, stopped};
use crate::outcome::{Fault, OK, Terminal};
use crate::progress::Meter;
use crate::record::{self, Standing};
use crate::rows::Rows;
use crate::select::select;
use crate::selected::Selected;
use crate::tally::Tally;
use crate::words::time;

pub(crate) fn run(
    args: &Check,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let selected = select(engine.cases(), &args.what).map_err(Fault::Usage)?;
    let (run, left_out) = divide(selected, &args.search);
    let mut tally = Tally::new(run.len(), left_out);
    let mut rows = Rows::new(args, &run, terminal);
    rows.titles(terminal)?;
    let begin = Instant::now();
    let mut meter = Meter::new(run.len(), terminal.progress);
    for selected in &run {
        if stopped(&terminal.stop) {
            break;
        }
        let (outcome, standing) = explore(selected, engine, &args.search, terminal, &mut meter);
        meter.aside(|| rows.row(terminal, selected, &outcome, standing))?;
        tally.add(selected, &outcome, standing);
    }
    drop(meter);
    rows.end(terminal)?;
    tally.interrupted =
        stopped(&terminal.stop) && (tally.unfinished.is_some() || tally.done < run.len());

    let mut summary: Vec<String> = tally.notes.clone();
    summary.push(tally.summary(&time(begin.elapsed())));
    let summary: Vec<String> = summary.iter().flat_map(|line| terminal.wrap(line)).collect();
    for line in summary {
        match args.format {
            TableFormat::Table => writeln!(terminal.out, "{line}")?,
            // stdout has JSON and nothing else.
            TableFormat::Json if tally.status() != OK => writeln!(terminal.err, "{line}")?,
            TableFormat::Json => {}
        }
    }
    Ok(tally.status())
}

/// Returns those that are to run, and how many are left out as too large.
pub(crate) fn divide<'a>(
    selected: Vec<Selected<'a>>,
    search: &Search,
) -> (Vec<Selected<'a>>, usize) {
    let wanted = |s: &Selected<'_>| search.full || s.by_name || !s.variant.full_only;
    let (run, left_out): (Vec<_>, Vec<_>) = selected.into_iter().partition(wanted);
    (run, left_out.len())
}

/// Runs one variant, with progress.
pub(crate) fn explore(
    selected: &Selected<'_>,
    engine: &dyn Engine,
    search: &Search,
    terminal: &Terminal<'_>,
    meter: &mut Meter,
) -> (Outcome, Standing) {
    meter.begin(&selected.path());
    let show = |progress| meter.show(progress);
    let settings = Settings { progress: Some(&show), ..settings(search, &terminal.stop) };
    let outcome = engine.run(&selected.case.name, &selected.variant.name, &settings);
    let standing = record::standing(selected, &outcome, stopped(&terminal.stop));
    (outcome, standing)
}

/// The settings for one variant, without a listener for progress.
fn settings(search: &Search, stop: &Arc<AtomicBool>) -> Settings<'static> {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    Settings {
        jobs: search.jobs.map_or_else(cores, usize::from),
        bound: search.bound,
        budget: search.budget,
        progress: None,
        stop: Arc::clone(stop),
    }
}
