//! How an interrupt goes one of two ways, delivered or pending, while somebody changes which of
//! them is open.
//!
//! ```text
//!   an interrupt                      who opens
//!   delivery is not open
//!   pends it                          opens delivery
//!   full barrier                      full barrier
//!   looks again: if it is open,       takes what pends,
//!     takes what pends, delivers      delivers
//! ```
//!
//! Of the two at least one sees what the other has done, and what is pending is taken by one of
//! them, in one step. So nothing is lost, and nothing is delivered that was not raised. Whoever
//! closes delivery has nothing to take: what was delivered is delivered. An interrupt that has
//! looked before may be delivered a moment later.
//!
//! This is the posting protocol of `doorbell-post` with deliverer and keeper in place of a vCPU. It
//! is that of a pending bit of MSI-X, of a line whose consumer changes, and of INTx without a
//! trigger.

/// What there is to open, and where interrupts are pending otherwise.
pub(crate) trait Handover {
    /// To whom interrupts are delivered.
    type To;

    /// To whom they are delivered now, if delivery is open.
    fn open(&self) -> Option<Self::To>;

    /// Keeps one. Ends with a full barrier.
    fn pend(&self);

    /// Takes all that are pending, each once: how many, or 1 if they coalesce. Begins with a full
    /// barrier. Whoever has opened delivery calls it, and delivers as many.
    fn take(&self) -> u64;
}

/// An interrupt: how many the caller is to deliver, if any, and to whom.
#[inline(always)]
pub(crate) fn raise<H: Handover>(handover: &H) -> Option<(H::To, u64)> {
    match handover.open() {
        Some(to) => Some((to, 1)),
        None => pend(handover),
    }
}

/// An interrupt that has found delivery not open: the same.
#[cold]
pub(crate) fn pend<H: Handover>(handover: &H) -> Option<(H::To, u64)> {
    handover.pend();
    let to = handover.open()?;
    match handover.take() {
        0 => None,
        count => Some((to, count)),
    }
}
