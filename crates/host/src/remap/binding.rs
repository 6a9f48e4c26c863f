//! An interrupt, and what it is posted to: the part of a binding that does not depend on whose
//! IOMMU it is.

use alloc::sync::Arc;
use core::mem;

use crate::{Invalidate, IrteIndex};

/// An interrupt is posted to no vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotBound;

impl core::fmt::Display for NotBound {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the interrupt is posted to no vCPU")
    }
}

impl core::error::Error for NotBound {}

/// An interrupt that can be posted to a `V`.
pub(crate) trait PostableInterrupt<V>: Sized {
    fn index(&self) -> IrteIndex;

    /// Has it arrive in the host. It was posted to `from`.
    fn arrive(this: &Arc<Self>, from: &V);
}

/// An interrupt, and what it is posted to, if anything.
pub(crate) struct Binding<I: PostableInterrupt<V>, V> {
    interrupt: Arc<I>,
    to: Option<Arc<V>>,
}

impl<I: PostableInterrupt<V>, V> Binding<I, V> {
    pub(crate) fn at_host(interrupt: I) -> Self {
        Binding { interrupt: Arc::new(interrupt), to: None }
    }

    pub(crate) fn interrupt(&self) -> &Arc<I> {
        &self.interrupt
    }

    pub(crate) fn target(&self) -> Option<&Arc<V>> {
        self.to.as_ref()
    }

    /// The entry posts to `to` by now. Gives back what it posted to until now.
    pub(crate) fn posts(&mut self, to: Arc<V>) -> Invalidate<Option<Arc<V>>> {
        Invalidate::new(self.interrupt.index(), self.to.replace(to))
    }

    pub(crate) fn unbind(&mut self) -> Result<Invalidate<Arc<V>>, NotBound> {
        let former = self.to.take().ok_or(NotBound)?;
        I::arrive(&self.interrupt, &former);
        Ok(Invalidate::new(self.interrupt.index(), former))
    }

    /// The interrupt, if it is posted to nothing and nobody shares it.
    pub(crate) fn into_interrupt(self) -> Result<I, Self> {
        if self.to.is_some() {
            return Err(self);
        }
        let interrupt = Arc::clone(&self.interrupt);
        drop(self);
        Arc::try_unwrap(interrupt).map_err(|interrupt| Binding { interrupt, to: None })
    }
}

impl<I: PostableInterrupt<V>, V> Drop for Binding<I, V> {
    /// Nobody waits for the invalidation, so what it is posted to stays for good: hardware may
    /// still write to it.
    fn drop(&mut self) {
        if let Ok(unbound) = self.unbind() {
            mem::forget(unbound);
        }
    }
}
