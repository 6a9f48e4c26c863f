//! Panics of explored code are failures of the run, not noise on the terminal.

use std::sync::Once;

use crate::world::{Mode, try_with};

static INSTALL: Once = Once::new();

/// Makes panics of contexts silent; those of everybody else are told as before.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let site = info.location().map(|location| format!("{}:{}", location.file(), location.line()));
            let ours = try_with(|w| {
                if w.mode == Mode::Running {
                    w.unwinds();
                    w.panic_site = site;
                    return true;
                }
                w.quiet
            });
            if ours != Some(true) {
                before(info);
            }
        }));
    });
}
