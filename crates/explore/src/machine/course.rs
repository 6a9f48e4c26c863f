//! Whose turn it is while contexts run: new ones are started, and others resumed.

use crate::ids::CtxId;
use crate::machine::cell::WorldCell;
use crate::machine::world::World;

/// What happens next.
enum Course {
    /// A context goes on: it is its turn.
    Turn(CtxId),
    /// A new context runs to its first step.
    Start(CtxId, *const str, Box<dyn FnOnce()>),
    /// Nothing.
    Over,
}

impl WorldCell {
    /// Lets contexts take their turns: until it is that of the context `me`, who calls this, or the
    /// run is over.
    ///
    /// Coroutines resume one another: whoever is entered already waits for the caller to leave.
    pub(crate) fn run(&self, me: Option<CtxId>) {
        loop {
            let (id, ended) = match self.with(World::course) {
                Course::Turn(id) if Some(id) == me => return,
                Course::Turn(id) if !self.runners.is_entered(id) => (id, self.runners.resume(id)),
                Course::Start(id, name, job) => (id, self.runners.start(id, name, job)),
                Course::Turn(_) | Course::Over => {
                    if me.is_some() {
                        self.runners.suspend();
                    }
                    return;
                }
            };
            if ended {
                self.with(|w| w.finished(id));
            }
        }
    }
}

impl World {
    /// What happens next; decides it if that has not been done.
    fn course(&mut self) -> Course {
        self.starting = false;
        if self.turn.is_none() && self.failed.is_none() {
            if !self.unstarted.is_empty() {
                let id = self.unstarted.remove(0);
                (self.starting, self.repeats) = (true, false);
                self.current = id;
                self.watched.at(id, self.search.depth(), self.ctx(id).pending.site);
                let ctx = self.ctx_mut(id);
                return Course::Start(
                    id,
                    &*ctx.name,
                    ctx.job.take().expect("a context starts once"),
                );
            }
            self.close();
            if self.failed.is_none() {
                self.hand_on();
            }
        }
        self.turn.map_or(Course::Over, Course::Turn)
    }
}
