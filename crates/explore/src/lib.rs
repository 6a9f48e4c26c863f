#![doc = include_str!("../README.md")]
#![warn(missing_debug_implementations)]

mod alone;
pub mod bench;
mod cell;
mod context;
mod coroutine;
mod cpu;
mod effect;
mod events;
mod executor;
mod explore;
mod ids;
mod leaf;
mod limit;
mod live;
mod locks;
mod machine;
mod minimise;
mod object;
mod op;
#[cfg(unix)]
mod overflow;
mod panics;
mod parallel;
mod record;
pub mod removal;
pub mod render;
mod search;
pub mod selftest;
pub mod sim;
mod spin;
mod step;
mod strays;
mod stuck;
mod token;
pub mod trace;
pub mod validate;
mod watchdog;
mod world;

pub use explore::{Explore, Failure, Progress, ReplayError, Report, Schedules, Verdict};
pub use ids::{CtxId, CtxSet, ObjId};
pub use limit::Limit;
pub use machine::{HandlerHandle, Machine, TaskHandle, spawn};
pub use search::Fault;
pub use sim::Sim;
pub use spin::{LOOKS, SpinLoop};
pub use watchdog::Stall;
pub use world::Ended;
