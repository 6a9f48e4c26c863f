//! V03: an interrupt is freed while it is on its way to a CPU that takes its time.
//!
//! Whoever frees it waits for handlers that run, and this one does not run yet. What follows is
//! another matter for each kind: the line of an I/O APIC (`line`), whose chip can be asked, and a
//! message (`message`; `shipped`), which nobody can ask for.

mod line;
mod message;
mod shipped;

use crate::Case;

/// The case.
pub(crate) fn case() -> Case {
    Case::new(
        "free-in-flight",
        "an interrupt is freed while it waits at a CPU, and its vector is gone when that takes it",
        "known-races V03: Linux 62e0468650c3, dfe0cf8b51b0 (2019)",
        [line::variants(), message::variants(), shipped::variants()]
            .into_iter()
            .flatten()
            .collect(),
    )
}
