#![doc = include_str!("../README.md")]
#![warn(missing_debug_implementations)]

pub mod bench;
mod count;
mod ids;
mod limit;
mod machine;
mod op;
pub mod removal;
pub mod render;
mod run;
mod search;
pub mod selftest;
pub mod sim;
pub mod sync;
pub mod trace;
pub mod validate;

pub use ids::{CtxId, CtxSet, ObjId};
pub use limit::Limit;
pub use machine::returned::{Panicked, may_panic};
pub use machine::spin::{LOOKS, SpinLoop};
pub use machine::watchdog::Stall;
pub use machine::world::Ended;
pub use machine::{HandlerHandle, Machine, TaskHandle, spawn};
pub use run::{Explore, Failure, Progress, ReplayError, Report, Schedules, Verdict};
pub use search::Fault;
pub use sim::Sim;
