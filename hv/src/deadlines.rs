//! When the tasks of a CPU want to be woken.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::run_queue::RunQueue;

/// A time for each task that has one. On its CPU alone, with interrupts off.
pub struct Deadlines {
    /// A bit for each task that has one.
    set: AtomicU64,
    at: [AtomicU64; RunQueue::TASKS],
}

impl Default for Deadlines {
    fn default() -> Self {
        Self::new()
    }
}

impl Deadlines {
    /// Returns none.
    pub const fn new() -> Self {
        Deadlines { set: AtomicU64::new(0), at: [const { AtomicU64::new(0) }; RunQueue::TASKS] }
    }

    /// Sets the time of a task, or takes it away.
    pub fn set(&self, task: usize, at: Option<u64>) {
        let (bit, set) = (1 << (task % RunQueue::TASKS), self.set.load(Relaxed));
        match at {
            Some(at) => {
                self.at[task % RunQueue::TASKS].store(at, Relaxed);
                self.set.store(set | bit, Relaxed);
            }
            None => self.set.store(set & !bit, Relaxed),
        }
    }

    /// Sets the time of a task, unless it has an earlier one.
    pub fn bring_forward(&self, task: usize, at: u64) {
        if self.of(task).is_none_or(|before| at < before) {
            self.set(task, Some(at));
        }
    }

    /// Returns the earliest time.
    pub fn next(&self) -> Option<u64> {
        self.tasks().filter_map(|task| self.of(task)).min()
    }

    /// Takes away the times up to `now`. Calls `each` with their tasks.
    pub fn take_due(&self, now: u64, mut each: impl FnMut(usize)) {
        for task in self.tasks() {
            if self.of(task).is_some_and(|at| at <= now) {
                self.set(task, None);
                each(task);
            }
        }
    }

    fn of(&self, task: usize) -> Option<u64> {
        let index = task % RunQueue::TASKS;
        (self.set.load(Relaxed) >> index & 1 != 0).then(|| self.at[index].load(Relaxed))
    }

    fn tasks(&self) -> impl Iterator<Item = usize> + use<> {
        let mut set = self.set.load(Relaxed);
        core::iter::from_fn(move || {
            let task = (set != 0).then(|| set.trailing_zeros() as usize);
            set &= set.wrapping_sub(1);
            task
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn each_task_is_told_when_its_time_has_come_and_once() {
        let deadlines = Deadlines::new();
        assert_eq!(deadlines.next(), None);
        for (task, at) in [(63, 30), (0, 20), (7, 10)] {
            deadlines.set(task, Some(at));
        }
        let due = |now| {
            let mut tasks = Vec::new();
            deadlines.take_due(now, |task| tasks.push(task));
            tasks
        };
        assert_eq!((deadlines.next(), due(9)), (Some(10), [].into()));
        assert_eq!((due(20), deadlines.next()), ([0, 7].into(), Some(30)));
        deadlines.set(63, None);
        assert_eq!((due(u64::MAX), deadlines.next()), ([].into(), None));
    }

    #[test]
    fn a_time_is_brought_forward_and_never_put_off() {
        let deadlines = Deadlines::new();
        for (at, next) in [(20, 20), (30, 20), (10, 10)] {
            deadlines.bring_forward(5, at);
            assert_eq!(deadlines.next(), Some(next));
        }
    }
}
