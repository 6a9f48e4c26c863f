//! What stands beside the steps: who holds what, where interrupts are off, and how deep in handlers
//! a step is.

use std::collections::HashMap;

use super::words::clean;
use crate::trace::Trace;

/// One CPU after one step.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// `None` for hardware.
    pub irqs_on: Option<bool>,
    /// What its contexts hold, as indices into [`Lanes::locks`], in the order of acquisition.
    pub holds: Vec<usize>,
}

/// The lanes of a trace.
pub(super) struct Lanes {
    /// All locks that are ever held, in the order in which that begins.
    pub locks: Vec<String>,
    /// The columns in which something happens, by rising index into the trace's columns.
    pub used: Vec<usize>,
    /// The title of each column.
    pub titles: Vec<String>,
    /// The contexts that run in each column, handlers left out, in order of appearance.
    pub tasks: Vec<Vec<String>>,
    /// The number of handlers that each line is deep in; 0 for a task.
    pub depth: Vec<usize>,
    /// The state after each line, by column.
    pub after: Vec<Vec<Lane>>,
}

/// Whether the step is the entry of an interrupt handler. The machine words it so, and a remark may
/// follow.
pub(super) fn enters_handler(text: &str) -> bool {
    let begins = |text: &str| text.starts_with("the handler") && text.ends_with(" begins");
    begins(text) || text.match_indices(": ").any(|(at, _)| begins(&text[..at]))
}

/// Whether the step is the last one of an interrupt handler.
fn leaves_handler(text: &str) -> bool {
    text.strip_prefix("the handler returns")
        .is_some_and(|rest| matches!(rest.get(..1), None | Some(":")))
}

impl Lanes {
    pub(super) fn of(trace: &Trace) -> Lanes {
        let highest = trace.lines.iter().map(|l| l.column + 1).max().unwrap_or(0);
        let count = trace.columns.len().max(highest);
        let title = |c: usize| {
            trace.columns.get(c).map_or_else(|| format!("column {c}"), |col| clean(&col.title))
        };
        let mut lanes = Lanes {
            locks: Vec::new(),
            used: (0..count).filter(|c| trace.lines.iter().any(|l| l.column == *c)).collect(),
            titles: (0..count).map(title).collect(),
            tasks: vec![Vec::new(); count],
            depth: Vec::with_capacity(trace.lines.len()),
            after: Vec::with_capacity(trace.lines.len()),
        };
        lanes.follow(trace, count);
        lanes
    }

    fn follow(&mut self, trace: &Trace, count: usize) {
        let mut state = vec![Lane::default(); count];
        for line in &trace.lines {
            let irqs = &mut state[line.column].irqs_on;
            *irqs = irqs.or(line.irqs_on.map(|_| true));
        }
        // Where each context was last seen, and what it holds there.
        let mut place: HashMap<&str, (usize, Vec<usize>)> = HashMap::new();
        let mut handlers: Vec<Vec<&str>> = vec![Vec::new(); count];
        for line in &trace.lines {
            let holds: Vec<usize> = line.holds.iter().map(|name| self.lock(&clean(name))).collect();
            let (before, held) = place
                .insert(&line.context, (line.column, holds.clone()))
                .unwrap_or((line.column, Vec::new()));
            let gone = |lane: &mut Lane, lock: &usize| {
                if let Some(at) = lane.holds.iter().position(|l| l == lock) {
                    lane.holds.remove(at);
                }
            };
            let moved = before != line.column;
            for lock in held.iter().filter(|l| moved || !holds.contains(l)) {
                gone(&mut state[before], lock);
            }
            for lock in holds.iter().filter(|l| moved || !held.contains(l)) {
                state[line.column].holds.push(*lock);
            }
            if line.irqs_on.is_some() {
                state[line.column].irqs_on = line.irqs_on;
            }

            let stack = &mut handlers[line.column];
            if enters_handler(&line.text) {
                // It runs once at a time: what it was the last time is over.
                if let Some(before) = stack.iter().position(|name| *name == line.context) {
                    stack.truncate(before);
                }
                stack.push(&line.context);
            }
            let inside =
                stack.iter().rposition(|name| *name == line.context).map_or(0, |at| at + 1);
            // A line about a context that is stuck under a handler does not mean that the handler
            // has returned.
            if !line.stuck {
                stack.truncate(inside);
            }
            if leaves_handler(&line.text) {
                stack.truncate(inside.saturating_sub(1));
            }
            let name = clean(&line.context);
            if inside == 0 && !self.tasks[line.column].contains(&name) {
                self.tasks[line.column].push(name);
            }
            self.depth.push(inside);
            self.after.push(state.clone());
        }
    }

    fn lock(&mut self, name: &str) -> usize {
        self.locks.iter().position(|l| l == name).unwrap_or_else(|| {
            self.locks.push(name.to_owned());
            self.locks.len() - 1
        })
    }

    /// The first line after which `lock` is held in `column` until the end, if it is.
    pub(super) fn held_since(&self, column: usize, lock: usize) -> Option<usize> {
        let without = self.after.iter().rposition(|lanes| !lanes[column].holds.contains(&lock));
        let since = without.map_or(0, |at| at + 1);
        (since < self.after.len()).then_some(since)
    }
}
