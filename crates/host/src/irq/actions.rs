//! The handlers of an interrupt: one driver's, or those of several that share the line.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use doorbell_platform::{LockClass, Mutex, Platform, RcuCell, Retired, WaitType};

use super::threaded::Threaded;

/// A leaf, taken in task context only: one change of a line's handlers at a time. The list is read
/// under it, in a read section that is begun there and ends afterwards: to end one may wake who
/// waits for it.
pub(crate) static IRQ_ACTIONS: LockClass =
    LockClass::new("host.irq_actions", WaitType::Sleep).leaf();

/// What a handler has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "Claim")]
pub enum IrqReturn {
    /// The handler's device has not raised the interrupt.
    None,
    /// The handler's device has raised the interrupt, and the interrupt was handled.
    Handled,
    /// The handler's device has raised the interrupt, and the interrupt's thread is to handle it.
    WakeThread,
}

/// A driver's part in an interrupt.
pub trait Handler: Send + Sync + 'static {
    /// Handles the interrupt, which has come.
    ///
    /// A handler that panics is not taken off the line, and the panic goes on to whoever has called
    /// [`IrqDesc::handle`](crate::IrqDesc::handle): the handlers behind it in the list are not
    /// called this time, but the interrupt is not under way any more, and is pending, so whoever
    /// catches the panic may call `handle` again, and whoever comes next does.
    ///
    /// # Context
    /// Hard interrupt, with interrupts off, on one CPU at a time; must not sleep.
    fn handle(&self) -> IrqReturn;
}

/// Whether a driver shares a line with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// The driver shares the line with nobody.
    Exclusive,
    /// The driver shares the line with those that do so too. Its handler looks at the device and
    /// [claims](IrqReturn) what is its own.
    Shared,
}

/// The line is taken, by a driver that does not share it, or the one that asks does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineTaken;

impl fmt::Display for LineTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the line has a handler, and they do not both share it")
    }
}

impl core::error::Error for LineTaken {}

/// The handler is none of the line's: it was freed before, or never requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotRequested;

impl fmt::Display for NotRequested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("that handler is not one of the line's")
    }
}

impl core::error::Error for NotRequested {}

pub(crate) struct List {
    sharing: Sharing,
    pub(crate) handlers: Vec<Arc<dyn Handler>>,
}

pub(crate) struct Actions<P: Platform> {
    /// Read by interrupt handlers; replaced as a whole.
    pub(crate) list: RcuCell<P, P::Rcu, List>,
    changes: Mutex<P, ()>,
}

/// A handler is called for each interrupt from now on. Its line's former list is still read by
/// interrupts under way.
#[must_use = "the former list leaks unless it is reclaimed"]
pub struct Requested<P: Platform> {
    former: Retired<P::Rcu, List>,
}

doorbell_platform::opaque_debug!([P: Platform] Requested<P>);

impl<P: Platform> Requested<P> {
    /// Waits until nobody reads the former list, and frees it.
    ///
    /// # Context
    /// Any task, but from no handler; may sleep.
    #[track_caller]
    pub fn synchronize(self) {
        drop(self.former.synchronize());
    }

    /// Has the handler freed when nobody reads it, without waiting for that.
    ///
    /// # Context
    /// Any task; does not sleep.
    #[track_caller]
    pub fn reclaim_later(self) {
        self.former.reclaim_later();
    }
}

/// A handler is called for no new interrupt, but may be running, and so may what it has left to the
/// interrupt's thread.
#[must_use = "the handler may still be running, and its list leaks unless this is waited for"]
pub struct Freed<'a, P: Platform> {
    former: Retired<P::Rcu, List>,
    last: bool,
    threaded: &'a Threaded<P>,
}

doorbell_platform::opaque_debug!(['a, P: Platform] Freed<'a, P>; last);

impl<P: Platform> Freed<'_, P> {
    /// Returns whether the line has no handler left: its vector can be
    /// [taken](crate::vector::Vectors::deactivate) from it, if the device was kept from sending.
    pub fn last(&self) -> bool {
        self.last
    }

    /// Waits until no CPU runs the handler, and then until the interrupt's thread has done what was
    /// asked of it until then.
    ///
    /// # Context
    /// Any task, but from neither of the two; may sleep.
    #[track_caller]
    pub fn synchronize(self) {
        drop(self.former.synchronize());
        self.threaded.wait();
    }
}

impl<P: Platform> Actions<P> {
    pub(crate) fn new(rcu: &Arc<P::Rcu>) -> Self {
        let nobody = List { sharing: Sharing::Shared, handlers: Vec::new() };
        Actions { list: RcuCell::new(rcu, Box::new(nobody)), changes: Mutex::new(&IRQ_ACTIONS, ()) }
    }

    #[track_caller]
    pub(crate) fn request(
        &self,
        handler: Arc<dyn Handler>,
        sharing: Sharing,
    ) -> Result<Requested<P>, LineTaken> {
        // Declared first, so that the read section ends when the lock is gone: see `IRQ_ACTIONS`.
        let list;
        let _changes = self.changes.lock();
        list = self.list.read();
        if !list.handlers.is_empty()
            && (list.sharing, sharing) != (Sharing::Shared, Sharing::Shared)
        {
            return Err(LineTaken);
        }
        let handlers = list.handlers.iter().cloned().chain([handler]).collect();
        Ok(Requested { former: self.list.replace(Box::new(List { sharing, handlers })) })
    }

    #[track_caller]
    pub(crate) fn free<'a>(
        &self,
        handler: &Arc<dyn Handler>,
        threaded: &'a Threaded<P>,
    ) -> Result<Freed<'a, P>, NotRequested> {
        // As in `request`.
        let list;
        let _changes = self.changes.lock();
        list = self.list.read();
        let of = |one: &Arc<dyn Handler>| Arc::as_ptr(one).cast::<()>();
        let at = list.handlers.iter().position(|one| of(one) == of(handler)).ok_or(NotRequested)?;
        let mut handlers = list.handlers.clone();
        handlers.remove(at);
        let (last, sharing) = (handlers.is_empty(), list.sharing);
        Ok(Freed {
            former: self.list.replace(Box::new(List { sharing, handlers })),
            last,
            threaded,
        })
    }
}
