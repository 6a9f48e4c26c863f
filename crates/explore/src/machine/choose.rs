//! A context chooses a value.

use std::panic::Location;

use crate::ids::{CtxSet, ObjId};
use crate::machine::world::{Mode, World};
use crate::op::{NO_OBJ, Op, OpKind};
use crate::search::choice::signature;
use crate::trace::FailureKind;

impl World {
    /// Returns a value below `most` for the current context: each is one in some execution. While
    /// the context goes on alone, it is 0. `None` if the run has failed.
    pub(crate) fn choose(
        &mut self,
        most: u8,
        site: &'static Location<'static>,
        text: impl FnOnce(u8) -> Option<String>,
    ) -> Option<u8> {
        if self.mode != Mode::Running || self.alone.is_some() || most < 2 {
            return Some(0);
        }
        // What the context has done since its last step belongs to that.
        self.close();
        if self.failed.is_some() {
            return None;
        }
        let me = self.current;
        let depth = self.search.depth();
        if depth >= self.search.settings.max_steps {
            let message =
                format!("the run has not ended after {} steps", self.search.settings.max_steps);
            self.fail(FailureKind::TooLong, CtxSet::EMPTY, message);
            return None;
        }
        let known = self.search.recorded().map(|event| (event.ctx, event.signature));
        let value = self.search.value((!self.starting).then_some(me), most);
        let signature = signature(most, value);
        if value >= most || known.is_some_and(|known| known != (me, signature)) {
            self.differs(me);
            return None;
        }
        let new = self.search.is_new();
        if new {
            self.open_choice(signature);
        }
        self.search.advance(new);
        self.watched.at(me, self.search.depth(), site);
        if self.search.settings.record
            && let Some(text) = text(value)
        {
            let op = Op { site, ..Op::new(OpKind::Choose, NO_OBJ) };
            self.record_as(me, &op, text);
        }
        Some(value)
    }

    /// Returns whether what may happen for nothing may happen to the current context once more.
    #[inline]
    pub(crate) fn may_happen(&self, what: usize) -> bool {
        let most = self.search.settings.spurious[what];
        most > 0
            && self.mode == Mode::Running
            && self.alone.is_none()
            && self.ctx(self.current).spurious[what] < most
    }

    fn open_choice(&mut self, signature: u64) {
        let me = self.current;
        let mut open = self.search.blank();
        open.begin(me, &Op::new(OpKind::Choose, ObjId((signature >> 8) as u32)));
        if !self.ctx(me).begun {
            open.after = self.ctx(me).born;
        }
        open.asleep = self.search.sleeps_through();
        self.ctx_mut(me).begun = true;
        self.search.ran.insert(me);
        self.search.open(open);
    }
}
