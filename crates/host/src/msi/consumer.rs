//! The consumer of a line's interrupts: an irqfd in the kernel, or an eventfd of user space. It
//! changes at any moment.
//!
//! An eventfd is no word of the platform, so two fences keep the sides from missing each other:
//!
//! ```text
//!   an interrupt for user space       who switches to the irqfd
//!   writes the eventfd                writes which consumer is meant
//!   full barrier                      full barrier
//!   reads which consumer is meant:    reads the eventfd, signals
//!     the irqfd: drains, signals        the irqfd as often
//! ```
//!
//! At least one of the two sees what the other wrote, and reading the eventfd takes what is there,
//! so exactly what was raised is delivered.

use core::fmt;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use crate::handover::{self, Handover};

/// A consumer of interrupts.
pub trait Signal: Send + Sync + 'static {
    /// Signals `count` interrupts (1 or more). In the context in which the line's interrupts come,
    /// so it neither sleeps nor waits.
    fn signal(&self, count: u64);
}

impl<F: Fn(u64) + Send + Sync + 'static> Signal for F {
    fn signal(&self, count: u64) {
        self(count);
    }
}

/// A consumer with interrupts that wait to be read: an eventfd.
pub trait Drain: Signal {
    /// Takes all that wait, in one step with respect to other readers: how many; 1 if it does not
    /// count them.
    fn drain(&self) -> u64;
}

/// The consumer that a line has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "Consumer")]
pub enum MsiConsumer {
    /// The direct one: what it is given is delivered, and cannot be taken back.
    Direct,
    /// The one of user space, which keeps what it is given until it is read.
    User,
}

/// A line with its two consumers, and which of them is meant.
///
/// A virtual machine monitor has a line go to the guest directly, by an irqfd, and while the guest
/// masks it to an eventfd of its own, to show it as a pending bit. The consumer is exchanged in
/// place: the line is neither freed nor requested anew, and nothing waits.
///
/// **Exactly what was raised is delivered.** What the eventfd has when the line goes to the irqfd
/// again is drained into that, by whoever switches, or by the interrupt that was on its way
/// meanwhile: so nothing is lost, and nothing injected to be on the safe side. The number is exact
/// if the eventfd counts and the irqfd takes a count; where either coalesces, as a pending bit of
/// MSI-X does, several become one. An interrupt that had looked before the switch may be delivered
/// directly a moment after it, as if it had come before.
pub struct ConsumerSwitch<P: Platform, D, U> {
    /// [`DIRECT`] or [`USER`].
    which: P::AtomicU32,
    direct: D,
    user: U,
}

doorbell_platform::opaque_debug!([P: Platform, D, U] ConsumerSwitch<P, D, U>);

const DIRECT: u32 = 0;
const USER: u32 = 1;

impl<P: Platform, D: Signal, U: Drain> ConsumerSwitch<P, D, U> {
    /// Creates a line that goes to `to`.
    pub fn new(direct: D, user: U, to: MsiConsumer) -> Self {
        let which = match to {
            MsiConsumer::Direct => DIRECT,
            MsiConsumer::User => USER,
        };
        ConsumerSwitch { which: P::AtomicU32::new(which).named("consumer"), direct, user }
    }

    /// The direct consumer.
    pub fn direct(&self) -> &D {
        &self.direct
    }

    /// The consumer in user space. Whoever reads it has the interrupts that it takes.
    pub fn user(&self) -> &U {
        &self.user
    }

    /// Signals an interrupt of the line. If it goes to the direct consumer, that is a load and the
    /// signal. Takes no lock.
    ///
    /// # Context
    /// Any context in which the consumers can be signalled; does not sleep.
    #[inline]
    pub fn signal(&self) {
        if let Some(((), count)) = handover::raise(self) {
            self.direct.signal(count);
        }
    }

    /// Has the line go to `to`, whatever it went to. Neither waits nor allocates.
    ///
    /// # Context
    /// Any task or hard interrupt, at any moment; does not sleep.
    pub fn switch(&self, to: MsiConsumer) {
        match to {
            // Nothing is drained: what the direct consumer was given is delivered.
            MsiConsumer::User => self.which.store(USER, SeqCst),
            MsiConsumer::Direct => {
                self.which.store(DIRECT, SeqCst);
                match self.take() {
                    0 => {}
                    count => self.direct.signal(count),
                }
            }
        }
    }
}

impl<P: Platform, D: Signal, U: Drain> Handover for ConsumerSwitch<P, D, U> {
    type To = ();

    #[inline(always)]
    fn open(&self) -> Option<()> {
        (self.which.load(SeqCst) == DIRECT).then_some(())
    }

    /// The barriers stand apart because an eventfd is not an atomic word of the platform.
    fn pend(&self) {
        self.user.signal(1);
        P::fence(SeqCst);
    }

