//! Measurements of Doorbell, beside its peers where there are any.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench explore   the explorer's standard programs
//! cargo bench -p doorbell-bench --bench peers     the same programs explored by loom and shuttle
//! cargo bench -p doorbell-bench --bench memory    ten million executions, and what they leave behind
//! cargo bench -p doorbell-bench --bench post      instructions of a post
//! cargo bench -p doorbell-bench --bench posted    instructions from an irqfd to a posted interrupt
//! cargo bench -p doorbell-bench --bench posted    instructions from an event to a posted interrupt
//! ```
//!
//! Each but the last takes `--help`, and `--format json` for one object a line.

pub mod args;
pub mod callgrind;
pub mod clock;
pub mod heap;
pub mod program;
pub mod table;
