//! Steps outside of the search: while the program sets up or is checked, and when the run is over.

use crate::machine::object::NOBODY;
use crate::machine::world::{Ended, Mode, World};
use crate::op::OpKind;

impl World {
    /// Steps outside of the search: while the program sets up, while a panic unwinds, when the run
    /// is over.
    #[inline(never)]
    pub(super) fn step_outside(&mut self) -> Result<(), Ended> {
        let op = self.pending_alone;
        self.watched.alone_at(op.site);
        match self.mode {
            Mode::Ending if op.kind.can_wait() => return Err(Ended),
            Mode::Outside | Mode::Alone => {
                let waits = match op.kind {
                    OpKind::Lock => self.obj(op.obj).holder != NOBODY,
                    OpKind::Await | OpKind::Take => !self.holds(&op),
                    OpKind::Relax => true,
                    _ => false,
                };
                assert!(
                    !waits,
                    "{} would wait for ever: no context runs yet",
                    self.describe_wait(&op)
                );
            }
            _ => {}
        }
        match op.kind {
            OpKind::Lock => self.obj_mut(op.obj).holder = 0,
            OpKind::TryLock => {
                let free = self.obj(op.obj).holder == NOBODY;
                self.obj_mut(op.obj).holder = 0;
                if self.ctxs.is_empty() || self.mode == Mode::Alone {
                    self.alone_got = free;
                } else {
                    let me = self.current;
                    self.ctx_mut(me).got = free;
                }
            }
            OpKind::Unlock => self.obj_mut(op.obj).holder = NOBODY,
            _ => {}
        }
        Ok(())
    }
}
