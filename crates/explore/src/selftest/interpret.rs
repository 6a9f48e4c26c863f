//! Runs a program on the simulated machine.
//!
//! Steps are announced directly, not through the simulated platform, so that a context that waits
//! when the run ends simply returns: being stuck is an outcome here, in thousands of runs, and no
//! stack may be left behind for it.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use doorbell_platform::{Acquire, CpuId, LockClass, RawLock, Vector, WaitType};

use super::coverage::Feature;
use super::program::{Act, FLAGS, LOCKS, Program, WORDS};
use crate::ids::{CtxId, ObjId};
use crate::machine::cell::with;
use crate::machine::object::ObjKind;
use crate::machine::step::try_step;
use crate::machine::world::Ended;
use crate::machine::{Machine, try_spawn};
use crate::op::{NO_OBJ, Op, OpKind};
use crate::sim::{SimSpin, try_step_that, try_wait};

static A: LockClass = LockClass::new("A", WaitType::Spin);
static B: LockClass = LockClass::new("B", WaitType::Spin);
static B_SLEEPS: LockClass = LockClass::new("B", WaitType::Sleep);
static S: LockClass = LockClass::new("S", WaitType::Spin);

thread_local! {
    /// One for each OS thread, because each explores programs of its own.
    static STATIC: SimSpin = const { SimSpin::INIT };
}

/// A shared object with its state.
struct Shared<T: Copy> {
    obj: ObjId,
    value: Cell<T>,
}

impl<T: Copy> Shared<T> {
    fn new(kind: ObjKind, name: &'static str, value: T) -> Self {
        let site = Location::caller();
        Shared { obj: with(|w| w.add_obj(kind, name, site)), value: Cell::new(value) }
    }
}

/// A handler as others see it.
struct Target {
    ctx: CtxId,
    pending: ObjId,
    wire: Shared<u32>,
}

/// The objects of one execution, and what its contexts have read.
struct State {
    words: [Shared<u8>; 2],
    locks: [(ObjId, &'static LockClass); 2],
    flags: [Shared<bool>; 2],
    queue: Shared<u32>,
    timeouts: Shared<u32>,
    targets: RefCell<Vec<Target>>,
    logs: RefCell<Vec<String>>,
    /// The log of the hardware; those of the children follow.
    hardware: usize,
    /// How many tasks have spawned one.
    spawned: Cell<u32>,
    /// Loops that count their looks are loops of loads, and nothing else.
    plain: bool,
    seen: Arc<AtomicU32>,
}

/// Sets `program` up on `machine`. What happens in its executions is added to `seen`.
/// `plain`: loops that count their looks are explored look by look.
pub(super) fn set_up(
    program: &Arc<Program>,
    machine: &Machine,
    seen: &Arc<AtomicU32>,
    plain: bool,
) {
    let class = if program.mutex { &B_SLEEPS } else { &B };
    // Tasks, handlers, hardware, and a child of each task.
    let hardware = program.tasks.len() + program.handlers.len();
    let contexts = hardware + 1 + program.tasks.len();
    let state = Rc::new(State {
        words: WORDS.map(|name| Shared::new(ObjKind::Atomic, name, 0)),
        locks: [(add_lock(LOCKS[0], &A), &A), (add_lock(LOCKS[1], class), class)],
        flags: FLAGS.map(|name| Shared::new(ObjKind::Model, name, false)),
        queue: Shared::new(ObjKind::Model, "queue", 0),
        timeouts: Shared::new(ObjKind::Model, "timeouts", 1),
        targets: RefCell::new(Vec::new()),
        logs: RefCell::new(vec![String::new(); contexts]),
        hardware,
        spawned: Cell::new(0),
        plain,
        seen: Arc::clone(seen),
    });
    let tasks = program.tasks.len();
    for (cpu, _) in program.tasks.iter().enumerate() {
        let run = Run { state: Rc::clone(&state), log: cpu };
        let program = Arc::clone(program);
        machine.task_on(CpuId(cpu as u32), format!("task {cpu}"), move || {
            run.all(&program.tasks[cpu])
        });
    }
    for (index, handler) in program.handlers.iter().enumerate() {
        let run = Run { state: Rc::clone(&state), log: tasks + index };
        let of = Arc::clone(program);
        let cpu = CpuId(handler.cpu);
        let handle = machine.handler(
            cpu,
            Vector(0x40 + index as u8),
            format!("handler {index}"),
            move || {
                run.entered();
                run.all(&of.handlers[index].acts);
            },
        );
        let pending = with(|w| w.ctx(handle.id()).pending_obj).expect("a handler has one");
        let wire = Shared::new(ObjKind::Model, "IPI in flight", 0);
        state.targets.borrow_mut().push(Target { ctx: handle.id(), pending, wire });
    }
    for index in 0..program.handlers.len() {
        if program.sends_ipi(index as u8) {
            let run = Run { state: Rc::clone(&state), log: 0 };
            machine.hardware(format!("wire {index}"), move || while run.deliver(index).is_ok() {});
        }
    }
    if !program.hardware.is_empty() {
        let run = Run { state: Rc::clone(&state), log: hardware };
        let program = Arc::clone(program);
        machine.hardware("hardware", move || run.all(&program.hardware));
    }
    machine.outcome(move || state.outcome());
}

fn add_lock(name: &'static str, class: &'static LockClass) -> ObjId {
    let site = Location::caller();
    with(|w| {
        let kind =
            if class.wait_type() == WaitType::Sleep { ObjKind::Mutex } else { ObjKind::Spin };
        let obj = w.add_obj(kind, name, site);
        w.obj_mut(obj).class = Some(class);
        obj
    })
}

impl State {
    fn outcome(&self) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(64);
        let words = &self.words;
        let flags = &self.flags;
        let _ = write!(
            text,
            "x={} y={} f={} g={} |",
            words[0].value.get(),
            words[1].value.get(),
            flags[0].value.get() as u8,
            flags[1].value.get() as u8
        );
        for log in self.logs.borrow().iter() {
            text.push_str(log);
            text.push('|');
        }
        text
    }

    fn saw(&self, feature: Feature) {
        if self.seen.load(Relaxed) & feature.bit() == 0 {
            self.seen.fetch_or(feature.bit(), Relaxed);
        }
    }
}

/// One context of a run.
struct Run {
    state: Rc<State>,
    /// The number of the log that is its own.
    log: usize,
}

type Step = Result<(), Ended>;

impl Run {
    fn all(&self, acts: &[Act]) {
        let _ = self.acts(acts);
    }

