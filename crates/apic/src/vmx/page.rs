//! The virtual-APIC page: what is posted gets into its interrupt-request register.
//!
//! The guest interrupt status of the VMCS has RVI in bits 7:0 and SVI in bits 15:8 (section
//! 25.4.2), and both are the host's to write. While interrupts are delivered virtually, the CPU
//! keeps SVI, and the host writes RVI when something was posted. When the host has kept the page
//! itself, SVI is stale: APIC virtualisation was inhibited and is not any more, or the page was
//! restored. Then the host writes both before it enters the guest. With a stale SVI the guest's EOI
//! ends another interrupt, or none: what is in service stays so, and all of its priority class and
//! below wait for ever.

use core::sync::atomic::Ordering::Relaxed;

use doorbell_platform::{Atomic, Platform};
use doorbell_post::{Pending, PiDescriptor};

/// VIRR: eight registers of 32 bits, 16 bytes apart, vector 0 being bit 0 of the first. Intel SDM
/// vol. 3 (253668-083), section 30.1.1 "Virtualized APIC Registers" (offset 200H) and table 12-1.
const VIRR: usize = 0x200;
/// VISR, which is like it (offset 100H).
const VISR: usize = 0x100;
const STRIDE: usize = 0x10;
const REGISTERS: usize = 8;

/// A vCPU's virtual-APIC page, as 1024 words of 32 bits in a page of the host's.
///
/// The vCPU's CPU writes the page while the vCPU is in the guest, its owner otherwise. No two of
/// them do so at a time, and whatever moves the vCPU from one CPU to another orders what they do:
/// hence the weak orderings here.
pub struct VirtualApicPage<'a, P: Platform> {
    words: &'a [P::AtomicU32; 1024],
}

doorbell_platform::opaque_debug!(['a, P: Platform] VirtualApicPage<'a, P>);

impl<'a, P: Platform> VirtualApicPage<'a, P> {
    /// Creates the page in that memory.
    pub fn new(words: &'a [P::AtomicU32; 1024]) -> Self {
        VirtualApicPage { words }
    }

    /// Makes what is posted pending in VIRR, and returns the vector to which RVI, bits 7:0 of the
    /// guest interrupt status, is to be set: the highest that is pending now. 0 if none is.
    ///
    /// # Context
    /// The owner, outside of the guest, when [`Entering::rescan`](doorbell_post::Entering::rescan)
    /// says that there may be something; does not sleep.
    #[inline]
    #[must_use = "the guest is interrupted by what RVI says"]
    pub fn take(&self, pir: &Pending<P, 4>) -> u8 {
        pir.take_words(|index, bits| {
            for (register, bits) in [(2 * index, bits as u32), (2 * index + 1, (bits >> 32) as u32)]
            {
                if bits != 0 {
                    // No read-modify-write: hooks of the owner look at what is posted, and leave
                    // the page alone.
                    let register = self.register(VIRR, register);
                    register.store(register.load(Relaxed) | bits, Relaxed);
                }
            }
        });
        self.highest()
    }

    /// Takes what is posted, as [`take`](VirtualApicPage::take) does, for a vCPU that is not about
    /// to enter the guest, if there may be something.
    ///
    /// # Context
    /// The owner, outside of the guest; does not sleep.
    #[inline]
    #[must_use = "the guest is interrupted by what RVI says"]
    pub fn synchronize(&self, post: &PiDescriptor<P>) -> Option<u8> {
        post.synchronize(|pir| self.take(pir))
    }

    /// Returns the highest vector that is pending in VIRR, or 0.
    ///
    /// # Context
    /// The owner, outside of the guest; does not sleep.
    #[inline]
    pub fn highest(&self) -> u8 {
        self.highest_of(VIRR)
    }

    /// Returns the highest vector that is in service in VISR, or 0: what SVI, bits 15:8 of the
    /// guest interrupt status, is to be when the host has kept VISR itself.
    ///
    /// # Context
    /// The owner, outside of the guest; does not sleep.
    #[must_use = "the guest's EOI ends what SVI says"]
    pub fn highest_in_service(&self) -> u8 {
        self.highest_of(VISR)
    }

    #[inline]
    fn highest_of(&self, registers: usize) -> u8 {
        for register in (0..REGISTERS).rev() {
            let bits = self.register(registers, register).load(Relaxed);
            if bits != 0 {
                return (register * 32) as u8 + 31 - bits.leading_zeros() as u8;
            }
        }
        0
    }

    #[inline]
    fn register(&self, of: usize, register: usize) -> &P::AtomicU32 {
        &self.words[(of + STRIDE * (register % REGISTERS)) / 4]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use doorbell_platform::{Std, Vector};
    use doorbell_post::{Destination, Layout, PiGate};

    use super::*;

    type Words = [<Std as Platform>::AtomicU32; 1024];

    fn page() -> Words {
        std::array::from_fn(|_| Atomic::new(0))
    }

    #[test]
    fn what_is_posted_is_where_the_manual_has_virr_and_the_highest_is_rvi() {
        let (words, pir) = (page(), Pending::<Std, 4>::new());
        let page = VirtualApicPage::<Std>::new(&words);
        for vector in [0x21u8, 0x5f, 0x60] {
            pir.publish(vector.into());
        }
        assert_eq!(page.take(&pir), 0x60);
        let at = |offset: usize| words[offset / 4].load(Relaxed);
        assert_eq!((at(0x210), at(0x220), at(0x230)), (1 << 1, 1 << 31, 1));
        assert_eq!(words.iter().filter(|word| word.load(Relaxed) != 0).count(), 3);
        assert!(!pir.any());
    }

    #[test]
    fn what_was_pending_before_stays_and_counts() {
        let (words, pir) = (page(), Pending::<Std, 4>::new());
        let page = VirtualApicPage::<Std>::new(&words);
        assert_eq!(page.highest(), 0);
        words[0x270 / 4].store(1 << 31, Relaxed);
        pir.publish(0x30u8.into());
        pir.publish(0xe0u8.into());
        assert_eq!(page.take(&pir), 255);
        assert_eq!(words[0x270 / 4].load(Relaxed), 1 << 31 | 1);
        assert_eq!(page.take(&pir), 255);
    }

    #[test]
    fn svi_is_the_highest_in_service_whatever_is_pending() {
        let words = page();
        let page = VirtualApicPage::<Std>::new(&words);
        assert_eq!(page.highest_in_service(), 0);
        words[0x270 / 4].store(1, Relaxed);
        words[0x120 / 4].store(1 << 1, Relaxed);
        words[0x150 / 4].store(1 << 31 | 1, Relaxed);
        assert_eq!((page.highest(), page.highest_in_service()), (0xe0, 0xbf));
    }

    #[test]
    fn a_vcpu_that_was_not_notified_has_nothing_to_synchronise() {
        let words = page();
        let page = VirtualApicPage::<Std>::new(&words);
        let gate = PiGate::new(Destination::x2apic(0), Vector(0xf2));
        let post = PiDescriptor::<Std>::new(Pending::new(), gate);
        assert_eq!(page.synchronize(&post), None);
        let _ = post.post(0x41.into());
        assert_eq!(page.synchronize(&post), Some(0x41));
        assert_eq!(page.synchronize(&post), None);
    }
}
