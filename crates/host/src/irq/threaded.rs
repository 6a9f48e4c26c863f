//! What an interrupt leaves to its thread, and who waits until that is done.
//!
//! ```text
//!   interrupt                thread                    who waits
//!   sets RUN, wakes          takes the word            reads the count of rounds, and RUN
//!                            rounds += 1: odd          odd, or RUN set: waits until the
//!                            calls the handler           count has gone on
//!                            rounds += 1: even
//! ```
//!
//! The count of rounds has one writer, the thread, which therefore needs two stores and no
//! read-modify-write. Whoever waits takes no lock, and is let go as well when the thread detaches.

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform, WaitQueue};

/// There is an interrupt to be handled.
const RUN: u32 = 1;
/// The thread is to move itself to where the interrupt goes.
const MOVE: u32 = 2;

/// What an interrupt thread has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what was taken is done by nobody else"]
pub struct ThreadWork {
    /// Call the handler.
    pub run: bool,
    /// Move to the CPU where the interrupt goes: [`IrqDesc::cpu`](crate::IrqDesc::cpu).
    pub moved: bool,
}

pub(crate) struct Threaded<P: Platform> {
    /// What the thread has to do. Set by interrupt handlers, without a lock.
    work: P::AtomicU32,
    /// How often the thread has begun or ended to handle: odd while it does. Written by the thread
    /// only.
    rounds: P::AtomicU32,
    /// Whether there is a thread. Written under the descriptor's lock.
    attached: P::AtomicBool,
    ended: P::WaitQueue,
}

impl<P: Platform> Threaded<P> {
    pub(crate) fn new() -> Self {
        Threaded {
            work: P::AtomicU32::new(0),
            rounds: P::AtomicU32::new(0),
            attached: P::AtomicBool::new(false),
            ended: P::WaitQueue::new("interrupt thread"),
        }
    }

    /// Asks the thread to handle an interrupt; `false` if it was to do so anyway.
    pub(crate) fn ask_to_run(&self) -> bool {
        self.work.fetch_or(RUN, SeqCst) & RUN == 0
    }

    pub(crate) fn ask_to_move(&self) {
        self.work.fetch_or(MOVE, SeqCst);
    }

    pub(crate) fn has_work(&self) -> bool {
        self.work.load(SeqCst) != 0
    }

    /// Says whether there is a thread. Whoever has the descriptor's lock calls this.
    pub(crate) fn attach(&self, attached: bool) {
        self.attached.store(attached, SeqCst);
    }

    /// Nobody waits any more for what a thread that is gone has not taken. With no lock held.
    pub(crate) fn has_detached(&self) {
        self.ended.wake_all();
    }

    /// Takes what there is to do. The thread calls this.
    pub(crate) fn take(&self) -> Option<ThreadWork> {
        let round = self.end();
        if self.work.load(SeqCst) == 0 {
            return None;
        }
        // Said before it is taken: whoever finds that there is nothing to be handled looks for this
        // next.
        self.rounds.store(round.wrapping_add(1), SeqCst);
        let work = self.work.swap(0, SeqCst);
        if work & RUN == 0 {
            self.end();
        }
        Some(ThreadWork { run: work & RUN != 0, moved: work & MOVE != 0 })
    }

    /// Says that the thread, which calls this, has handled what it has taken. Returns how often it
    /// has begun and ended.
    pub(crate) fn end(&self) -> u32 {
        let mut round = self.rounds.load(SeqCst);
        if round & 1 != 0 {
            round = round.wrapping_add(1);
            self.rounds.store(round, SeqCst);
            self.ended.wake_all();
        }
        round
    }

    /// Sleeps until the thread has handled what it was asked for before this call, if there is a
    /// thread.
    pub(crate) fn wait(&self) {
        let begun = self.rounds.load(SeqCst);
        self.ended.wait_until(|| {
            // In this order: it says that it handles before it takes what to.
            let asked = self.work.load(SeqCst) & RUN != 0 && self.attached.load(SeqCst);
            let rounds = self.rounds.load(SeqCst);
            // If more is asked of it all the time: one that it was in, and one that began after.
            (!asked && rounds & 1 == 0) || rounds.wrapping_sub(begun) >= 2 + (begun & 1)
        });
    }
}
