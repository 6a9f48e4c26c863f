//! What the protocol is generic over: where the bits are, and what a sender looks at after it has
//! set one.

use doorbell_platform::{CpuId, Platform};

/// Where the pending bits are.
pub trait Layout {
    /// A name of one of the bits.
    type Bit: Copy;

    /// Sets a bit, sequentially consistently; returns whether it was clear.
    ///
    /// Who finds it set has nothing more to do: whoever set it has not finished yet, or has made
    /// somebody responsible who has not taken it yet.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    fn publish(&self, bit: Self::Bit) -> bool;

    /// Returns whether a bit is set that the owner would take now, sequentially consistently. (One
    /// that only the owner can make ready, such as an interrupt of too low a priority, need not
    /// count.)
    fn any(&self) -> bool;
}

/// What a sender looks at between its publication and the vCPU's mode.
pub trait Gate<P: Platform> {
    /// What the sender remembers of what it saw.
    type Seen;
    /// How a vCPU in guest mode is told.
    type Notification;

    /// Passes the full barrier after a publication, then reads the gate. Returns `None` if another
    /// sender has announced already what the owner has not taken yet.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    fn announce(&self) -> Option<Self::Seen>;

    /// Returns how to tell a vCPU that is in guest mode on `cpu`.
    fn notification(seen: Self::Seen, cpu: CpuId) -> Self::Notification;

    /// Returns whether there may be something to take. The bits say so, unless the gate knows
    /// better.
    ///
    /// # Context
    /// The owner, after a change of mode and a full barrier; does not sleep.
    #[inline]
    fn outstanding(&self, any: impl FnOnce() -> bool) -> bool {
        any()
    }

    /// Has senders announce again from here on, and returns whether there may be something to take.
    /// There always may, unless the gate knows better.
    ///
    /// # Context
    /// The owner, before it takes the bits; does not sleep.
    #[inline]
    fn retract(&self) -> bool {
        true
    }
}

/// What a sender must do, now that it holds no lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "if this is not acted upon, the interrupt is lost"]
pub enum Notice<N> {
    /// Nothing: somebody else answers for what is pending, or the vCPU will look before it enters
    /// the guest.
    Nothing,
    /// Tell the vCPU, which is in the guest and takes it there.
    Notify(N),
    /// Send an interrupt to the CPU, so that the vCPU leaves the guest and looks.
    Kick(CpuId),
    /// Wake the vCPU's task. One sender is told so, not several.
    Wake,
}
