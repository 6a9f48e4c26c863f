#![doc = include_str!("../README.md")]
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

extern crate alloc;

mod acks;
mod cached;
mod controller;
mod deassign;
mod delivery;
mod each;
mod error;
#[cfg(all(feature = "std", target_os = "linux"))]
pub mod eventfd;
mod ids;
mod irqfd;
mod line;
mod locks;
mod rerouted;
mod routes;
mod routing;
mod slab;
mod vm;

pub use acks::AckNotifier;
pub use controller::{Controller, Notify, Owed};
pub use deassign::Deassigning;
pub use delivery::{Delivery, Outcome};
pub use doorbell_platform::MsiMessage;
pub use error::Error;
pub use ids::{Gsi, Msi, Pin, SourceId};
pub use irqfd::{Irqfd, Resampled, Signalled};
pub use line::Line;
pub use locks::LOCKS;
pub use rerouted::{FollowRoutes, NoBypass, Rerouted};
pub use routes::Routes;
pub use routing::{Route, RoutingTable};
pub use vm::{Irqfds, Limits};
