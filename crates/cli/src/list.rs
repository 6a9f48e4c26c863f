//! `doorbell list`: what there is, and what each must get.

use serde::Serialize;

use crate::args::{List, TableFormat};
use crate::engine::Engine;
use crate::outcome::{Fault, OK, Terminal};
use crate::record;
use crate::select::select;
use crate::words::name;

#[derive(Serialize)]
struct Row<'a> {
    case: &'a str,
    variant: &'a str,
    expected: String,
    expected_kind: Option<String>,
    expected_inversions: Option<String>,
    full_only: bool,
    scope: &'a str,
    summary: &'a str,
    document: &'a str,
}

pub(crate) fn run(
    args: &List,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let selected = select(engine.cases(), &args.what).map_err(Fault::Usage)?;
    if args.format == TableFormat::Json {
        for s in &selected {
            let row = Row {
                case: &s.case.name,
                variant: &s.variant.name,
                expected: name(s.variant.expected.verdict()),
                expected_kind: s.variant.expected.kind().map(name),
                expected_inversions: s.variant.inversions.as_ref().map(ToString::to_string),
                full_only: s.variant.full_only,
                scope: &s.variant.scope,
                summary: &s.variant.summary,
                document: &s.case.document,
            };
            serde_json::to_writer(&mut *terminal.out, &row)?;
            writeln!(terminal.out)?;
        }
        return Ok(OK);
    }
    let names = selected.iter().map(|s| s.variant.name.chars().count()).max().unwrap_or(0);
    let verdicts =
        selected.iter().map(|s| record::expected_in_short(s).chars().count()).max().unwrap_or(0);
    let mut last = "";
    for s in &selected {
        if s.case.name != last {
            if !last.is_empty() {
                writeln!(terminal.out)?;
            }
            last = &s.case.name;
            let head = terminal.ink(last, "1");
            writeln!(terminal.out, "{head}: {}", s.case.summary)?;
            let document = terminal.ink(&format!("  from {}", s.case.document), "2");
            writeln!(terminal.out, "{document}")?;
        }
        let full = if s.variant.full_only { " (only with --full)" } else { "" };
        let verdict = record::expected_in_short(s);
        let summary = &s.variant.summary;
        writeln!(
            terminal.out,
            "  {:<names$}  {verdict:<verdicts$}  {summary}{full}",
            s.variant.name
        )?;
    }
    Ok(OK)
}
