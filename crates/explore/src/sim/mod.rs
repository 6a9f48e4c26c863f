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
//! ```
//!
//! All of it but words and locks is built of `model`: any state, each use of which is one visible
//! step. Nothing here is seen by the machine, which only keeps what belongs to a context or to the
//! execution; `sleep` is where contexts that are counted by a pool hear that they sleep.

mod atomic;
mod cpu;
mod domain;
mod ghost;
mod lock;
mod managed;
mod model;
mod platform;
mod pool;
mod preempted;
mod sched;
mod sleep;
mod timer;
mod wait;

pub use crate::machine::leaf::DropUnlocked;
pub use crate::machine::record::{note, remark};
pub use atomic::{SimAtomic, SimAtomicPtr, Word, both};
pub use cpu::{IrqDepth, RESCHEDULE, local_irq_disable, local_irq_enable};
pub use domain::{GracePeriods, SimDomain, SimRcu, SimSrcu};
pub use ghost::Ghost;
pub use lock::{SimMutex, SimSpin};
pub use managed::{Managed, ManagedPool, Queue};
pub use model::{Model, fail, fail_as, witness};
pub(crate) use model::{try_step_that, try_wait};
pub use platform::Sim;
pub use pool::{Pool, SimWork};
pub use preempted::{Preempted, PreemptionOff};
pub use sched::{Hooks, PI_LOCK, Placement, RQ_LOCK, SchedTask, Scheduler, yield_now};
pub use timer::Timer;
pub use wait::{SimCompletion, SimTask, SimWaitQueue};
