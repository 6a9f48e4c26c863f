//! The machine that a program is explored on: contexts, CPUs and objects, and what a program sets
//! up there.
//!
//! ```text
//!   a context            the machine (one `World` for each OS thread)
//!   announces a step ──▶ step      what was recorded when this schedule ran before, or else
//!   suspends             decide      who could go on, and whom of those the search takes
//!                        effect      the event that it is, and the machine's share of it
//!   does the rest    ◀── course    the context whose turn has come is resumed
//! ```
//!
//! One context runs at a time, and all that others could notice is a step: between two of them
//! nobody sees anything. `world` is the data; each of the other files does one thing with it, and
//! what they keep there (`spin`, `alone`, `recorder`, `failed`) is apart from what they do. `cell`
//! is how a context finds the world, and the only way in. The machine knows nothing of what is
//! simulated on it: that is built above, in [`sim`](crate::sim), and asked by a trait
//! (`scheduled`).

pub(crate) mod alone;
mod atomic;
pub(crate) mod cell;
mod choose;
mod conclude;
pub(crate) mod context;
pub(crate) mod coroutine;
mod course;
pub(crate) mod cpu;
mod decide;
mod effect;
pub(crate) mod failed;
pub(crate) mod flags;
mod go_alone;
pub(crate) mod kept;
pub(crate) mod leaf;
pub(crate) mod lent;
pub(crate) mod live;
mod lockdep;
pub(crate) mod object;
mod outside;
#[cfg(unix)]
pub(crate) mod overflow;
pub(crate) mod panics;
pub(crate) mod plain;
mod preempt;
mod probe;
mod race;
pub(crate) mod record;
pub(crate) mod recorder;
pub(crate) mod removal;
mod rest;
pub(crate) mod returned;
pub(crate) mod scheduled;
pub(crate) mod spin;
pub(crate) mod stamp;
pub(crate) mod step;
pub(crate) mod strays;
mod wait_for;
pub(crate) mod watchdog;
pub(crate) mod world;

use std::borrow::Cow;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};

use doorbell_platform::{CpuId, Vector};

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::cell::with;
use crate::machine::context::too_many;
use crate::machine::coroutine::MOST;
use crate::machine::cpu::CpuCount;
use crate::machine::leaf::acts;
use crate::machine::lent::told;
use crate::machine::object::ObjKind;
use crate::machine::step::{stay, step, try_step};
use crate::machine::world::{Ended, Mode};
use crate::op::{NO_OBJ, Op, OpKind};
use crate::search::Fault;
use crate::trace::FailureKind;
use crate::validate::CtxKind;

/// The machine that a program is set up on. See [`Explore::run`](crate::Explore::run).
///
/// The set-up runs once for each execution, so it creates its objects anew each time.
///
/// ```
/// use std::sync::Arc;
/// use doorbell_explore::sync::atomic::{AtomicU32, Ordering::SeqCst};
/// use doorbell_explore::{Explore, Machine};
/// use doorbell_platform::{CpuId, Vector};
///
/// let report = Explore::new("a device and its handler").run(|m: &Machine| {
///     let handled = Arc::new(AtomicU32::new(0));
///     let count = Arc::clone(&handled);
///     let handler = m.handler(CpuId(0), Vector(0x41), "receive", move || {
///         count.fetch_add(1, SeqCst);
///     });
///     // A task on the CPU that is interrupted, and hardware beside all CPUs.
///     m.task_on(CpuId(0), "runs", || ());
///     m.hardware("device", move || handler.raise());
///     m.at_quiescence("the interrupt was handled", move || match handled.load(SeqCst) {
///         1 => Ok(()),
///         other => Err(format!("{other} times")),
///     });
/// });
/// report.assert_exhausted();
/// ```
pub struct Machine {
    _private: (),
}

doorbell_platform::opaque_debug!([] Machine);

/// A task, to be waited for, which returns a `T`.
pub struct TaskHandle<T = ()> {
    ctx: CtxId,
    returns: PhantomData<fn() -> T>,
}

doorbell_platform::opaque_debug!([T] TaskHandle<T>; ctx);

impl<T> Clone for TaskHandle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for TaskHandle<T> {}

