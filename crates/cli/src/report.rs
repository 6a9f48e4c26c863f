//! `doorbell report`: one HTML page with everything that a `check` finds, and each failing run as
//! the picture that `explain` draws.
//!
//! The page is `report.html`, with the results as JSON in the place that it has for them. Text
//! becomes part of the document by the page's script, which never takes it for markup; only the
//! pictures are markup, and the renderer has escaped what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use doorbell_explore::render;
use serde::Serialize;

use crate::args::Report;
use crate::check::{divide, explore};
use crate::engine::{Engine, Outcome, stopped};
use crate::explain::title;
use crate::outcome::{Fault, Terminal};
use crate::progress::Meter;
use crate::record::{self, SCHEMA, Standing};
use crate::select::select;
use crate::selected::Selected;
use crate::tally::Tally;
use crate::words::time;

const PAGE: &str = include_str!("report.html");
/// Where the page has its results.
const PLACE: &str = "{{results}}";
/// Lines of a source that stand above and below the one that a step names.
const AROUND: usize = 6;

#[derive(Serialize)]
struct Results<'a> {
    schema: u32,
    version: &'a str,
    interrupted: bool,
    left_out: usize,
    cases: Vec<Case<'a>>,
    /// The lines of interest of each file, by number from 1.
    sources: BTreeMap<String, BTreeMap<usize, String>>,
}

#[derive(Serialize)]
struct Case<'a> {
    name: &'a str,
    summary: &'a str,
    document: &'a str,
    variants: Vec<Variant>,
}

#[derive(Serialize)]
struct Variant {
    name: String,
    summary: String,
    scope: String,
    expected: String,
    got: String,
    standing: &'static str,
    executions: u64,
    time: String,
    limit: Option<String>,
    lock_report: Option<String>,
    run: Option<Run>,
}

/// A failing run.
#[derive(Serialize)]
struct Run {
    why: String,
    token: String,
    steps: Vec<Step>,
    svg: String,
}

#[derive(Serialize)]
struct Step {
    step: usize,
    place: String,
    context: String,
    text: String,
    site: String,
    holds: Vec<String>,
}

pub(crate) fn run(
    args: &Report,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let selected = select(engine.cases(), &args.what).map_err(Fault::Usage)?;
    let (run, left_out) = divide(selected, &args.search);
    let refused = |error| Fault::Usage(format!("{}: {error}", args.dir.display()));
    // Before minutes are spent on what could not be written.
    fs::create_dir_all(&args.dir).map_err(refused)?;
    let mut tally = Tally::new(run.len(), left_out);
    let mut cases: Vec<Case<'_>> = Vec::new();
    let begin = Instant::now();
    let mut meter = Meter::new(run.len(), terminal.progress);
    for selected in &run {
        if stopped(&terminal.stop) {
            break;
        }
        let (outcome, standing) = explore(selected, engine, &args.search, terminal, &mut meter);
        tally.add(selected, &outcome, standing);
        if cases.last().is_none_or(|case| case.name != selected.case.name) {
            let case = selected.case;
            let (summary, document) = (&case.summary, &case.document);
            cases.push(Case { name: &case.name, summary, document, variants: Vec::new() });
        }
        if let Some(case) = cases.last_mut() {
            case.variants.push(variant(selected, &outcome, standing));
        }
    }
    drop(meter);
    tally.interrupted = stopped(&terminal.stop) && tally.done < run.len();
    let sources = sources(&cases, &args.sources);
    let unread =
        sources.is_empty() && cases.iter().flat_map(|c| &c.variants).any(|v| v.run.is_some());
    let version = env!("CARGO_PKG_VERSION");
    let interrupted = tally.interrupted;
    let results = Results { schema: SCHEMA, version, interrupted, left_out, cases, sources };
    let (path, size) = write(&results, &args.dir)?;
    if unread {
        let below = args.sources.display();
        writeln!(
            terminal.err,
            "doorbell: there are no sources below {below}, so the page names lines without showing them"
        )?;
    }
    writeln!(terminal.out, "{path}, {} KB", size / 1000)?;
    let mut said = tally.notes.clone();
    said.push(tally.summary(&time(begin.elapsed())));
    for line in said.iter().flat_map(|line| terminal.wrap(line)).collect::<Vec<_>>() {
        writeln!(terminal.out, "{line}")?;
    }
    Ok(tally.status())
}

fn variant(selected: &Selected<'_>, outcome: &Outcome, standing: Standing) -> Variant {
    let of = selected.variant;
    let told =
        !outcome.lock_report.is_empty() && (of.inversions.is_some() || record::surprises(outcome));
    Variant {
        name: of.name.clone(),
        summary: of.summary.clone(),
        scope: of.scope.clone(),
        expected: record::expected(selected),
        got: record::got(selected, outcome),
        standing: match standing {
            Standing::Agrees => "as stated",
            Standing::Differs => "not as stated",
            Standing::Open => "undecided",
            Standing::Interrupted => "interrupted",
        },
        executions: outcome.executions,
        time: time(outcome.elapsed),
        limit: outcome.limit.map(|limit| limit.to_string()),
        lock_report: told.then(|| outcome.lock_report.clone()),
        run: outcome.failure.as_ref().map(|failure| {
            let trace = &failure.trace;
            let step = |line: &doorbell_explore::trace::Line| Step {
                step: line.step,
                place: trace.columns.get(line.column).map(|c| c.title.clone()).unwrap_or_default(),
                context: line.context.clone(),
                text: line.text.clone(),
                site: line.site.clone(),
                holds: line.holds.clone(),
            };
            Run {
                why: trace.why.clone(),
                token: failure.token.clone(),
                steps: trace.lines.iter().map(step).collect(),
                svg: render::svg_titled(trace, &title(selected)),
            }
        }),
    }
}

/// The lines around those that the steps name, of the files that there are below `root`.
fn sources(cases: &[Case<'_>], root: &Path) -> BTreeMap<String, BTreeMap<usize, String>> {
    let mut named: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let runs = cases.iter().flat_map(|case| &case.variants).filter_map(|v| v.run.as_ref());
    for step in runs.flat_map(|run| &run.steps) {
        let Some((file, line)) = step.site.rsplit_once(':') else { continue };
        let Ok(line) = line.parse::<usize>() else { continue };
        named.entry(file).or_default().extend(line.saturating_sub(AROUND).max(1)..=line + AROUND);
    }
    let read = |(file, lines): (&str, BTreeSet<usize>)| {
        let text = fs::read_to_string(root.join(file)).ok()?;
        let kept = |(at, line): (usize, &str)| {
            lines.contains(&(at + 1)).then(|| (at + 1, line.to_owned()))
        };
        Some((file.to_owned(), text.lines().enumerate().filter_map(kept).collect()))
    };
    named.into_iter().filter_map(read).collect()
}

/// Writes the page beside the one that may be there, and puts it in its place when it is whole.
/// Returns its path and how long it is.
fn write(results: &Results<'_>, dir: &Path) -> Result<(String, usize), Fault> {
    // A `<` in JSON is part of a string, where it may as well be written by its number; so nothing
    // in it ends the element that it is in.
    let json = serde_json::to_string(results)?.replace('<', "\\u003c");
    let page = PAGE.replacen(PLACE, &json, 1);
    let (path, part) = (dir.join("index.html"), dir.join("index.html.part"));
    let refused = |error| Fault::Usage(format!("{}: {error}", path.display()));
    fs::write(&part, &page).map_err(refused)?;
    fs::rename(&part, &path).map_err(refused)?;
    Ok((path.display().to_string(), page.len()))
}
