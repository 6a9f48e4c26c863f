//! The waits between members of a stuck set, as arrows between columns.

use super::lanes::Lanes;
use super::words::{clean, find_word};
use crate::trace::Trace;

/// Returns the column of somebody for whom a stuck step waits, if it waits in another one.
pub(super) fn column_waited_for(trace: &Trace, line: usize) -> Option<usize> {
    let stuck: Vec<usize> = (0..trace.lines.len()).filter(|&at| trace.lines[at].stuck).collect();
    // The stuck steps and the waits are of the same contexts, in the same order.
    let wait = trace.waits.get(stuck.iter().position(|&at| at == line)?)?;
    let of = |&at: &usize| Some(trace.lines[*stuck.get(at)?].column);
    wait.on.iter().filter_map(of).find(|&column| column != trace.lines[line].column)
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
