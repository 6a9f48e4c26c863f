//! Whether an interrupt is being handled, is pending, or is disabled: one word.
//!
//! An interrupt may come at one CPU while its handlers run on another, and while it is disabled:
//!
//! ```text
//!   CPU 0                             CPU 1
//!   sets IN_PROGRESS, calls           finds IN_PROGRESS, leaves PENDING
//!   wants to end: sees PENDING,       returns
//!     calls again
//! ```
//!
//! The invariant: whoever takes `IN_PROGRESS` or `DISABLED` away has seen in the same step whether
//! `PENDING` is set, and is responsible for it. So nothing that has come is lost, and handlers run
//! on one CPU at a time. A handler that never comes to rest gives way after some rounds.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_platform::{Atomic, Platform};

/// Somebody calls the handlers.
const IN_PROGRESS: u32 = 1;
/// The interrupt has come once more. Whoever takes `IN_PROGRESS` or `DISABLED` away is responsible
/// for it.
const PENDING: u32 = 2;
/// The handlers are not to be called.
const DISABLED: u32 = 4;
/// The interrupt is to be moved when it comes next.
const MOVE: u32 = 8;

/// This many interrupts are counted before ...
const WINDOW: u32 = 100_000;
/// ... more than these must not be nobody's.
const UNHANDLED: u32 = 99_900;

/// How often the handlers are called again before others get their turn.
const AGAIN: u32 = 16;

/// One interrupt at a time is handled, wherever it arrives, and one that arrives meanwhile is not
/// lost: it leaves `PENDING`, and who handles looks at the word before ending. The shape is that of
/// a post: publish, then read the gate, in one step because both are in one word.
pub(crate) struct Flow<P: Platform> {
    state: P::AtomicU32,
    // Of the window. Who has `IN_PROGRESS` uses them, so there is nobody to exclude; the next one
    // sees them by way of `state`.
    unhandled: P::AtomicU32,
    handled: P::AtomicU32,
}

/// What one who has an interrupt is to do.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    /// Call the handlers, then [`Flow::end`].
    Run,
    /// Somebody else will see it.
    Left,
    /// Nothing, until it is enabled.
    Disabled,
}

/// What one who has called the handlers is to do.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum End {
    Again,
    Done {
        /// The interrupt is to be moved now.
        moves: bool,
        /// The interrupt has come once more, and is somebody else's to handle.
        pending: bool,
    },
}

impl<P: Platform> Flow<P> {
    pub(crate) fn new() -> Self {
        Flow {
            state: P::AtomicU32::new(0),
            unhandled: P::AtomicU32::new(0),
            handled: P::AtomicU32::new(0),
        }
    }

    /// Begins to handle an interrupt that has come, if nothing is the matter with it: the handlers
    /// are to be called.
    #[inline]
    #[track_caller]
    pub(crate) fn begin_if_idle(&self) -> bool {
        self.state.compare_exchange(0, IN_PROGRESS, SeqCst, SeqCst).is_ok()
    }

    /// Begins to handle an interrupt that has come, or leaves it to somebody else.
    #[cold]
    #[track_caller]
    pub(crate) fn begin(&self) -> Begin {
        let mut seen = self.state.load(SeqCst);
        loop {
            let (to, begin) = match seen & (IN_PROGRESS | DISABLED) {
                0 => ((seen & !PENDING) | IN_PROGRESS, Begin::Run),
                // Both, if it was disabled while it is handled: who enables it need not look, who
                // handles it will.
                both if both & DISABLED == 0 => (seen | PENDING, Begin::Left),
                _ => (seen | PENDING, Begin::Disabled),
            };
            match self.state.compare_exchange(seen, to, SeqCst, SeqCst) {
                Ok(_) => return begin,
                Err(now) => seen = now,
            }
        }
    }

    /// The handlers have been called: if nothing has happened meanwhile, that was all.
    #[inline]
    #[track_caller]
    pub(crate) fn end_if_quiet(&self) -> bool {
        self.state.compare_exchange(IN_PROGRESS, 0, SeqCst, SeqCst).is_ok()
    }

    /// The handlers have been called, `rounds` times since the beginning.
    #[cold]
    #[track_caller]
    pub(crate) fn end(&self, rounds: u32) -> End {
        let mut seen = self.state.load(SeqCst);
        loop {
            let pending = seen & PENDING != 0 && seen & DISABLED == 0;
            let (to, end) = if pending && rounds < AGAIN {
                (seen & !PENDING, End::Again)
            } else {
                (seen & !(IN_PROGRESS | MOVE), End::Done { moves: seen & MOVE != 0, pending })
            };
            match self.state.compare_exchange(seen, to, SeqCst, SeqCst) {
                Ok(_) => return end,
                Err(now) => seen = now,
            }
        }
    }

    /// A handler has panicked: nobody calls them any more, and it counts as having come once more.
    #[cold]
    pub(crate) fn abandon(&self) {
        self.state.fetch_or(PENDING, SeqCst);
        self.state.fetch_and(!IN_PROGRESS, SeqCst);
    }

    /// Whether the handlers are being called.
    pub(crate) fn in_progress(&self) -> bool {
        self.state.load(SeqCst) & IN_PROGRESS != 0
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.state.load(SeqCst) & DISABLED != 0
    }

