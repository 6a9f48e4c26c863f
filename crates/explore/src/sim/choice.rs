//! What a context does not decide: a value that the search chooses, and what may happen for
//! nothing.

use std::panic::Location;

use crate::machine::cell::with;
use crate::machine::step::step;
use crate::machine::world::Mode;
use crate::op::{NO_OBJ, Op, OpKind};

/// Returns a value below `n`: each of them in some execution. So an allocation that may fail, a
/// device that may say no, or input of any kind becomes part of what is explored.
///
/// A choice is no turn of anybody else's, and a line of the trace. In a loop that gives up after so
/// many looks (the rules for explored code say which), and in destructors of a panic that unwinds,
/// it is 0.
///
/// ```
/// use doorbell_explore::{Explore, Machine, sim, trace::FailureKind};
///
/// let report = Explore::new("an allocation that fails").run(|m: &Machine| {
///     m.task("allocates", || {
///         let room = sim::choose(2) == 0;
///         assert!(room, "there is no memory");
///     });
/// });
/// report.assert_found(FailureKind::Panic);
/// ```
///
/// # Panics
/// If `n` is 0 or more than 64, and in the set-up and in conditions of quiescence, which choose
/// nothing.
///
/// # Context
/// Any task, handler or hardware. It does not sleep.
#[track_caller]
pub fn choose(n: usize) -> usize {
    assert!((1..=64).contains(&n), "of {n} values none can be chosen: there are 1 to 64");
    assert!(
        with(|w| matches!(w.mode, Mode::Running | Mode::Ending)),
        "only contexts choose: this is none"
    );
    let site = Location::caller();
    usize::from(value(n as u8, site, |value| Some(format!("gets {value} of 0 to {}", n - 1))))
}

/// [`choose`], with what the trace says of the value that is chosen.
pub(crate) fn value(
    n: u8,
    site: &'static Location<'static>,
    text: impl FnOnce(u8) -> Option<String>,
) -> u8 {
    with(|w| w.choose(n, site, text)).unwrap_or_else(|| {
        // The run has failed: this is where the context stays.
        step(Op { site, ..Op::new(OpKind::Observe, NO_OBJ) });
        0
    })
}

/// What may happen for nothing, if it was asked for.
#[derive(Clone, Copy)]
pub(crate) enum Spurious {
    /// A weak exchange fails.
    Exchange,
    /// A parked task wakes up.
    Wake,
}

/// Returns whether it happens here. Each context has a number of times of its own, because a number
/// for all would depend on who comes first, and that would be no step.
#[inline]
pub(crate) fn spuriously(what: Spurious, site: &'static Location<'static>) -> bool {
    with(|w| w.may_happen(what as usize)) && happens(what, site)
}

#[cold]
fn happens(what: Spurious, site: &'static Location<'static>) -> bool {
    let text = |value| {
        (value == 1).then(|| match what {
            Spurious::Exchange => "exchanges nothing, for nothing".to_owned(),
            Spurious::Wake => "wakes up for nothing".to_owned(),
        })
    };
    let happens = value(2, site, text) == 1;
    if happens {
        with(|w| {
            let me = w.current;
            w.ctx_mut(me).spurious[what as usize] += 1;
        });
    }
    happens
}
