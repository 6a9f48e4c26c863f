//! F07: VFIO drops the eventfd of an INTx line that others may be about to signal.
//!
//! Three signal it: the handler of the line, the work that an unmask by eventfd queues because the
//! line is still up, and neither of them can take the lock under which the user changes the
//! eventfd, since one is an interrupt and the other begins as a wake-up. So the eventfd can be put
//! only when whoever has loaded the pointer is done: the handler by synchronizing with it, the work
//! by flushing it, both after the pointer was exchanged.

mod shipped;

use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{Ghost, Model, Pool, SimWork, fail, note};
use doorbell_explore::trace::FailureKind;
use doorbell_platform::{CpuId, Vector, Work, WorkQueue};

use crate::case::{self, variant};
use crate::{Case, Expected, Variant};

const LINE: Vector = Vector(0x31);
/// A CPU of its own.
const CPU: CpuId = CpuId(3);

/// What is done before the eventfd is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    /// The handler is freed, the eventfd put, and then the pointer cleared.
    PutThenClear,
    /// The pointer is exchanged first.
    Swap { synchronizes: bool, flushes: bool },
    /// Everybody is waited for, and then the pointer is exchanged.
    WaitThenSwap,
}

#[derive(Clone, Copy)]
struct Scope {
    order: Order,
    /// The signalling side looks whether there is an eventfd.
    checks: bool,
}

/// The case.
pub(crate) fn case() -> Case {
    Case::new(
        "vfio-intx-teardown",
        "the eventfd of an INTx line is put while an unmask by eventfd, or the line's handler, signals it",
        "known-races F07: Linux 18c198c96a81, b620ecbd17a0 (2024), CVE-2024-26812",
        [reported(), shipped::variants()].into_iter().flatten().collect(),
    )
}

fn reported() -> Vec<Variant> {
    let null = Expected::Found(FailureKind::Invariant);
    let freed = Expected::Found(FailureKind::UseAfterFree);
    let swap = |synchronizes, flushes| Scope {
        order: Order::Swap { synchronizes, flushes },
        checks: true,
    };
    let reported = Scope { order: Order::PutThenClear, checks: false };
    vec![
        variant(
            "as-reported",
            null,
            "an unmask that finds the line up signals an eventfd that is no more",
            reported,
        ),
        variant(
            "as-reported-checked",
            freed,
            "to look whether there is one does not help: it is put after the look",
            Scope { checks: true, ..reported },
        ),
        variant(
            "swapped-only",
            freed,
            "whoever has loaded the pointer before may use it after",
            swap(false, false),
        ),
        variant(
            "not-synchronized",
            freed,
            "the handler of the line has loaded the pointer",
            swap(false, true),
        ),
        variant(
            "not-flushed",
            freed,
            "the work of an unmask has loaded the pointer",
            swap(true, false),
        ),
        variant(
            "flushed-before",
            freed,
            "what is queued between the flush and the exchange loads the old pointer",
            Scope { order: Order::WaitThenSwap, checks: true },
        ),
        variant(
            "fixed",
            Expected::Exhausted,
            "the pointer is exchanged, whoever may have loaded it is waited for, and then the eventfd is put",
            swap(true, true),
        ),
    ]
}

impl case::Scope for Scope {
    fn text(self) -> String {
        "1 line that is up, 1 interrupt, 1 unmask by eventfd, 1 worker; the eventfd is taken away"
            .to_owned()
    }

    fn program(self, m: &Machine) {
        Vfio::program(m, self);
    }
}

/// The handler of the line, as the interrupt core has it.
struct Handler {
    installed: bool,
    in_progress: bool,
}

/// The user's eventfd.
struct Trigger {
    checks: bool,
    /// Whether there is one: there is no other.
    pointer: Model<bool>,
    eventfd: Ghost,
}

struct Vfio {
    scope: Scope,
    handler: Model<Handler>,
    masked: Model<bool>,
    trigger: Arc<Trigger>,
    /// What an unmask queues if the line is still up.
    inject: SimWork,
}

impl Trigger {
    fn signal(&self) {
        let there = self.pointer.observe(|there| *there);
        note(|| format!("trigger is {}", if there { "the eventfd" } else { "NULL" }));
        match there {
            true => self.eventfd.access(),
            false if self.checks => {}
            false => fail("signals NULL"),
        }
    }

    fn clear(&self) {
        self.pointer.change(|there| *there = false);
        note(|| "trigger := NULL".to_owned());
    }
}

impl Vfio {
    /// The line's interrupt.
    fn interrupt(&self) {
        let runs = self.handler.change(|handler| {
            handler.in_progress = handler.installed;
            handler.in_progress
        });
        note(|| if runs { "handler in progress" } else { "nobody's" }.to_owned());
        if !runs {
            return;
        }
        self.masked.change(|masked| *masked = true);
        note(|| "masks the line".to_owned());
        self.trigger.signal();
        self.handler.change(|handler| handler.in_progress = false);
        note(|| "handler done".to_owned());
    }

    /// The eventfd of unmasking is written: called where it may not sleep. The line is still up, so
    /// it stays masked, and the user has to be told once more.
    fn unmask(&self) {
        let again = self.masked.observe(|masked| *masked);
        note(|| {
            format!(
                "unmask: {}",
                if again { "still up, to be signalled again" } else { "is not masked" }
            )
        });
        if again {
            self.inject.queue();
        }
    }

    fn synchronize(&self) {
        self.handler.wait(|handler| !handler.in_progress, |_| ());
        note(|| "synchronizes: none runs".to_owned());
    }

    fn flush(&self) {
        self.inject.flush();
    }

    /// The user takes the eventfd away.
    fn set_trigger(&self) {
        match self.scope.order {
            Order::PutThenClear => {
                self.handler.change(|handler| handler.installed = false);
                note(|| "frees the interrupt".to_owned());
                self.synchronize();
                self.trigger.eventfd.free();
                self.trigger.clear();
            }
            Order::Swap { synchronizes, flushes } => {
                self.trigger.clear();
                if synchronizes {
                    self.synchronize();
                }
                if flushes {
                    self.flush();
                }
                self.trigger.eventfd.free();
            }
            Order::WaitThenSwap => {
                self.synchronize();
                self.flush();
                self.trigger.clear();
                self.trigger.eventfd.free();
            }
        }
    }

    fn program(m: &Machine, scope: Scope) {
        let trigger = Arc::new(Trigger {
            checks: scope.checks,
            pointer: Model::new("trigger", true),
            eventfd: Ghost::new("eventfd"),
        });
        let signalled = Arc::clone(&trigger);
        let vfio = Rc::new(Vfio {
            scope,
            handler: Model::new("handler", Handler { installed: true, in_progress: false }),
            masked: Model::new("mask", false),
            trigger,
            inject: Pool::new(m, "inject", 1).work("inject", move || signalled.signal()),
        });
        {
            let vfio = Rc::clone(&vfio);
            let line = m.handler(CPU, LINE, "INTx", move || vfio.interrupt());
            m.hardware("device", move || line.raise());
        }
        {
            let vfio = Rc::clone(&vfio);
            m.task("SET_IRQS", move || vfio.set_trigger());
        }
        m.task("unmask", move || vfio.unmask());
    }
}