    /// Disables the interrupt. The caller has the descriptor's lock.
    pub(crate) fn disable(&self) {
        self.state.fetch_or(DISABLED, SeqCst);
    }

    /// Enables the interrupt, and returns whether it has come meanwhile and nobody else will see
    /// that. The caller has the descriptor's lock.
    pub(crate) fn enable(&self) -> bool {
        let seen = self.state.fetch_and(!DISABLED, SeqCst);
        seen & PENDING != 0 && seen & IN_PROGRESS == 0
    }

    /// Has the interrupt moved when it comes next.
    pub(crate) fn defer_move(&self) {
        self.state.fetch_or(MOVE, SeqCst);
    }

    /// Returns whether all interrupts were claimed of late, so that nothing is counted if this one
    /// is. Whoever calls the handlers may call this.
    #[inline]
    pub(crate) fn all_claimed(&self) -> bool {
        self.unhandled.load(Relaxed) == 0
    }

    /// Counts whether a handler has claimed the interrupt, and returns `true` if too many are
    /// nobody's. Whoever calls the handlers may call this.
    pub(crate) fn account(&self, claimed: bool) -> bool {
        let unhandled = self.unhandled.load(Relaxed);
        if claimed && unhandled == 0 {
            return false;
        }
        let handled = self.handled.load(Relaxed) + u32::from(claimed);
        let unhandled = unhandled + u32::from(!claimed);
        let over = handled + unhandled >= WINDOW;
        self.handled.store(if over { 0 } else { handled }, Relaxed);
        self.unhandled.store(if over { 0 } else { unhandled }, Relaxed);
        over && unhandled > UNHANDLED
    }
}

#[cfg(test)]
mod tests {
    use doorbell_platform::Std;

    use super::*;

    const DONE: End = End::Done { moves: false, pending: false };

    #[test]
    fn what_comes_while_it_is_handled_is_handled_again() {
        let flow = Flow::<Std>::new();
        assert_eq!(flow.begin(), Begin::Run);
        assert_eq!((flow.begin(), flow.begin()), (Begin::Left, Begin::Left));
        assert_eq!((flow.end(1), flow.end(2)), (End::Again, DONE));
        assert!(!flow.in_progress());
    }

    #[test]
    fn what_comes_while_it_is_disabled_waits_for_who_enables_it() {
        let flow = Flow::<Std>::new();
        flow.disable();
        assert_eq!(flow.begin(), Begin::Disabled);
        assert!(flow.enable());
        assert_eq!(
            (flow.begin(), flow.end(1)),
            (Begin::Run, DONE),
            "it was pending, and no longer is"
        );
        flow.disable();
        assert!(!flow.enable());
    }

    #[test]
    fn who_handles_sees_what_was_enabled_meanwhile() {
        let flow = Flow::<Std>::new();
        assert_eq!(flow.begin(), Begin::Run);
        flow.disable();
        assert_eq!(flow.begin(), Begin::Disabled);
        assert!(!flow.enable(), "who handles it sees it");
        assert_eq!((flow.end(1), flow.end(2)), (End::Again, DONE));
    }

    #[test]
    fn what_is_disabled_while_it_is_handled_is_not_handled_again_and_not_forgotten() {
        let flow = Flow::<Std>::new();
        assert_eq!((flow.begin(), flow.begin()), (Begin::Run, Begin::Left));
        flow.disable();
        assert_eq!(flow.end(1), DONE);
        assert!(flow.enable());
    }

    #[test]
    fn one_that_comes_all_the_time_is_left_to_others_at_last() {
        let flow = Flow::<Std>::new();
        assert_eq!(flow.begin(), Begin::Run);
        for round in 1..AGAIN {
            assert_eq!((flow.begin(), flow.end(round)), (Begin::Left, End::Again));
        }
        assert_eq!(
            (flow.begin(), flow.end(AGAIN)),
            (Begin::Left, End::Done { moves: false, pending: true })
        );
        assert_eq!((flow.begin(), flow.end(1)), (Begin::Run, DONE));
    }

    #[test]
    fn of_100000_that_nobody_claims_the_last_says_so_and_a_few_that_are_claimed_change_nothing() {
        let flow = Flow::<Std>::new();
        let count = |claimed: &dyn Fn(u32) -> bool| {
            (0..WINDOW).map(|n| flow.account(claimed(n))).collect::<alloc::vec::Vec<_>>()
        };
        let stuck = count(&|_| false);
        assert_eq!(stuck.iter().position(|stuck| *stuck), Some(WINDOW as usize - 1));
        assert!(count(&|n| n > 0 && n % 1100 == 0).contains(&true), "90 in 100,000 are claimed");
        assert!(!count(&|n| n > 0 && n % 900 == 0).contains(&true), "111 in 100,000 are claimed");
        assert!(!count(&|_| true).contains(&true));
        assert!(count(&|_| false).contains(&true), "each window begins anew");
    }

    #[test]
    fn exactly_99900_of_100000_may_be_nobodys() {
        for (claimed, stuck) in [(100, false), (99, true)] {
            let flow = Flow::<Std>::new();
            // The first is nobody's, so that the window begins with it.
            let said = (0..WINDOW)
                .map(|n| flow.account((1..=claimed).contains(&n)))
                .filter(|said| *said)
                .count();
            assert_eq!(said, usize::from(stuck), "{claimed} are claimed");
        }
    }
}
