//! VMX posted interrupts: where a vCPU's notifications go while it runs, waits for a CPU, and sleeps.

mod host;
mod page;
mod seat;
mod sleepers;

pub use host::Host;
pub use page::VirtualApicPage;
pub use seat::Seat;
pub use sleepers::{MOST_SLOTS, NoSlot, Sleeper, Sleepers, TooMany};
