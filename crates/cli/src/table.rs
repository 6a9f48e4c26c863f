//! A line a variant: a table whose rows are printed as they come, or, where the terminal is too
//! narrow for its columns, a row in lines of its own.

use crate::engine::Outcome;
use crate::outcome::{Fault, Terminal};
use crate::record::{self, NUMBERS, Standing, TITLES};
use crate::selected::Selected;
use crate::words::{name, of_count, time};

/// The widths of the columns, which are known before anything has run.
pub(crate) struct Table {
    widths: [usize; 9],
    /// Whether a row fits into a line.
    fits: bool,
}

impl Table {
    pub(crate) fn new(run: &[Selected<'_>], budget: bool, width: Option<usize>) -> Table {
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
        widths[8] = widest(&|s| s.variant.scope.chars().count(), widths[8]);
        let used = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        Table { widths, fits: width.is_none_or(|width| used <= width) }
    }

    pub(crate) fn titles(&self, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        if self.fits {
            let line = terminal.ink(&self.line(&TITLES.map(str::to_owned)), "1");
            writeln!(terminal.out, "{line}")?;
        }
        Ok(())
    }

    pub(crate) fn row(
        &self,
        terminal: &mut Terminal<'_>,
        selected: &Selected<'_>,
        outcome: &Outcome,
        standing: Standing,
    ) -> Result<(), Fault> {
        if !self.fits {
            return stacked(terminal, selected, outcome, standing);
        }
        let line = self.line(&record::cells(selected, outcome, standing));
        let mut rest = line.chars();
        let mark: String = rest.next().into_iter().collect();
        let mark = terminal.ink(&mark, standing.colour());
        Ok(writeln!(terminal.out, "{mark}{}", rest.as_str())?)
    }

    fn line(&self, cells: &[String; 9]) -> String {
        let mut line = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let fill = " ".repeat(self.widths[at].saturating_sub(cell.chars().count()));
            if NUMBERS.contains(&at) {
                line.push_str(&format!("{fill}{cell}  "));
            } else {
                line.push_str(&format!("{cell}{fill}  "));
            }
        }
        line.trim_end().to_owned()
    }
}

/// A row in lines of its own: what it got, and below that what a table has in its columns.
fn stacked(
    terminal: &mut Terminal<'_>,
    selected: &Selected<'_>,
    outcome: &Outcome,
    standing: Standing,
) -> Result<(), Fault> {
    let mark = terminal.ink(standing.mark(), standing.colour());
    writeln!(terminal.out, "{mark} {}", selected.path())?;
    let mut verdict = record::got(selected, outcome);
    if outcome.limit.is_some() || standing == Standing::Interrupted {
        verdict = record::verdict(outcome, standing);
    }
    if standing != Standing::Agrees {
        verdict.push_str(&format!(" (must be {})", record::expected(selected)));
    }
    let line = format!(
        "    {verdict}: {}, {}; {}",
        of_count(outcome.executions, "execution"),
        time(outcome.elapsed),
        selected.variant.scope
    );
    for line in terminal.wrap(&line) {
        writeln!(terminal.out, "{line}")?;
    }
    Ok(())
}