    fn take(&self) -> u64 {
        P::fence(SeqCst);
        self.user.drain()
    }
}

/// For hosts that can only free a line and request it again, with its new consumer: what came
/// between is discarded as spurious, and a device that waits for its driver sends no other
/// (document 004). So one interrupt is injected, *after* the line was requested: one that is raised
/// before is found by that, one that is raised later finds the line. It may be one too many; at
/// most one for each switch.
///
/// This is the line between the two. The only way on is [`request`](FreedLine::request).
#[derive(Debug)]
#[must_use = "the line is free, and what its device has raised is lost unless it is requested and injected"]
#[doc(alias = "Freed")]
pub struct FreedLine(());

impl FreedLine {
    /// Frees the line, by `free`.
    pub fn by(free: impl FnOnce()) -> Self {
        free();
        FreedLine(())
    }

    /// Requests the line, by `request`, which returns when the line goes to the consumer that it
    /// returns.
    ///
    /// # Errors
    /// Its error, and the line, which is still to be requested.
    pub fn request<C: Signal, E>(
        self,
        request: impl FnOnce() -> Result<C, E>,
    ) -> Result<RequestedLine<C>, LineNotRequested<E>> {
        match request() {
            Ok(consumer) => Ok(RequestedLine(consumer)),
            Err(error) => Err(LineNotRequested { error, line: self }),
        }
    }
}

/// A line that could not be requested.
#[derive(Debug)]
#[doc(alias = "NotRequested")]
pub struct LineNotRequested<E> {
    /// Why.
    pub error: E,
    /// To try again.
    pub line: FreedLine,
}

impl<E: fmt::Display> fmt::Display for LineNotRequested<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the line could not be requested: {}", self.error)
    }
}

impl<E: core::error::Error> core::error::Error for LineNotRequested<E> {}

/// A line that goes to its new consumer, which only the injection gives out.
#[must_use = "what came while the line was free is lost unless it is injected"]
#[doc(alias = "Requested")]
pub struct RequestedLine<C>(C);

doorbell_platform::opaque_debug!([C] RequestedLine<C>);

impl<C: Signal> RequestedLine<C> {
    /// Injects one interrupt into the consumer. (While the guest masks the line, that is the
    /// eventfd of user space, whose reader has it [pending](crate::msi::MsixSignalled::Pending),
    /// like any other.)
    pub fn inject(self) -> C {
        self.0.signal(1);
        self.0
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use doorbell_platform::Std;

    use super::*;

    /// An eventfd.
    #[derive(Default)]
    struct Event(AtomicU64);

    impl Signal for Arc<Event> {
        fn signal(&self, count: u64) {
            self.0.fetch_add(count, SeqCst);
        }
    }

    impl Drain for Arc<Event> {
        fn drain(&self) -> u64 {
            self.0.swap(0, SeqCst)
        }
    }

    type Line = ConsumerSwitch<Std, Arc<Event>, Arc<Event>>;

    fn line(to: MsiConsumer) -> (Line, Arc<Event>, Arc<Event>) {
        let (direct, user) = (Arc::new(Event::default()), Arc::new(Event::default()));
        (ConsumerSwitch::new(Arc::clone(&direct), Arc::clone(&user), to), direct, user)
    }

    #[test]
    fn what_the_eventfd_has_is_delivered_directly_when_the_line_goes_there_and_no_more() {
        let (line, direct, user) = line(MsiConsumer::Direct);
        line.signal();
        line.switch(MsiConsumer::User);
        line.signal();
        line.signal();
        assert_eq!((direct.0.load(SeqCst), user.0.load(SeqCst)), (1, 2));
        assert_eq!(line.user().drain(), 2, "who reads them has them");
        line.signal();
        line.switch(MsiConsumer::Direct);
        assert_eq!((line.direct().0.load(SeqCst), user.0.load(SeqCst)), (2, 0));
        line.switch(MsiConsumer::Direct);
        assert_eq!(direct.0.load(SeqCst), 2, "nothing is injected");
    }

    #[test]
    fn a_line_that_was_freed_is_used_again_only_with_one_injection() {
        let (_, direct, _) = line(MsiConsumer::Direct);
        let refused =
            FreedLine::by(|| {}).request::<Arc<Event>, _>(|| Err("no vector")).err().unwrap();
        assert_eq!(refused.to_string(), "the line could not be requested: no vector");
        assert_eq!((refused.error, direct.0.load(SeqCst)), ("no vector", 0));
        let Ok(requested) = refused.line.request::<_, ()>(|| Ok(Arc::clone(&direct))) else {
            panic!("it is there")
        };
        requested.inject().signal(1);
        assert_eq!(direct.0.load(SeqCst), 2);
    }
}
