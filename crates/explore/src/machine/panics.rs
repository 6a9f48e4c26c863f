//! Panics of explored code are failures of the run, not noise on the terminal.

use std::sync::Once;

use crate::machine::cell::{panics_inside, try_with};
use crate::machine::world::Mode;

static INSTALL: Once = Once::new();

/// Makes panics of contexts silent; those of everybody else are told as before.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let site =
                info.location().map(|location| format!("{}:{}", location.file(), location.line()));
            let ours = panics_inside(&site).or_else(|| {
                try_with(|w| {
                    let ours = w.mode == Mode::Running || w.over;
                    if w.over {
                        w.panic_site = site;
                    } else {
                        w.panics(site);
                    }
                    ours
                })
            });
            if ours != Some(true) {
                before(info);
            }
        }));
    });
}
