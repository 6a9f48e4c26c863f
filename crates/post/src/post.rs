//! The protocol.
//!
//! ```text
//!   a sender                          the owner
//!   sets the bit                      stores the mode: in the guest, or asleep
//!   full barrier                      full barrier
//!   reads the gate and the mode       looks for bits
//!   returns what is to be done        enters or sleeps only if there is none
//! ```
//!
//! Of the two at least one sees the other. What a sender is to do (nothing, notify, kick, wake) is
//! a value, acted upon when the caller holds no lock.

use core::marker::PhantomData;
use core::mem;

use doorbell_platform::{IrqGuard, Platform};

use crate::{Gate, Guest, Layout, Mode, Notice, Pending, PiGate, Requests, RunState};

/// A vCPU to which interrupts are posted: the bits, the gate, and the run state.
///
/// Anybody may [`post`](Post::post). The rest, where it says so, is for the one owner: the task
/// that runs the vCPU, and its scheduler's hooks.
#[repr(C, align(64))]
pub struct Post<P: Platform, L, G> {
    layout: L,
    gate: G,
    run: RunState<P>,
}

doorbell_platform::opaque_debug!([P: Platform, L, G] Post<P, L, G>);

/// The posted-interrupt descriptor of VMX, in its exact form: its 64 bytes are the first of the
/// object, aligned to 64.
///
/// Intel SDM vol. 3 (253668-083), section 30.6; VT-d specification (D51397-015), section 9.11.
pub type PiDescriptor<P> = Post<P, Pending<P, 4>, PiGate<P>>;

impl<P: Platform, L: Layout, G: Gate<P>> Post<P, L, G> {
    /// Creates the post of a vCPU that is in the host.
    pub fn new(layout: L, gate: G) -> Self {
        Post { layout, gate, run: RunState::new() }
    }

    /// The bits.
    #[inline]
    pub fn layout(&self) -> &L {
        &self.layout
    }

    /// Returns the bits, of a vCPU that is no more.
    pub fn into_layout(self) -> L {
        self.layout
    }

    /// The gate.
    #[inline]
    pub fn gate(&self) -> &G {
        &self.gate
    }

    /// The run state.
    #[inline]
    pub fn run_state(&self) -> &RunState<P> {
        &self.run
    }

    /// Posts an interrupt, and waits for nobody.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn post(&self, bit: L::Bit) -> Notice<G::Notification> {
        if !self.layout.publish(bit) {
            return Notice::Nothing;
        }
        self.published()
    }

    /// Returns what a sender would do next, after hardware has set a bit and could not tell the
    /// vCPU: an IPI whose target did not run, an entry of a log. To do that is up to the caller.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn published(&self) -> Notice<G::Notification> {
        match self.gate.announce() {
            None => Notice::Nothing,
            Some(seen) => self.run.notice(|cpu| G::notification(seen, cpu)),
        }
    }

    /// Returns whether the task of this vCPU must be woken, after the wake-up vector has arrived at
    /// a CPU where the vCPU sleeps. `false` if nothing is pending, or if the vCPU does not sleep
    /// any more.
    ///
    /// # Context
    /// Any task or hard interrupt, of which the handler of the vector is one; does not sleep.
    #[inline]
    pub fn notified(&self) -> bool {
        self.gate.outstanding(|| self.layout.any()) && self.run.wake()
    }

    /// Begins to enter the guest: from here on senders notify.
    ///
    /// The interrupts stay off until the vCPU is out of the guest again ([`InGuest::exited`]), but
    /// for what the guest's CPU does about interrupts of the host: they make it leave the guest. In
    /// a process, which no guard protects from signals, a sticky flag does the same: see [the front
    /// page](crate#in-a-process).
    ///
    /// # Context
    /// The owner; does not sleep.
    ///
    /// # Errors
    /// If something was requested of the vCPU: it stays in the host, and has taken the requests.
    #[inline]
    pub fn enter<'a>(
        &'a self,
        irqs_off: &'a IrqGuard<P>,
        guest: Guest,
    ) -> Result<Entering<'a, P, L, G>, Requests> {
        self.run.enter(irqs_off, guest);
        match self.run.take_requests() {
            None => Ok(Entering { post: self, _irqs_off: PhantomData }),
            Some(requests) => {
                self.run.host();
                Err(requests)
            }
        }
    }

    /// Takes what is pending, outside of the guest: what `take` says, which is called if there may
    /// be something.
    ///
    /// # Context
    /// The owner, which may be preempted meanwhile; does not sleep.
    #[inline]
    #[must_use = "what was taken is pending nowhere else"]
    pub fn synchronize<R>(&self, take: impl FnOnce(&L) -> R) -> Option<R> {
        self.gate.retract().then(|| take(&self.layout))
    }

    /// Begins to sleep until something is pending or requested.
    ///
    /// # Context
    /// The owner; does not sleep.
    ///
    /// # Errors
    /// If something is.
    #[inline]
    pub fn block(&self) -> Result<Blocked<'_, P>, Awake> {
        self.run.block();
        let blocked = Blocked { run: &self.run };
        if self.run.requested() || self.gate.outstanding(|| self.layout.any()) {
            Err(Awake)
        } else {
            Ok(blocked)
        }
    }
}