impl<T: 'static> TaskHandle<T> {
    fn of(ctx: CtxId) -> Self {
        TaskHandle { ctx, returns: PhantomData }
    }

    /// Waits until the task has ended, and returns its value.
    ///
    /// # Panics
    /// If the task has a value, and somebody has joined it before: that one has the value.
    #[track_caller]
    pub fn join(self) -> T {
        acts(|| format!("waits for the end of {}", with(|w| w.ctx(self.ctx).name.clone())));
        step(Op { target: self.ctx, ..Op::new(OpKind::Join, NO_OBJ) });
        returned::take(self.ctx)
    }

    /// Returns the handle without the type of the task's value, for lists of tasks that are only to
    /// be waited for. The value stays where it is.
    pub fn untyped(self) -> TaskHandle {
        TaskHandle::of(self.ctx)
    }

    /// Says that the task, or hardware, need not run in any execution: an exhausted search is not
    /// to be doubted for it.
    pub fn may_not_run(self) -> TaskHandle<T> {
        may_not_run(self.ctx);
        self
    }

    /// The task's context.
    pub fn id(self) -> CtxId {
        self.ctx
    }
}

/// An interrupt handler, to be raised.
#[derive(Clone, Copy, Debug)]
pub struct HandlerHandle {
    ctx: CtxId,
    pending: ObjId,
}

impl HandlerHandle {
    /// Makes the interrupt pending at its CPU. The handler runs once for any number of times before
    /// it begins.
    #[track_caller]
    pub fn raise(self) {
        if with(|w| w.current_cpu().is_some()) {
            acts(|| format!("raises the interrupt of {}", with(|w| w.ctx(self.ctx).name.clone())));
        }
        step(Op { target: self.ctx, ..Op::new(OpKind::Raise, self.pending) });
    }

    /// Returns whether the interrupt is pending, as its own CPU sees it: no CPU can ask that of
    /// another's interrupts, nor hardware of any, and to try breaks a rule. Whoever keeps more of
    /// an interrupt's state than this may look at that in the same step, if it is changed only in
    /// steps that raise the interrupt and when its handler begins.
    #[track_caller]
    pub fn is_pending(self) -> bool {
        step(Op::new(OpKind::Observe, self.pending));
        with(|w| {
            if w.mode == Mode::Running && w.ctx(w.current).cpu != w.ctx(self.ctx).cpu {
                let message = format!(
                    "{} asks whether an interrupt of another CPU is pending: {}",
                    w.ctx(w.current).name,
                    w.ctx(self.ctx).name
                );
                w.fail_here(FailureKind::LockRule, message);
            }
            w.ctx(self.ctx).raised
        })
    }

    /// Says that the interrupt need not come in any execution: an exhausted search is not to be
    /// doubted for it. Say so where the program is about who does not raise it.
    pub fn may_not_run(self) -> HandlerHandle {
        may_not_run(self.ctx);
        self
    }

    /// The handler's context.
    pub fn id(self) -> CtxId {
        self.ctx
    }

    /// The handler's pending interrupt, as an object.
    pub(crate) fn pending(self) -> ObjId {
        self.pending
    }
}

impl Machine {
    pub(crate) const NEW: Machine = Machine { _private: () };