    fn acts(&self, acts: &[Act]) -> Step {
        acts.iter().try_for_each(|act| self.act(act))
    }

    fn log(&self, value: u8) {
        self.state.logs.borrow_mut()[self.log].push((b'0' + value) as char);
    }

    fn entered(&self) {
        self.state.logs.borrow_mut()[self.log].push('>');
        self.state.saw(Feature::Interrupt);
        let nested = with(|w| {
            w.ctx(w.current).cpu.is_some_and(|cpu| w.cpus[cpu.0 as usize].handlers.len() > 1)
        });
        if nested {
            self.state.saw(Feature::NestedInterrupt);
        }
    }

    /// Carries one interrupt to its handler.
    fn deliver(&self, index: usize) -> Step {
        let (obj, pending, ctx) = {
            let target = &self.state.targets.borrow()[index];
            (target.wire.obj, target.pending, target.ctx)
        };
        let flying = |change: u32| {
            let flying = &self.state.targets.borrow()[index].wire.value;
            flying.set(flying.get() - change);
            flying.get()
        };
        try_wait(Op { idle: true, obj2: Some(pending), ..Op::new(OpKind::Take, obj) }, &|| {
            flying(0) > 0
        })?;
        flying(1);
        let coalesced = with(|w| std::mem::replace(&mut w.ctx_mut(ctx).raised, true));
        self.state.saw(if coalesced { Feature::Coalesced } else { Feature::Ipi });
        Ok(())
    }

    fn lock(&self, lock: u8) -> Step {
        let (obj, class) = self.state.locks[lock as usize];
        try_step(Op { how: Some(Acquire::of(class)), ..Op::new(OpKind::Lock, obj) })
    }

    fn unlock(&self, lock: u8) -> Step {
        try_step(Op::new(OpKind::Unlock, self.state.locks[lock as usize].0))
    }

    fn masked(&self, body: impl FnOnce() -> Step) -> Step {
        let (token, was_on) = irqs();
        if was_on {
            try_step(Op::new(OpKind::IrqOff, token))?;
        }
        body()?;
        if was_on && !irqs().1 {
            try_step(Op::new(OpKind::IrqOn, token))?;
        }
        Ok(())
    }

    fn load(&self, word: u8) -> Result<u8, Ended> {
        let value = self.look(word)?;
        self.log(value);
        Ok(value)
    }

