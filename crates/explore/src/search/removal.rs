//! Sites of the explored code, and what a search takes out there.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use crate::ids::ObjId;

/// What is taken out of the code at a site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Taken {
    /// A read-modify-write is a load and a store.
    Indivisibility,
    /// A load says zero, whatever the word holds: what depends on it goes the other way.
    Knowledge,
    /// Interrupts stay on.
    IrqsOff,
    /// The lock, in thought: two accesses of what it protects are ordered by nothing else.
    Exclusion,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Taken::Indivisibility => "a load and a store",
            Taken::Knowledge => "reads zero",
            Taken::IrqsOff => "interrupts stay on",
            Taken::Exclusion => "the lock: a data race",
        })
    }
}

/// A place in the explored code, and what is taken out there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Site {
    /// The place's file, as the compiler knows it.
    pub file: &'static str,
    /// The place's line.
    pub line: u32,
    /// The place's column.
    pub column: u32,
    /// What is taken out.
    pub taken: Taken,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.taken)
    }
}

impl Site {
    pub(crate) fn at(location: &'static Location<'static>, taken: Taken) -> Site {
        Site { file: location.file(), line: location.line(), column: location.column(), taken }
    }
}

/// What an exploration does about sites.
#[derive(Clone)]
pub(crate) enum Removal {
    /// The exploration notes which sites are reached, and of acquisitions whether nothing but the
    /// lock orders them.
    Collect(Arc<Mutex<BTreeMap<Site, bool>>>),
    /// The exploration runs the code without this site.
    Without(Site),
}

/// The last acquisition of a lock.
pub(crate) struct Acquisition {
    pub lock: ObjId,
    pub site: &'static Location<'static>,
    pub event: u32,
    /// Whether what the lock protects is changed under it.
    pub changes: bool,
    /// The acquisition before it, if nothing but the lock orders the two, and whether that one
    /// changed anything.
    pub races: Option<(&'static Location<'static>, bool)>,
}
