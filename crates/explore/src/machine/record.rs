//! Writing a run down while it is replayed, for the trace.

use std::collections::{BTreeMap, HashSet};

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::alone::Alone;
use crate::machine::cell::with;
use crate::machine::step::NO_OBJ;
use crate::machine::wait_for::site;
use crate::machine::world::{Mode, World};
use crate::op::{Op, OpKind};
use crate::run::executor::FailedRun;
use crate::trace::{Column, FailureKind, Line, Trace, Wait};

/// A line that is being written, with what decides whether it matters.
#[derive(Clone)]
struct Entry {
    line: Line,
    ctx: CtxId,
    obj: ObjId,
    kind: OpKind,
}

/// The run so far.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    entries: Vec<Entry>,
    columns: Vec<(Option<u32>, String)>,
    waits: Vec<Wait>,
    stuck: Vec<Entry>,
}

impl World {
    /// Whether the step of `id` switches away from a context that could go on.
    pub(crate) fn preempts(&self, id: CtxId) -> bool {
        self.recorder.entries.last().is_some_and(|last| last.ctx != id && self.enabled(last.ctx))
    }

    pub(crate) fn record(&mut self, id: CtxId, op: &Op, preempts: bool) {
        let text = self.describe(id, op);
        let entry = self.entry(id, op, text, preempts);
        self.recorder.entries.push(entry);
    }

    fn entry(&mut self, id: CtxId, op: &Op, text: String, preempts: bool) -> Entry {
        let column = self.column(id);
        let ctx = self.ctx(id);
        let line = Line {
            step: self.recorder.entries.len(),
            column,
            context: ctx.name.to_string(),
            text,
            site: site(op.site),
            irqs_on: ctx.cpu.map(|cpu| self.cpus[cpu.0 as usize].irqs_on),
            holds: ctx
                .held
                .iter()
                .map(|held| {
                    held.lock.map_or_else(|| held.class.name().to_owned(), |lock| self.name(lock))
                })
                .collect(),
            preempts,
            stuck: false,
            matters: true,
        };
        Entry { line, ctx: id, obj: op.obj, kind: op.kind }
    }

    /// The column of a context; CPUs stand before hardware, in their order.
    fn column(&mut self, id: CtxId) -> usize {
        let cpu = self.ctx(id).cpu.filter(|_| !self.ctx(id).aside).map(|cpu| cpu.0);
        let title = self.place(id);
        if let Some(column) = self.recorder.columns.iter().position(|(_, other)| *other == title) {
            return column;
        }
        self.recorder.columns.push((cpu, title));
        self.recorder.columns.len() - 1
    }

    fn describe(&self, id: CtxId, op: &Op) -> String {
        let name = || self.name(op.obj);
        match op.kind {
            OpKind::Load => format!("reads {}", name()),
            OpKind::Store => format!("writes {}", name()),
            OpKind::Rmw => format!("updates {}", name()),
            OpKind::Lock => format!("takes {}", name()),
            OpKind::TryLock if op.or_waits && self.ctx(id).got => format!("takes {}", name()),
            OpKind::TryLock if op.or_waits => format!("finds {} held", name()),
            OpKind::TryLock if self.ctx(id).got => format!("takes {} (try)", name()),
            OpKind::TryLock => format!("finds {} held (try)", name()),
            OpKind::Unlock => format!("releases {}", name()),
            OpKind::IrqOff => "turns interrupts off".to_owned(),
            OpKind::IrqOn => "turns interrupts on".to_owned(),
            OpKind::Enter => {
                let vector =
                    self.ctx(id).vector.map(|vector| format!(" of {vector}")).unwrap_or_default();
                format!("the handler{vector} begins")
            }
            OpKind::Return => "the handler returns".to_owned(),
            OpKind::Raise => format!("raises the interrupt of {}", self.ctx(op.target).name),
            OpKind::Observe if op.obj == NO_OBJ => "goes on".to_owned(),
            OpKind::Switch => format!("switches to {}", self.ctx(op.target).name),
            OpKind::Observe => format!("looks at {}", name()),
            OpKind::Change => format!("changes {}", name()),
            OpKind::Await | OpKind::Take => format!("has waited for {}", name()),
            OpKind::Relax if matches!(self.alone, Some(Alone::Lapse { .. })) => {
                "waits no longer".to_owned()
            }
            OpKind::Relax | OpKind::Lapse => "looks again".to_owned(),
            OpKind::Spawn => "starts a task".to_owned(),
            OpKind::Join => format!("has joined {}", self.ctx(op.target).name),
        }
    }

    /// Writes down how often the current context has looked before it gave up, if its last step was
    /// that.
    pub(crate) fn tell_lapse(&mut self, looks: u32) {
        if self.search.settings.record
            && let Some(last) = self.recorder.entries.last_mut()
        {
            let times = if looks == 1 { "time" } else { "times" };
            last.line.text = format!("waits no longer: looks {looks} {times} more");
        }
    }

    /// Writes down who is left waiting.
    pub(crate) fn record_end(&mut self) {
        let Some(failed) = self.failed.clone() else { return };
        for id in failed.members.iter() {
            if matches!(failed.kind, FailureKind::Deadlock | FailureKind::SelfDeadlock) {
                let wait = self.wait_of(id);
                self.recorder.waits.push(wait);
                let op = self.ctx(id).pending;
                let what = self.describe_wait(&op);
                let text = if self.on_cpu(id) {
                    format!("waits for {what}")
                } else {
                    "stands still".to_owned()
                };
                let mut entry = self.entry(id, &op, text, false);
                entry.line.stuck = true;
                self.recorder.stuck.push(entry);
            }
        }
    }
}

/// Says in the words of a model what its last step was, instead of "changes" and "looks at", if the
/// run is being recorded. It must not take visible steps.
#[cold]
#[inline(never)]
pub fn note(text: impl FnOnce() -> String) {
    with(|w| {
        if w.mode == Mode::Running
            && w.search.settings.record
            && w.alone.is_none()
            && let Some(last) = w.recorder.entries.last_mut()
        {
            last.line.text = text();
        }
    });
}

/// Adds a remark to the trace, at the step that the current context did last: what it means to the
/// case. `text` is called only if there is a trace to write.
pub fn remark(text: impl FnOnce() -> String) {
    if !crate::machine::cell::recording() {
        return;
    }
    let text = text();
    with(|w| {
        let me = w.current;
        if w.mode == Mode::Running
            && let Some(last) = w.recorder.entries.last_mut()
            && last.ctx == me
        {
            last.line.text.push_str(": ");
            last.line.text.push_str(&text);
        }
    });
}

impl Recorder {
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
        crate::run::token::hash(self.entries.iter().flat_map(|entry| {
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
