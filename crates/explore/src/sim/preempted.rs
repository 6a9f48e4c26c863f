//! What a worker of a managed pool does around each sleep, and what an interrupt that preempts it
//! there does to it.
//!
//! On its way to sleep, a worker is in four states that an interrupt can tell apart:
//!
//! | phase | its task's state | marked | counted |
//! |---|---|---|---|
//! | `Falling` | sleeping | no | yes |
//! | `Marked` | sleeping | yes | yes |
//! | `Uncounted`, still on its CPU | sleeping | yes | no |
//! | `Asleep` | sleeping | yes | no |
//!
//! When it runs again it counts itself, if it finds the mark, and then takes the mark back
//! (`Returning` is between the two).

use std::cell::Cell;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Weak;

use crate::ids::CtxId;
use crate::machine::Machine;
use crate::machine::cell::with;
use crate::machine::record::note;
use crate::machine::step::step;
use crate::op::{NO_OBJ, Op, OpKind};
use crate::sim::cpu::RESCHEDULE;
use crate::sim::model::Model;
use crate::sim::sleep::{Site, SleepHooks};

/// What a preemption does to a worker that is on its way to sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preempted {
    /// Linux's rules: the hooks do not run, and the worker stays runnable, although its state says
    /// that it sleeps. It gets its CPU back, and goes on as if nothing had happened.
    StaysRunnable,
    /// A flawed kernel: when it gets its CPU back, the hook of a task that runs again runs, finds
    /// the mark, counts the worker and takes the mark back. (The other hook, on the way out, finds
    /// the mark and does nothing; without a mark, the two undo each other, and are left out.)
    RunsHooks,
    /// A flawed kernel: the worker loses its CPU as if it had gone to sleep. Only what it is going
    /// to wait for brings it back.
    IsDequeued,
}

/// Where a worker that goes to sleep cannot be preempted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PreemptionOff {
    /// The worker can be preempted anywhere.
    Nowhere,
    /// While it keeps its books: from the mark until it is not counted any more, and from counting
    /// itself again until the mark is gone.
    InHooks,
    /// From when its state says that it sleeps until it is off its CPU; and in the hook of a task
    /// that runs again.
    UntilAsleep,
    /// Everywhere but in the hooks: to look at that window by itself.
    OutsideHooks,
}

/// How far a worker has got with going to sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    Falling,
    Marked,
    Uncounted,
    Asleep,
    Returning,
}

/// A pool that counts which of its workers run.
pub(crate) trait CountsRunning {
    /// Hears that a worker is about to sleep: it does not count any more, and somebody takes its
    /// place.
    fn stops_running(&self, site: Site);

    /// Hears that a worker runs again.
    fn runs_again(&self, site: Site);
}

/// A worker's books. They belong to its CPU: only it and the interrupt there use them, so they need
/// no visible steps of their own.
pub(crate) struct WorkerAccounting {
    /// Weak, because contexts are forgotten where jobs must not be dropped.
    pool: Weak<dyn CountsRunning>,
    /// Whether interrupts come.
    interrupts: bool,
    preempted: Preempted,
    preemption_off: PreemptionOff,
    phase: Cell<Phase>,
    marked: Cell<bool>,
    /// The worker lost its CPU and has to wait for its wake-up.
    out: Cell<bool>,
}

impl WorkerAccounting {
    pub(crate) fn new(
        pool: Weak<dyn CountsRunning>,
        interrupts: bool,
        preempted: Preempted,
        preemption_off: PreemptionOff,
    ) -> Self {
        WorkerAccounting {
            pool,
            interrupts,
            preempted,
            preemption_off,
            phase: Cell::new(Phase::Running),
            marked: Cell::new(false),
            out: Cell::new(false),
        }
    }

    fn with_pool(&self, f: impl FnOnce(&dyn CountsRunning)) {
        if let Some(pool) = self.pool.upgrade() {
            f(&*pool);
        }
    }

