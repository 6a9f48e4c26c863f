//! The CPU interface of a vCPU, as its owner runs it.
//!
//! ```text
//!   enter: mode := guest ─▶ takes the news ─▶ flush ─▶ the guest runs
//!                                                          │ exit, with interrupts still off
//!   exit:  mode := host  ◀─ says what is active, ended ◀─ fold
//! ```
//!
//! The mode is published before the news are taken (as with every post), so an INTID that is posted
//! after the owner has looked finds the mode "guest" and kicks. Interrupts of the CPU stay off from
//! `enter` to `exit`: nothing else may touch its list registers, and a kick that comes between the
//! look and the entry makes the guest exit at once. What ended, and what goes to another vCPU, is
//! decided in the fold and acted upon by the caller afterwards, as values.

use core::fmt;

use doorbell_platform::{CpuId, IrqGuard, Platform};
use doorbell_post::{Entering, Guest, InGuest, Requests, SoftwareGate, Summary, TwoLevel};

use crate::access::Access;
use crate::flush::Entry;
use crate::gic::LPI_WORD;
use crate::groups::Groups;
use crate::lpi_lists::{Chain, LpiLists};
use crate::{
    ApList, Ended, Gic, Host, IntId, Interrupts, Kick, ListRegisters, NoSuch, PhysicalIntId,
    Redistributor, VcpuId,
};

/// The owned half of a vCPU: of the one task that runs it.
pub struct CpuInterface {
    pub(crate) list: ApList,
}

/// A word of the news that was taken.
#[derive(Clone, Copy)]
struct Word {
    /// The INTID of its first bit.
    first: u32,
    word: u64,
}

/// Why there is no owned half to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotToBeHad {
    /// There is no such vCPU.
    NoSuch(NoSuch),
    /// Somebody has it.
    Owned(VcpuId),
}

impl fmt::Display for NotToBeHad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotToBeHad::NoSuch(no_such) => no_such.fmt(f),
            NotToBeHad::Owned(vcpu) => {
                write!(f, "somebody has the CPU interface of vCPU {}", vcpu.number())
            }
        }
    }
}

impl core::error::Error for NotToBeHad {}

impl<P: Platform> Gic<P> {
    /// Returns the owned half of a vCPU, which there is once.
    ///
    /// # Errors
    /// If there is no such vCPU, or somebody has the owned half.
    pub fn cpu_interface(&self, vcpu: VcpuId) -> Result<CpuInterface, NotToBeHad> {
        let redistributor = self.redistributor(vcpu).map_err(NotToBeHad::NoSuch)?;
        if !redistributor.take_owned() {
            return Err(NotToBeHad::Owned(vcpu));
        }
        let mut list = ApList::new(self.vtr, vcpu);
        if self.lpis.id_bits().is_some() {
            list.lpis = LpiLists::new();
        }
        Ok(CpuInterface { list })
    }
}

impl CpuInterface {
    /// Returns whose it is.
    #[inline]
    pub fn vcpu(&self) -> VcpuId {
        self.list.vcpu()
    }

