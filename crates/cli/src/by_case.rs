//! A line a case: how many variants are as stated, what they got, and how much that took. Variants
//! that are not as stated stand below their case.

use std::time::Duration;

use crate::engine::{Outcome, Verdict};
use crate::outcome::{Fault, Terminal};
use crate::record::Standing;
use crate::selected::Selected;
use crate::words::{count, elide, of_count, time};

/// Columns that a summary of the case needs, to be of use.
const SUMMARY: usize = 24;

/// A case, as far as its variants have run.
struct Case {
    name: String,
    summary: String,
    /// How many of its variants are to run.
    of: usize,
    done: usize,
    agree: usize,
    found: usize,
    exhausted: usize,
    bounded: usize,
    executions: u64,
    elapsed: Duration,
    /// The variants that are not as stated, each with its mark.
    others: Vec<(Standing, String)>,
}

impl Case {
    fn of(selected: &Selected<'_>) -> Case {
        Case {
            name: selected.case.name.clone(),
            summary: selected.case.summary.clone(),
            of: 0,
            done: 0,
            agree: 0,
            found: 0,
            exhausted: 0,
            bounded: 0,
            executions: 0,
            elapsed: Duration::ZERO,
            others: Vec::new(),
        }
    }

    fn add(&mut self, selected: &Selected<'_>, outcome: &Outcome, standing: Standing) {
        self.done += 1;
        self.executions += outcome.executions;
        self.elapsed += outcome.elapsed;
        match outcome.verdict {
            _ if standing == Standing::Interrupted => {}
            Verdict::Found => self.found += 1,
            Verdict::Exhausted => self.exhausted += 1,
            Verdict::BoundReached => self.bounded += 1,
        }
        if standing == Standing::Agrees {
            self.agree += 1;
        } else {
            self.others.push((standing, selected.variant.name.clone()));
        }
    }

    /// Whether all is as stated, and if not, the worst that there is.
    fn standing(&self) -> Standing {
        let has = |standing| self.others.iter().any(|(other, _)| *other == standing);
        let worst = [Standing::Differs, Standing::Open, Standing::Interrupted];
        match worst.into_iter().find(|standing| has(*standing)) {
            Some(worst) => worst,
            None if self.done < self.of => Standing::Interrupted,
            None => Standing::Agrees,
        }
    }
}

/// The cases that run, in their order, and how their lines are laid out.
pub(crate) struct ByCase {
    cases: Vec<Case>,
    /// The first case whose line is not printed yet.
    at: usize,
    names: usize,
    /// Whether there is a column for what ended at a bound.
    bounded: bool,
    /// Columns that are left for the summaries; `None` without a limit.
    rest: Option<usize>,
    fits: bool,
}

impl ByCase {
    pub(crate) fn new(run: &[Selected<'_>], limited: bool, width: Option<usize>) -> ByCase {
        let mut cases: Vec<Case> = Vec::new();
        for selected in run {
            if cases.last().is_none_or(|case| case.name != selected.case.name) {
                cases.push(Case::of(selected));
            }
            if let Some(case) = cases.last_mut() {
                case.of += 1;
            }
        }
        let names = cases.iter().map(|case| case.name.chars().count()).max().unwrap_or(0).max(4);
        let bounded =
            limited || run.iter().any(|s| s.variant.expected.verdict() == Verdict::BoundReached);
        let used = Self::line(names, bounded, ["", "", "", "", "", "", "", ""]).chars().count();
        let fits = width.is_none_or(|width| used <= width);
        let rest = width.map(|width| width.saturating_sub(used + 2));
        ByCase { cases, at: 0, names, bounded, rest, fits }
    }

    /// The cells side by side: mark, name, as stated, found, exhausted, bounded, executions, time.
    fn line(names: usize, bounded: bool, cells: [&str; 8]) -> String {
        let [mark, name, stated, found, exhausted, reached, executions, time] = cells;
        let reached = if bounded { format!("  {reached:>7}") } else { String::new() };
        format!(
            "{mark:<1}  {name:<names$}  {stated:>9}  {found:>5}  {exhausted:>9}{reached}  {executions:>10}  {time:>9}"
        )
    }

    fn summary(&self, line: String, summary: &str) -> String {
        match self.rest {
            None => format!("{line}  {summary}"),
            Some(rest) if rest >= SUMMARY => format!("{line}  {}", elide(summary, rest)),
            Some(_) => line,
        }
    }

    pub(crate) fn titles(&self, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        if self.fits && !self.cases.is_empty() {
            let titles =
                ["", "case", "as stated", "found", "exhausted", "bounded", "executions", "time"];
            let line = Self::line(self.names, self.bounded, titles);
            let line = terminal.ink(&self.summary(line, "what it is"), "1");
            writeln!(terminal.out, "{line}")?;
        }
        Ok(())
    }

    /// Takes note of a variant; the line of its case is printed when that was the last one.
    pub(crate) fn row(
        &mut self,
        terminal: &mut Terminal<'_>,
        selected: &Selected<'_>,
        outcome: &Outcome,
        standing: Standing,
    ) -> Result<(), Fault> {
        let Some(case) = self.cases.get_mut(self.at) else { return Ok(()) };
        case.add(selected, outcome, standing);
        if case.done == case.of { self.print(terminal) } else { Ok(()) }
    }

    /// Prints the line of a case that has begun, and was not run to its end.
    pub(crate) fn end(&mut self, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        if self.cases.get(self.at).is_some_and(|case| case.done > 0) {
            self.print(terminal)?;
        }
        Ok(())
    }

    fn print(&mut self, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        let Some(case) = self.cases.get(self.at) else { return Ok(()) };
        self.at += 1;
        let standing = case.standing();
        let mark = terminal.ink(standing.mark(), standing.colour());
        let stated = format!("{} of {}", case.agree, case.of);
        if self.fits {
            let cells = [
                "",
                &case.name,
                &stated,
                &case.found.to_string(),
                &case.exhausted.to_string(),
                &case.bounded.to_string(),
                &count(case.executions),
                &time(case.elapsed),
            ];
            let line = self.summary(Self::line(self.names, self.bounded, cells), &case.summary);
            // The mark's place is a blank: colour would count as columns.
            writeln!(terminal.out, "{mark}{}", &line[1..])?;
        } else {
            writeln!(terminal.out, "{mark} {}", case.name)?;
            let bounded =
                if self.bounded { format!(", {} bounded", case.bounded) } else { String::new() };
            let line = format!(
                "    {stated} as stated: {} found, {} exhausted{bounded}; {}, {}",
                case.found,
                case.exhausted,
                of_count(case.executions, "execution"),
                time(case.elapsed)
            );
            for line in terminal.wrap(&line) {
                writeln!(terminal.out, "{line}")?;
            }
        }
        for (standing, variant) in &case.others {
            let mark = terminal.ink(standing.mark(), standing.colour());
            writeln!(terminal.out, "   {mark} {variant}")?;
        }
        Ok(())
    }
}
