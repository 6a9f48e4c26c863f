//! `doorbell list`: what there is, and what each must get.

use serde::Serialize;

use crate::args::{List, TableFormat};
use crate::engine::{Case, Engine};
use crate::outcome::{Fault, OK, Terminal};
use crate::record::{self, SCHEMA};
use crate::select::select;
use crate::selected::Selected;
use crate::words::{name, of};

#[derive(Serialize)]
struct Row<'a> {
    schema: u32,
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

/// A terminal gets a line a case, or, where it names one or asks for more, the variants of each
/// case below it. What goes into a pipe or a file has a line a variant.
pub(crate) fn run(
    args: &List,
    engine: &dyn Engine,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Fault> {
    let selected = select(engine.cases(), &args.what).map_err(Fault::Usage)?;
    match args.format {
        TableFormat::Json => objects(&selected, terminal)?,
        TableFormat::Table if !terminal.interactive => lines(&selected, terminal)?,
        TableFormat::Table if args.verbose || !args.what.is_empty() => pages(&selected, terminal)?,
        TableFormat::Table => cases(engine.cases(), terminal)?,
    }
    Ok(OK)
}

fn objects(selected: &[Selected<'_>], terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    for s in selected {
        let row = Row {
            schema: SCHEMA,
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
    Ok(())
}

/// The widest of some texts.
fn widest(texts: impl Iterator<Item = String>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

fn said(s: &Selected<'_>) -> String {
    let full = if s.variant.full_only { " (only with --full)" } else { "" };
    format!("{}{full}", s.variant.summary)
}

fn lines(selected: &[Selected<'_>], terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let names = widest(selected.iter().map(Selected::path));
    let verdicts = widest(selected.iter().map(record::expected_in_short));
    for s in selected {
        let path = terminal.ink(&format!("{:<names$}", s.path()), "1");
        let verdict = record::expected_in_short(s);
        let document = &s.case.document;
        writeln!(terminal.out, "{path}  {verdict:<verdicts$}  {}; from {document}", said(s))?;
    }
    Ok(())
}

/// A case's name, how many variants there are, and what it is, in lines that are indented alike.
fn cases(cases: &[Case], terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let names = widest(cases.iter().map(|case| case.name.clone()));
    for case in cases {
        let number = of(case.variants.len(), "variant");
        let name = terminal.ink(&format!("{:<names$}", case.name), "1");
        let indent = names + 2 + "999 variants".len() + 2;
        let summary = hanging(terminal, indent, &case.summary);
        writeln!(terminal.out, "{name}  {number:>12}  {summary}")?;
    }
    writeln!(terminal.out)?;
    for line in terminal.wrap("`doorbell list CASE` lists the variants of a case.") {
        writeln!(terminal.out, "{line}")?;
    }
    Ok(())
}

/// Text for what is right of some columns, wrapped there; below them if that is too narrow.
fn hanging(terminal: &Terminal<'_>, indent: usize, text: &str) -> String {
    let least = 24;
    let indent = match terminal.width {
        Some(width) if width < indent + least => 4,
        _ => indent,
    };
    let blank = " ".repeat(indent);
    let wrapped = terminal.wrap(&format!("{blank}{text}")).join("\n");
    match indent {
        4 => format!("\n{wrapped}"),
        _ => wrapped.trim_start().to_owned(),
    }
}

fn pages(selected: &[Selected<'_>], terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let names = widest(selected.iter().map(|s| s.variant.name.clone()));
    let verdicts = widest(selected.iter().map(record::expected_in_short));
    let mut last = "";
    for s in selected {
        if s.case.name != last {
            if !last.is_empty() {
                writeln!(terminal.out)?;
            }
            last = &s.case.name;
            let mut head = terminal.wrap(&format!("{last}: {}", s.case.summary));
            if let Some(rest) = head[0].strip_prefix(last).map(str::to_owned) {
                head[0] = terminal.ink(last, "1") + &rest;
            }
            writeln!(terminal.out, "{}", head.join("\n"))?;
            for line in terminal.wrap(&format!("  from {}", s.case.document)) {
                writeln!(terminal.out, "{}", terminal.ink(&line, "2"))?;
            }
        }
        let verdict = record::expected_in_short(s);
        let indent = 2 + names + 2 + verdicts + 2;
        let text = hanging(terminal, indent, &said(s));
        let variant = &s.variant.name;
        // What begins with a line of its own does not need the columns.
        match text.starts_with('\n') {
            true => writeln!(terminal.out, "  {variant}: {verdict}{text}")?,
            false => writeln!(terminal.out, "  {variant:<names$}  {verdict:<verdicts$}  {text}")?,
        }
    }
    Ok(())
}
