//! Random programs as data: what each context does, printable and cut down easily.

use std::fmt;

/// One of the two words.
pub(super) type WordId = u8;
/// One of the two locks.
pub(super) type LockId = u8;
/// One of the two flags.
pub(super) type FlagId = u8;

/// Something that a context does. What has a body does it in between.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Reads a word.
    Load(WordId),
    /// Writes a word.
    Store(WordId, u8),
    /// Adds to a word.
    Add(WordId, u8),
    /// Exchanges a word if it is the first value.
    Cas(WordId, u8, u8),
    /// Holds a lock.
    Lock(LockId, Vec<Act>),
    /// Holds a spin lock with interrupts off.
    LockIrq(LockId, Vec<Act>),
    /// Holds a lock if it is free; skips the body otherwise.
    Try(LockId, Vec<Act>),
    /// Holds both locks, and releases the one first that was taken first; the body comes in
    /// between.
    Crossed(LockId, Vec<Act>),
    /// Saves the interrupt state and turns interrupts off; restores it.
    IrqOff(Vec<Act>),
    /// Turns interrupts on whatever they were.
    Enable,
    /// Makes the interrupt of a handler pending.
    Raise(u8),
    /// Sends the interrupt of a handler, to arrive later.
    Ipi(u8),
    /// Sets a flag: a completion, or a wake-up.
    Set(FlagId),
    /// Waits until a flag is set.
    Await(FlagId),
    /// Waits until a flag is set, and clears it: parks.
    Park(FlagId),
    /// Waits until a flag is set or the only timeout strikes.
    Timeout(FlagId),
    /// Waits, in one step, until a word has a value.
    AwaitWord(WordId, u8),
    /// Waits until a word is not 0, and takes 1 away.
    Down(WordId),
    /// Reads a word and relaxes until it has a value.
    Spin(WordId, u8),
    /// Reads a word and relaxes until it has a value, so many times at most. If it does not get it,
    /// writes the other word.
    Poll(WordId, u8, u8),
    /// Panics, and catches that. What stands in the body is done by a destructor meanwhile.
    Caught(Vec<Act>),
    /// Holds a lock that is a static, which becomes an object when it is first used.
    Static(Vec<Act>),
    /// Sleeps in the wait queue until a word has a value.
    Queue(WordId, u8),
    /// Wakes all in the wait queue.
    WakeAll,
    /// Writes a value below the second that the search chooses.
    Choose(WordId, u8),
    /// Starts a task of its own CPU and joins it after the body.
    Spawn(Vec<Act>, Vec<Act>),
}

impl Act {
    /// The body, if it has one.
    pub(super) fn body(&self) -> Option<&Vec<Act>> {
        match self {
            Act::Lock(_, body)
            | Act::LockIrq(_, body)
            | Act::Try(_, body)
            | Act::Crossed(_, body) => Some(body),
            Act::IrqOff(body) | Act::Spawn(_, body) | Act::Caught(body) | Act::Static(body) => {
                Some(body)
            }
            _ => None,
        }
    }

    /// The bodies that can be cut down.
    pub(super) fn bodies(&mut self) -> Vec<&mut Vec<Act>> {
        match self {
            Act::Lock(_, body)
            | Act::LockIrq(_, body)
            | Act::Try(_, body)
            | Act::Crossed(_, body) => vec![body],
            Act::IrqOff(body) | Act::Caught(body) | Act::Static(body) => vec![body],
            Act::Spawn(child, body) => vec![child, body],
            _ => Vec::new(),
        }
    }
}

/// A handler: where it runs and what it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Handler {
    pub cpu: u32,
    pub acts: Vec<Act>,
}

/// A program: tasks pinned to CPU 0, 1, …, handlers, and perhaps a piece of hardware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Program {
    /// Whether the second lock sleeps.
    pub mutex: bool,
    pub tasks: Vec<Vec<Act>>,
    pub handlers: Vec<Handler>,
    pub hardware: Vec<Act>,
}

