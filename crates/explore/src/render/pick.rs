//! The steps that are shown when not all of them fit.

use super::lanes::{Lanes, enters_handler};
use super::words::clean;
use crate::trace::{FailureKind, Line, Trace};

/// A row of the picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Row {
    /// The line with this index.
    Step(usize),
    /// Lines that were left out, up to the one with index `last`.
    Gap { last: usize, parts: Vec<Part> },
}

/// What was left out in one column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub column: usize,
    pub steps: usize,
    /// Whose steps, if they are of one context.
    pub of: Option<String>,
}

impl Row {
    /// The line after which the picture is in the state that this row shows.
    pub(super) fn last(&self) -> usize {
        match self {
            Row::Step(at) => *at,
            Row::Gap { last, .. } => *last,
        }
    }
}

/// Every step.
pub(super) fn all(trace: &Trace) -> Vec<Row> {
    (0..trace.lines.len()).map(Row::Step).collect()
}

/// The steps that have to do with the failure, and those that the program tells itself.
pub(super) fn mattering(trace: &Trace) -> Vec<Row> {
    let keeps = |l: &Line| l.matters || l.stuck || l.preempts || l.told;
    let keep: Vec<bool> = trace.lines.iter().map(keeps).collect();
    rows(trace, &keep)
}

/// How many of the rows are steps.
pub(super) fn steps(rows: &[Row]) -> usize {
    rows.iter().filter(|row| matches!(row, Row::Step(_))).count()
}

/// How much a step tells at least that belongs to the story.
const STORY: u32 = 50;

/// The most telling steps: as many as there is room for, which `fits` says of rows and a number of
/// lines. The story may take twice the lines, so that none of it is left out before that.
pub(super) fn most_telling(
    trace: &Trace,
    lanes: &Lanes,
    most: usize,
    fits: impl Fn(&[Row], usize) -> bool,
) -> Vec<Row> {
    let scores = scores(trace, lanes);
    let mut order: Vec<usize> = (0..trace.lines.len()).collect();
    // A deadlock is made at the end. What is left over may have been lost at any time: of such a
    // run the beginning is kept too, and the middle is folded.
    let last = trace.lines.len().saturating_sub(1);
    let kept_for =
        |at: usize| if trace.kind == FailureKind::Quiescence { at.max(last - at) } else { at };
    order.sort_by_key(|&at| (scores[at], kept_for(at), at));
    let without = |dropped: usize| {
        let mut keep = vec![true; trace.lines.len()];
        for &at in &order[..dropped] {
            keep[at] = false;
        }
        rows(trace, &keep)
    };
    // Dropping more may add a gap's row, so this is not quite monotone; it ends at a number that
    // fits all the same.
    let least = |mut low: usize, lines: usize| {
        let mut high = trace.lines.len();
        while low < high {
            let middle = (low + high) / 2;
            if fits(&without(middle), lines) { high = middle } else { low = middle + 1 }
        }
        high
    };
    let dropped = least(trace.lines.len().saturating_sub(most), most);
    if !order[..dropped].iter().any(|&at| trace.lines[at].told) {
        return without(dropped);
    }
    let beside = scores.iter().filter(|&&score| score < STORY).count();
    without(least(beside, 2 * most))
}

/// How much a step tells; higher is more.
pub(super) fn scores(trace: &Trace, lanes: &Lanes) -> Vec<u32> {
    let mut scores: Vec<u32> = trace
        .lines
        .iter()
        .map(|line| {
            let kinds = [
                (line.matters && is_shown_beside(&line.text), 10),
                (line.matters && !is_shown_beside(&line.text), 40),
                (line.told, STORY),
                (line.matters && enters_handler(&line.text), 60),
                (line.matters && line.told, 65),
                (line.preempts, 80),
                (line.stuck, 100),
            ];
            kinds.iter().filter(|k| k.0).map(|k| k.1).max().unwrap_or(0)
        })
        .collect();
    for column in 0..lanes.titles.len() {
        for lock in 0..lanes.locks.len() {
            if let Some(at) = lanes.held_since(column, lock) {
                scores[at] = scores[at].max(70);
            }
        }
    }
    for at in let_in(trace, lanes) {
        scores[at] = scores[at].max(70);
    }
    if let Some(last) = scores.last_mut() {
        *last = (*last).max(90);
    }
    scores
}

/// The steps that have turned interrupts on where a handler came that is stuck: without them it had
/// not come.
fn let_in(trace: &Trace, lanes: &Lanes) -> Vec<usize> {
    let steps = || trace.lines.iter().enumerate();
    let stuck = steps().filter(|(at, line)| line.stuck && lanes.depth[*at] > 0);
    let let_in = |column: usize| {
        let came = steps().rfind(|(_, l)| l.column == column && enters_handler(&l.text))?.0;
        let turns_on = |at: &usize| {
            let on = |at: usize| lanes.after[at][column].irqs_on == Some(true);
            on(*at) && !on(*at - 1)
        };
        (1..came).rev().find(turns_on)
    };
    stuck.filter_map(|(_, line)| let_in(line.column)).collect()
}

/// Whether the lane says the same without the step: that a lock is not held any more, or whether
/// interrupts are on.
fn is_shown_beside(text: &str) -> bool {
    text.starts_with("turns interrupts ") || text.starts_with("releases ") || text == "goes on"
}

fn rows(trace: &Trace, keep: &[bool]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut at = 0;
    while at < keep.len() {
        let end = (at..keep.len()).find(|&i| keep[i]).unwrap_or(keep.len());
        if end - at <= 1 {
            // To mark a gap of one step would take as much room as the step.
            rows.push(Row::Step(at));
            at += 1;
        } else {
            rows.push(gap(trace, at, end));
            at = end;
        }
    }
    rows
}

fn gap(trace: &Trace, from: usize, end: usize) -> Row {
    let mut parts: Vec<Part> = Vec::new();
    for line in &trace.lines[from..end] {
        let name = clean(&line.context);
        match parts.iter_mut().find(|p| p.column == line.column) {
            Some(part) => {
                part.steps += 1;
                part.of = part.of.take().filter(|of| *of == name);
            }
            None => parts.push(Part { column: line.column, steps: 1, of: Some(name) }),
        }
    }
    Row::Gap { last: end - 1, parts }
}
