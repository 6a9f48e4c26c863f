//! The wait-for graph: who waits for what, and who can never be released.

use crate::ids::{CtxId, CtxSet, ObjId, site};
use crate::machine::context::Ctx;
use crate::machine::object::{NOBODY, Obj, ObjKind};
use crate::machine::world::World;
use crate::op::{NO_OBJ, Op, OpKind};
use crate::trace::{FailureKind, Wait};
use crate::validate::{CtxKind, Held};

impl World {
    /// Those who can never go on, whatever the others do: the largest set of waiting contexts none
    /// of which can be released from outside of it. Services that wait for something to do, and
    /// interrupts that are not pending, wait for a stimulus and are not stuck.
    pub(crate) fn stuck(&self, enabled: CtxSet) -> CtxSet {
        let mut live = enabled;
        let mut waiting = CtxSet::EMPTY;
        for index in 0..self.ctxs.len() {
            let id = CtxId(index as u8);
            if !self.ctx(id).finished && !live.contains(id) {
                waiting.insert(id);
            }
        }
        if waiting.is_empty() {
            return CtxSet::EMPTY;
        }
        loop {
            let mut grown = live;
            for id in waiting.iter() {
                if !live.contains(id) && self.releasable(id, live) {
                    grown.insert(id);
                }
            }
            if grown == live {
                break;
            }
            live = grown;
        }
        let mut stuck = CtxSet(waiting.0 & !live.0);
        for id in stuck.iter() {
            let ctx = self.ctx(id);
            let asleep = || ctx.scheduled.as_ref().is_some_and(|task| task.sleeps());
            let idle = ctx.pending.idle && (self.on_cpu(id) || asleep())
                || ctx.pending.kind == OpKind::Enter && !ctx.raised
                || self.switched_out(id) && ctx.scheduled.is_none();
            if idle {
                stuck.remove(id);
            }
        }
        stuck
    }

    /// Whether one of `live` could let `id` go on.
    fn releasable(&self, id: CtxId, live: CtxSet) -> bool {
        let ctx = self.ctx(id);
        let op = &ctx.pending;
        if op.kind == OpKind::Enter {
            return self.releasable_entry(id, live);
        }
        if !self.on_cpu(id) {
            let running = ctx.cpu.and_then(|cpu| self.cpus[cpu.0 as usize].running());
            if !running.is_some_and(|running| live.contains(running)) {
                return false;
            }
        }
        if self.op_enabled(id, op) {
            return true;
        }
        match op.kind {
            OpKind::Lock => match self.obj(op.obj).holder {
                NOBODY => true,
                holder => live.contains(CtxId(holder)),
            },
            OpKind::Join => live.contains(op.target),
            OpKind::Relax => !CtxSet(live.0 & !id.bit()).is_empty(),
            _ => {
                let releasers = self.obj(op.obj).releasers;
                let others = CtxSet(live.0 & !id.bit());
                if releasers.is_empty() { !others.is_empty() } else { others.0 & releasers.0 != 0 }
            }
        }
    }

    fn releasable_entry(&self, id: CtxId, live: CtxSet) -> bool {
        let ctx = self.ctx(id);
        let cpu = &self.cpus[ctx.cpu.expect("a handler has a CPU").0 as usize];
        let unmasked = cpu.irqs_on || cpu.running().is_some_and(|running| live.contains(running));
        if ctx.raised { unmasked } else { !live.is_empty() && unmasked }
    }

    /// Ends the run: `stuck` can never go on.
    pub(crate) fn fail_stuck(&mut self, stuck: CtxSet) {
        let onto_itself = stuck.iter().any(|id| {
            let ctx = self.ctx(id);
            ctx.kind == CtxKind::Handler
                && ctx.pending.kind == OpKind::Lock
                && match self.obj(ctx.pending.obj).holder {
                    NOBODY => false,
                    holder => {
                        let holder = self.ctx(CtxId(holder));
                        holder.cpu == ctx.cpu && !self.on_cpu_of(holder.cpu, ctx.pending.obj)
                    }
                }
        });
        let kind = if onto_itself { FailureKind::SelfDeadlock } else { FailureKind::Deadlock };
        let members = self.core(stuck);
        let message = self.explain(members);
        let locks = self.stuck_locks(members);
        self.fail(kind, members, message);
        if let Some(failed) = &mut self.failed {
            failed.locks = locks;
        }
    }

    /// Whether the holder of a lock is who runs on that CPU.
    fn on_cpu_of(&self, cpu: Option<doorbell_platform::CpuId>, lock: ObjId) -> bool {
        let holder = self.obj(lock).holder;
        cpu.and_then(|cpu| self.cpus[cpu.0 as usize].running())
            .is_some_and(|running| running.0 == holder)
    }

