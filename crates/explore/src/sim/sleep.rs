//! What a context does around each sleep, if somebody keeps count of who runs.

use std::panic::Location;
use std::rc::Rc;

use crate::ids::CtxId;
use crate::machine::cell::with;
use crate::machine::world::Mode;

/// A line of the code that is explored.
pub(crate) type Site = &'static Location<'static>;

/// What the workers of a pool do around each sleep.
pub(crate) trait SleepHooks {
    /// Sleeps by `wait`, which is called once.
    fn sleep(&self, site: Site, wait: &mut dyn FnMut());
}

/// Has the context sleep by those hooks from now on.
pub(crate) fn sleeps_by(ctx: CtxId, hooks: Rc<dyn SleepHooks>) {
    with(|w| w.ctx_mut(ctx).kept.put(hooks));
}

/// Sleeps by `wait`, with what the current context does around it if it has hooks. `try_first` says
/// whether it need not sleep at all.
#[inline]
pub(crate) fn sleep(site: Site, try_first: impl FnOnce() -> bool, wait: impl FnOnce()) {
    let hooks = with(|w| {
        let running = w.mode == Mode::Running;
        running.then(|| w.ctx(w.current).kept.get::<Rc<dyn SleepHooks>>().cloned()).flatten()
    });
    match hooks {
        None => wait(),
        Some(hooks) => {
            if !try_first() {
                let mut wait = Some(wait);
                hooks.sleep(site, &mut || wait.take().into_iter().for_each(|wait| wait()));
            }
        }
    }
}
