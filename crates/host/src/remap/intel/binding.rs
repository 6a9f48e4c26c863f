//! The descriptor that an interrupt is posted to.

use alloc::sync::Arc;

use doorbell_platform::Platform;

use super::irte::{IntelIrte, PostedIrte};
use crate::remap::binding::{Binding, PostableInterrupt};
use crate::{Followed, IntelInterrupt, Invalidate, IrteIndex, IrteMemory, NotBound, RetiredIrte};

/// A posted-interrupt descriptor that a VT-d unit can find.
#[doc(alias = "Descriptor")]
pub trait PiTarget: Send + Sync + 'static {
    /// The descriptor's physical address, as long as it lives: a multiple of 64.
    fn address(&self) -> u64;
}

/// A descriptor whose address is not a multiple of 64. The interrupt is posted to nothing.
#[must_use = "what it was posted to until then cannot be used again before the invalidation has completed"]
pub struct Misaligned<V>(
    /// What it was posted to, if anything.
    pub Option<Invalidate<Arc<V>>>,
);

impl<V> core::fmt::Display for Misaligned<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a posted-interrupt descriptor whose address is not a multiple of 64")
    }
}

impl<V> core::fmt::Debug for Misaligned<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Misaligned").field(&self.0.as_ref().map(Invalidate::index)).finish()
    }
}

impl<V> core::error::Error for Misaligned<V> {}

/// An interrupt, and the vCPU's descriptor that it is posted to, if any.
///
/// It keeps the descriptor alive, and so does the token of each change, until the invalidation has
/// completed. Nobody has to look at the pending bits then: whenever hardware sets one, it sets ON
/// and notifies as well, or leaves a bit that whoever clears SN looks for.
///
/// One that is dropped has its interrupt arrive in the host, but nobody waits for the invalidation:
/// so the descriptor stays for good, because hardware may still write to it.
#[doc(alias = "PostedBinding")]
pub struct IntelBinding<P: Platform, M: IrteMemory<P>, V: PiTarget>(
    Binding<IntelInterrupt<P, M>, V>,
);

doorbell_platform::opaque_debug!([P: Platform, M: IrteMemory<P>, V: PiTarget] IntelBinding<P, M, V>);

impl<P: Platform, M: IrteMemory<P>, V: PiTarget> PostableInterrupt<V> for IntelInterrupt<P, M> {
    fn index(&self) -> IrteIndex {
        self.entry().index()
    }

    fn arrive(this: &Arc<Self>, _: &V) {
        this.switch.arrive();
    }
}

impl<P: Platform, M: IrteMemory<P>, V: PiTarget> IntelBinding<P, M, V> {
    /// Creates the binding of an interrupt that arrives in the host. An interrupt has one binding,
    /// so it is given away.
    pub fn new(interrupt: IntelInterrupt<P, M>) -> Self {
        IntelBinding(Binding::at_host(interrupt))
    }

    /// The interrupt, to be shared with those who change where it arrives in the host.
    pub fn interrupt(&self) -> &Arc<IntelInterrupt<P, M>> {
        self.0.interrupt()
    }

    /// The vCPU that the interrupt is posted to.
    pub fn target(&self) -> Option<&Arc<V>> {
        self.0.target()
    }

    /// Has the interrupt posted to a vCPU, as `vector` in the guest, from wherever it goes now: in
    /// one store. If it is `urgent`, SN does not suppress its notification. Until the invalidation
    /// has completed, some may go where they went before.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If the descriptor is not where hardware can find it: then the interrupt arrives in the host
    /// when this returns, wherever it went.
    pub fn post_to(
        &mut self,
        to: Arc<V>,
        vector: u8,
        urgent: bool,
    ) -> Result<Invalidate<Option<Arc<V>>>, Misaligned<V>> {
        let posted = PostedIrte { descriptor: to.address(), vector, urgent };
        let Some(entry) = IntelIrte::posted(self.interrupt().source, posted) else {
            return Err(Misaligned(self.unbind().ok()));
        };
        self.interrupt().switch.post(entry.bits());
        Ok(self.0.posts(to))
    }

    /// Has the interrupt follow a route: posted to a vCPU, as a vector in the guest, urgent or not;
    /// or, if there is none that it can be posted to, arriving in the host. The change is
    /// `invalidate`d, which returns when that has completed.
    ///
    /// # Context
    /// Any task; sleeps if `invalidate` does.
    pub fn follow(
        &mut self,
        route: Option<(Arc<V>, u8, bool)>,
        invalidate: impl FnOnce(IrteIndex),
    ) -> Followed {
        let former = match route {
            Some((to, vector, urgent)) => match self.post_to(to, vector, urgent) {
                Ok(posted) => Some(posted),
                Err(Misaligned(unbound)) => unbound.map(|unbound| unbound.map(Some)),
            },
            None => self.unbind().ok().map(|unbound| unbound.map(Some)),
        };
        if let Some(former) = former {
            drop(former.by(invalidate));
        }
        Followed(())
    }