    /// For whom a stuck context waits, if it is for somebody.
    fn blocker(&self, id: CtxId) -> Option<CtxId> {
        let ctx = self.ctx(id);
        let op = &ctx.pending;
        if self.switched_out(id) {
            return None;
        }
        if op.kind != OpKind::Enter && !self.on_cpu(id) {
            return ctx.cpu.and_then(|cpu| self.cpus[cpu.0 as usize].running());
        }
        match op.kind {
            OpKind::Lock => match self.obj(op.obj).holder {
                NOBODY => None,
                holder => Some(CtxId(holder)),
            },
            OpKind::Join => Some(op.target),
            _ if op.obj == NO_OBJ => None,
            OpKind::Enter => ctx.cpu.and_then(|cpu| self.cpus[cpu.0 as usize].running()),
            _ => self
                .obj(op.obj)
                .releasers
                .iter()
                .find(|&other| !self.ctx(other).finished && other != id),
        }
    }

    /// A context on a cycle in the stuck set.
    fn on_cycle(&self, stuck: CtxSet) -> Option<CtxId> {
        stuck.iter().find_map(|first| {
            let (mut at, mut seen) = (first, CtxSet::EMPTY);
            while !seen.contains(at) {
                seen.insert(at);
                at = self.blocker(at).filter(|next| stuck.contains(*next))?;
            }
            Some(at)
        })
    }

    /// The cycle in the stuck set; all of it if there is none.
    fn core(&self, stuck: CtxSet) -> CtxSet {
        let Some(at) = self.on_cycle(stuck) else { return stuck };
        // Whoever a wait for one of several needs has to be in the set, too.
        let mut cycle = CtxSet::EMPTY;
        let mut todo = CtxSet(at.bit());
        while let Some(id) = todo.first() {
            todo.remove(id);
            cycle.insert(id);
            todo.0 |= self.needed(id, stuck).0 & !cycle.0;
        }
        cycle
    }

    /// Whether another task of its scheduler has the CPU of `id`.
    pub(crate) fn switched_out(&self, id: CtxId) -> bool {
        let ctx = self.ctx(id);
        let cpu = ctx.cpu.map(|cpu| &self.cpus[cpu.0 as usize]);
        ctx.kind == CtxKind::Task
            && cpu.is_some_and(|cpu| cpu.switch.is_some() && cpu.task != Some(id))
    }

    /// The place of a context, as a column of a trace is headed.
    pub(crate) fn place(&self, id: CtxId) -> String {
        match self.ctx(id) {
            Ctx { cpu: Some(cpu), aside: false, .. } => cpu.to_string(),
            ctx => ctx.name.to_string(),
        }
    }

    /// What an object is called.
    pub(crate) fn name(&self, id: ObjId) -> String {
        let obj = self.obj(id);
        let word = obj.kind == ObjKind::Atomic;
        let same = |other: &&Obj| other.name == obj.name && (!word || other.created == obj.created);
        let mut name = match obj.kind {
            ObjKind::Spin => format!("lock {}", obj.name),
            ObjKind::Mutex => format!("mutex {}", obj.name),
            ObjKind::Atomic => {
                let file = obj.created.file().rsplit('/').next().unwrap_or_default();
                format!("{} of {file}:{}", obj.name, obj.created.line())
            }
            _ => obj.name.to_string(),
        };
        if self.objs.iter().filter(same).count() > 1 {
            let number = self.objs[..self.made_before(id)].iter().filter(same).count();
            name.push_str(&format!("#{number}"));
        }
        name
    }

    /// What a context that is about to do `op` waits for.
    pub(crate) fn describe_wait(&self, op: &Op) -> String {
        match op.kind {
            OpKind::Join => format!("the end of {}", self.ctx(op.target).name),
            OpKind::Relax => "a write to what it reads in a loop".to_owned(),
            OpKind::Enter => "interrupts to be enabled".to_owned(),
            _ if op.obj == NO_OBJ => "its turn".to_owned(),
            _ => self.name(op.obj),
        }
    }

    /// Returns what traces call the locks that a context holds, oldest first.
    pub(crate) fn holds_by_name(&self, id: CtxId) -> Vec<String> {
        let name = |held: &Held| {
            held.lock.map_or_else(|| held.class.name().to_owned(), |lock| self.name(lock))
        };
        self.ctx(id).held.iter().map(name).collect()
    }