    /// A load that only what comes of it tells of: how often a loop looks is not explored.
    fn look(&self, word: u8) -> Result<u8, Ended> {
        let word = &self.state.words[word as usize];
        try_step(Op::new(OpKind::Load, word.obj))?;
        Ok(word.value.get())
    }

    /// Writes in the step that was just done.
    fn write(&self, word: u8, value: u8) {
        let word = &self.state.words[word as usize];
        if word.value.replace(value) == value {
            with(|w| w.unchanged(word.obj));
        }
    }

    fn act(&self, act: &Act) -> Step {
        let state = &*self.state;
        match act {
            Act::Load(word) => self.load(*word).map(|_| ()),
            Act::Store(word, value) => {
                try_step(Op::new(OpKind::Store, state.words[*word as usize].obj))?;
                self.write(*word, *value);
                Ok(())
            }
            Act::Choose(word, most) => {
                let site = Location::caller();
                let value = with(|w| w.choose(*most, site, |_| None)).ok_or(Ended)?;
                if value > 0 {
                    state.saw(Feature::Chose);
                }
                self.act(&Act::Store(*word, value))
            }
            Act::Add(word, value) => {
                let at = &state.words[*word as usize];
                let sum = || (at.value.get() + value) % 8;
                try_step_that(Op::new(OpKind::Rmw, at.obj), &|| sum() != at.value.get())?;
                self.log(at.value.get());
                self.write(*word, sum());
                Ok(())
            }
            Act::Cas(word, old, new) => {
                let at = &state.words[*word as usize];
                try_step_that(Op::new(OpKind::Rmw, at.obj), &|| {
                    old != new && at.value.get() == *old
                })?;
                self.log(at.value.get());
                if at.value.get() != *old {
                    state.saw(Feature::ExchangeFailed);
                }
                self.write(*word, if at.value.get() == *old { *new } else { at.value.get() });
                Ok(())
            }
            Act::Lock(lock, body) => {
                self.lock(*lock)?;
                self.acts(body)?;
                self.unlock(*lock)
            }
            Act::LockIrq(lock, body) => self.masked(|| {
                self.lock(*lock)?;
                self.acts(body)?;
                self.unlock(*lock)
            }),
            Act::Try(lock, body) => self.try_lock(*lock, body),
            Act::Crossed(first, body) => {
                self.lock(*first)?;
                self.lock(1 - *first)?;
                self.unlock(*first)?;
                self.acts(body)?;
                self.unlock(1 - *first)
            }
            Act::IrqOff(body) => self.masked(|| self.acts(body)),
            Act::Enable => match irqs() {
                (token, false) => try_step(Op::new(OpKind::IrqOn, token)),
                _ => Ok(()),
            },
            Act::Raise(index) => {
                let (target, pending) = {
                    let target = &state.targets.borrow()[*index as usize];
                    (target.ctx, target.pending)
                };
                if with(|w| w.ctx(target).raised) {
                    state.saw(Feature::Coalesced);
                }
                try_step(Op { target, ..Op::new(OpKind::Raise, pending) })
            }
            Act::Ipi(index) => {
                let wire = state.targets.borrow()[*index as usize].wire.obj;
                try_step(Op::new(OpKind::Change, wire))?;
                let flying = &state.targets.borrow()[*index as usize].wire.value;
                flying.set(flying.get() + 1);
                Ok(())
            }
            Act::Spawn(child, body) => {
                let log = state.hardware + 1 + self.log;
                let run = Run { state: Rc::clone(&self.state), log };
                let child = child.clone();
                let task = try_spawn("child", move || {
                    // Which CPU it has depends on who else has spawned before.
                    run.log(current_cpu());
                    run.all(&child);
                })?;
                state.saw(Feature::Spawned);
                if state.spawned.replace(state.spawned.get() + 1) > 0 {
                    state.saw(Feature::RacingSpawns);
                }
                self.acts(body)?;
                try_step(Op { target: task.id(), ..Op::new(OpKind::Join, NO_OBJ) })
            }
            Act::Caught(body) => {
                state.saw(Feature::Caught);
                // What a destructor does belongs to the step before.
                self.look(0)?;
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    let _does = OnDrop(|| self.all(body));
                    panic!("to be caught");
                }));
                debug_assert!(caught.is_err());
                Ok(())
            }
            Act::Static(body) => {
                let obj = STATIC.with(|lock| lock.obj(&S));
                state.saw(Feature::Static);
                try_step(Op { how: Some(Acquire::of(&S)), ..Op::new(OpKind::Lock, obj) })?;
                self.acts(body)?;
                try_step(Op::new(OpKind::Unlock, obj))
            }
            _ => self.wait(act),
        }
    }

    fn try_lock(&self, lock: u8, body: &[Act]) -> Step {
        let (obj, class) = self.state.locks[lock as usize];
        try_step(Op { how: Some(Acquire::of(class)), ..Op::new(OpKind::TryLock, obj) })?;
        let got = with(|w| w.ctx(w.current).got);
        self.log(got as u8);
        if !got {
            self.state.saw(Feature::TryFailed);
            return Ok(());
        }
        self.acts(body)?;
        self.unlock(lock)
    }

    /// What has to do with waiting.
    fn wait(&self, act: &Act) -> Step {
        let state = &*self.state;
        match act {
            Act::Set(flag) => {
                let flag = &state.flags[*flag as usize];
                try_step(Op::new(OpKind::Change, flag.obj))?;
                flag.value.set(true);
            }
            Act::Await(flag) => {
                let flag = &state.flags[*flag as usize];
                try_wait(Op::new(OpKind::Await, flag.obj), &|| flag.value.get())?;
                state.saw(Feature::Awaited);
            }
            Act::Park(flag) => {
                let flag = &state.flags[*flag as usize];
                try_wait(Op::new(OpKind::Take, flag.obj), &|| flag.value.get())?;
                flag.value.set(false);
                state.saw(Feature::Woken);
            }
            Act::Timeout(flag) => {
                let (flag, clock) = (&state.flags[*flag as usize], &state.timeouts);
                let op = Op { obj2: Some(clock.obj), ..Op::new(OpKind::Take, flag.obj) };
                try_wait(op, &|| flag.value.get() || clock.value.get() > 0)?;
                self.log(flag.value.get() as u8);
                if !flag.value.get() {
                    clock.value.set(clock.value.get() - 1);
                    state.saw(Feature::TimedOut);
                }
            }
            Act::AwaitWord(word, value) => {
                let word = &state.words[*word as usize];
                try_wait(Op::new(OpKind::Await, word.obj), &|| word.value.get() == *value)?;
                state.saw(Feature::Awaited);
            }
            Act::Down(index) => {
                let word = &state.words[*index as usize];
                try_wait(Op::new(OpKind::Take, word.obj), &|| word.value.get() > 0)?;
                self.log(word.value.get());
                word.value.set(word.value.get() - 1);
                state.saw(Feature::Woken);
            }
            Act::Spin(word, value) => {
                while self.look(*word)? != *value {
                    try_step(Op::new(OpKind::Relax, NO_OBJ))?;
                    state.saw(Feature::Retried);
                }
            }
            Act::Poll(word, value, most) => {
                let mut answered = false;
                for _ in 0..*most {
                    answered = self.look(*word)? == *value;
                    if answered {
                        break;
                    }
                    // To the oracle this is a loop of loads.
                    if !state.plain {
                        try_step(Op::new(OpKind::Relax, NO_OBJ))?;
                    }
                }
                self.log(answered as u8);
                if !answered {
                    state.saw(Feature::Lapsed);
                    self.act(&Act::Store(1 - *word, 3))?;
                }
            }
            Act::Queue(word, value) => loop {
                try_step(Op::new(OpKind::Observe, state.queue.obj))?;
                let before = state.queue.value.get();
                if self.load(*word)? == *value {
                    break;
                }
                try_wait(Op::new(OpKind::Await, state.queue.obj), &|| {
                    state.queue.value.get() != before
                })?;
                state.saw(Feature::Woken);
            },
            Act::WakeAll => {
                try_step(Op::new(OpKind::Change, state.queue.obj))?;
                state.queue.value.set(state.queue.value.get() + 1);
            }
            _ => unreachable!("{act} does not wait"),
        }
        Ok(())
    }
}

/// Does something when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn current_cpu() -> u8 {
    with(|w| w.current_cpu()).map_or(9, |cpu| cpu.0 as u8)
}

/// The interrupt token of the CPU, and whether interrupts are on. Hardware has neither.
fn irqs() -> (ObjId, bool) {
    with(|w| match w.ctx(w.current).cpu {
        Some(cpu) => (w.cpus[cpu.0 as usize].token, w.cpus[cpu.0 as usize].irqs_on),
        None => (NO_OBJ, true),
    })
}