/// How words are called.
pub(super) const WORDS: [&str; 2] = ["x", "y"];
/// How locks are called.
pub(super) const LOCKS: [&str; 2] = ["A", "B"];
/// How flags are called.
pub(super) const FLAGS: [&str; 2] = ["f", "g"];

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |w: &u8| WORDS[*w as usize];
        let lock = |l: &u8| LOCKS[*l as usize];
        let flag = |g: &u8| FLAGS[*g as usize];
        match self {
            Act::Load(w) => write!(f, "read {}", word(w)),
            Act::Store(w, v) => write!(f, "{} = {v}", word(w)),
            Act::Add(w, v) => write!(f, "{} += {v}", word(w)),
            Act::Cas(w, old, new) => write!(f, "cas {} {old}→{new}", word(w)),
            Act::Lock(l, body) => write!(f, "lock {} {}", lock(l), Block(body)),
            Act::LockIrq(l, body) => write!(f, "lock_irqsave {} {}", lock(l), Block(body)),
            Act::Try(l, body) => write!(f, "try_lock {} {}", lock(l), Block(body)),
            Act::Crossed(l, body) => {
                let other = 1 - *l;
                write!(
                    f,
                    "lock {0}; lock {1}; unlock {0} {2} unlock {1}",
                    lock(l),
                    lock(&other),
                    Block(body)
                )
            }
            Act::IrqOff(body) => write!(f, "irqs_off {}", Block(body)),
            Act::Enable => f.write_str("local_irq_enable"),
            Act::Raise(h) => write!(f, "raise handler {h}"),
            Act::Ipi(h) => write!(f, "send IPI to handler {h}"),
            Act::Set(g) => write!(f, "set {}", flag(g)),
            Act::Await(g) => write!(f, "wait for {}", flag(g)),
            Act::Park(g) => write!(f, "park on {}", flag(g)),
            Act::Timeout(g) => write!(f, "wait for {} or the timeout", flag(g)),
            Act::AwaitWord(w, v) => write!(f, "wait until {} == {v}", word(w)),
            Act::Down(w) => write!(f, "wait until {0} > 0, {0} -= 1", word(w)),
            Act::Spin(w, v) => write!(f, "until {} == {v} relax", word(w)),
            Act::Poll(w, v, most) => {
                write!(
                    f,
                    "until {} == {v} relax, {most} looks at most, else {} = 3",
                    word(w),
                    word(&(1 - w))
                )
            }
            Act::Caught(body) => write!(f, "panic, drop {} catch", Block(body)),
            Act::Static(body) => write!(f, "lock the static {}", Block(body)),
            Act::Queue(w, v) => write!(f, "wait in the queue until {} == {v}", word(w)),
            Act::Choose(w, most) => write!(f, "{} = any of {most}", word(w)),
            Act::WakeAll => f.write_str("wake the queue"),
            Act::Spawn(child, body) => {
                write!(f, "spawn {} meanwhile {} join", Block(child), Block(body))
            }
        }
    }
}

struct Block<'a>(&'a [Act]);

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ ")?;
        for act in self.0 {
            write!(f, "{act}; ")?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mutex {
            writeln!(f, "  B sleeps")?;
        }
        for (cpu, task) in self.tasks.iter().enumerate() {
            writeln!(f, "  task on CPU{cpu}: {}", Block(task))?;
        }
        for (index, handler) in self.handlers.iter().enumerate() {
            writeln!(f, "  handler {index} of CPU{}: {}", handler.cpu, Block(&handler.acts))?;
        }
        if !self.hardware.is_empty() {
            writeln!(f, "  hardware: {}", Block(&self.hardware))?;
        }
        Ok(())
    }
}

impl Program {
    /// All acts, those of bodies included.
    fn acts(&self) -> impl Iterator<Item = &Act> {
        let tops = self
            .tasks
            .iter()
            .chain(self.handlers.iter().map(|handler| &handler.acts))
            .chain([&self.hardware]);
        let mut todo: Vec<&Act> = tops.flatten().collect();
        std::iter::from_fn(move || {
            let act = todo.pop()?;
            if let Act::Spawn(child, _) = act {
                todo.extend(child);
            }
            todo.extend(act.body().into_iter().flatten());
            Some(act)
        })
    }

    /// Returns whether some of its loops count their looks.
    pub(super) fn polls(&self) -> bool {
        self.acts().any(|act| matches!(act, Act::Poll(..)))
    }

    /// Returns whether it panics.
    pub(super) fn panics(&self) -> bool {
        self.acts().any(|act| matches!(act, Act::Caught(_)))
    }

    /// Whether somebody sends the interrupt of that handler as an IPI.
    pub(super) fn sends_ipi(&self, handler: u8) -> bool {
        self.acts().any(|act| *act == Act::Ipi(handler))
    }

    /// Whether the interrupt of that handler can come.
    pub(super) fn uses(&self, handler: u8) -> bool {
        self.acts().any(|act| *act == Act::Ipi(handler) || *act == Act::Raise(handler))
    }
}
