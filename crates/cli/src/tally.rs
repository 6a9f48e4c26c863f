//! What a `check` has come to: how many variants are as stated, and what to say of the others.

use crate::engine::Outcome;
use crate::outcome::{DIFFERS, INTERRUPTED, OK};
use crate::record::{self, Standing};
use crate::selected::Selected;
use crate::words::of;

/// What is known so far.
#[derive(Default)]
pub(crate) struct Tally {
    /// Variants to run.
    of: usize,
    /// How many of those have finished.
    pub(crate) done: usize,
    agree: usize,
    open: usize,
    differ: usize,
    left_out: usize,
    pub(crate) unfinished: Option<String>,
    pub(crate) interrupted: bool,
    /// A line for each variant that is not what it must be.
    pub(crate) notes: Vec<String>,
}

impl Tally {
    /// Returns one for as many variants to run, and those that are left out as too large.
    pub(crate) fn new(of: usize, left_out: usize) -> Tally {
        Tally { of, left_out, ..Tally::default() }
    }

    pub(crate) fn add(&mut self, selected: &Selected<'_>, outcome: &Outcome, standing: Standing) {
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

    pub(crate) fn summary(&self, elapsed: &str) -> String {
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

    pub(crate) fn status(&self) -> u8 {
        if self.interrupted {
            INTERRUPTED
        } else if self.differ + self.open > 0 {
            DIFFERS
        } else {
            OK
        }
    }
}
