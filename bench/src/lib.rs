//! Measurements of Doorbell, beside its peers where there are any.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench explore       the explorer's standard programs
//! cargo bench -p doorbell-bench --bench peers         the same programs by loom and shuttle
//! cargo bench -p doorbell-bench --bench gic           instructions of an SPI, and of none
//! cargo bench -p doorbell-bench --bench gic_time      the same in time
//! cargo bench -p doorbell-bench --bench memory        what ten million executions leave behind
//! cargo bench -p doorbell-bench --bench native_cost   instructions, by hand beside it
//! cargo bench -p doorbell-bench --bench post          instructions of a post
//! cargo bench -p doorbell-bench --bench posted        instructions, irqfd to posted interrupt
//! cargo bench -p doorbell-bench --bench senders       posts per second, apart and to one vCPU
//! cargo bench -p doorbell-bench --bench vectors       instructions of an interrupt's entry
//! ```
//!
//! Each takes `--help`, and `--format json` for one object a line; those that count instructions do
//! not.

pub mod args;
pub mod callgrind;
pub mod clock;
pub mod heap;
mod kernel;
pub mod program;
pub mod table;

pub use kernel::Kernel;
