//! What the locks of this crate are for.

use doorbell_platform::{LockUse, Nests};

use crate::avic::TAGS;
use crate::map::APIC_MAP;

/// All locks of this crate.
pub static LOCKS: &[LockUse] = &[
    LockUse::outer(
        &APIC_MAP,
        "task context",
        "one recomputation at a time",
        Nests {
            inner: "those that `look` takes",
            reason: "`ApicMap::changed` calls `look`, which may read the registers under the locks of those who change them",
        },
    ),
    LockUse::leaf(&TAGS, "task context", "which tag is whose; the log's handler reads under RCU"),
];
