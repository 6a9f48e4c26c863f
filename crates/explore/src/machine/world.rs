//! The simulated machine of one OS thread: its contexts, CPUs and objects.

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::mem::take;
use std::panic::Location;
use std::sync::Arc;

use doorbell_platform::CpuId;

use crate::ids::{CtxId, CtxSet, ObjId};
use crate::machine::alone::Alone;
use crate::machine::context::{Ctx, CtxMemory, too_many};
use crate::machine::coroutine::MOST;
use crate::machine::cpu::{Cpu, CpuCount};
use crate::machine::failed::Failed;
use crate::machine::flags::writes_down;
use crate::machine::kept::Kept;
use crate::machine::lent::lent;
use crate::machine::object::{NOBODY, Obj, ObjKind};
use crate::machine::plain::Plain;
use crate::machine::recorder::Recorder;
use crate::machine::spin::{Key, Probe, Spin, Spins};
use crate::machine::watchdog::Watched;
use crate::op::{NO_OBJ, Op, OpKind};
use crate::search::Search;
use crate::search::removal::Acquisition;
use crate::trace::FailureKind;
use crate::validate::CtxKind;

/// The place of an object that has only its number.
const UNUSED: u32 = u32::MAX;

/// What the machine is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// No execution: simulated objects work, with nobody else there.
    Outside,
    /// The program sets itself up, or its quiescence conditions are checked: steps are done at
    /// once.
    Alone,
    /// Contexts run.
    Running,
    /// The run is over: services that still wait are told so.
    Ending,
}

/// The service that waits has nothing more to wait for: the run is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended;

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the run is over")
    }
}

impl core::error::Error for Ended {}

type Left = Box<dyn FnOnce() -> Vec<String>>;
type Check = Box<dyn FnOnce() -> Result<(), String>>;

/// What few executions have.
#[derive(Default)]
pub(crate) struct Extras {
    /// The accesses to plain memory.
    pub plain: Plain,
    /// Tells what is left when all is over, if nothing may be.
    pub left: Option<Left>,
    /// What tasks have returned, and nobody has asked for.
    pub returned: Vec<(CtxId, Box<dyn Any>)>,
    /// What is done when a context has returned from its function, the last first.
    pub at_end: Vec<(CtxId, Box<dyn FnOnce()>)>,
}

