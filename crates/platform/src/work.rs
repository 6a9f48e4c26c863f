//! Deferred work.

use alloc::boxed::Box;

use crate::Platform;

/// A pool of a bounded number of workers that run queued work in task context.
///
/// Work that waits for other work of the same pool can exhaust it: a worker of Doorbell never waits
/// for a grace period or for other work.
pub trait WorkQueue: Clone + Send + Sync + 'static {
    /// One piece of work.
    type Work: Work;

    /// Creates work that calls `f` on this pool each time it is queued. Never two at once.
    #[track_caller]
    fn work(&self, name: &'static str, f: impl Fn() + Send + Sync + 'static) -> Self::Work;

    /// Runs `f` once on this pool.
    #[track_caller]
    fn spawn(&self, name: &'static str, f: Box<dyn FnOnce() + Send + 'static>);
}

/// A piece of work that can be queued again and again.
pub trait Work: Clone + Send + Sync + 'static {
    /// Queues the work; `false` if it was queued already and had not begun.
    #[track_caller]
    fn queue(&self) -> bool;

    /// Waits until the runs that were queued before this call have ended.
    #[track_caller]
    fn flush(&self);

    /// Takes the work off the queue and waits for a run that has begun; `true` if it was queued.
    #[track_caller]
    fn cancel(&self) -> bool;
}

/// A platform with a queue for what belongs to nobody in particular, such as the callbacks of RCU.
#[diagnostic::on_unimplemented(
    message = "the platform `{Self}` has no queue for deferred work",
    label = "implement `SystemQueue` for `{Self}`",
    note = "`EpochRcu`, `EpochSrcu` and `Counting` end grace periods by deferred work"
)]
pub trait SystemQueue: Platform {
    /// Returns a handle of that queue.
    fn system_queue() -> Self::WorkQueue;
}
