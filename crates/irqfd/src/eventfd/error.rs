//! Why a descriptor is refused.

use std::{fmt, io};

use crate::Error;

/// Why a descriptor was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventError {
    /// The descriptor is not open, not an eventfd, or nothing that can be polled.
    BadDescriptor,
    /// The descriptor is a blocking one, and the kernel has no read of it that does not wait.
    Blocking,
    /// This process has as many descriptors open as it may (`RLIMIT_NOFILE`, where the kernel tells
    /// what that is).
    DescriptorLimit {
        /// How many descriptors this process may have open.
        limit: Option<u64>,
    },
    /// An [`EventSink`](super::EventSink) writes to the eventfd from which events are read, or
    /// the other way round: each acknowledgement would be the next event, without end.
    OwnSink,
    /// What the VM says.
    Irqfd(Error),
    /// What the operating system says.
    Io(io::Error),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventError::BadDescriptor => {
                f.write_str("not a descriptor that can signal an interrupt")
            }
            EventError::Blocking => f.write_str("the descriptor must be non-blocking"),
            EventError::DescriptorLimit { limit } => {
                f.write_str(
                    "no descriptor is left: one that is served is open beside its owner's, ",
                )?;
                f.write_str("unless that is given away (RLIMIT_NOFILE")?;
                limit.map_or(Ok(()), |limit| write!(f, " is {limit}"))?;
                f.write_str(")")
            }
            EventError::OwnSink => {
                f.write_str("one eventfd cannot signal an interrupt and hear of its end")
            }
            EventError::Irqfd(error) => error.fmt(f),
            EventError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EventError {}

impl From<Error> for EventError {
    fn from(error: Error) -> Self {
        EventError::Irqfd(error)
    }
}

impl From<io::Error> for EventError {
    fn from(error: io::Error) -> Self {
        EventError::Io(error)
    }
}
