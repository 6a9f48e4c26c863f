//! A barrier.

use crate::sim::Model;

#[derive(Default)]
struct Arrivals {
    arrived: usize,
    rounds: u64,
}

/// A place where tasks wait for each other, shaped as that of `std`.
pub struct Barrier {
    tasks: usize,
    arrivals: Model<Arrivals>,
}

doorbell_platform::opaque_debug!([] Barrier; tasks);

impl Barrier {
    /// Creates a barrier that lets `tasks` tasks go on together.
    ///
    /// # Context
    /// Any.
    #[track_caller]
    pub fn new(tasks: usize) -> Self {
        Barrier { tasks, arrivals: Model::new("barrier", Arrivals::default()) }
    }

    /// Sleeps until so many have arrived. The last one is the leader.
    ///
    /// # Context
    /// Any task. It may sleep.
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        let (round, last) = self.arrivals.change(|arrivals| {
            let round = arrivals.rounds;
            arrivals.arrived += 1;
            let last = arrivals.arrived >= self.tasks;
            if last {
                *arrivals = Arrivals { arrived: 0, rounds: round + 1 };
            }
            (round, last)
        });
        if !last {
            self.arrivals.wait(|arrivals| arrivals.rounds != round, |_| ());
        }
        BarrierWaitResult(last)
    }
}

/// Says who was the last to arrive at a [`Barrier`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// Returns whether the caller was.
    pub fn is_leader(&self) -> bool {
        self.0
    }
}
