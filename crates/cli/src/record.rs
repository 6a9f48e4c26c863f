//! One variant's result: whether it is what it must be, as JSON, and as a row.

use serde::Serialize;

use crate::engine::{FailureKind, Limit, Outcome, Trace, Verdict};
use crate::selected::Selected;
use crate::words::{count, name, time};

/// The version of what is printed as JSON: `docs/json.md` describes it. A field that is added does
/// not change the version; one that is removed, or means something else, does.
pub(crate) const SCHEMA: u32 = 1;

/// How an outcome compares with what it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// As stated.
    Agrees,
    /// Something else.
    Differs,
    /// The search ended before it could tell: nothing was found within the bound or budget.
    Open,
    /// Somebody interrupted it before it could tell.
    Interrupted,
}

impl Standing {
    /// The mark that a line begins with.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Standing::Agrees => "✓",
            Standing::Differs => "✗",
            Standing::Open => "?",
            Standing::Interrupted => "-",
        }
    }

    /// The colour of the mark, as a terminal has it.
    pub(crate) fn colour(self) -> &'static str {
        match self {
            Standing::Agrees => "32",
            Standing::Differs => "1;31",
            Standing::Open | Standing::Interrupted => "33",
        }
    }
}

pub(crate) fn standing(selected: &Selected<'_>, outcome: &Outcome, stopped: bool) -> Standing {
    let expected = selected.variant.expected;
    let kind = outcome.failure.as_ref().map(|f| f.kind);
    if outcome.verdict == Verdict::BoundReached && stopped {
        Standing::Interrupted
    } else if outcome.verdict == expected.verdict()
        && (outcome.verdict != Verdict::Found || kind == expected.kind())
    {
        let as_stated = match &selected.variant.inversions {
            Some(stated) => *stated == outcome.inversions,
            None => !surprises(outcome),
        };
        let all_ran = outcome.verdict != Verdict::Exhausted || outcome.never_ran.is_empty();
        if as_stated && all_ran { Standing::Agrees } else { Standing::Differs }
    } else if outcome.verdict == Verdict::BoundReached {
        Standing::Open
    } else {
        Standing::Differs
    }
}

/// Whether the validator questions a lock order though all went well: where nobody states that, it
/// is a surprise.
pub(crate) fn surprises(outcome: &Outcome) -> bool {
    outcome.verdict == Verdict::Exhausted && !outcome.inversions.is_silent()
}

/// What `check --format json` prints, a line per variant.
#[derive(Serialize)]
pub(crate) struct Record<'a> {
    schema: u32,
    case: &'a str,
    variant: &'a str,
    expected: String,
    expected_kind: Option<String>,
    expected_inversions: Option<String>,
    verdict: String,
    kind: Option<String>,
    inversions: String,
    agrees: bool,
    interrupted: bool,
    scope: &'a str,
    executions: u64,
    bound: Option<u32>,
    limit: Option<String>,
    never_ran: &'a [String],
    millis: u64,
    token: Option<&'a str>,
    /// Only `explain` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<&'a Trace>,
}

impl<'a> Record<'a> {
    pub(crate) fn new(
        selected: &Selected<'a>,
        outcome: &'a Outcome,
        standing: Standing,
    ) -> Record<'a> {
        let variant = selected.variant;
        Record {
            schema: SCHEMA,
            case: &selected.case.name,
            variant: &variant.name,
            expected: name(variant.expected.verdict()),
            expected_kind: variant.expected.kind().map(name),
            expected_inversions: variant.inversions.as_ref().map(ToString::to_string),
            verdict: name(outcome.verdict),
            kind: outcome.failure.as_ref().map(|f| name(f.kind)),
            inversions: outcome.inversions.to_string(),
            agrees: standing == Standing::Agrees,
            interrupted: standing == Standing::Interrupted,
            scope: &variant.scope,
            executions: outcome.executions,
            bound: outcome.bound,
            limit: outcome.limit.map(|limit| limit.to_string()),
            never_ran: &outcome.never_ran,
            millis: u64::try_from(outcome.elapsed.as_millis()).unwrap_or(u64::MAX),
            token: outcome.failure.as_ref().map(|f| f.token.as_str()),
            trace: None,
        }
    }
}

/// What a variant must get, in words: `found deadlock`, `exhausted, unreachable (different
/// instances)`.
pub(crate) fn expected(selected: &Selected<'_>) -> String {
    let expected = selected.variant.expected;
    in_words(
        expected.verdict(),
        expected.kind(),
        selected.variant.inversions.as_ref().map(ToString::to_string),
    )
}

/// The same without reasons, for a column.
pub(crate) fn expected_in_short(selected: &Selected<'_>) -> String {
    let expected = selected.variant.expected;
    let inversions = selected.variant.inversions.as_ref();
    in_words(expected.verdict(), expected.kind(), inversions.map(|stated| stated.answer.clone()))
}

/// What a variant got of what it must get, in the same words.
pub(crate) fn got(selected: &Selected<'_>, outcome: &Outcome) -> String {
    let tells = selected.variant.inversions.is_some() || surprises(outcome);
    let inversions = tells.then(|| outcome.inversions.to_string());
    let idle = match outcome.verdict {
        Verdict::Exhausted if !outcome.never_ran.is_empty() => {
            format!(", but never ran: {}", outcome.never_ran.join(", "))
        }
        _ => String::new(),
    };
    in_words(outcome.verdict, outcome.failure.as_ref().map(|f| f.kind), inversions) + &idle
}

fn in_words(verdict: Verdict, kind: Option<FailureKind>, inversions: Option<String>) -> String {
    let kind = kind.map(|kind| format!(" {}", name(kind))).unwrap_or_default();
    let inversions = inversions.map(|inversions| format!(", {inversions}")).unwrap_or_default();
    format!("{}{kind}{inversions}", name(verdict))
}

/// What a variant got, in words.
pub(crate) fn verdict(outcome: &Outcome, standing: Standing) -> String {
    match outcome.limit {
        _ if standing == Standing::Interrupted => "interrupted".to_owned(),
        Some(limit) => format!("{} ({})", name(outcome.verdict), in_short(limit)),
        None => name(outcome.verdict),
    }
}

/// What ended a search early, for a column; of bounds only the number.
fn in_short(limit: Limit) -> String {
    match limit {
        Limit::Preemptions(bound) => bound.to_string(),
        Limit::Executions(_) | Limit::Samples(_) => "executions".to_owned(),
        Limit::Budget(_) => "budget".to_owned(),
        Limit::Stopped => "stopped".to_owned(),
        Limit::Lapses(_) => "lapses".to_owned(),
        Limit::MistakenLoop => "loop".to_owned(),
        Limit::AbandonedStacks(_) | Limit::AbandonedByProcess(_) => "stacks".to_owned(),
    }
}

/// The titles of the table.
pub(crate) const TITLES: [&str; 9] =
    ["", "case", "variant", "expected", "verdict", "kind", "executions", "time", "scope"];

/// Columns that are aligned on the right.
pub(crate) const NUMBERS: [usize; 2] = [6, 7];

/// The cells of the table.
pub(crate) fn cells(selected: &Selected<'_>, outcome: &Outcome, standing: Standing) -> [String; 9] {
    [
        standing.mark().to_owned(),
        selected.case.name.clone(),
        selected.variant.name.clone(),
        expected_in_short(selected),
        verdict(outcome, standing),
        outcome.failure.as_ref().map_or_else(|| "-".to_owned(), |f| name(f.kind)),
        count(outcome.executions),
        time(outcome.elapsed),
        selected.variant.scope.clone(),
    ]
}
