//! The simulated machine as a [`Platform`](doorbell_platform::Platform), and what cases build their
//! models of.
//!
//! ```text
//!   platform     Sim: the platform                    sched        tasks that share CPUs
//!   atomic       words                                pool         workers, and work that waits
//!   lock         spin locks, mutexes                  managed        workers that are counted
//!   cpu          interrupts, preemption, IPIs         preempted      interrupts at those
//!   wait         completions, wait queues, parking    domain       RCU, SRCU
//!   timer        timers, timeouts                     ghost        the lifetime of memory
//!   race         plain memory, checked for races      local        data of a task
//!   choice       values that the search chooses        leak         what must not be left
//! ```
//!
//! All of it but words and locks is built of `model`: any state, each use of which is one visible
//! step. Nothing here is seen by the machine, which only keeps what belongs to a context or to the
//! execution; `sleep` is where contexts that are counted by a pool hear that they sleep.

mod atomic;
mod choice;
mod cpu;
mod domain;
mod ghost;
mod leak;
mod local;
mod lock;
mod managed;
mod model;
mod platform;
mod pool;
mod preempted;
mod race;
mod sched;
mod sleep;
mod timer;
mod wait;
mod waiters;

pub use crate::machine::leaf::DropUnlocked;
pub use crate::machine::record::{note, remark};
pub use atomic::{SimAtomic, SimAtomicPtr, Word, both};
pub use choice::choose;
pub(crate) use choice::{Spurious, spuriously};
pub use cpu::{IrqDepth, RESCHEDULE, local_irq_disable, local_irq_enable};
pub use domain::{GracePeriods, SimDomain, SimRcu, SimSrcu};
pub use ghost::Ghost;
pub(crate) use leak::Life;
pub use local::TaskLocal;
pub use lock::{SimMutex, SimSpin};
pub use managed::{Managed, ManagedPool, Queue};
pub use model::{Model, fail, fail_as, witness};
pub(crate) use model::{try_step_that, try_wait, wait};
pub use platform::Sim;
pub use pool::{Pool, SimWork};
pub use preempted::{Preempted, PreemptionOff};
pub use race::RaceCell;
pub use sched::{Hooks, PI_LOCK, Placement, RQ_LOCK, SchedTask, Scheduler, yield_now};
pub use timer::Timer;
pub(crate) use timer::clock;
pub(crate) use wait::current_task;
pub use wait::{SimCompletion, SimTask, SimWaitQueue, park_timeout};
pub(crate) use waiters::Waiters;