    /// Returns who waits, for what and for whom, as a member of a stuck set.
    pub(crate) fn wait_of(&self, id: CtxId, members: CtxSet) -> Wait {
        let ctx = self.ctx(id);
        let op = &ctx.pending;
        let what = if self.switched_out(id) {
            "a wake-up, which nobody is left to send".to_owned()
        } else if op.kind != OpKind::Enter && !self.on_cpu(id) {
            match self.blocker(id) {
                Some(handler) => {
                    format!("its CPU, where {} interrupted it", self.ctx(handler).name)
                }
                None => "its CPU".to_owned(),
            }
        } else if op.kind == OpKind::Relax {
            format!("{}: {}", self.describe_rest(id), self.who_could_write(id, members))
        } else {
            let what = self.describe_wait(op);
            let releasers = if matches!(op.kind, OpKind::Await | OpKind::Take) {
                self.obj(op.obj).releasers
            } else {
                CtxSet::EMPTY
            };
            match self.blocker(id) {
                _ if !releasers.is_empty() && self.obj(op.obj).needs.is_some() => {
                    let needs =
                        self.obj(op.obj).needs.as_ref().map(|needs| needs()).unwrap_or_default();
                    format!("{what}, which {needs}")
                }
                Some(_) if !releasers.is_empty() => {
                    let names: Vec<_> = releasers
                        .iter()
                        .filter(|&other| !self.ctx(other).finished)
                        .map(|other| self.ctx(other).name.to_string())
                        .collect();
                    format!("{what}, which only {} can bring about", names.join(" or "))
                }
                Some(holder) if op.kind == OpKind::Lock => {
                    format!("{what}, held by {}", self.ctx(holder).name)
                }
                Some(other) if op.kind == OpKind::Enter => {
                    format!("{what}, which {} has turned off", self.ctx(other).name)
                }
                _ if matches!(op.kind, OpKind::Await | OpKind::Take) => {
                    format!("{what}, which nobody is left to bring about")
                }
                _ => what,
            }
        };
        let on = self.needed(id, members);
        Wait {
            who: ctx.name.to_string(),
            place: self.place(id),
            holds: self.holds_by_name(id),
            what,
            on: members.iter().enumerate().filter(|(_, m)| on.contains(*m)).map(|m| m.0).collect(),
            site: site(op.site),
        }
    }

    /// Returns those of `members` without whom the wait of `id` does not end.
    fn needed(&self, id: CtxId, members: CtxSet) -> CtxSet {
        let op = &self.ctx(id).pending;
        let mut needed = CtxSet(self.blocker(id).map_or(0, CtxId::bit));
        if matches!(op.kind, OpKind::Await | OpKind::Take) && self.on_cpu(id) {
            needed.0 |= self.obj(op.obj).releasers.0;
        }
        CtxSet(needed.0 & members.0 & !id.bit())
    }

    /// Says what a context waits for that rests in a loop: the words that it reads there, and what
    /// they hold.
    pub(crate) fn describe_rest(&self, id: CtxId) -> String {
        let word = |&(obj, _): &(ObjId, u32)| match self.recorder.value(obj) {
            Some(value) => format!("{} ({value})", self.name(obj)),
            None => self.name(obj),
        };
        let words: Vec<String> = self.ctx(id).reads.iter().map(word).collect();
        match &*words {
            [] => "a write to what it reads in a loop".to_owned(),
            words => format!("a write to {}, which it reads in a loop", words.join(" or ")),
        }
    }

    /// Says what has become of those who could write to what `id` reads in a loop.
    fn who_could_write(&self, id: CtxId, members: CtxSet) -> String {
        let reads: Vec<ObjId> = self.ctx(id).reads.iter().map(|read| read.0).collect();
        let names = |set: CtxSet, keep: &dyn Fn(CtxId) -> bool| -> Vec<String> {
            let others = set.iter().filter(|&other| other != id && keep(other));
            others.map(|other| self.ctx(other).name.to_string()).collect()
        };
        let ended = names(self.recorder.users(&reads), &|other| self.ctx(other).finished);
        let waiting = names(members, &|_| true);
        let mut others = Vec::new();
        match &*ended {
            [] => {}
            [one] => others.push(format!("{one} has ended")),
            more => others.push(format!("{} have ended", more.join(" and "))),
        }
        match &*waiting {
            [] => others.push("nobody is left to write it".to_owned()),
            [one] => others.push(format!("{one} waits itself")),
            more => others.push(format!("{} wait themselves", more.join(" and "))),
        }
        others.join(", and ")
    }

    /// One sentence about a stuck set.
    fn explain(&self, members: CtxSet) -> String {
        let Some(first) = members.first() else { return String::new() };
        let mut sentence = String::new();
        let mut told = CtxSet::EMPTY;
        let mut at = Some(first);
        while let Some(id) = at.filter(|&id| !told.contains(id) && members.contains(id)) {
            told.insert(id);
            let wait = self.wait_of(id, members);
            let who = if wait.place == wait.who {
                wait.who.clone()
            } else {
                format!("{} ({})", wait.who, wait.place)
            };
            let joint = if sentence.is_empty() { "" } else { "; " };
            sentence.push_str(&format!("{joint}{who} {}", wait.says()));
            at = self
                .blocker(id)
                .filter(|blocker| !told.contains(*blocker))
                .or_else(|| CtxSet(members.0 & !told.0).first());
        }
        sentence.push('.');
        sentence
    }
}
