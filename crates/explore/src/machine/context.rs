//! The contexts of an execution.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::Location;
use std::rc::Rc;

use doorbell_platform::{CpuId, Vector};

use crate::ids::{CtxSet, ObjId};
use crate::machine::coroutine::MOST;
use crate::machine::kept::Kept;
use crate::machine::scheduled::Scheduled;
use crate::machine::spin::Spin;
use crate::op::{MoreUses, Op};
use crate::validate::{CtxKind, Held};

/// A context of the current execution.
pub(crate) struct Ctx {
    pub name: Cow<'static, str>,
    pub kind: CtxKind,
    pub cpu: Option<CpuId>,
    pub finished: bool,
    /// What it does next.
    pub pending: Op,
    /// What else that step uses, as things are when it is asked.
    pub more: Option<MoreUses>,
    /// What that step may turn out to change, too.
    pub may_change: Option<ObjId>,
    pub held: Vec<Held>,
    /// How many of those are leaves.
    pub leaves: u32,
    /// For each nested `irq_save`, where it has turned interrupts off, if it has.
    pub irq_saves: Vec<Option<&'static Location<'static>>>,
    pub preempt_off: u32,
    /// How many locks it has created.
    pub locks_created: u32,
    /// What it has read since its last `cpu_relax`: object and version.
    pub reads: Vec<(ObjId, u32)>,
    /// Where that was.
    pub relaxed: &'static Location<'static>,
    /// What the loop does in which it rests, once that is known.
    pub spin: Option<Spin>,
    /// Whether it has changed something itself since then, once that is known.
    pub own_change: Cell<Option<bool>>,
    /// The context has looked in vain for as long as anybody may.
    pub spent: bool,
    /// How often it has looked since there was news.
    pub in_vain: u32,
    /// How often it has lapsed.
    pub lapses: u32,
    /// Where it lapsed last, if it was not seen to leave the loop.
    pub looks_on: Option<&'static Location<'static>>,
    /// The contexts that had ended before this one got here, by spawn and join.
    pub after: CtxSet,
    /// The step that created it.
    pub born: Option<u32>,
    /// Whether it is joined to `born` yet: its first event still has to be.
    pub begun: bool,
    /// For handlers: the interrupt is pending.
    pub raised: bool,
    /// For handlers: it runs.
    pub active: bool,
    /// For handlers: what they handle.
    pub vector: Option<Vector>,
    /// Whether the last `TryLock` got its lock.
    pub got: bool,
    /// For handlers: their pending interrupt, as an object.
    pub pending_obj: Option<ObjId>,
    /// For handlers: they ask their CPU to switch tasks.
    pub reschedules: bool,
    /// For tasks of a scheduler: the way to it.
    pub scheduled: Option<Rc<dyn Scheduled>>,
    /// The step that it had announced when it was preempted.
    pub preempted: Option<Box<Op>>,
    /// How often each of what may happen for nothing has happened.
    pub spurious: [u32; 2],
    /// What else belongs to it, and is of no concern to the machine.
    pub kept: Kept,
    /// The context is a task for which a certain CPU was asked; others make way for such a task
    /// while the program is set up.
    pub pinned: bool,
    /// The program has said that it need not run.
    pub may_not_run: bool,
    /// The context serves the others: traces show it in a column of its own, not as a CPU.
    pub aside: bool,
    /// The job, until it starts.
    pub job: Option<Box<dyn FnOnce()>>,
}

/// The memory of a context, to be used again.
#[derive(Default)]
pub(crate) struct CtxMemory {
    pub held: Vec<Held>,
    pub irq_saves: Vec<Option<&'static Location<'static>>>,
    pub reads: Vec<(ObjId, u32)>,
}

/// Says that there is no room for another context.
pub(crate) fn too_many(name: &str) -> String {
    format!(
        "{name:?} would be context {}, and a program has at most {MOST}: tasks, handlers and hardware, those that have \
         ended included",
        MOST + 1
    )
}
