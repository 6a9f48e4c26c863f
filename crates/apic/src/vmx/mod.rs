//! VMX posted interrupts: where a vCPU's notifications go while it runs, waits for a CPU, and
//! sleeps.

mod hooks;
mod host;
mod page;
mod wakeup_vcpus;

pub use hooks::PiHooks;
pub use host::PiHost;
pub use page::VirtualApicPage;
pub use wakeup_vcpus::{MOST_SLOTS, NoSlot, PiVcpu, TooMany, WakeupVcpus};
