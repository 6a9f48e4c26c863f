//! Writing a run down while it is replayed, for the trace.

use crate::ids::{CtxId, site};
use crate::machine::alone::Alone;
use crate::machine::cell::with;
use crate::machine::flags::recording;
use crate::machine::recorder::Entry;
use crate::machine::world::{Mode, World};
use crate::op::{NO_OBJ, Op, OpKind};
use crate::trace::{FailureKind, Line};

impl World {
    /// Whether the step of `id` switches away from a context that could go on.
    pub(crate) fn preempts(&self, id: CtxId) -> bool {
        // What is chosen is no turn.
        let turns = self.recorder.entries.iter().rev();
        let last = turns.filter(|entry| entry.kind != OpKind::Choose).map(|entry| entry.ctx).next();
        last.is_some_and(|last| last != id && self.enabled(last))
    }

    /// Writes down something that is no step of anybody else's turn.
    pub(crate) fn record_as(&mut self, id: CtxId, op: &Op, text: String) {
        let mut entry = self.entry(id, op, text, false);
        entry.line.told = true;
        self.recorder.entries.push(entry);
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
            holds: self.holds_by_name(id),
            preempts,
            stuck: false,
            matters: true,
            told: false,
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
            OpKind::Choose => "gets a value".to_owned(),
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
                let wait = self.wait_of(id, failed.members);
                self.recorder.waits.push(wait);
                let op = self.ctx(id).pending;
                let text = if self.on_cpu(id) {
                    let what = match op.kind {
                        OpKind::Relax => self.describe_rest(id),
                        _ => self.describe_wait(&op),
                    };
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
        if let Some(line) = w.last_line() {
            line.text = text();
            line.told = true;
        }
    });
}

/// [`note`] in words of the machine, which say what was done and not what it means.
#[cold]
#[inline(never)]
pub(crate) fn machine_note(text: impl FnOnce() -> String) {
    with(|w| {
        if let Some(line) = w.last_line() {
            line.text = text();
        }
    });
}

/// Adds a remark to the trace, at the step that the current context did last: what it means to the
/// case. `text` is called only if there is a trace to write.
pub fn remark(text: impl FnOnce() -> String) {
    if !recording() {
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
            last.line.told = true;
        }
    });
}

impl World {
    /// Returns the line of the last step, if there is one to be written.
    fn last_line(&mut self) -> Option<&mut Line> {
        if self.mode != Mode::Running || !self.search.settings.record || self.alone.is_some() {
            return None;
        }
        self.recorder.entries.last_mut().map(|last| &mut last.line)
    }
}
