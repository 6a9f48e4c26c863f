//! What the machine asks of a task that shares its CPU: schedulers are built on the machine.

/// A task of a scheduler.
pub(crate) trait Scheduled {
    /// Lets others run on the CPU of the current task, which this is. Returns when it is the
    /// task's turn again.
    fn preempt(&self);

    /// Returns whether the task sleeps, and nobody has woken it. Takes no visible step.
    fn sleeps(&self) -> bool;
}
