//! How the results of a `check` are printed as they come.

use crate::args::{Check, TableFormat};
use crate::by_case::ByCase;
use crate::engine::Outcome;
use crate::outcome::{Fault, Terminal};
use crate::record::{Record, Standing};
use crate::selected::Selected;
use crate::table::Table;

/// Lines of JSON, a line a variant, or a line a case.
pub(crate) enum Rows {
    Json,
    Variants(Table),
    Cases(ByCase),
}

impl Rows {
    /// A terminal gets a line a case, unless it is about one case only, or asked for more. What
    /// goes into a pipe or a file has a line a variant.
    pub(crate) fn new(args: &Check, run: &[Selected<'_>], terminal: &Terminal<'_>) -> Rows {
        let one_case = run.iter().all(|s| s.case.name == run[0].case.name);
        match args.format {
            TableFormat::Json => Rows::Json,
            TableFormat::Table if !terminal.interactive || args.verbose || one_case => {
                Rows::Variants(Table::new(run, args.search.budget.is_some(), terminal.width))
            }
            TableFormat::Table => {
                let limited = args.search.budget.is_some() || args.search.bound.is_some();
                Rows::Cases(ByCase::new(run, limited, terminal.width))
            }
        }
    }

    pub(crate) fn titles(&self, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        match self {
            Rows::Json => Ok(()),
            Rows::Variants(table) => table.titles(terminal),
            Rows::Cases(cases) => cases.titles(terminal),
        }
    }

    /// Prints a result, so that whoever reads along sees it when it is there.
    pub(crate) fn row(
        &mut self,
        terminal: &mut Terminal<'_>,
        selected: &Selected<'_>,
        outcome: &Outcome,
        standing: Standing,
    ) -> Result<(), Fault> {
        match self {
            Rows::Json => {
                let record = Record::new(selected, outcome, standing);
                serde_json::to_writer(&mut *terminal.out, &record)?;
                writeln!(terminal.out)?;
            }
            Rows::Variants(table) => table.row(terminal, selected, outcome, standing)?,
            Rows::Cases(cases) => cases.row(terminal, selected, outcome, standing)?,
        }
        Ok(terminal.out.flush()?)
    }

    pub(crate) fn end(&mut self, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        match self {
            Rows::Json | Rows::Variants(_) => Ok(()),
            Rows::Cases(cases) => cases.end(terminal),
        }
    }
}
