//! The gate of a posted-interrupt descriptor: one notification for any number of bits.
//!
//! ```text
//!   a sender, or an IOMMU             the owner
//!   sets the bit                      clears ON
//!   sets ON, if SN is clear:          takes the bits
//!     was it clear before: notifies
//! ```
//!
//! Whoever sets ON answers for all bits until the owner clears it, and the owner clears it before
//! it takes the bits, never after. What came while notifications were suppressed has not set ON:
//! who clears SN looks for it (X01).

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, CpuId, Platform, Vector};

use crate::Gate;
use crate::pi_control::{Destination, ON, PiControl, SN};

/// ON, SN, NV and NDST, as in a posted-interrupt descriptor (see [`PiControl`]).
///
/// A sender that finds ON set leaves everything to whoever set it; the owner clears ON, then takes
/// the bits. An IOMMU is one more sender: in one atomic step it sets the PIR bit and, if ON is
/// clear and notifications are not suppressed, ON, and sends NV to NDST. With SN set it does no
/// more than to set the bit; whoever clears SN looks for such bits.
#[repr(C)]
#[doc(alias = "Coalescing")]
pub struct PiGate<P: Platform> {
    control: P::AtomicU64,
    /// Bits 511:320 of the descriptor. They stay zero.
    _reserved: [P::AtomicU64; 3],
}

doorbell_platform::opaque_debug!([P: Platform] PiGate<P>);

/// An interrupt that is to be sent: how a vCPU in guest mode learns of its bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notification {
    /// The APIC of the CPU.
    pub destination: Destination,
    /// The vector that is the CPU's posted-interrupt notification vector.
    pub vector: Vector,
}

/// Whether the CPU must send the wake-up vector to itself. See [`PiGate::wake_with`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "bits that came before the vector was changed wake nobody else"]
pub struct SelfNotify(pub bool);

impl<P: Platform> PiGate<P> {
    /// Creates a gate whose notifications go to a CPU with a vector.
    pub fn new(destination: Destination, vector: Vector) -> Self {
        PiGate {
            control: P::AtomicU64::new(PiControl::new(destination, vector).bits()),
            _reserved: [const { <P::AtomicU64 as Atomic>::ZERO }; 3],
        }
    }

    /// The control word: for hardware that posts, or what stands for it.
    pub fn word(&self) -> &P::AtomicU64 {
        &self.control
    }

    /// Reads what the control word says at this moment.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn load(&self) -> PiControl {
        PiControl::from_bits(self.control.load(SeqCst))
    }

    /// Has notifications go to the CPU of `destination`, on which the vCPU will run, with `vector`,
    /// and not be suppressed. `any` tells whether a bit is pending.
    ///
    /// # Context
    /// The owner, or its scheduler's hooks, with preemption off, before the guest is entered there;
    /// does not sleep.
    #[inline]
    pub fn run_on(&self, destination: Destination, vector: Vector, any: impl FnOnce() -> bool) {
        let _ = self.change(destination, vector, any);
    }

    /// Has hardware send no notifications, because the vCPU is preempted, until
    /// [`run_on`](PiGate::run_on), which is responsible for the bits from here on.
    ///
    /// # Context
    /// The scheduler's hooks of the owner; does not sleep.
    #[inline]
    pub fn suppress(&self) {
        // Indivisible, though `run_on` would find the bits of an ON that is lost here: until then
        // `outstanding` would lie.
        self.control.fetch_or(SN, SeqCst);
    }

    /// Has notifications go to the CPU of `destination`, where the vCPU sleeps, with its wake-up
    /// `vector`, whose handler wakes those who sleep there and have ON set
    /// ([`Post::notified`](crate::Post::notified)). The caller has entered the vCPU among those.
    ///
    /// A notification that was sent before the vector was changed has told nobody who would wake:
    /// if there was one, the CPU must send itself the wake-up vector.
    ///
    /// # Context
    /// The scheduler's hooks of the owner, with preemption off, where the vCPU is switched away
    /// from; does not sleep.
    #[inline]
    pub fn wake_with(
        &self,
        destination: Destination,
        vector: Vector,
        any: impl FnOnce() -> bool,
    ) -> SelfNotify {
        SelfNotify(self.change(destination, vector, any))
    }

    /// Has notifications sent elsewhere, whatever senders do to ON meanwhile; whether one had been
    /// sent before.
    #[inline]
    fn change(&self, destination: Destination, vector: Vector, any: impl FnOnce() -> bool) -> bool {
        let mut before = self.load();
        loop {
            let after =
                before.with_destination(destination).with_vector(vector).with_suppressed(false);
            match self.control.compare_exchange(before.bits(), after.bits(), SeqCst, SeqCst) {
                Ok(_) => break,
                Err(now) => before = PiControl::from_bits(now),
            }
        }
        // Bits that an IOMMU posted while SN was set have no ON, and nobody looks at bits without
        // ON. The exchange that cleared SN comes before this look at the bits, so a bit that is not
        // seen here was posted after it, with ON.
        if before.suppressed() && !before.outstanding() && any() {
            // Nothing but ON changes while preemption is off, and nobody clears it, so to store
            // what is in the word by now would do as well: no program fails with that. Indivisible
            // all the same: it is as dear, and nothing then rests on who else could change the
            // word.
            self.control.fetch_or(ON, SeqCst);
            return true;
        }
        before.outstanding()
    }
}

impl<P: Platform> Gate<P> for PiGate<P> {
    type Seen = PiControl;
    type Notification = Notification;

    #[inline]
    fn announce(&self) -> Option<PiControl> {
        // The load spares the line a write if somebody has announced already. It may be done before
        // the publication has reached the others only if that were weaker than SeqCst.
        if self.load().outstanding() {
            return None;
        }
        if self.control.fetch_or(ON, SeqCst) & ON != 0 {
            return None;
        }
        // Where to notify is read after ON was set: whoever has it changed from then on finds ON,
        // and looks by itself. (What the `or` returned would do as well, but a machine sets and
        // tests one bit in one instruction.)
        Some(self.load())
    }

    #[inline]
    fn notification(seen: PiControl, _cpu: CpuId) -> Notification {
        Notification { destination: seen.destination(), vector: seen.vector() }
    }

    #[inline]
    fn outstanding(&self, _any: impl FnOnce() -> bool) -> bool {
        self.load().outstanding()
    }

    #[inline]
    fn retract(&self) -> bool {
        if !self.load().outstanding() {
            return false;
        }
        // Before the bits are taken: a sender that still finds ON set has published before this,
        // and its bit is seen.
        //
        // Indivisible: senders leave the word alone while ON is set, but the owner's hooks do not.
        // A task that is preempted between a load and a store, and loaded elsewhere, would put back
        // the CPU that it came from. Preempted between this and the taking, it finds that `change`
        // has set ON again, for bits that are taken now. An ON without bits is no harm: it costs
        // one more look, before the vCPU enters or instead of its sleep.
        self.control.fetch_and(!ON, SeqCst);
        true
    }
}
