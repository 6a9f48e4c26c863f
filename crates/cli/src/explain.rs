//! `doorbell explain` and `doorbell replay`: one failing run, shown.

use doorbell_explore::render;

use crate::args::{Explain, Replay, TraceFormat};
use crate::check::explore;
use crate::engine::{Engine, Outcome, Trace};
use crate::outcome::{DIFFERS, Fault, INTERRUPTED, OK, Terminal};
use crate::progress::Meter;
use crate::record::{self, Record, SCHEMA, Standing};
use crate::select::one;
use crate::selected::Selected;
use crate::words::{name, of, of_count, time};

pub(crate) fn run(
    args: &Explain,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let selected = one(engine.cases(), &args.what).map_err(Fault::Usage)?;
    let mut meter = Meter::new(1, terminal.progress);
    let (outcome, standing) = explore(&selected, engine, &args.search, terminal, &mut meter);
    drop(meter);
    let mut status = match standing {
        Standing::Agrees => OK,
        Standing::Differs | Standing::Open => DIFFERS,
        Standing::Interrupted => INTERRUPTED,
    };
    match (&outcome.failure, args.format) {
        (failure, TraceFormat::Json) => {
            let mut record = Record::new(&selected, &outcome, standing);
            record.trace = failure.as_ref().map(|f| &f.trace);
            serde_json::to_writer(&mut *terminal.out, &record)?;
            writeln!(terminal.out)?;
        }
        (Some(failure), TraceFormat::Svg) => {
            write!(terminal.out, "{}", render::svg_titled(&failure.trace, &title(&selected)))?
        }
        (Some(failure), TraceFormat::Text) => {
            let head = headed(&selected, terminal);
            writeln!(terminal.out, "{}", head.join("\n"))?;
            // With the lines above and the one below it still fits a page of thirty; what the
            // validator questions comes after that page.
            text(&failure.trace, 29 - head.len().min(10), args.all_steps, terminal)?;
            let replay = terminal.ink(&format!("again: doorbell replay {}", failure.token), "2");
            writeln!(terminal.out, "{replay}")?;
            validator(&selected, &outcome, terminal)?;
        }
        (None, format) => {
            let within = outcome
                .bound
                .map(|bound| format!(" within {}", of(bound as usize, "preemption")))
                .unwrap_or_default();
            let said = match (standing, outcome.verdict) {
                (Standing::Interrupted, _) => "interrupted".to_owned(),
                (_, verdict) => name(verdict),
            };
            let early = outcome
                .limit
                .map(|limit| format!(" What ended the search: {limit}."))
                .unwrap_or_default();
            let idle = match &*outcome.never_ran {
                [] => String::new(),
                idle => format!(" Never ran: {}.", idle.join(", ")),
            };
            let executions = of_count(outcome.executions, "execution");
            let mut lines = headed(&selected, terminal);
            lines.extend(terminal.wrap(&format!(
                "{said}: {executions}{within} in {}, and none failed.{early}{idle} Scope: {}.",
                time(outcome.elapsed),
                selected.variant.scope
            )));
            if format == TraceFormat::Text {
                writeln!(terminal.out, "{}", lines.join("\n"))?;
                validator(&selected, &outcome, terminal)?;
            } else {
                writeln!(terminal.err, "doorbell: there is nothing to draw\n{}", lines.join("\n"))?;
                for line in terminal.wrap(&drawn(&selected)) {
                    writeln!(terminal.err, "{line}")?;
                }
                status = status.max(DIFFERS);
            }
        }
    }
    if standing == Standing::Differs {
        let (expected, got) = (record::expected(&selected), record::got(&selected, &outcome));
        writeln!(terminal.err, "doorbell: it must be {expected}, and is {got}")?;
    }
    Ok(status)
}

/// What the lock validator says, where the variant is about that: after the page of the trace, if
/// there is one.
fn validator(
    selected: &Selected<'_>,
    outcome: &Outcome,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    if selected.variant.inversions.is_some() || record::surprises(outcome) {
        let silent = outcome.lock_report.is_empty();
        let report = if silent {
            "the lock validator questions no lock order"
        } else {
            &outcome.lock_report
        };
        writeln!(terminal.out, "\n{}", terminal.wrap(report).join("\n"))?;
    }
    Ok(())
}

pub(crate) fn replay(
    args: &Replay,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let run = engine
        .replay(&args.token)
        .map_err(|why| Fault::Usage(format!("the token is refused: {why}")))?;
    match args.format {
        TraceFormat::Json => {
            #[derive(serde::Serialize)]
            struct Out<'a> {
                schema: u32,
                case: &'a str,
                variant: &'a str,
                token: &'a str,
                trace: &'a Trace,
            }
            let out = Out {
                schema: SCHEMA,
                case: &run.case,
                variant: &run.variant,
                token: &args.token,
                trace: &run.trace,
            };
            serde_json::to_writer(&mut *terminal.out, &out)?;
            writeln!(terminal.out)?;
        }
        TraceFormat::Svg => {
            let path = format!("{}/{}", run.case, run.variant);
            let selected = one(engine.cases(), &path).map_err(Fault::Usage)?;
            write!(terminal.out, "{}", render::svg_titled(&run.trace, &title(&selected)))?
        }
        TraceFormat::Text => {
            let head = terminal.ink(&format!("{}/{}", run.case, run.variant), "1");
            writeln!(terminal.out, "{head}")?;
            text(&run.trace, 29, args.all_steps, terminal)?;
        }
    }
    Ok(OK)
}

/// Those of the same case that have a failing run to draw.
fn drawn(selected: &Selected<'_>) -> String {
    let case = selected.case;
    let found = case.variants.iter().filter(|variant| variant.expected.kind().is_some());
    let paths: Vec<_> = found.map(|variant| format!("{}/{}", case.name, variant.name)).collect();
    match &*paths {
        [] => format!("No variant of {} has a failing run.", case.name),
        paths => format!("There is a picture of {}.", paths.join(", ")),
    }
}

/// The title of a picture: the case, the variant, and where that is documented.
pub(crate) fn title(selected: &Selected<'_>) -> String {
    format!("{} ({})", selected.path(), selected.case.document)
}

/// The line that a page begins with, wrapped.
fn headed(selected: &Selected<'_>, terminal: &Terminal<'_>) -> Vec<String> {
    let path = selected.path();
    let mut lines = terminal.wrap(&format!("{path}: {}", selected.variant.summary));
    let rest = lines[0].strip_prefix(&path).map(str::to_owned);
    if let Some(rest) = rest {
        lines[0] = terminal.ink(&path, "1") + &rest;
    }
    lines
}

fn text(
    trace: &Trace,
    max_lines: usize,
    all_steps: bool,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let width = terminal.width.unwrap_or(render::Options::UNLIMITED);
    let options = render::Options { width, colour: terminal.colour, max_lines, all_steps };
    Ok(write!(terminal.out, "{}", render::text(trace, &options))?)
}