    /// Has the interrupt arrive in the host. Until the invalidation has completed, some may still
    /// be posted.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If the interrupt is posted to none.
    pub fn unbind(&mut self) -> Result<Invalidate<Arc<V>>, NotBound> {
        self.0.unbind()
    }

    /// Blocks the interrupt, and gives its entry back.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If the interrupt is posted to a vCPU, or if somebody shares the
    /// [interrupt](IntelBinding::interrupt).
    pub fn retire(self) -> Result<Invalidate<RetiredIrte<P, M>>, Self> {
        self.0.into_interrupt().map(IntelInterrupt::retire).map_err(IntelBinding)
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;

    use doorbell_platform::Std;

    use super::*;
    use crate::RemapTable;
    use crate::irte::intel::{RemappedIrte, Source};

    type Memory = Box<[<Std as Platform>::AtomicU128]>;

    struct At(u64);
    impl PiTarget for At {
        fn address(&self) -> u64 {
            self.0
        }
    }

    const SOURCE: Source = Source::Function(0x0123);
    const HOST: RemappedIrte = RemappedIrte {
        destination: 5,
        logical: false,
        redirection_hint: false,
        level: false,
        delivery: 0,
        vector: 0x31,
    };

    fn binding() -> IntelBinding<Std, Memory, At> {
        let memory: Memory = (0..2).map(|_| <Std as Platform>::AtomicU128::new(0)).collect();
        let entry = RemapTable::<Std, Memory>::new(memory).unwrap().allocate().unwrap();
        IntelBinding::new(IntelInterrupt::new(entry, SOURCE, HOST))
    }

    #[test]
    fn it_is_posted_from_one_vcpu_to_the_next_and_back_to_where_the_host_has_moved_it_meanwhile() {
        let mut binding = binding();
        let (a, b) = (Arc::new(At(0x1000)), Arc::new(At(0x1_0000_0040)));
        assert_eq!(binding.load(), IntelIrte::remapped(SOURCE, HOST));
        assert!(binding.post_to(Arc::clone(&a), 0x41, false).unwrap().by(|_| ()).is_none());
        let former = binding.post_to(Arc::clone(&b), 0x42, true).unwrap();
        let posted = PostedIrte { descriptor: 0x1_0000_0040, vector: 0x42, urgent: true };
        assert_eq!(Some(binding.load()), IntelIrte::posted(SOURCE, posted));
        assert_eq!(Arc::strong_count(&a), 2, "hardware may still write to it");
        assert!(Arc::ptr_eq(&former.by(|_| ()).unwrap(), &a));
        assert_eq!(Arc::strong_count(&a), 1);
        let elsewhere = RemappedIrte { destination: 6, ..HOST };
        binding.interrupt().set_host(elsewhere).by(|_| ());
        assert_eq!(Some(binding.load()), IntelIrte::posted(SOURCE, posted));
        assert!(Arc::ptr_eq(&binding.unbind().unwrap().by(|_| ()), &b));
        assert_eq!(binding.load(), IntelIrte::remapped(SOURCE, elsewhere));
        assert_eq!(binding.unbind().err(), Some(NotBound));
    }

    #[test]
    fn a_misaligned_descriptor_is_refused_and_the_former_one_is_used_no_more() {
        let mut binding = binding();
        let misaligned = || Arc::new(At(0x1020));
        assert!(matches!(binding.post_to(misaligned(), 0x41, false), Err(Misaligned(None))));
        let a = Arc::new(At(0x1000));
        binding.post_to(Arc::clone(&a), 0x41, false).unwrap().by(|_| ());
        let Err(Misaligned(Some(unbound))) = binding.post_to(misaligned(), 0x41, false) else {
            panic!("it is refused")
        };
        assert!(Arc::ptr_eq(&unbound.by(|_| ()), &a));
        assert!(binding.target().is_none());
        assert_eq!(binding.load(), IntelIrte::remapped(SOURCE, HOST));
    }

    #[test]
    fn what_follows_a_route_that_is_none_or_cannot_be_posted_arrives_in_the_host() {
        for nowhere in [None, Some(0x1020)] {
            let (mut binding, a) = (binding(), Arc::new(At(0x1000)));
            let mut invalidated = 0;
            let _ = binding.follow(Some((Arc::clone(&a), 0x41, false)), |_| invalidated += 1);
            assert!(binding.target().is_some_and(|target| Arc::ptr_eq(target, &a)));
            let _ = binding
                .follow(nowhere.map(|at| (Arc::new(At(at)), 0x42, false)), |_| invalidated += 1);
            assert_eq!((binding.load(), invalidated), (IntelIrte::remapped(SOURCE, HOST), 2));
            assert_eq!(Arc::strong_count(&a), 1);
        }
    }

    #[test]
    fn a_descriptor_that_nobody_waited_for_stays() {
        let a = Arc::new(At(0x1000));
        let mut binding = binding();
        let _ = binding.post_to(Arc::clone(&a), 0x41, false).unwrap().by(|_| ());
        drop(binding);
        assert_eq!(Arc::strong_count(&a), 2);
    }

    impl IntelBinding<Std, Memory, At> {
        fn load(&self) -> IntelIrte {
            self.interrupt().load()
        }
    }
}
