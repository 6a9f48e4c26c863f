//! The wait-for edges, read out of the words of the waits.

use super::lanes::Lanes;
use super::words::{clean, find_word};
use crate::trace::Trace;

/// `trace.waits[from]` waits for `trace.waits[to]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Edge {
    pub from: usize,
    pub to: usize,
}

/// Returns who of the stuck set waits for whom of it. A wait names others in what comes after
/// `held by`, or anywhere.
pub(super) fn between_waits(trace: &Trace) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (from, wait) in trace.waits.iter().enumerate() {
        let what = clean(&wait.what);
        // What it holds itself is no reason to wait.
        let what = what.split_once("(itself holding").map_or(what.as_str(), |(waits, _)| waits);
        let named = |part: &str| -> Vec<usize> {
            let others = trace.waits.iter().enumerate();
            others
                .filter(|(to, other)| *to != from && find_word(part, &clean(&other.who)).is_some())
                .map(|(to, _)| to)
                .collect()
        };
        let owners =
            what.split_once("held by").map(|(_, owners)| named(owners)).unwrap_or_default();
        let targets = if owners.is_empty() { named(what) } else { owners };
        edges.extend(targets.into_iter().map(|to| Edge { from, to }));
    }
    edges
}

/// The lock that a stuck step waits for and the column where it is held at the end: `(lock,
/// column)`.
pub(super) fn lock_waited_for(trace: &Trace, lanes: &Lanes, line: usize) -> Option<(usize, usize)> {
    let step = &trace.lines[line];
    let text = clean(&step.text);
    let lock = (0..lanes.locks.len())
        .filter(|&l| find_word(&text, &lanes.locks[l]).is_some())
        .max_by_key(|&l| lanes.locks[l].len())?;
    let column = lanes.after.last()?.iter().position(|lane| lane.holds.contains(&lock))?;
    Some((lock, column))
}
