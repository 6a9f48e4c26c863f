#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

extern crate alloc;

mod copies;
mod gate;
mod locks;
mod mode_gate;
mod pending;
mod pi_control;
mod pi_gate;
mod post;
mod recall;
mod run;
mod software_gate;
mod two_level;

pub use copies::{Mirror, NoSuchCopy, Residency, ResidencyCopies};
pub use gate::{Gate, Layout, Notice};
pub use locks::LOCKS;
pub use mode_gate::ModeGate;
pub use pending::{Bit, Pending};
pub use pi_control::{Destination, PiControl};
pub use pi_gate::{Notification, PiGate, SelfNotify};
pub use post::{Awake, Blocked, Entering, InGuest, PiDescriptor, Post};
pub use recall::Recall;
pub use run::{Guest, Mode, Requests, RunState};
pub use software_gate::SoftwareGate;
pub use two_level::{Summary, TwoLevel};
