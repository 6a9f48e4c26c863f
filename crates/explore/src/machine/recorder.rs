//! A run that was written down, and the trace that is made of it.

use std::collections::{BTreeMap, HashSet};

use crate::ids::{CtxId, CtxSet, ObjId, hash};
use crate::machine::failed::FailedRun;
use crate::op::OpKind;
use crate::trace::{Column, FailureKind, Line, Trace, Wait};

/// A line that is being written, with what decides whether it matters.
#[derive(Clone)]
pub(crate) struct Entry {
    pub line: Line,
    pub ctx: CtxId,
    pub obj: ObjId,
    pub kind: OpKind,
}

/// The run so far.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    pub entries: Vec<Entry>,
    pub columns: Vec<(Option<u32>, String)>,
    pub waits: Vec<Wait>,
    pub stuck: Vec<Entry>,
    /// What words hold, as far as they were used.
    pub values: BTreeMap<ObjId, String>,
}

impl Recorder {
    /// Remembers what a word holds.
    pub(crate) fn holds(&mut self, word: ObjId, value: String) {
        self.values.insert(word, value);
    }

    /// Returns what a word holds, if it was used.
    pub(crate) fn value(&self, word: ObjId) -> Option<&str> {
        self.values.get(&word).map(String::as_str)
    }

    /// Returns the contexts that have used one of the objects.
    pub(crate) fn users(&self, objs: &[ObjId]) -> CtxSet {
        let mut users = CtxSet::EMPTY;
        for entry in self.entries.iter().filter(|entry| objs.contains(&entry.obj)) {
            users.insert(entry.ctx);
        }
        users
    }

    pub(crate) fn preemptions(&self) -> u32 {
        self.entries.iter().filter(|entry| entry.line.preempts).count() as u32
    }

    /// The loop that a run without an end is in, judged by its second half: where it is, and whose.
    fn endless_loop(&self) -> Option<(String, String)> {
        let tail = &self.entries[self.entries.len() / 2..];
        let busiest = most_frequent(tail.iter().map(|entry| entry.ctx))?;
        let of_it = || tail.iter().filter(move |entry| entry.ctx == busiest);
        // A loop may take steps at several lines: it is told by the first of them in the file that
        // it is in most.
        let place = |entry: &Entry| {
            let (file, line) = entry.line.site.rsplit_once(':')?;
            Some((file.to_owned(), line.parse::<u32>().ok()?))
        };
        let file = most_frequent(of_it().filter_map(place).map(|(file, _)| file))?;
        let mut lines: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, line) in of_it().filter_map(place).filter(|(other, _)| *other == file) {
            *lines.entry(line).or_default() += 1;
        }
        // What it does only now and then it may do for another reason.
        let often = lines.values().max()? / 2;
        let line = lines.iter().find(|(_, times)| **times > often).map(|(line, _)| *line)?;
        let relaxes = of_it().any(|entry| entry.kind == OpKind::Relax);
        let ask = if relaxes {
            ", though it calls `cpu_relax`: does it, or another one, change what it waits for over and over?"
        } else {
            ": does it call `cpu_relax`?"
        };
        let who = of_it().next()?.line.context.clone();
        Some((format!("a loop at {file}:{line} takes steps for ever{ask}"), who))
    }

    /// A hash of what was done, by whom and to what.
    pub(crate) fn fingerprint(&self) -> u64 {
        hash(self.entries.iter().flat_map(|entry| {
            let obj = entry.obj.0.to_le_bytes();
            [entry.ctx.0, entry.kind as u8, obj[0], obj[1]]
        }))
    }

    /// The trace of the run. `minimal`: whether it is known to be minimal in preemptions, if that
    /// was looked at.
    pub(crate) fn trace(self, failed: FailedRun, minimal: Option<bool>) -> Trace {
        let preemptions = self.preemptions();
        let looping = self.endless_loop().filter(|_| failed.kind == FailureKind::TooLong);
        let mut entries = self.entries;
        let steps = entries.len();
        mark(&mut entries, &self.stuck, failed.members);
        entries.extend(self.stuck.into_iter().enumerate().map(|(index, mut entry)| {
            entry.line.step = steps + index;
            entry
        }));
        // CPUs first, by number.
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        order.sort_by_key(|&column| {
            (self.columns[column].0.is_none(), self.columns[column].0, column)
        });
        let mut place = vec![0; order.len()];
        for (new, &old) in order.iter().enumerate() {
            place[old] = new;
        }
        let lines = entries
            .into_iter()
            .map(|entry| Line { column: place[entry.line.column], ..entry.line })
            .collect();
        let columns =
            order.iter().map(|&column| Column { title: self.columns[column].1.clone() }).collect();
        Trace {
            kind: failed.kind,
            columns,
            lines,
            waits: self.waits,
            why: match looping {
                Some((looping, who)) => format!("{looping} ({who}; {})", failed.message),
                None => failed.message,
            },
            preemptions,
            minimal: minimal.unwrap_or(preemptions == 0),
        }
    }
}

/// What occurs most often; the first in order of those that do.
fn most_frequent<T: Ord>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut times: BTreeMap<T, usize> = BTreeMap::new();
    for one in all {
        *times.entry(one).or_default() += 1;
    }
    times.into_iter().rev().max_by_key(|(_, times)| *times).map(|(one, _)| one)
}

/// Decides which steps matter: those by contexts that are stuck or failed, and those by others on
/// objects that the former used, looked at from the end.
fn mark(entries: &mut [Entry], stuck: &[Entry], members: CtxSet) {
    if members.is_empty() {
        return;
    }
    let mut ctxs = members;
    let mut objs: HashSet<ObjId> = stuck.iter().map(|entry| entry.obj).collect();
    for entry in entries.iter_mut().rev() {
        let uses = objs.contains(&entry.obj);
        let matters = ctxs.contains(entry.ctx) || uses;
        entry.line.matters = matters;
        if matters {
            ctxs.insert(entry.ctx);
            objs.insert(entry.obj);
        }
    }
}