    /// Creates a task on a CPU of its own: the first that has none, or a new one.
    #[track_caller]
    pub fn task<T: 'static>(
        &self,
        name: impl Into<Cow<'static, str>>,
        f: impl FnOnce() -> T + 'static,
    ) -> TaskHandle<T> {
        spawn_task(name.into(), None, once(f), Location::caller())
    }

    /// Creates a task that is pinned to `cpu`. One that is there and is not pinned moves to another
    /// CPU.
    ///
    /// # Panics
    /// If `cpu` has a pinned task already.
    #[track_caller]
    pub fn task_on<T: 'static>(
        &self,
        cpu: CpuId,
        name: impl Into<Cow<'static, str>>,
        f: impl FnOnce() -> T + 'static,
    ) -> TaskHandle<T> {
        spawn_task(name.into(), Some(cpu), once(f), Location::caller())
    }

    /// Installs a handler of the interrupt `vector` of `cpu`. It runs with interrupts off, whenever
    /// the interrupt is pending and interrupts are enabled there, and the context that it
    /// interrupts stands still until it returns.
    #[track_caller]
    pub fn handler(
        &self,
        cpu: CpuId,
        vector: Vector,
        name: impl Into<Cow<'static, str>>,
        f: impl Fn() + 'static,
    ) -> HandlerHandle {
        let name = name.into();
        let site = Location::caller();
        need_cpus(cpu);
        with(|w| {
            assert!(w.mode == Mode::Alone, "handlers are set up before anything runs");
            let taken = w.ctxs.iter().any(|ctx| ctx.cpu == Some(cpu) && ctx.vector == Some(vector));
            assert!(!taken, "{cpu} has a handler of {vector} already");
            w.cpus[cpu.0 as usize].has_handlers = true;
            let token = w.cpus[cpu.0 as usize].token;
            let pending = w.add_obj(ObjKind::Interrupt, name.clone(), site);
            let enter = Op { site, ..Op::new(OpKind::Enter, pending) };
            let leave = Op { site, ..Op::new(OpKind::Return, token) };
            let job = Box::new(move || {
                while try_step(enter).is_ok() {
                    if !guarded(&f) {
                        return;
                    }
                    if try_step(leave).is_err() {
                        return;
                    }
                }
            });
            let ctx = w.add_ctx(name, CtxKind::Handler, Some(cpu), enter, job);
            w.ctx_mut(ctx).vector = Some(vector);
            w.ctx_mut(ctx).pending_obj = Some(pending);
            HandlerHandle { ctx, pending }
        })
    }

    /// Says how many CPUs there are, for good: what [`Platform::cpu_count`] says. Tasks that are
    /// spawned while the program runs are given those that no task has had. Without this, each gets
    /// a new one, until somebody asks how many there are.
    ///
    /// # Panics
    /// If more are in use, or somebody has been told another number.
    ///
    /// [`Platform::cpu_count`]: doorbell_platform::Platform::cpu_count
    pub fn cpus(&self, count: u32) {
        let there = with(|w| {
            w.need_cpus(count as usize)?;
            w.cpu_count = CpuCount::Fixed;
            Ok(w.cpus.len())
        });
        let there = there.unwrap_or_else(|why: String| panic!("{why}"));
        assert!(there == count as usize, "there are {there} CPUs already, not {count}");
    }

    /// Creates a piece of hardware: it runs beside the CPUs, one visible step at a time.
    #[track_caller]
    pub fn hardware<T: 'static>(
        &self,
        name: impl Into<Cow<'static, str>>,
        f: impl FnOnce() -> T + 'static,
    ) -> TaskHandle<T> {
        let site = Location::caller();
        let name = name.into();
        with(|w| {
            let ctx = w.add_ctx(name, CtxKind::Hardware, None, first(site), once(f));
            TaskHandle::of(ctx)
        })
    }

    /// A task of a scheduler: it waits for its CPU before it does anything.
    #[track_caller]
    pub(crate) fn scheduled(
        &self,
        cpu: CpuId,
        name: Cow<'static, str>,
        f: impl FnOnce() + 'static,
    ) -> CtxId {
        let site = Location::caller();
        with(|w| w.add_ctx(name, CtxKind::Task, Some(cpu), first(site), once(f)))
    }

    /// Demands what must hold when nothing more can happen. It is checked in every execution that
    /// ends well; it may use the objects of the program.
    pub fn at_quiescence(
        &self,
        what: impl Into<Cow<'static, str>>,
        check: impl FnOnce() -> Result<(), String> + 'static,
    ) {
        with(|w| w.checks.push((what.into(), Box::new(check))));
    }

    /// Says what tells the executions apart, if their outcomes are to be collected
    /// ([`Explore::collect_outcomes`](crate::Explore::collect_outcomes)).
    pub fn outcome(&self, f: impl FnOnce() -> String + 'static) {
        with(|w| w.outcome = Some(Box::new(f)));
    }
}

/// Creates a task while the program runs, on a CPU of its own.
#[track_caller]
pub fn spawn<T: 'static>(
    name: impl Into<Cow<'static, str>>,
    f: impl FnOnce() -> T + 'static,
) -> TaskHandle<T> {
    spawn_task(name.into(), None, once(f), Location::caller())
}

/// [`spawn`] for contexts that return when the run is over.
pub(crate) fn try_spawn(
    name: &'static str,
    f: impl FnOnce() + 'static,
) -> Result<TaskHandle, Ended> {
    let site = Location::caller();
    try_step(numbers(site))?;
    if full(name)? {
        return Err(Ended);
    }
    Ok(add_task(name.into(), None, once(f), site))
}

/// See [`TaskHandle::may_not_run`].
pub(crate) fn may_not_run(ctx: CtxId) {
    with(|w| w.ctx_mut(ctx).may_not_run = true);
}

fn first(site: &'static Location<'static>) -> Op {
    Op { site, ..Op::new(OpKind::Spawn, NO_OBJ) }
}

/// The step in which a context that runs creates another: which number that gets, and which CPU,
/// depends on who was first.
fn numbers(site: &'static Location<'static>) -> Op {
    let numbers = with(|w| match w.search.settings.fault {
        Some(Fault::UnorderedSpawns) => NO_OBJ,
        _ => w.cpu_numbers(),
    });
    Op { site, ..Op::new(OpKind::Spawn, numbers) }
}

