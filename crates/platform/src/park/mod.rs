//! Sleeping and waiting, built of what every host has: a spin lock, atomics, and
//! [`park`](crate::Platform::park) with [`wake`](crate::Platform::wake).

mod completion;
mod jobs;
mod list;
mod mutex;
mod pool;
mod queue;

pub use completion::ParkCompletion;
pub use mutex::ParkMutex;
pub(crate) use pool::POOL;
pub use pool::{PoolQueue, PoolWork, Worker};
pub use queue::ParkWaitQueue;
pub(crate) use queue::WAITERS;