    /// Goes through a phase in which an interrupt may come.
    fn pass(&self, site: Site, phase: Phase, wait: &mut Option<&mut dyn FnMut()>) {
        self.phase.set(phase);
        if !self.interrupts {
            return;
        }
        step(Op { site, ..Op::new(OpKind::Observe, NO_OBJ) });
        let out = self.out.take();
        note(|| {
            let text = match phase {
                _ if out => "is off its CPU, as a sleeper",
                Phase::Falling => "marks itself as sleeping",
                Phase::Marked => "goes for the pool's lock",
                Phase::Uncounted => "leaves its CPU",
                _ => "takes its mark back",
            };
            text.to_owned()
        });
        if out && let Some(wait) = wait.take() {
            wait();
        }
    }

    /// An interrupt preempts the worker, if it may.
    fn preempt(&self) {
        let phase = self.phase.get();
        let off: &[Phase] = match self.preemption_off {
            PreemptionOff::Nowhere => &[],
            PreemptionOff::InHooks => &[Phase::Marked, Phase::Returning],
            PreemptionOff::OutsideHooks => &[Phase::Falling, Phase::Uncounted],
            PreemptionOff::UntilAsleep => {
                &[Phase::Falling, Phase::Marked, Phase::Uncounted, Phase::Returning]
            }
        };
        // An interrupt that is held off preempts when preemption is on again: another run has it
        // come then.
        if off.contains(&phase) {
            return;
        }
        match (self.preempted, phase) {
            (Preempted::RunsHooks, Phase::Marked | Phase::Uncounted | Phase::Returning)
                if self.marked.take() =>
            {
                self.with_pool(|pool| pool.runs_again(Location::caller()));
            }
            (Preempted::IsDequeued, Phase::Falling | Phase::Marked) => self.out.set(true),
            _ => {}
        }
    }
}

impl SleepHooks for WorkerAccounting {
    fn sleep(&self, site: Site, wait: &mut dyn FnMut()) {
        let mut wait = Some(wait);
        self.pass(site, Phase::Falling, &mut wait);
        self.marked.set(true);
        self.pass(site, Phase::Marked, &mut wait);
        self.with_pool(|pool| pool.stops_running(site));
        self.pass(site, Phase::Uncounted, &mut wait);
        if let Some(wait) = wait {
            self.phase.set(Phase::Asleep);
            wait();
        }
        self.phase.set(Phase::Returning);
        if self.marked.get() {
            self.with_pool(|pool| pool.runs_again(site));
            self.pass(site, Phase::Returning, &mut None);
            self.marked.set(false);
        }
        self.phase.set(Phase::Running);
    }
}

/// Lets at most `most` interrupts come, each at any of the workers and at any moment.
#[track_caller]
pub(crate) fn interrupts(
    machine: &Machine,
    most: u32,
    workers: Vec<(CtxId, Rc<WorkerAccounting>)>,
) {
    if most == 0 {
        return;
    }
    let left = Rc::new(Model::new("interrupts", most));
    let site = Location::caller();
    for (ctx, books) in workers {
        let cpu = with(|w| {
            // Its handler does not move with it.
            w.ctx_mut(ctx).pinned = true;
            w.ctx(ctx).cpu
        });
        let cpu = cpu.expect("a worker has a CPU");
        let handler = machine
            .handler(cpu, RESCHEDULE, format!("preemption of {cpu}"), move || books.preempt())
            .may_not_run();
        let left = Rc::clone(&left);
        machine
            .hardware(format!("interrupt of {cpu}"), move || {
                while left
                    .serve_with(site, handler.pending(), |left| *left > 0, |left| *left -= 1)
                    .is_ok()
                {
                    with(|w| w.ctx_mut(handler.id()).raised = true);
                    note(|| "comes".to_owned());
                }
            })
            .may_not_run();
    }
}
