//! An interrupt of the host: its descriptor, its handlers, and what happens from its entry to the
//! end of the last of them.

mod actions;
mod desc;
mod flow;
mod handling;
mod threaded;

pub(crate) use actions::IRQ_ACTIONS;
pub use actions::{Freed, Handler, IrqReturn, LineTaken, NotRequested, Requested, Sharing};
pub(crate) use desc::IRQ_DESC;
pub use desc::{AffinityChange, AffinityError, AffinityNotifier, HasThread, IrqDesc, WakeThread};
pub use handling::{Enabled, Handling, NotDisabled};
pub use threaded::ThreadWork;
