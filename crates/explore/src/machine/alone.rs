//! What a context does alone: several steps, none of another context between them.

use crate::ids::ObjId;
use crate::machine::spin::Probe;

/// Why the current context goes on alone.
pub(crate) enum Alone {
    /// The context is probed, to find out whether its loop gives up.
    Probe(Box<Probe>),
    /// The context's loop gives up: all its looks until then are one step. It reads these objects,
    /// of which none is written meanwhile.
    Lapse { reads: Vec<(ObjId, u32)>, looks: Looks },
    /// The context panicked, and destructors run. Nothing can be suspended before the panic is
    /// caught, so they belong to the step in which it panicked.
    Unwinds { looks: u32 },
}

/// The looks of a context that goes on alone.
#[derive(Clone, Copy, Default)]
pub(crate) struct Looks {
    /// Those that ended with a `cpu_relax`.
    pub whole: u32,
    /// Whether another one has begun.
    pub begun: bool,
}
