//! The vCPU that an interrupt is posted to.

use alloc::sync::Arc;
use core::convert::Infallible;
use core::fmt;

use doorbell_platform::Platform;
use doorbell_post::{Mirror, ResidencyCopies};

use super::irte::GuestMode;
use crate::remap::binding::{Binding, PostableInterrupt};
use crate::{AmdInterrupt, Followed, Invalidate, IrteIndex, IrteMemory, NotBound, RetiredIrte};

/// A vCPU that interrupts can be posted to.
#[doc(alias = "Target")]
pub trait AvicTarget<P: Platform, M: IrteMemory<P>>: Send + Sync + 'static {
    /// The vCPU's own copy of where it is: its entry in the physical ID table.
    type Own: Mirror;

    /// The copies of where the vCPU is. An interrupt is in guest mode exactly as long as it is one
    /// of them.
    fn copies(&self) -> &ResidencyCopies<P, Self::Own, AmdInterrupt<P, M>>;
}

/// As what an interrupt is posted to a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Posting {
    /// The page number of the vCPU's AVIC backing page.
    pub backing_page: u64,
    /// The vector, in the guest.
    pub vector: u8,
    /// What log entries say.
    pub tag: u32,
}

/// The vCPU has to look at its pending bits: kick it. Until it was invalidated, the entry may have
/// been used to post to it with what it said before, and rung the doorbell of a CPU where the vCPU
/// is no more.
#[derive(Debug)]
#[must_use = "bits that were posted meanwhile are found by nobody else"]
#[doc(alias = "LookAgain")]
pub struct RescanRequired<V>(pub Arc<V>);

/// The interrupt was posted to a vCPU already. Now it is posted to none: what
/// [`unbind`](AmdBinding::unbind) would have returned is still to be done, and the interrupt can be
/// bound after that.
#[must_use = "the vCPU that it was posted to has to look at its pending bits"]
pub struct Bound<V>(pub Invalidate<RescanRequired<V>>);

impl<V> fmt::Display for Bound<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the interrupt was posted to a vCPU already, and is posted to none now")
    }
}

impl<V> core::error::Error for Bound<V> {}

impl<V> fmt::Debug for Bound<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bound").field(&self.0.index()).finish()
    }
}

/// An interrupt, and the vCPU that it is posted to, if any.
///
/// To move it to another vCPU is to unbind it and to bind it again. Between the two it arrives in
/// the host, whose handler injects it by software, by the route of that moment: so none is lost,
/// and an entry in guest mode is on exactly one vCPU's list at every moment. (To program it for the
/// new vCPU directly, one would have to hold two vCPUs' locks, or to leave it for a moment in guest
/// mode on no list: where nobody tells it that its vCPU has moved.)
///
/// One that is dropped has its interrupt arrive in the host, but nobody waits for the invalidation:
/// so the vCPU that it was posted to stays for good, because hardware may still post to its page.
#[doc(alias = "Binding")]
pub struct AmdBinding<P: Platform, M: IrteMemory<P>, V: AvicTarget<P, M>>(
    Binding<AmdInterrupt<P, M>, V>,
);

doorbell_platform::opaque_debug!([P: Platform, M: IrteMemory<P>, V: AvicTarget<P, M>] AmdBinding<P, M, V>);

impl<P: Platform, M: IrteMemory<P>, V: AvicTarget<P, M>> PostableInterrupt<V>
    for AmdInterrupt<P, M>
{
    fn index(&self) -> IrteIndex {
        self.entry().index()
    }

    fn arrive(this: &Arc<Self>, from: &V) {
        let removed = from.copies().remove(this, AmdInterrupt::leave_guest);
        debug_assert!(
            removed.is_ok(),
            "it was added when it was bound, and nobody else removes it"
        );
    }
}

impl<P: Platform, M: IrteMemory<P>, V: AvicTarget<P, M>> AmdBinding<P, M, V> {
    /// Creates the binding of an interrupt that arrives in the host. An interrupt has one binding,
    /// so it is given away.
    pub fn new(interrupt: AmdInterrupt<P, M>) -> Self {
        AmdBinding(Binding::at_host(interrupt))
    }

    /// The interrupt, to be shared with those who change where it arrives in the host.
    pub fn interrupt(&self) -> &Arc<AmdInterrupt<P, M>> {
        self.0.interrupt()
    }

    /// The vCPU that the interrupt is posted to.
    pub fn target(&self) -> Option<&Arc<V>> {
        self.0.target()
    }

    /// Has the interrupt posted to a vCPU. Until the invalidation has completed, some may still
    /// arrive in the host.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If the interrupt was posted to a vCPU already: then it is posted to none when this returns.
    pub fn bind(&mut self, vcpu: Arc<V>, posting: Posting) -> Result<Invalidate<()>, Bound<V>> {
        if let Ok(unbound) = self.unbind() {
            return Err(Bound(unbound));
        }
        let Posting { backing_page, vector, tag } = posting;
        let copy = Arc::clone(self.interrupt());
        let Ok(()) = vcpu.copies().add(copy, |interrupt, residency| {
            interrupt.enter_guest(GuestMode { backing_page, vector, tag, residency });
            Ok::<_, Infallible>(())
        });
        Ok(self.0.posts(vcpu).map(|_| ()))
    }

    /// Has the interrupt arrive in the host. Until the invalidation has completed, some may still
    /// be posted to the vCPU, which must look at its pending bits after that: whoever unbinds is
    /// responsible for them until then.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If the interrupt is posted to none.
    pub fn unbind(&mut self) -> Result<Invalidate<RescanRequired<V>>, NotBound> {
        Ok(self.0.unbind()?.map(RescanRequired))
    }

    /// Has the interrupt follow a route: posted to a vCPU, or, if there is none that it can be
    /// posted to, arriving in the host. The change is `invalidate`d, which returns when that has
    /// completed, and the vCPU that the interrupt was posted to is then told to `look_again`.
    ///
    /// # Context
    /// Any task; sleeps if `invalidate` or `look_again` does.
    pub fn follow(
        &mut self,
        route: Option<(Arc<V>, Posting)>,
        invalidate: impl FnOnce(IrteIndex),
        look_again: impl FnOnce(Arc<V>),
    ) -> Followed {
        let unbound = self.unbind().ok();
        let bound = route.and_then(|(vcpu, posting)| self.bind(vcpu, posting).ok());
        // One invalidation, after both changes, is enough for both.
        let mut invalidate = Some(invalidate);
        let mut once =
            |entry| invalidate.take().into_iter().for_each(|invalidate| invalidate(entry));
        if let Some(bound) = bound {
            bound.by(&mut once);
        }
        if let Some(unbound) = unbound {
            look_again(unbound.by(once).0);
        }
        Followed(())
    }

    /// Blocks the interrupt, and gives its entry back.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If the interrupt is posted to a vCPU, or if somebody shares the
    /// [interrupt](AmdBinding::interrupt).
    pub fn retire(self) -> Result<Invalidate<RetiredIrte<P, M>>, Self> {
        self.0.into_interrupt().map(AmdInterrupt::retire).map_err(AmdBinding)
    }
}
