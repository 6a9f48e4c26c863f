//! The tasks of a CPU that wait for it.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The tasks that wait for a CPU: a bit for each task of the host. Nothing is linked, so that
/// anybody may insert, anywhere, without a lock.
#[derive(Default)]
pub struct RunQueue(AtomicU64);

impl RunQueue {
    /// How many tasks there may be.
    pub const TASKS: usize = 64;

    /// Returns an empty queue.
    pub const fn new() -> Self {
        RunQueue(AtomicU64::new(0))
    }

    /// Inserts a task, by its number. By anybody; does not sleep.
    pub fn insert(&self, task: usize) {
        self.0.fetch_or(1 << (task % Self::TASKS), SeqCst);
    }

    /// Takes the next task out: the first one after `last` in the order of their numbers, and then
    /// from 0 on, so that each has its turn. By anybody; does not sleep.
    pub fn take_next(&self, last: usize) -> Option<usize> {
        loop {
            let waiting = self.0.load(SeqCst);
            if waiting == 0 {
                return None;
            }
            let after = waiting & !(u64::MAX >> (Self::TASKS - 1 - last % Self::TASKS));
            let task = if after != 0 { after } else { waiting }.trailing_zeros();
            // Somebody else may have taken it.
            if self.0.fetch_and(!(1 << task), SeqCst) >> task & 1 != 0 {
                return Some(task as usize);
            }
        }
    }

    /// Returns how many tasks wait. By anybody.
    pub fn len(&self) -> u64 {
        self.0.load(SeqCst).count_ones().into()
    }

    /// Returns whether no task waits. By anybody.
    pub fn is_empty(&self) -> bool {
        self.0.load(SeqCst) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_has_its_turn() {
        let queue = RunQueue::new();
        for task in [0, 5, 63] {
            queue.insert(task);
        }
        assert_eq!(queue.take_next(0), Some(5));
        queue.insert(5);
        assert_eq!(queue.take_next(5), Some(63));
        queue.insert(63);
        assert_eq!(queue.take_next(63), Some(0));
        assert_eq!(queue.take_next(0), Some(5));
        assert_eq!(queue.take_next(5), Some(63));
        assert_eq!(queue.take_next(63), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_task_that_is_alone_is_the_next_after_itself() {
        let queue = RunQueue::new();
        queue.insert(7);
        queue.insert(7);
        assert_eq!((queue.take_next(7), queue.take_next(7)), (Some(7), None));
    }
}
