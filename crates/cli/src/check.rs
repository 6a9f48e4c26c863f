//! `doorbell check`: variants run, verdicts compared.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::args::{Check, Search, TableFormat};
use crate::engine::{Engine, Outcome, Settings, stopped};
use crate::outcome::{DIFFERS, Fault, INTERRUPTED, OK, Terminal};
use crate::progress::Meter;
use crate::record::{self, NUMBERS, Record, Standing, TITLES};
use crate::select::select;
use crate::selected::Selected;
use crate::words::{elide, name, of, time};

pub(crate) fn run(
    args: &Check,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let selected = select(engine.cases(), &args.what).map_err(Fault::Usage)?;
    let wanted = |s: &Selected<'_>| args.search.full || s.by_name || !s.variant.full_only;
    let (run, left_out): (Vec<_>, Vec<_>) = selected.into_iter().partition(wanted);

    let mut tally = Tally { left_out: left_out.len(), of: run.len(), ..Tally::default() };
    let table = Table::new(&run, args.search.budget.is_some(), terminal.width);
    if args.format == TableFormat::Table && !run.is_empty() {
        table.titles(terminal)?;
    }
    let begin = Instant::now();
    for selected in &run {
        if stopped(&terminal.stop) {
            break;
        }
        let (outcome, standing) = explore(selected, engine, &args.search, terminal);
        match args.format {
            TableFormat::Table => table.row(terminal, selected, &outcome, standing)?,
            TableFormat::Json => {
                serde_json::to_writer(
                    &mut *terminal.out,
                    &Record::new(selected, &outcome, standing),
                )?;
                writeln!(terminal.out)?;
            }
        }
        // So that whoever reads along sees each result when it is there.
        terminal.out.flush()?;
        tally.add(selected, &outcome, standing);
    }
    tally.interrupted =
        stopped(&terminal.stop) && (tally.unfinished.is_some() || tally.done < run.len());

    let mut summary: Vec<String> = tally.notes.clone();
    summary.push(tally.summary(&time(begin.elapsed())));
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

/// Runs one variant, with progress.
pub(crate) fn explore(
    selected: &Selected<'_>,
    engine: &dyn Engine,
    search: &crate::args::Search,
    terminal: &Terminal<'_>,
) -> (Outcome, Standing) {
    let meter = Meter::new(&selected.path(), terminal.progress);
    let show = |progress| meter.show(progress);
    let settings = Settings { progress: Some(&show), ..settings(search, &terminal.stop) };
    let outcome = engine.run(&selected.case.name, &selected.variant.name, &settings);
    let standing = record::standing(selected, &outcome, stopped(&terminal.stop));
    (outcome, standing)
}

/// What is known so far.
#[derive(Default)]
struct Tally {
    /// Variants to run.
    of: usize,
    /// How many of those have finished.
    done: usize,
    agree: usize,
    open: usize,
    differ: usize,
    left_out: usize,
    unfinished: Option<String>,
    interrupted: bool,
    /// A line for each variant that is not what it must be.
    notes: Vec<String>,
}

impl Tally {
    fn add(&mut self, selected: &Selected<'_>, outcome: &Outcome, standing: Standing) {
        let path = selected.path();
        let expected = record::expected(selected);
        match standing {
            Standing::Agrees => self.agree += 1,
            Standing::Differs => {
                self.differ += 1;
                let see = outcome
                    .failure
                    .as_ref()
                    .map(|f| format!("; see `doorbell replay {}`", f.token));
                self.notes.push(format!(
                    "✗ {path} must be {expected}, and is {}{}",
                    record::got(selected, outcome),
                    see.unwrap_or_default(),
                ));
            }
            Standing::Open => {
                self.open += 1;
                let limit = outcome.limit.map(|limit| format!(": {limit}")).unwrap_or_default();
                self.notes.push(format!(
                    "? {path} must be {expected}, and the search ended before it could tell{limit}"
                ));
            }
            Standing::Interrupted => {
                self.unfinished = Some(path);
                return;
            }
        }
        self.done += 1;
    }

    fn summary(&self, elapsed: &str) -> String {
        let mut line = if self.interrupted {
            let during =
                self.unfinished.as_ref().map(|p| format!(" during {p}")).unwrap_or_default();
            format!(
                "interrupted{during}; {} of {} done in {elapsed}: ",
                self.done,
                of(self.of, "variant")
            )
        } else {
            format!("{} in {elapsed}: ", of(self.of, "variant"))
        };
        let parts =
            [(self.agree, "as stated"), (self.differ, "not as stated"), (self.open, "undecided")];
        let said: Vec<String> =
            parts.iter().filter(|p| p.0 > 0).map(|(n, what)| format!("{n} {what}")).collect();
        match said.len() {
            0 => line.push_str("nothing is known"),
            1 if self.agree > 0 && self.agree == self.of => line.push_str("all as stated"),
            _ => line.push_str(&said.join(", ")),
        }
        if self.left_out > 0 {
            line.push_str(&format!(
                " ({} left out; --full runs them)",
                of(self.left_out, "large variant")
            ));
        }
        line
    }

    fn status(&self) -> u8 {
        if self.interrupted {
            INTERRUPTED
        } else if self.differ + self.open > 0 {
            DIFFERS
        } else {
            OK
        }
    }
}

/// A table whose rows are printed as they come: the widths are known before.
struct Table {
    widths: [usize; 9],
    /// What is left for the last column.
    rest: usize,
}

impl Table {
    fn new(run: &[Selected<'_>], budget: bool, width: Option<usize>) -> Table {
        let mut widths = TITLES.map(|t| t.chars().count());
        let widest = |of: &dyn Fn(&Selected<'_>) -> usize, least: usize| {
            run.iter().map(of).max().unwrap_or(0).max(least)
        };
        widths[0] = 1;
        widths[1] = widest(&|s| s.case.name.chars().count(), widths[1]);
        widths[2] = widest(&|s| s.variant.name.chars().count(), widths[2]);
        widths[3] = widest(&|s| record::expected_in_short(s).chars().count(), widths[3]);
        widths[4] = if budget { "bound-reached (budget)".len() } else { "bound-reached (9)".len() };
        widths[5] = widest(&|s| s.variant.expected.kind().map_or(1, |k| name(k).len()), widths[5]);
        widths[6] = "99,999,999".len();
        widths[7] = "59 min 59 s".len();
        let used: usize = widths[..8].iter().map(|w| w + 2).sum();
        let rest = width.map_or(usize::MAX, |w| w.saturating_sub(used).max(12));
        Table { widths, rest }
    }

    fn titles(&self, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        let line = self.line(&TITLES.map(str::to_owned));
        let line = terminal.ink(&line, "1");
        Ok(writeln!(terminal.out, "{line}")?)
    }

    fn row(
        &self,
        terminal: &mut Terminal<'_>,
        selected: &Selected<'_>,
        outcome: &Outcome,
        standing: Standing,
    ) -> Result<(), Fault> {
        let line = self.line(&record::cells(selected, outcome, standing));
        let mut rest = line.chars();
        let mark: String = rest.next().into_iter().collect();
        let code = match standing {
            Standing::Agrees => "32",
            Standing::Differs => "1;31",
            Standing::Open | Standing::Interrupted => "33",
        };
        let mark = terminal.ink(&mark, code);
        Ok(writeln!(terminal.out, "{mark}{}", rest.as_str())?)
    }

    fn line(&self, cells: &[String; 9]) -> String {
        let mut line = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let fill = " ".repeat(self.widths[at].saturating_sub(cell.chars().count()));
            if at + 1 == cells.len() {
                line.push_str(&elide(cell, self.rest));
            } else if NUMBERS.contains(&at) {
                line.push_str(&format!("{fill}{cell}  "));
            } else {
                line.push_str(&format!("{cell}{fill}  "));
            }
        }
        line.trim_end().to_owned()
    }
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
