//! An interrupt behind an AMD I/O MMU: its entry, where it arrives, and whom it is posted to.

mod binding;
mod interrupt;
pub mod irte;

pub use binding::{AmdBinding, AvicTarget, Bound, Posting, RescanRequired};
pub use interrupt::AmdInterrupt;
