//! Waiting: completions and wait queues.

/// "It is done": set once per generation, waited for by any number of tasks.
pub trait Completion: Send + Sync + 'static {
    /// Creates a completion that is not done. `name` is for traces.
    #[track_caller]
    fn new(name: &'static str) -> Self;

    /// Says that it is done, for all who wait and will wait.
    #[track_caller]
    fn complete_all(&self);

    /// Sleeps until it is done.
    #[track_caller]
    fn wait(&self);

    /// Returns whether the completion is done.
    #[track_caller]
    fn is_done(&self) -> bool;
}

/// A queue of tasks, each of which waits for its condition.
pub trait WaitQueue: Send + Sync + 'static {
    /// Creates an empty queue. `name` is for traces.
    #[track_caller]
    fn new(name: &'static str) -> Self;

    /// Sleeps until `condition` holds. The task is on the queue before the condition is checked, so
    /// a change of the condition that is followed by a wake-up is never missed. The condition must
    /// not sleep.
    #[track_caller]
    fn wait_until(&self, condition: impl FnMut() -> bool);

    /// Makes every waiting task check its condition again.
    #[track_caller]
    fn wake_all(&self);
}
