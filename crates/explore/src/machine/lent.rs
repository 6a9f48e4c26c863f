//! What a context lends to the machine, which calls it from inside, and panics there.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// What a context has lent to the machine is called.
    static EVALUATING: Cell<bool> = const { Cell::new(false) };
    /// Where a panic inside of the machine came from.
    static INSIDE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls what a context has lent to the machine, from inside of it.
///
/// # Errors
/// Says where and how it panicked, if it did.
pub(crate) fn lent<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    EVALUATING.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    EVALUATING.set(false);
    result.map_err(|payload| {
        let site = INSIDE.take().map(|site| format!(" at {site}")).unwrap_or_default();
        format!("panicked{site}: {}", told(&*payload))
    })
}

/// Notes where a panic comes from that happens inside of the machine. Returns whether that is in
/// what a context has lent.
pub(crate) fn panics_at(site: Option<String>) -> bool {
    INSIDE.set(site);
    EVALUATING.get()
}

/// Returns where the panic came from that leaves the machine.
pub(crate) fn panicked_at() -> Option<String> {
    INSIDE.take()
}

/// The text of a panic.
pub(crate) fn told(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
