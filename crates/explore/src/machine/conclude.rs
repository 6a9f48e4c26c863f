//! The end of a run: whether it is well that nothing more can happen.

use crate::ids::{CtxId, CtxSet};
use crate::machine::failed::FailedRun;
use crate::machine::world::World;
use crate::op::{NO_OBJ, OpKind};
use crate::search::OpenEvent;
use crate::trace::FailureKind;

impl World {
    /// Nothing more can happen: is that well, or a failure? Of a run that was halted in the middle,
    /// neither is known.
    pub(crate) fn conclude(&mut self, halted: bool) -> Option<FailedRun> {
        self.close();
        self.search.ended();
        if halted {
            return None;
        }
        if self.failed.is_none() && self.some_wait() {
            if self.search.analyses() {
                self.analyse_waiting(CtxSet::EMPTY);
            }
            let waiting = self.stuck(CtxSet::EMPTY);
            if self.a_condition_panicked() {
                // Whoever waits for it waits for nothing that could be told.
            } else if !waiting.is_empty() {
                if self.search.settings.stop_at_stuck {
                    self.fail_stuck(waiting);
                } else {
                    self.waiting_outcome = Some(self.who_waits(waiting));
                }
            } else if let Some((kind, message)) = self.left_over() {
                self.fail(kind, CtxSet::EMPTY, message);
            }
        }
        if self.failed.is_some() && self.search.settings.record {
            self.record_end();
        }
        self.failed.clone().map(|failed| FailedRun {
            kind: failed.kind,
            message: failed.message,
            members: failed.members,
            schedule: self.search.plan().to_vec(),
            locks: failed.locks,
        })
    }

    /// Returns whether there are conditions of quiescence, or an outcome to be collected.
    pub(crate) fn has_checks(&self) -> bool {
        !self.checks.is_empty() || self.outcome.is_some()
    }

    /// Returns whether there are contexts that have not ended.
    pub(crate) fn some_wait(&self) -> bool {
        self.ctxs.iter().any(|ctx| !ctx.finished)
    }

    /// An interrupt that is pending for ever, though nobody waits.
    fn left_over(&self) -> Option<(FailureKind, String)> {
        let left = self.ctxs.iter().find(|ctx| ctx.raised)?;
        Some((
            FailureKind::LostInterrupt,
            format!("The interrupt of {} stays pending for ever.", left.name),
        ))
    }

    /// Names those who wait, each as ` name:step:object`, with `:below` if it stands still under a
    /// handler.
    fn who_waits(&self, waiting: CtxSet) -> String {
        let mut text = String::new();
        for id in waiting.iter() {
            let ctx = self.ctx(id);
            let what = match ctx.pending.obj {
                NO_OBJ => String::new(),
                // Those that appear while contexts run are numbered as they come, also where it is
                // the same in which order they do.
                obj if obj.index() >= self.set_up => self.obj(obj).name.to_string(),
                obj => obj.0.to_string(),
            };
            let below = ctx.pending.kind != OpKind::Enter && !self.on_cpu(id);
            let below = if below { ":below" } else { "" };
            text.push_str(&format!(" {}:{:?}:{what}{below}", ctx.name, ctx.pending.kind));
        }
        text
    }

    /// Contexts that wait now, those beside `enabled`, could have had their turn before.
    pub(crate) fn analyse_waiting(&mut self, enabled: CtxSet) {
        let mut waiting = Vec::new();
        for index in 0..self.ctxs.len() {
            let id = CtxId(index as u8);
            let ctx = self.ctx(id);
            let not_raised = ctx.pending.kind == OpKind::Enter && !ctx.raised;
            if ctx.finished || enabled.contains(id) || not_raised || self.switched_out(id) {
                continue;
            }
            let mut open = OpenEvent::default();
            self.as_event(id, &ctx.pending, &mut open);
            waiting.push(open);
        }
        self.search.analyse_waiting(waiting.into_iter());
    }
}