/// One OS thread's machine.
pub(crate) struct World {
    pub mode: Mode,
    /// Distinguishes executions, of all OS threads: simulated objects know by it whether they are
    /// new here.
    pub epoch: u64,
    pub current: CtxId,
    /// A context has been started and runs to its first step.
    pub starting: bool,
    /// Whose step has been done as far as the machine does it: it goes on next.
    pub turn: Option<CtxId>,
    pub ctxs: Vec<Ctx>,
    pub unstarted: Vec<CtxId>,
    /// How many contexts there were when the set-up ended: those are the same in all executions.
    pub set_up_ctxs: usize,
    pub cpus: Vec<Cpu>,
    pub cpu_count: CpuCount,
    /// How many CPUs were added while contexts run.
    pub late_cpus: u32,
    /// What tasks are given CPUs and numbers from while contexts run, as an object.
    cpu_numbers: Option<ObjId>,
    /// How often each object has changed.
    pub versions: Vec<u32>,
    /// The place of each object among those that are in use.
    places: Vec<u32>,
    pub objs: Vec<Obj>,
    pub checks: Vec<(Cow<'static, str>, Check)>,
    pub outcome: Option<Box<dyn FnOnce() -> String>>,
    pub failed: Option<Failed>,
    /// Some context has come to a `cpu_relax`.
    pub relaxes: bool,
    /// The current context goes on whatever the search says.
    pub alone: Option<Alone>,
    /// Nothing else is to be looked at before a step that was recorded when this schedule ran
    /// before. Whoever starts a context, ends the run or lets a context go on alone takes it back.
    pub repeats: bool,
    /// What was found out about a loop in this run, which is no execution then.
    pub probed: Option<Box<Probe>>,
    /// The run is no execution: something was probed.
    pub probing: bool,
    /// Destructors have taken steps while a panic unwound.
    pub unwound: bool,
    /// The loops that are known.
    pub spins: Spins,
    /// Those of them that this OS thread has asked for.
    pub spins_known: HashMap<Key, Spin>,
    /// How many objects the set-up has made.
    pub set_up: usize,
    /// A context whose condition panicked when it was evaluated, and how.
    pub broken: OnceCell<Box<(CtxId, String)>>,
    /// Why nothing of this is explored: told to the caller in place of what the run came to.
    pub refused: Option<String>,
    /// What is done while no context runs.
    pub pending_alone: Op,
    /// Whether a CPU has a scheduler.
    pub schedules: bool,
    /// Whether the last `TryLock` outside of the search got its lock.
    pub alone_got: bool,
    /// Where a panic came from, as the hook saw it.
    pub panic_site: Option<String>,
    /// All contexts have ended; the conditions of quiescence are checked.
    pub over: bool,
    /// The contexts that wait for ever, where that is an outcome.
    pub waiting_outcome: Option<String>,
    pub recorder: Recorder,
    /// The last acquisition of each lock, while it is found out what locks are for.
    pub acquisitions: Vec<Acquisition>,
    /// What few executions have; forgotten only if there is some.
    pub extras: Extras,
    /// Whether there is some.
    pub has_extras: bool,
    /// What else belongs to the execution, and is of no concern to the machine.
    pub kept: Kept,
    /// What is told to the watchdog, and the names that it has been told.
    pub watched: Arc<Watched>,
    named: Vec<Cow<'static, str>>,
    /// What has been explored and what is to be.
    pub search: Search,
    /// What contexts of former executions have left.
    spare: Vec<CtxMemory>,
}

/// The memory of a world, to be used again: nothing is in it.
#[derive(Default)]
pub(crate) struct Memory {
    ctxs: Vec<Ctx>,
    unstarted: Vec<CtxId>,
    cpus: Vec<Cpu>,
    versions: Vec<u32>,
    places: Vec<u32>,
    objs: Vec<Obj>,
    named: Vec<Cow<'static, str>>,
    spare: Vec<CtxMemory>,
}

impl World {
    pub(crate) fn new(search: Search, spins: Spins, watched: Arc<Watched>, memory: Memory) -> Self {
        let Memory { ctxs, unstarted, cpus, versions, places, objs, named, spare } = memory;
        World {
            mode: Mode::Outside,
            epoch: 0,
            current: CtxId(0),
            starting: false,
            turn: None,
            ctxs,
            unstarted,
            set_up_ctxs: 0,
            cpus,
            cpu_count: CpuCount::Open,
            late_cpus: 0,
            cpu_numbers: None,
            versions,
            places,
            objs,
            checks: Vec::new(),
            outcome: None,
            failed: None,
            relaxes: false,
            alone: None,
            repeats: false,
            probed: None,
            probing: false,
            unwound: false,
            spins,
            spins_known: HashMap::new(),
            set_up: 0,
            broken: OnceCell::new(),
            refused: None,
            pending_alone: Op::new(OpKind::Spawn, NO_OBJ),
            schedules: false,
            alone_got: false,
            panic_site: None,
            over: false,
            waiting_outcome: None,
            recorder: Recorder::default(),
            extras: Extras::default(),
            has_extras: false,
            acquisitions: Vec::new(),
            kept: Kept::default(),
            watched,
            named,
            search,
            spare,
        }
    }

    /// Forgets everything, and returns the memory of it.
    pub(crate) fn take_memory(&mut self) -> Memory {
        self.forget();
        self.named.clear();
        self.cpus.clear();
        Memory {
            ctxs: take(&mut self.ctxs),
            unstarted: take(&mut self.unstarted),
            cpus: take(&mut self.cpus),
            versions: take(&mut self.versions),
            places: take(&mut self.places),
            objs: take(&mut self.objs),
            named: take(&mut self.named),
            spare: take(&mut self.spare),
        }
    }

    /// Forgets the contexts and objects of the last execution.
    fn forget(&mut self) {
        for ctx in self.ctxs.iter_mut().rev() {
            let (mut held, mut irq_saves, mut reads) =
                (take(&mut ctx.held), take(&mut ctx.irq_saves), take(&mut ctx.reads));
            held.clear();
            irq_saves.clear();
            reads.clear();
            self.spare.push(CtxMemory { held, irq_saves, reads });
        }
        self.ctxs.clear();
        self.unstarted.clear();
        self.versions.clear();
        self.places.clear();
        self.objs.clear();
    }

    #[cold]
    fn forget_extras(&mut self) {
        self.has_extras = false;
        self.extras = Extras::default();
    }

    /// Returns what few executions have, to be added to.
    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.has_extras = true;
        &mut self.extras
    }

    /// What the machine does from here on.
    pub(crate) fn turn_to(&mut self, mode: Mode) {
        self.mode = mode;
        self.repeats = false;
    }

