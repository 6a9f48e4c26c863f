//! What can be wrong with a call of the host.

use core::fmt;

use crate::{Gsi, Pin};

/// Why a call was refused. A refused call has changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The GSI has no route in the table that is in force.
    UnknownGsi(Gsi),
    /// The GSI is at or above the VM's limit.
    GsiOutOfRange(Gsi),
    /// The table is longer than the VM's limit, which is given.
    TooManyRoutes(usize),
    /// The controller has no such pin.
    PinOutOfRange(Pin),
    /// The GSI has an MSI route beside another one.
    MixedRoutes(Gsi),
    /// The GSI names the same pin twice.
    DuplicateRoute(Gsi),
    /// A plain irqfd on a [`Level`](crate::Route::Level) route: its pulse could be over before
    /// anyone looked, and be lost. On a [`Pin`](crate::Route::Pin) route it is served.
    NeedsResampling(Gsi),
    /// A resampling irqfd on a GSI without a level-sensitive pin: nobody would ever acknowledge it.
    NotLevel(Gsi),
    /// The irqfd, or the descriptor, is assigned already (or its deassignment has not ended).
    Busy,
    /// The irqfd, or the descriptor, is not assigned.
    NotAssigned,
    /// The VM has as many irqfds as its limit allows, which is given.
    TooManyIrqfds(u32),
    /// The source id is used by irqfds or lines.
    ReservedSource,
    /// The VM, or the pins of the GSI, have as many lines as there can be, which is given.
    TooManyLines(u32),
    /// Two lines that have one source would share the pin. (Beyond 24 lines, those that share no
    /// pin share sources.)
    SharedSource(Pin),
    /// All GSIs of the pool are given out, or not yet back.
    NoFreeGsi,
    /// The GSI was not given out by the pool, or was freed.
    NotAllocated(Gsi),
    /// The VM was shut down.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownGsi(gsi) => write!(f, "{gsi} has no route"),
            Error::GsiOutOfRange(gsi) => write!(f, "{gsi} is above the limit of the VM"),
            Error::TooManyRoutes(limit) => write!(f, "more than {limit} routes"),
            Error::PinOutOfRange(pin) => write!(f, "the controller has no {pin}"),
            Error::MixedRoutes(gsi) => write!(f, "{gsi} has an MSI route beside another route"),
            Error::DuplicateRoute(gsi) => write!(f, "{gsi} names the same pin twice"),
            Error::NeedsResampling(gsi) => {
                write!(f, "{gsi} is level-sensitive and needs a resampling irqfd")
            }
            Error::NotLevel(gsi) => write!(f, "{gsi} has no level-sensitive pin to resample"),
            Error::Busy => f.write_str("already assigned"),
            Error::NotAssigned => f.write_str("not assigned"),
            Error::TooManyIrqfds(limit) => write!(f, "more than {limit} irqfds"),
            Error::ReservedSource => f.write_str("the source id belongs to irqfds or lines"),
            Error::TooManyLines(limit) => write!(f, "more than {limit} lines"),
            Error::SharedSource(pin) => write!(f, "two lines with one source share {pin}"),
            Error::NoFreeGsi => f.write_str("no GSI is free"),
            Error::NotAllocated(gsi) => write!(f, "{gsi} is not given out"),
            Error::Closed => f.write_str("the VM was shut down"),
        }
    }
}

impl core::error::Error for Error {}