/// Sees to it that there is that CPU.
fn need_cpus(cpu: CpuId) {
    with(|w| w.need_cpus(cpu.0 as usize + 1)).unwrap_or_else(|why| panic!("{why}"));
}

fn once<T: 'static>(f: impl FnOnce() -> T + 'static) -> Box<dyn FnOnce()> {
    Box::new(move || {
        guarded(|| {
            let value = f();
            returned::ends();
            returned::keep(value);
        });
    })
}

fn spawn_task<T: 'static>(
    name: Cow<'static, str>,
    cpu: Option<CpuId>,
    job: Box<dyn FnOnce()>,
    site: &'static Location<'static>,
) -> TaskHandle<T> {
    match with(|w| w.mode) {
        Mode::Alone => return add_task(name, cpu, job, site),
        Mode::Running => step(numbers(site)),
        Mode::Outside | Mode::Ending => {}
    }
    match full(&name) {
        Ok(false) => add_task(name, cpu, job, site),
        // The run is over, and nothing is started any more.
        Ok(true) => TaskHandle::of(with(|w| w.current)),
        Err(Ended) => stay(),
    }
}

/// Returns whether there is no room for another context: then the run ends as failed.
fn full(name: &str) -> Result<bool, Ended> {
    let full = with(|w| {
        let full = w.ctxs.len() == MOST;
        if full {
            let message = format!("{}: {}", w.ctx(w.current).name, too_many(name));
            w.fail_here(FailureKind::TooManyContexts, message);
        }
        full
    });
    if full {
        try_step(Op::new(OpKind::Observe, NO_OBJ))?;
    }
    Ok(full)
}

fn add_task<T: 'static>(
    name: Cow<'static, str>,
    cpu: Option<CpuId>,
    job: Box<dyn FnOnce()>,
    site: &'static Location<'static>,
) -> TaskHandle<T> {
    let pinned = cpu.is_some();
    let added = with(|w| {
        let cpu = match cpu {
            Some(cpu) => {
                w.need_cpus(cpu.0 as usize + 1)?;
                // A task that runs anywhere makes way: nobody can have seen yet where it is.
                if let Some(aside) = w.cpus[cpu.0 as usize]
                    .task
                    .filter(|task| !w.ctx(*task).pinned && w.mode == Mode::Alone)
                {
                    let other = CpuId(w.cpus.len() as u32);
                    w.need_cpus(other.0 as usize + 1)?;
                    w.ctx_mut(aside).cpu = Some(other);
                    w.cpus[other.0 as usize].task = Some(aside);
                    w.cpus[other.0 as usize].used = true;
                    w.cpus[cpu.0 as usize].task = None;
                }
                assert!(w.cpus[cpu.0 as usize].task.is_none(), "{cpu} has a task already");
                cpu
            }
            None => {
                let free = match (w.mode, w.cpu_count) {
                    (Mode::Alone, _) => w.cpus.iter().position(|cpu| cpu.task.is_none()),
                    // When a task ends is no step, so nobody takes its place.
                    (_, CpuCount::Fixed) => w.cpus.iter().position(|cpu| !cpu.used),
                    _ => None,
                };
                let free = free.unwrap_or(w.cpus.len());
                w.need_cpus(free + 1)?;
                CpuId(free as u32)
            }
        };
        let ctx = w.add_ctx(name, CtxKind::Task, Some(cpu), first(site), job);
        w.ctx_mut(ctx).pinned = pinned;
        w.cpus[cpu.0 as usize].task = Some(ctx);
        w.cpus[cpu.0 as usize].used = true;
        if w.mode == Mode::Running {
            let born = w.search.depth() as u32 - 1;
            let after = w.ctx(w.current).after;
            let child = w.ctx_mut(ctx);
            child.born = Some(born);
            child.after = after;
        }
        Ok(TaskHandle::of(ctx))
    });
    added.unwrap_or_else(|why: String| panic!("{why}"))
}

/// Runs a part of a context; `false` if it panicked.
fn guarded(f: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => true,
        Err(payload) => {
            let text = told(&*payload);
            with(|w| {
                let name = w.ctx(w.current).name.clone();
                let place =
                    w.panic_site.take().map(|site| format!(" at {site}")).unwrap_or_default();
                w.leave_alone();
                let members = CtxSet(w.current.bit());
                w.fail(FailureKind::Panic, members, format!("{name} panicked{place}: {text}"));
            });
            false
        }
    }
}
