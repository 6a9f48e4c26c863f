//! An interrupt behind a VT-d unit: its entry, where it arrives, and whom it is posted to.

mod binding;
mod interrupt;
pub mod irte;

pub use binding::{IntelBinding, Misaligned, PiTarget};
pub use interrupt::IntelInterrupt;