/// There is no reason to sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Awake;

impl core::fmt::Display for Awake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("there is no reason to sleep")
    }
}

impl core::error::Error for Awake {}

/// A vCPU that is about to enter the guest: senders notify it already, and it has not looked yet.
///
/// Interrupts cannot be turned on before it has:
///
/// ```compile_fail,E0505
/// # use doorbell_platform::{CpuId, IrqGuard, Std, Vector};
/// # use doorbell_post::*;
/// # let gate = PiGate::new(Destination::x2apic(0), Vector(0xf2));
/// # let vcpu = PiDescriptor::<Std>::new(Pending::new(), gate);
/// let irqs_off = IrqGuard::<Std>::new();
/// let guest = Guest { cpu: CpuId(0), posted: true };
/// let entering = vcpu.enter(&irqs_off, guest).expect("nothing was requested");
/// drop(irqs_off);
/// let (in_guest, _) = entering.rescan(|_| ());
/// ```
#[must_use = "dropped, it stays in the host"]
pub struct Entering<'a, P: Platform, L, G> {
    post: &'a Post<P, L, G>,
    _irqs_off: PhantomData<&'a IrqGuard<P>>,
}

doorbell_platform::opaque_debug!(['a, P: Platform, L, G] Entering<'a, P, L, G>);

impl<'a, P: Platform, L: Layout, G: Gate<P>> Entering<'a, P, L, G> {
    /// Looks, and returns what `take` has taken, which is called if something may be pending.
    ///
    /// What is published after this is announced to a vCPU in guest mode. Interrupts are off, so
    /// the notification waits for the guest.
    ///
    /// # Context
    /// The owner, with interrupts off; does not sleep.
    #[inline]
    #[must_use = "dropped, the vCPU stays in the host; and what was taken is pending nowhere else"]
    pub fn rescan<R>(self, take: impl FnOnce(&L) -> R) -> (InGuest<'a, P>, Option<R>) {
        let taken = self.post.synchronize(take);
        let in_guest = InGuest { run: &self.post.run, _irqs_off: PhantomData };
        mem::forget(self);
        (in_guest, taken)
    }
}

impl<P: Platform, L, G> Drop for Entering<'_, P, L, G> {
    #[inline]
    fn drop(&mut self) {
        self.post.run.host();
    }
}

/// A vCPU in the guest, until it has [exited](InGuest::exited) or this is dropped, which must be
/// before interrupts are turned on again.
#[must_use = "dropped, it is in the host"]
pub struct InGuest<'a, P: Platform> {
    run: &'a RunState<P>,
    _irqs_off: PhantomData<&'a IrqGuard<P>>,
}

doorbell_platform::opaque_debug!(['a, P: Platform] InGuest<'a, P>);

impl<P: Platform> InGuest<'_, P> {
    /// Says that the vCPU is out of the guest. After the fold: the owner has taken back what its
    /// CPU held for it (what was injected and not taken, its task priority), so that from here on
    /// memory says all that there is to know.
    ///
    /// Until then senders notify or kick, in vain; the owner looks before it enters again.
    ///
    /// # Context
    /// The owner, with interrupts off; does not sleep.
    #[inline]
    pub fn exited(self) {
        drop(self);
    }

    /// Folds, and then says that the vCPU is out of the guest: what [`exited`](InGuest::exited)
    /// asks for, in that order.
    ///
    /// # Context
    /// The owner, with interrupts off; does not sleep.
    #[inline]
    pub fn fold<R>(self, fold: impl FnOnce() -> R) -> R {
        let folded = fold();
        drop(self);
        folded
    }
}

impl<P: Platform> Drop for InGuest<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.run.host();
    }
}

/// A vCPU that sleeps, until this is dropped or somebody wakes it.
#[must_use = "dropped, it is awake"]
pub struct Blocked<'a, P: Platform> {
    run: &'a RunState<P>,
}

doorbell_platform::opaque_debug!(['a, P: Platform] Blocked<'a, P>);

impl<P: Platform> Blocked<'_, P> {
    /// Returns whether nobody has woken the vCPU.
    ///
    /// # Context
    /// The owner; does not sleep.
    #[inline]
    pub fn asleep(&self) -> bool {
        self.run.mode() == Mode::Blocked
    }

    /// Sleeps until somebody wakes it.
    ///
    /// # Context
    /// The owner; may sleep.
    pub fn wait(self) {
        while self.asleep() {
            P::park();
        }
    }
}

impl<P: Platform> Drop for Blocked<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.run.host();
    }
}