    /// Begins to enter the guest: looks at the news, and fills the list registers of the CPU that
    /// this runs on. By the owner, with interrupts off, which stay off until [`exit`](Self::exit);
    /// the guest is entered next. Does not sleep.
    ///
    /// If the guest has enabled or disabled a group, and there is an SPI that any vCPU may have,
    /// that takes up to 16 atomic operations for each SPI, and 4 for each vCPU more
    /// (`tests/cost.rs`): so does [`exit`](Self::exit).
    ///
    /// # Errors
    /// If something was requested of the vCPU: it stays in the host, and has taken the requests.
    #[inline]
    pub fn enter<'a, P: Platform>(
        &mut self,
        gic: &'a Gic<P>,
        irqs_off: &'a IrqGuard<P>,
        cpu: CpuId,
        registers: &mut impl ListRegisters,
        host: &mut impl Kick,
    ) -> Result<InGuest<'a, P>, Requests> {
        let Some(redistributor) = gic.redistributors.get(self.vcpu().index()) else {
            return Err(Requests(0));
        };
        let entering = redistributor.news.enter(irqs_off, Guest { cpu, posted: false })?;
        let changed = redistributor.news.layout().summary();
        if changed.is_empty() && self.list.flush_idle(registers, self.list.hcr(registers)) {
            return Ok(entering.rescan(|_| ()).0);
        }
        // One interrupt alone, most often.
        Ok(match changed.only().filter(|&word| redistributor.news.layout().peek(word) != 0) {
            Some(word) => self.takes_word(gic, redistributor, entering, word, registers, host),
            None => self.takes_any(gic, redistributor, entering, changed, registers, host),
        })
    }

    /// Takes the news, if there are any, and fills the list registers, if anything has to be in
    /// one.
    #[inline(never)]
    fn takes_any<'a, P: Platform>(
        &mut self,
        gic: &Gic<P>,
        redistributor: &Redistributor<P>,
        entering: Entering<'a, P, TwoLevel<P, 16>, SoftwareGate<P>>,
        changed: Summary<16>,
        registers: &mut impl ListRegisters,
        host: &mut impl Kick,
    ) -> InGuest<'a, P> {
        let nothing = changed.is_empty() && !self.list.counts.tells();
        if nothing && self.list.flush_none(registers, self.entry(gic, redistributor, registers)) {
            return entering.rescan(|_| ()).0;
        }
        self.takes_words(gic, redistributor, entering, changed, registers, host)
    }

    /// Takes a word of the news that has a bit, and fills the list registers.
    #[inline(never)]
    fn takes_word<'a, P: Platform>(
        &mut self,
        gic: &Gic<P>,
        redistributor: &Redistributor<P>,
        entering: Entering<'a, P, TwoLevel<P, 16>, SoftwareGate<P>>,
        index: usize,
        registers: &mut impl ListRegisters,
        host: &mut impl Kick,
    ) -> InGuest<'a, P> {
        let word = redistributor.news.layout().take_word(index);
        let news = Word { first: index as u32 * 64, word };
        // Or more by now.
        if !word.is_power_of_two() {
            if index == LPI_WORD && self.list.lpis.exist() {
                return self.takes_lpis(gic, redistributor, entering, news, registers, host);
            }
            return self.takes_few(gic, redistributor, entering, news, registers, host);
        }
        let entry = self.entry(gic, redistributor, registers);
        if let Some(id) = IntId::new(news.first + word.trailing_zeros())
            && self.list.fill_with(&gic.view(self.vcpu()), registers, entry, id)
        {
            return entering.rescan(|_| ()).0;
        }
        self.takes_rest(gic, redistributor, entering, news, registers, host)
    }

    /// Fills the list registers with what a word of the news says, if that is all.
    #[inline(never)]
    fn takes_few<'a, P: Platform>(
        &mut self,
        gic: &Gic<P>,
        redistributor: &Redistributor<P>,
        entering: Entering<'a, P, TwoLevel<P, 16>, SoftwareGate<P>>,
        news: Word,
        registers: &mut impl ListRegisters,
        host: &mut impl Kick,
    ) -> InGuest<'a, P> {
        let entry = self.entry(gic, redistributor, registers);
        let Word { first, word } = news;
        if self.list.fill_with_few(&gic.view(self.vcpu()), registers, entry, first, word) {
            return entering.rescan(|_| ()).0;
        }
        self.takes_rest(gic, redistributor, entering, news, registers, host)
    }

    /// Takes the LPIs that a word of the news says, and fills the list registers.
    #[inline(never)]
    fn takes_lpis<'a, P: Platform>(
        &mut self,
        gic: &Gic<P>,
        redistributor: &Redistributor<P>,
        entering: Entering<'a, P, TwoLevel<P, 16>, SoftwareGate<P>>,
        news: Word,
        registers: &mut impl ListRegisters,
        host: &mut impl Kick,
    ) -> InGuest<'a, P> {
        let view = gic.view(self.vcpu());
        let entry = self.entry(gic, redistributor, registers);
        // One alone, most often.
        if let Some(id) = Chain::only_in(news.word)
            && entry.lpis
            && let Some(lpi) = gic.lpis.get(id)
            && lpi.next_lpi().is_none()
            && self.list.fill_with(&view, registers, entry, id)
        {
            return entering.rescan(|_| ()).0;
        }
        self.takes_rest(gic, redistributor, entering, news, registers, host)
    }

    /// Looks at what a word of the news says, and fills the list registers.
    #[inline(never)]
    fn takes_rest<'a, P: Platform>(
        &mut self,
        gic: &Gic<P>,
        redistributor: &Redistributor<P>,
        entering: Entering<'a, P, TwoLevel<P, 16>, SoftwareGate<P>>,
        news: Word,
        registers: &mut impl ListRegisters,
        host: &mut impl Kick,
    ) -> InGuest<'a, P> {
        let Word { first, word } = news;
        self.list.hears(&gic.view(self.vcpu()), first, word, registers.vmcr());
        self.takes_words(gic, redistributor, entering, Summary::NONE, registers, host)
    }

    /// Takes some words of the news, and fills the list registers.
    #[inline(never)]
    fn takes_words<'a, P: Platform>(
        &mut self,
        gic: &Gic<P>,
        redistributor: &Redistributor<P>,
        entering: Entering<'a, P, TwoLevel<P, 16>, SoftwareGate<P>>,
        changed: Summary<16>,
        registers: &mut impl ListRegisters,
        host: &mut impl Kick,
    ) -> InGuest<'a, P> {
        let view = gic.view(self.vcpu());
        let entry = self.entry(gic, redistributor, registers);
        let (in_guest, _) = entering.rescan(|news| {
            news.take_words_of(changed, |index, word| {
                if index == LPI_WORD {
                    return self.list.hears(&view, index as u32 * 64, word, entry.vmcr);
                }
                self.list.look_at(&view, index as u32 * 64, word, entry.vmcr);
            });
        });
        self.list.fill(&view, registers, entry);
        self.hands_over(gic, host);
        in_guest
    }

    /// Takes back what the CPU holds for the vCPU, says that it is out of the guest, and hands over
    /// what is routed to other vCPUs by now. What physical interrupts back and what has ended
    /// outside of the list registers is told here, because the CPU matters. By the owner, on the
    /// CPU where the guest was left, before interrupts are on again. Does not sleep.
    ///
    /// Returns whether levels have ended: [`tell_ended`](Self::tell_ended) is next then.
    #[inline]
    #[must_use = "a level that is not told to its sources stays"]
    pub fn exit<P: Platform>(
        &mut self,
        gic: &Gic<P>,
        in_guest: InGuest<'_, P>,
        registers: &mut impl ListRegisters,
        host: &mut impl Host,
    ) -> bool {
        // If that was all, there is nothing to hand over or to tell either.
        if self.list.is_idle()
            || self.list.fold_only_edge(&gic.view(self.vcpu()), registers)
            || self.list.folds_nothing()
        {
            in_guest.exited();
            return false;
        }
        self.folds(gic, in_guest, registers, host)
    }

    #[inline(never)]
    fn folds<P: Platform>(
        &mut self,
        gic: &Gic<P>,
        in_guest: InGuest<'_, P>,
        registers: &mut impl ListRegisters,
        host: &mut impl Host,
    ) -> bool {
        let view = gic.view(self.vcpu());
        in_guest.fold(|| self.list.fold_all(&view, registers));
        if !self.list.counts.tells() {
            return false;
        }
        self.hands_over(gic, host);
        self.list.take_physical(&view, |physical| host.ended(Ended::Physical(physical)));
        self.list.has_ended()
    }

    /// Tells the host of the levels that have ended. By the owner, with interrupts on and nothing
    /// held, so that those who hear of it may sleep.
    pub fn tell_ended(&mut self, host: &mut impl Host) {
        self.list.take_levels(|id| host.ended(Ended::Level(id)));
    }

    /// Looks at the news outside of the guest, and returns whether an interrupt would be signalled
    /// to the guest if it were entered: a vCPU that waits for one (WFI) may go on. If not, it
    /// [blocks](doorbell_post::Post::block) until there are other news. By the owner. Does not
    /// sleep.
    pub fn signals<P: Platform>(
        &mut self,
        gic: &Gic<P>,
        registers: &impl ListRegisters,
        host: &mut impl Kick,
    ) -> bool {
        self.look(gic, registers, host);
        let Some(redistributor) = gic.redistributors.get(self.vcpu().index()) else { return false };
        let (groups, lpis) = gic.forwards(redistributor);
        self.list.lpis.set_on(lpis);
        self.list.signals(&gic.view(self.vcpu()), registers, groups.each())
    }

    fn look<P: Platform>(
        &mut self,
        gic: &Gic<P>,
        registers: &impl ListRegisters,
        host: &mut impl Kick,
    ) {
        let Some(redistributor) = gic.redistributors.get(self.vcpu().index()) else { return };
        let view = gic.view(self.vcpu());
        let vmcr = registers.vmcr();
        let _ = redistributor.news.synchronize(|bits| {
            bits.take_words(|index, word| self.list.hears(&view, index as u32 * 64, word, vmcr));
        });
        self.list.sees_groups(&view, vmcr);
        self.hands_over(gic, host);
    }

    /// Deactivates an interrupt: the guest's write of ICC_DIR_EL1 was trapped. By the owner, on the
    /// CPU where the guest was left, with interrupts on and nothing held. The access is complete at
    /// once, unless another vCPU has the interrupt.
    pub fn deactivate<'a, P: Platform>(
        &mut self,
        gic: &'a Gic<P>,
        id: IntId,
        registers: &impl ListRegisters,
        host: &mut impl Host,
    ) -> Access<'a, P> {
        let view = gic.view(self.vcpu());
        if self.list.deactivate(&view, id, registers.vmcr()) {
            // The end of an edge is heard of by nobody.
            if self.list.counts.tells() {
                self.hands_all_over(gic, host);
                self.list.take_physical(&view, |physical| host.ended(Ended::Physical(physical)));
                self.tell_ended(host);
            }
            return Access::done(0);
        }
        gic.deactivate_elsewhere(self.vcpu(), id, host)
    }

    /// Comes to a CPU that may have run another vCPU: the list registers there are cleared at the
    /// next entry, and `each` is called for the private interrupts that physical ones back: whether
    /// the physical one has to be active on this CPU. By the owner, before it enters the guest
    /// there, with the registers of the virtual CPU interface that the host [keeps](ListRegisters)
    /// restored; on the metal, `each` writes GICR_ISACTIVER0 or GICR_ICACTIVER0 of that CPU.
    pub fn load<P: Platform>(&mut self, gic: &Gic<P>, mut each: impl FnMut(PhysicalIntId, bool)) {
        let Some(redistributor) = gic.redistributors.get(self.vcpu().index()) else { return };
        self.list.comes_to_cpu();
        for interrupt in &redistributor.private {
            let state = interrupt.state();
            if let Some(physical) = interrupt.physical() {
                each(physical, state.is_active() || state.is_pending());
            }
        }
    }

    /// Powers the vCPU off: nothing that any vCPU may have is for it, and it has nothing any more.
    /// What is routed to it stays pending, for when it is [on](Self::power_on) again; what it has
    /// not ended stays active, for whoever deactivates it. By the owner, outside of the guest.
    pub fn power_off<P: Platform>(&mut self, gic: &Gic<P>, host: &mut impl Kick) {
        let Some(redistributor) = gic.redistributors.get(self.vcpu().index()) else { return };
        let _ = redistributor.set_off(true);
        let lpis = self.list.lpis.take_all(&gic.view(self.vcpu()));
        self.list.clear();
        gic.unlink_lpis(redistributor, lpis, host);
        gic.unlink_lpis_of_off(redistributor, host);
        for id in gic.spi_ids() {
            let Ok(line) = gic.spi(id) else { break };
            let state = line.interrupt().state();
            if state.is_held_by(self.vcpu()) && (state.is_held() || state.is_one_of_n()) {
                let _ = line.interrupt().let_go(true);
                gic.settle(id, host);
            }
        }
        self.hands_over(gic, host);
    }

    /// Powers the vCPU on: looks at everything that is pending or active for it. By the owner,
    /// outside of the guest.
    pub fn power_on<P: Platform>(
        &mut self,
        gic: &Gic<P>,
        registers: &impl ListRegisters,
        host: &mut impl Kick,
    ) {
        let Some(redistributor) = gic.redistributors.get(self.vcpu().index()) else { return };
        if redistributor.set_off(false) {
            gic.choose_again(self.vcpu(), host);
            gic.link_lpis_of(self.vcpu(), host);
        }
        self.looks_at_all(gic, registers, host);
    }

    /// Looks at everything that is pending or active for the vCPU.
    pub(crate) fn looks_at_all<P: Platform>(
        &mut self,
        gic: &Gic<P>,
        registers: &impl ListRegisters,
        host: &mut impl Kick,
    ) {
        let view = gic.view(self.vcpu());
        let vmcr = registers.vmcr();
        for id in (0..32).filter_map(IntId::new).chain(gic.spi_ids()) {
            let state = view.interrupt(id).state();
            if state.is_held_by(self.vcpu()) && (state.is_pending() || state.is_active()) {
                self.list.look(&view, id, vmcr);
            }
        }
        self.hands_over(gic, host);
    }

    /// Forgets everything. By the owner, outside of the guest, which lets go of what the vCPU had.
    pub(crate) fn forgets_all(&mut self) {
        self.list.clear();
        self.list.told_apart = Groups::NONE;
    }

    /// Returns what an entry of this vCPU into the guest depends on.
    #[inline]
    fn entry<P: Platform>(
        &self,
        gic: &Gic<P>,
        redistributor: &Redistributor<P>,
        registers: &impl ListRegisters,
    ) -> Entry {
        let hcr = self.list.hcr(registers);
        let (groups, lpis) = gic.forwards(redistributor);
        Entry { groups, lpis, vmcr: registers.vmcr(), hcr }
    }

    /// Hands over what is routed to other vCPUs by now.
    #[inline]
    fn hands_over<P: Platform>(&mut self, gic: &Gic<P>, host: &mut impl Kick) {
        if self.list.counts.tells() {
            self.hands_all_over(gic, host);
        }
    }

    #[inline(never)]
    fn hands_all_over<P: Platform>(&mut self, gic: &Gic<P>, host: &mut impl Kick) {
        if self.list.counts.apart() != self.list.told_apart {
            self.list.told_apart = self.list.counts.apart();
            gic.takes_part(self.vcpu(), self.list.told_apart, host);
        }
        while let Some(id) = self.list.leaving.pop() {
            gic.settle(id, host);
        }
        while let Some(id) = self.list.lpis.pop_leaving(&gic.view(self.vcpu())) {
            gic.hand_lpi_over(id, host);
        }
        self.list.has_told();
    }
}

impl fmt::Debug for CpuInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CpuInterface").field(&self.list).finish()
    }
}
