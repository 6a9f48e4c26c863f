//! What the owner of a vCPU does with its LPIs.
//!
//! An LPI has no active state that a guest could see (Arm IHI 0069H, section 4.1.2): what a list
//! register says of that is gone at the fold. The bit of its priority stays in the active priority
//! registers until the guest drops it; nobody has to know whose it is, since an EOI of an LPI is
//! not counted, and nothing else holds the bit meanwhile.

use doorbell_platform::Platform;

use crate::flush::Flush;
use crate::gic::{LPI_WORD, MOVED};
use crate::interrupt::PutDown;
use crate::lpi_lists::{Chain, LpiList, LpiLists};
use crate::slot::Slot;
use crate::spec::lr;
use crate::{ApList, Group, IntId, Interrupt, Interrupts, ListRegisters, Priority};

impl ApList {
    /// Looks at what a word of the news says, whose first bit is that of `first`. By the owner,
    /// outside of the guest.
    #[inline(never)]
    pub(crate) fn hears<P: Platform>(
        &mut self,
        interrupts: &impl Interrupts<P>,
        first: u32,
        word: u64,
        vmcr: u64,
    ) {
        if first != LPI_WORD as u32 * 64 || !self.lpis.exist() {
            return self.look_at(interrupts, first, word, vmcr);
        }
        if word >> (MOVED % 64) & 1 != 0 {
            self.look_at_waiting_lpis(interrupts);
        }
        self.look_at_lpis(interrupts, Chain::from_word(word));
    }

    /// Looks at a chain of LPIs that somebody has made pending. By the owner, outside of the guest.
    /// As many steps as there are LPIs in the chain.
    pub(crate) fn look_at_lpis<P: Platform>(&mut self, lpis: &impl Interrupts<P>, chain: Chain) {
        let mut chain = chain;
        while let Some(id) = chain.pop(lpis) {
            self.places_lpi(lpis.interrupt(id), id, false);
        }
    }

    /// Looks at all LPIs that wait: some are to go to another vCPU, or have another priority. As
    /// many steps as there are.
    #[inline(never)]
    pub(crate) fn look_at_waiting_lpis<P: Platform>(&mut self, lpis: &impl Interrupts<P>) {
        let all = self.lpis.take_all(lpis);
        self.look_at_lpis(lpis, all);
        self.counts.set_lpis(!self.lpis.are_empty());
    }

    /// Puts an LPI that is in no list where it belongs, or lets go of it. `back` says that it was
    /// in a list register, and was not acknowledged.
    #[inline]
    pub(crate) fn places_lpi<P: Platform>(&mut self, lpi: &Interrupt<P>, id: IntId, back: bool) {
        match lpi.put_lpi_down(back) {
            PutDown::Gone => {}
            PutDown::Stays(state) => {
                self.lpis.push(state.lpi_list(), lpi, id);
                self.counts.set_lpis(true);
            }
            PutDown::Leaves => {
                self.lpis.leaves(lpi, id);
                self.counts.set_tells(true);
            }
        }
    }

    /// Places the best of what is pending, LPIs as well, in the list registers below that number.
    /// Returns whether there is a candidate that has no room there.
    #[inline(never)]
    pub(crate) fn place_with_lpis<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        most: usize,
    ) -> bool {
        self.lpis.set_on(flush.entry.lpis);
        if flush.entry.lpis && flush.entry.enabled().contains(Group::One) {
            while let Some(list) = self.lpis.best() {
                let before = Some(LpiLists::priority(list));
                if self.place_pending(flush, most, true, before)
                    || self.place_lpis(flush, list, most)
                {
                    return true;
                }
            }
            self.counts.set_lpis(false);
        }
        self.place_pending(flush, most, true, None)
    }

    /// Places the LPIs of a list. Returns whether there is one that has no room.
    #[inline]
    fn place_lpis<P: Platform>(
        &mut self,
        flush: &mut Flush<'_, impl Interrupts<P>, impl ListRegisters>,
        list: LpiList,
        most: usize,
    ) -> bool {
        while let Some(id) = self.lpis.first(list) {
            let lpi = flush.interrupts.interrupt(id);
            let state = lpi.state();
            let is_one = state.is_candidate_of(self.vcpu()) && !state.is_changed();
            if is_one && flush.placed >= most {
                return true;
            }
            let _ = self.lpis.pop(flush.interrupts, list);
            match is_one.then(|| lpi.take(true, state)).flatten() {
                Some(state) => {
                    let slot = Slot::pending(id, true);
                    let bits = state.list_register() | lr::PENDING | u64::from(id.number());
                    self.put(flush, slot, bits);
                }
                None => self.places_lpi(lpi, id, false),
            }
        }
        false
    }

    /// Returns the highest priority of the LPIs that can be signalled. Takes those before it out of
    /// the lists that cannot be any more.
    #[inline(never)]
    pub(crate) fn highest_lpi<P: Platform>(
        &mut self,
        lpis: &impl Interrupts<P>,
    ) -> Option<Priority> {
        while let Some(list) = self.lpis.best() {
            let id = self.lpis.first(list)?;
            let lpi = lpis.interrupt(id);
            let state = lpi.state();
            if state.is_candidate_of(self.vcpu()) && !state.is_changed() {
                return Some(LpiLists::priority(list));
            }
            let _ = self.lpis.pop(lpis, list);
            self.places_lpi(lpi, id, false);
        }
        self.counts.set_lpis(false);
        None
    }
}
