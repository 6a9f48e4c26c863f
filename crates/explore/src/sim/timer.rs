//! One-shot timers that expire at any moment after they are armed, and timeouts that strike at any
//! moment: a limited number of times.

use std::borrow::Cow;
use std::sync::Arc;

use crate::machine::cell::with;
use crate::machine::{Machine, TaskHandle};
use crate::sim::model::Model;

/// A one-shot timer. When it expires is up to the search; how often it may, in one execution,
/// belongs to the scope: no tick comes to the rescue of what nobody else would wake.
#[derive(Clone)]
pub struct Timer {
    model: Arc<Model<State>>,
    /// The hardware that expires.
    hardware: TaskHandle,
}

doorbell_platform::opaque_debug!([] Timer; hardware);

struct State {
    armed: bool,
    left: u32,
}

impl Timer {
    /// Creates a timer that calls `expired`, as a piece of hardware (it typically raises an
    /// interrupt), at most `times` times.
    #[track_caller]
    pub fn new(
        machine: &Machine,
        name: impl Into<Cow<'static, str>>,
        times: u32,
        expired: impl Fn() + 'static,
    ) -> Timer {
        let model = Arc::new(Model::new("timer", State { armed: false, left: times }));
        let this = Arc::clone(&model);
        let hardware = machine.hardware(name, move || {
            let due = |state: &State| state.armed && state.left > 0;
            while this
                .serve(due, |state| {
                    state.armed = false;
                    state.left -= 1;
                })
                .is_ok()
            {
                expired();
            }
        });
        Timer { model, hardware }
    }

    /// Says that it need not expire in any execution, as [`TaskHandle::may_not_run`] does.
    pub fn may_not_run(self) -> Timer {
        self.hardware.may_not_run();
        self
    }

    /// Arms the timer.
    #[track_caller]
    pub fn arm(&self) {
        self.model.change(|state| state.armed = true);
    }

    /// Disarms the timer; `true` if it was armed and has not expired.
    #[track_caller]
    pub fn cancel(&self) -> bool {
        self.model.change(|state| std::mem::replace(&mut state.armed, false))
    }
}

/// What is kept for the execution: how many timeouts may still strike.
#[derive(Clone)]
struct Clock(Arc<Model<u32>>);

/// The timeouts that may still strike.
pub(crate) fn clock() -> Arc<Model<u32>> {
    let known = with(|w| w.kept.get::<Clock>().cloned());
    let Clock(clock) = known.unwrap_or_else(|| {
        let clock = Clock(Arc::new(Model::new("timeouts", 0)));
        with(|w| w.kept.put(clock.clone()));
        clock
    });
    clock
}

impl Machine {
    /// Says how many timeouts strike in one execution, at any moments. None without this.
    pub fn timeouts(&self, count: u32) {
        *clock().state() = count;
    }
}
