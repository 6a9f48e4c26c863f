//! The backing page of a vCPU's APIC.

use core::ops::Deref;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_platform::{Atomic, Platform};
use doorbell_post::Layout;

use super::spec::register;
use crate::GuestVector;

/// The registers of a vCPU's APIC, as hardware and everybody who posts see them: 4 KiB of 32-bit
/// words (AMD APM vol. 2, section 15.29.5.1). It is accessed in words of 32 bits only.
///
/// The pending bits are its IRR. Anybody sets a bit there; the rest is the owner's and, while the
/// vCPU is in the guest with AVIC, its CPU's.
#[repr(C, align(4096))]
pub struct BackingPage<P: Platform> {
    registers: [P::AtomicU32; 1024],
}

doorbell_platform::opaque_debug!([P: Platform] BackingPage<P>);

impl<P: Platform> BackingPage<P> {
    /// Creates a page whose registers are all zero.
    pub const fn new() -> Self {
        BackingPage { registers: [const { <P::AtomicU32 as Atomic>::ZERO }; 1024] }
    }

    /// The register at an offset below 4096, in bytes; its two lowest bits do not count.
    #[inline]
    pub fn register(&self, offset: usize) -> &P::AtomicU32 {
        // Said for the compiler: whoever gets the offset from a guest has masked it.
        &self.registers[offset / 4 % 1024]
    }

    /// The register of a vector in one of the two arrays of 256 bits.
    #[inline]
    fn of(&self, array: usize, vector: u8) -> &P::AtomicU32 {
        self.register(array + usize::from(vector / 32) * 16)
    }

    /// The highest vector in an array.
    #[inline]
    fn highest(&self, array: usize) -> Option<u8> {
        (0..8).rev().find_map(|index| {
            // Vectors below 16 are illegal: no IRTE and no IPI sets their bits, but whoever can
            // write the page might.
            let legal = if index == 0 { 0xffff_0000 } else { u32::MAX };
            let bits = self.register(array + usize::from(index) * 16).load(SeqCst) & legal;
            (bits != 0).then(|| index * 32 + 31 - bits.leading_zeros() as u8)
        })
    }

    /// Returns the vector that the guest would be interrupted with next: the highest that is
    /// pending, if it is of a higher priority class than the task's and than what is in service
    /// (APM vol. 2, section 16.6.4).
    ///
    /// # Context
    /// The owner, or any task or hard interrupt about a vCPU that is not in the guest; does not
    /// sleep.
    pub fn deliverable(&self) -> Option<GuestVector> {
        let highest = self.highest(register::IRR)?;
        let task = self.register(register::TPR).load(SeqCst) as u8;
        let class = (task >> 4).max(self.highest(register::ISR).unwrap_or(0) >> 4);
        GuestVector::new(highest).filter(|_| highest >> 4 > class)
    }

    /// Returns whether a vector is pending, whatever its priority.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn pending(&self) -> bool {
        self.highest(register::IRR).is_some()
    }

    /// Returns whether the highest vector that is pending waits for the guest to lower its task
    /// priority.
    ///
    /// # Context
    /// The owner, or any task or hard interrupt about a vCPU that is not in the guest; does not
    /// sleep.
    pub fn waits_for_task_priority(&self) -> bool {
        let task = self.register(register::TPR).load(SeqCst) as u8;
        self.highest(register::IRR).is_some_and(|highest| highest >> 4 <= task >> 4)
    }

    /// Takes a vector with which software interrupts the guest in the place of hardware: the vector
    /// is not pending any more, but in service.
    ///
    /// # Context
    /// The owner, while AVIC is inhibited; does not sleep.
    pub fn accept(&self, vector: GuestVector) {
        let vector = vector.number();
        let bit = 1 << (vector % 32);
        self.of(register::IRR, vector).fetch_and(!bit, SeqCst);
        // No read-modify-write: outside of the guest only the owner writes it, and no hook of the
        // owner does.
        let in_service = self.of(register::ISR, vector);
        in_service.store(in_service.load(Relaxed) | bit, Relaxed);
    }
}

impl<P: Platform> Default for BackingPage<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// A page that was handed in, as a layout.
pub struct Irr<D>(D);

doorbell_platform::opaque_debug!([D] Irr<D>);

impl<P: Platform, D: Deref<Target = BackingPage<P>>> Irr<D> {
    pub(super) fn new(page: D) -> Self {
        Irr(page)
    }

    pub(super) fn into_inner(self) -> D {
        self.0
    }

    /// The page.
    #[inline]
    pub fn page(&self) -> &BackingPage<P> {
        &self.0
    }
}

impl<P: Platform, D: Deref<Target = BackingPage<P>>> Layout for Irr<D> {
    type Bit = GuestVector;

    #[inline]
    fn publish(&self, vector: GuestVector) -> bool {
        let bit = 1 << (vector.number() % 32);
        self.0.of(register::IRR, vector.number()).fetch_or(bit, SeqCst) & bit == 0
    }

    /// A vector of too low a priority is no reason to wake: only the owner can change that.
    #[inline]
    fn any(&self) -> bool {
        self.0.deliverable().is_some()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::boxed::Box;

    use doorbell_platform::Std;

    use super::*;

    fn page() -> Irr<Box<BackingPage<Std>>> {
        Irr::new(Box::default())
    }

    fn vector(number: u8) -> GuestVector {
        GuestVector::new(number).unwrap()
    }

    #[test]
    fn the_page_is_a_page_and_a_vector_is_where_the_manual_has_it() {
        assert_eq!((size_of::<BackingPage<Std>>(), align_of::<BackingPage<Std>>()), (4096, 4096));
        let page = page();
        assert!(
            page.publish(vector(0x41)) && page.publish(vector(255)) && page.publish(vector(16))
        );
        assert!(!page.publish(vector(0x41)));
        let at = |offset| page.page().register(offset).load(SeqCst);
        assert_eq!((at(0x220), at(0x270), at(0x200)), (1 << 1, 1 << 31, 1 << 16));
    }

    #[test]
    fn the_highest_vector_above_the_priority_is_deliverable() {
        let page = page();
        assert_eq!(page.page().deliverable(), None);
        for number in [0x31, 0x3f, 0x52] {
            page.publish(vector(number));
        }
        assert_eq!(page.page().deliverable(), Some(vector(0x52)));
        page.page().accept(vector(0x52));
        assert_eq!(
            page.page().deliverable(),
            None,
            "it is in service, and the others are of a lower class"
        );
        page.page().register(register::ISR + 0x20).store(0, SeqCst);
        assert_eq!(page.page().deliverable(), Some(vector(0x3f)));
        page.page().register(register::TPR).store(0x30, SeqCst);
        assert!(!page.any(), "not above the task's class");
        page.page().register(register::TPR).store(0x2f, SeqCst);
        assert!(page.any());
    }

    #[test]
    fn what_is_accepted_leaves_what_is_pending_and_in_service_beside_it() {
        let page = page();
        for number in [0x40, 0x5e, 0x5f] {
            page.publish(vector(number));
        }
        page.page().accept(vector(0x40));
        page.page().accept(vector(0x5e));
        let at = |offset| page.page().register(offset).load(SeqCst);
        assert_eq!((at(register::IRR + 0x20), at(register::ISR + 0x20)), (1 << 31, 1 << 30 | 1));
    }

    #[test]
    fn an_illegal_vector_in_the_page_is_never_deliverable() {
        let page = page();
        page.page().register(register::IRR).store(0xffff, SeqCst);
        assert!(!page.any());
    }
}
