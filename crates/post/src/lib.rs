#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod coalescing;
mod control;
mod copies;
mod gate;
mod level;
mod locks;
mod pending;
mod post;
mod recall;
mod run;
mod software;
mod two_level;

pub use coalescing::{Coalescing, Notification, SelfNotify};
pub use control::{Control, Destination};
pub use copies::{Copies, Mirror, NotThere, Residency};
pub use gate::{Gate, Layout, Notice};
pub use level::Level;
pub use locks::LOCKS;
pub use pending::{Bit, Pending};
pub use post::{Awake, Blocked, Entering, InGuest, PiDescriptor, Post};
pub use recall::Recall;
pub use run::{Guest, Mode, Requests, RunState};
pub use software::Software;
pub use two_level::{Summary, TwoLevel};
