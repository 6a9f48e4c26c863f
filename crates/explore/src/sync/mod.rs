//! What `std::sync` and `std::thread` have, for explored code: the same names, and the same calls.
//!
//! A program that is ported from `std`, loom or shuttle names these in place of its own, and is
//! explored. What is written against [`Platform`](doorbell_platform::Platform) does not need them.
//!
//! ```text
//!   atomic       words and pointers                 mpsc         channels, with a limit or without
//!   mutex        one at a time                      semaphore    so many at a time
//!   rwlock       one writer, or readers             future       block_on
//!   condvar      waits for a condition              arc          references that are counted
//!   barrier      all go on together                 thread       tasks, parking, and `model`
//!   once         done once, set once
//! ```
//!
//! Each of their operations is one step of a model, and not the algorithm that a library would use:
//! what is explored is the code that calls them. What they cannot do: `new` is no `const fn`, so
//! nothing of it but words stands in a static; locks are not poisoned; waiting times have no length;
//! a channel holds one value at least.

mod arc;
pub mod atomic;
mod barrier;
mod condvar;
mod future;
pub mod mpsc;
mod mutex;
mod once;
mod rwlock;
mod semaphore;
pub mod thread;

pub use arc::Arc;
pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use future::block_on;
pub use mutex::{Mutex, MutexGuard};
pub use once::{Once, OnceLock};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Permit, Semaphore};