    /// Forgets the last execution and makes ready for one with `cpus` CPUs. Contexts must have
    /// ended or been abandoned.
    pub(crate) fn reset(&mut self, epoch: u64, cpus: u32) {
        self.epoch = epoch;
        self.current = CtxId(0);
        self.starting = false;
        self.turn = None;
        self.forget();
        self.checks.clear();
        self.outcome = None;
        self.failed = None;
        self.broken = OnceCell::new();
        self.over = false;
        self.relaxes = false;
        self.alone = None;
        self.repeats = false;
        self.probed = None;
        self.probing = false;
        self.unwound = false;
        self.schedules = false;
        self.waiting_outcome = None;
        self.kept.clear();
        self.cpu_count = CpuCount::Open;
        self.late_cpus = 0;
        self.cpu_numbers = None;
        writes_down(self.search.settings.record, self.search.settings.removal.is_some());
        if self.search.settings.record {
            self.recorder = Recorder::default();
        }
        self.acquisitions.clear();
        if self.has_extras {
            self.forget_extras();
        }
        self.cpus.truncate(cpus as usize);
        for index in 0..self.cpus.len() {
            let token = self.add_token();
            self.cpus[index].reset(token);
        }
        while self.cpus.len() < cpus as usize {
            self.add_cpu();
        }
        self.search.restart();
    }

    /// Sees to it that there are `count` CPUs.
    ///
    /// # Errors
    /// If somebody has been told that there are fewer.
    pub(crate) fn need_cpus(&mut self, count: usize) -> Result<(), String> {
        if self.cpus.len() < count && self.cpu_count != CpuCount::Open {
            return Err(format!(
                "CPU{} is needed, but the program was told that there are {} CPUs: say at the beginning of the set-up how \
                 many there are, with `Machine::cpus`",
                count - 1,
                self.cpus.len()
            ));
        }
        while self.cpus.len() < count {
            self.add_cpu();
            self.late_cpus += u32::from(self.mode == Mode::Running);
        }
        Ok(())
    }

    /// Returns the object that is used whenever a CPU or a number is given out, because it matters
    /// who is given one first.
    pub(crate) fn cpu_numbers(&mut self) -> ObjId {
        if let Some(numbers) = self.cpu_numbers {
            return numbers;
        }
        let numbers = self.add_obj(ObjKind::Model, "CPU numbers", Location::caller());
        self.cpu_numbers = Some(numbers);
        numbers
    }

    fn add_cpu(&mut self) {
        let token = self.add_token();
        self.cpus.push(Cpu {
            irqs_on: true,
            task: None,
            handlers: Vec::new(),
            token,
            has_handlers: false,
            switch: None,
            need_resched: false,
            used: false,
        });
    }

    fn add_token(&mut self) -> ObjId {
        self.add_obj(ObjKind::Token, "interrupts", Location::caller())
    }

    /// Several tasks share the CPU from now on.
    pub(crate) fn schedule_cpu(&mut self, cpu: CpuId) {
        let switch = self.add_obj(ObjKind::Model, "running task", Location::caller());
        self.cpus[cpu.0 as usize].switch = Some(switch);
        self.schedules = true;
        self.repeats = false;
    }

    pub(crate) fn add_obj(
        &mut self,
        kind: ObjKind,
        name: impl Into<Cow<'static, str>>,
        created: &'static Location<'static>,
    ) -> ObjId {
        let id = self.reserve();
        self.make(id, kind, name, created);
        id
    }

    /// A number for an object that is still to be [made](World::make).
    #[inline]
    pub(crate) fn reserve(&mut self) -> ObjId {
        let id = ObjId(self.versions.len() as u32);
        self.versions.push(0);
        self.places.push(UNUSED);
        id
    }

    /// Makes the object that has this number.
    pub(crate) fn make(
        &mut self,
        id: ObjId,
        kind: ObjKind,
        name: impl Into<Cow<'static, str>>,
        created: &'static Location<'static>,
    ) {
        self.places[id.index()] = self.objs.len() as u32;
        self.objs.push(Obj {
            kind,
            name: name.into(),
            class: None,
            creator: None,
            holder: NOBODY,
            users: CtxSet::EMPTY,
            releasers: CtxSet::EMPTY,
            needs: None,
            created,
        });
    }

    /// How many objects were made before this one.
    #[inline]
    pub(crate) fn made_before(&self, id: ObjId) -> usize {
        self.places[id.index()] as usize
    }

