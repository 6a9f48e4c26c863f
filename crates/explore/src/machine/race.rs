//! Plain accesses, which are no steps: two of them that nothing orders are a data race.
//!
//! An access belongs to the segment of its context that begins with the last step before it and
//! ends with the next. The accesses of two segments are ordered if the second step of the one
//! happens before the first step of the other. That is so in each of the executions that are
//! equivalent, or in none: so one of them is enough to find the race, whichever access comes first
//! in it.

use std::panic::Location;

use crate::ids::{CtxId, CtxSet, ObjId, site};
use crate::machine::plain::{Access, Joined};
use crate::machine::world::{Mode, World};
use crate::trace::FailureKind;

impl World {
    /// The current context reads or writes a plain object.
    pub(crate) fn accesses(&mut self, obj: ObjId, writes: bool, site: &'static Location<'static>) {
        if self.mode != Mode::Running || self.probing || self.failed.is_some() {
            return;
        }
        let ctx = self.current;
        // Before its first step a context knows what the step knew that created it.
        let (segment, knows) = match self.starting {
            true => (0, self.ctx(ctx).born.map(|born| born as usize)),
            false => (self.search.depth() as u32, Some(self.search.depth() - 1)),
        };
        let access = Access { obj, ctx, writes, segment, site };
        match knows {
            Some(step) if step < self.search.events.len() => self.look_for_race(&access, step),
            Some(_) if self.search.is_open() => self.extras().plain.open.push(access),
            // The run is only brought to its end: this is looked at elsewhere.
            Some(_) => return,
            None => {
                let race = self.extras.plain.race(&access, &[]);
                self.races(&access, race);
            }
        }
        self.extras().plain.note(access);
    }

    fn look_for_race(&mut self, access: &Access, step: usize) {
        let race = self.extras.plain.race(access, self.search.events.clock(step));
        self.races(access, race);
    }

    /// The step that was being done has been closed: its plain accesses have their place.
    #[cold]
    pub(crate) fn close_plain(&mut self) {
        for access in std::mem::take(&mut self.extras.plain.open) {
            let step = access.segment as usize - 1;
            if step < self.search.events.len() {
                self.look_for_race(&access, step);
            }
        }
    }

    /// The step `by` takes has waited for the end of `target`.
    pub(crate) fn joined(&mut self, target: CtxId, by: CtxId) {
        let step = (self.search.depth() as u32).saturating_sub(1);
        self.extras().plain.joined.push(Joined { target, by, step });
    }

    fn races(&mut self, access: &Access, race: Option<Access>) {
        let Some(earlier) = race else { return };
        let verb = |access: &Access| if access.writes { "writes" } else { "reads" };
        let message = format!(
            "{} {} {} at {}, and {} {} it at {}: nothing orders the two.",
            self.ctx(earlier.ctx).name,
            verb(&earlier),
            self.name(access.obj),
            site(earlier.site),
            self.ctx(access.ctx).name,
            verb(access),
            site(access.site),
        );
        let members = CtxSet(earlier.ctx.bit() | access.ctx.bit());
        self.fail(FailureKind::DataRace, members, message);
    }
}