    /// A new context. It is started when the running one comes to its next step.
    pub(crate) fn add_ctx(
        &mut self,
        name: Cow<'static, str>,
        kind: CtxKind,
        cpu: Option<CpuId>,
        pending: Op,
        job: Box<dyn FnOnce()>,
    ) -> CtxId {
        assert!(self.ctxs.len() < MOST, "{}", too_many(&name));
        let id = CtxId(self.ctxs.len() as u8);
        // Most programs name them alike in each execution.
        if !self
            .named
            .get(id.index())
            .is_some_and(|named| std::ptr::eq(&**named, &*name) || *named == name)
        {
            self.watched.named(id, kind.noun(), name.clone());
            self.named.truncate(id.index());
            self.named.push(name.clone());
        }
        let CtxMemory { held, irq_saves, reads } = self.spare.pop().unwrap_or_default();
        // Not pushed, but made where it will be: it is large.
        self.ctxs.extend(std::iter::once_with(move || Ctx {
            name,
            kind,
            cpu,
            finished: false,
            pending,
            more: None,
            may_change: None,
            held,
            leaves: 0,
            irq_saves,
            preempt_off: 0,
            locks_created: 0,
            reads,
            relaxed: pending.site,
            spin: None,
            own_change: Cell::new(None),
            spent: false,
            in_vain: 0,
            lapses: 0,
            looks_on: None,
            after: CtxSet::EMPTY,
            born: None,
            begun: false,
            raised: false,
            active: false,
            vector: None,
            got: false,
            pending_obj: None,
            reschedules: false,
            scheduled: None,
            preempted: None,
            spurious: [0; 2],
            kept: Kept::default(),
            pinned: false,
            may_not_run: false,
            aside: false,
            job: Some(job),
        }));
        self.unstarted.push(id);
        self.repeats = false;
        id
    }

    #[inline]
    pub(crate) fn ctx(&self, id: CtxId) -> &Ctx {
        &self.ctxs[id.index()]
    }

    #[inline]
    pub(crate) fn ctx_mut(&mut self, id: CtxId) -> &mut Ctx {
        &mut self.ctxs[id.index()]
    }

    #[inline]
    pub(crate) fn obj(&self, id: ObjId) -> &Obj {
        &self.objs[self.made_before(id)]
    }

    #[inline]
    pub(crate) fn obj_mut(&mut self, id: ObjId) -> &mut Obj {
        let place = self.made_before(id);
        &mut self.objs[place]
    }

    /// The CPU of the current context; hardware has none.
    pub(crate) fn current_cpu(&self) -> Option<CpuId> {
        match self.mode {
            Mode::Outside | Mode::Alone => Some(CpuId(0)),
            _ => self.ctx(self.current).cpu,
        }
    }

    /// Ends the run as failed, unless it has failed already: the first failure is the one to tell.
    pub(crate) fn fail(&mut self, kind: FailureKind, members: CtxSet, message: String) {
        if self.failed.is_none() {
            self.repeats = false;
            self.failed = Some(Failed { kind, message, members, locks: Vec::new() });
        }
    }

    /// The context that runs unwinds from here on: its destructors must not suspend.
    pub(crate) fn panics(&mut self, site: Option<String>) {
        if self.mode == Mode::Running {
            self.unwinds();
            self.panic_site = site;
            // It may unwind out of a step, and what it lends to the machine for that is on its
            // stack.
            let me = self.current;
            let ctx = self.ctx_mut(me);
            (ctx.pending.condition, ctx.more) = (None, None);
        }
    }

    /// Calls the condition of `id`, which waits. One that panics does not hold, and ends the run.
    pub(crate) fn evaluate(&self, id: CtxId, condition: impl FnOnce() -> bool) -> bool {
        lent(condition).unwrap_or_else(|panic| {
            let text = format!("the condition that {} waits for {panic}", self.ctx(id).name);
            let _ = self.broken.set(Box::new((id, text)));
            false
        })
    }

    /// Ends the run as failed if a condition panicked when it was evaluated.
    #[inline]
    pub(crate) fn a_condition_panicked(&mut self) -> bool {
        let Some((id, text)) = self.broken.take().map(|broken| *broken) else { return false };
        self.fail(FailureKind::Panic, CtxSet(id.bit()), text);
        true
    }

    /// [`fail`](World::fail), by the current context.
    pub(crate) fn fail_here(&mut self, kind: FailureKind, message: String) {
        let members =
            if self.mode == Mode::Running { CtxSet(self.current.bit()) } else { CtxSet::EMPTY };
        self.fail(kind, members, message);
    }
}
