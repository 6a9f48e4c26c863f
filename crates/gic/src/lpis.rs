//! The LPIs of a VM.
//!
//! An LPI is a message of a device. Its word is that of any interrupt (`interrupt/lpi.rs`), and its
//! other word the link by which its holder has it in a list. LPIs are there when they are first
//! mapped, 128 at once, and stay for as long as the VM does: what a sender, a vCPU's lists or a
//! list register name is never freed. A guest that maps none costs nothing, and the memory that one
//! can make the host spend is charged to a limit before it is taken.
//!
//! Whoever changes an LPI does what the exchange says, when it is done: pushes the LPI onto the
//! chain of its holder's news, tells a holder that has it of another target or priority, recalls
//! one that has it in a list register.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, AtomicInt, OnceCell, Platform};

use crate::gic::{LPI_WORD, MOVED, SPIS_BESIDE_LPIS};
use crate::interrupt::{Generation, LpiChange};
use crate::lpi_lists::Chain;
use crate::{
    BuildError, Gic, IntId, Interrupt, Kick, NoSuch, Priority, Redistributor, State, VcpuId,
};

/// How many LPIs are allocated at once.
pub(crate) const CHUNK: usize = 128;

type Chunk<P> = [Interrupt<P>; CHUNK];

/// How many LPIs a VM may have, and what they may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LpiSpace {
    id_bits: u32,
    bytes: u64,
}

impl LpiSpace {
    /// Returns a space of INTIDs of so many bits, 14 to 16, of which those from 8192 on are LPIs.
    /// `bytes` is the most that may be allocated for them later; beyond it, an LPI is not mapped.
    pub const fn new(id_bits: u32, bytes: u64) -> Option<LpiSpace> {
        if id_bits >= 14 && id_bits <= 16 { Some(LpiSpace { id_bits, bytes }) } else { None }
    }

    /// Returns how many LPIs there are.
    pub const fn lpis(self) -> u32 {
        (1 << self.id_bits) - IntId::FIRST_LPI
    }
}

/// What the guest's configuration table says of an LPI (Arm IHI 0069H, section 5.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LpiConfig {
    /// The LPI may be signalled.
    pub enabled: bool,
    /// The priority, of which the lowest two bits are zero.
    pub priority: Priority,
}

impl LpiConfig {
    /// Returns what a byte of the table says: bit 0 enables, bits 7 to 2 are the priority.
    pub const fn from_byte(byte: u8) -> LpiConfig {
        LpiConfig { enabled: byte & 1 != 0, priority: Priority(byte & 0xfc) }
    }
}

/// An LPI as one event has it: what the translation of that event names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LpiMapping {
    id: IntId,
    generation: Generation,
}

impl LpiMapping {
    /// Returns the INTID.
    pub fn id(self) -> IntId {
        self.id
    }
}

/// Why an LPI is not mapped. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotMapped {
    /// The VM has no such LPI.
    NoSuch(IntId),
    /// An event has it already.
    InUse(IntId),
    /// The mapping would cost more than the [space](LpiSpace) allows.
    NoRoom,
}

impl fmt::Display for NotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotMapped::NoSuch(id) => write!(f, "the VM has no LPI {}", id.number()),
            NotMapped::InUse(id) => write!(f, "LPI {} is mapped to another event", id.number()),
            NotMapped::NoRoom => write!(f, "the VM may have no more memory for LPIs"),
        }
    }
}

impl core::error::Error for NotMapped {}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// The LPI is pending.
    Delivered,
    /// The LPI was pending already.
    Coalesced,
    /// The message is gone: its event is not mapped to the LPI any more, or that has no vCPU, or
    /// the vCPU's redistributor has LPIs disabled.
    Dropped,
}

/// The LPIs that there may be.
pub(crate) struct Lpis<P: Platform> {
    id_bits: u32,
    chunks: Box<[OnceCell<P, Chunk<P>>]>,
    most: u64,
    /// How many bytes were charged.
    charged: P::AtomicU64,
}

impl<P: Platform> Lpis<P> {
    /// Returns none.
    pub(crate) fn none() -> Self {
        Lpis { id_bits: 0, chunks: Box::new([]), most: 0, charged: P::AtomicU64::new(0) }
    }

    fn new(space: LpiSpace) -> Self {
        let chunks = space.lpis() as usize / CHUNK;
        Lpis {
            id_bits: space.id_bits,
            chunks: (0..chunks).map(|_| OnceCell::new()).collect(),
            most: space.bytes,
            charged: P::AtomicU64::new(0),
        }
    }

    /// Returns how many bits an INTID has, if there may be any LPIs.
    pub(crate) fn id_bits(&self) -> Option<u32> {
        (self.id_bits != 0).then_some(self.id_bits)
    }

    /// Returns an LPI that was mapped before.
    #[inline]
    pub(crate) fn get(&self, id: IntId) -> Option<&Interrupt<P>> {
        let index = id.index().wrapping_sub(IntId::FIRST_LPI as usize);
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    /// Returns an LPI that is to be mapped. Allocates, once for 128 of them.
    fn get_or_new(&self, id: IntId) -> Result<&Interrupt<P>, NotMapped> {
        let index = id.index().wrapping_sub(IntId::FIRST_LPI as usize);
        let cell = self.chunks.get(index / CHUNK).ok_or(NotMapped::NoSuch(id))?;
        let chunk = match cell.get() {
            Some(chunk) => chunk,
            None => {
                self.charge(size_of::<Chunk<P>>() as u64)?;
                let new = Box::new(core::array::from_fn(|_| Interrupt::unmapped_lpi()));
                match cell.set(new) {
                    Ok(chunk) => chunk,
                    Err(_) => {
                        self.refund(size_of::<Chunk<P>>() as u64);
                        // Somebody else has just set the cell, or is about to.
                        loop {
                            match cell.get() {
                                Some(chunk) => break chunk,
                                None => P::cpu_relax(),
                            }
                        }
                    }
                }
            }
        };
        chunk.get(index % CHUNK).ok_or(NotMapped::NoSuch(id))
    }

    /// Charges so many bytes before they are allocated.
    pub(crate) fn charge(&self, bytes: u64) -> Result<(), NotMapped> {
        let charged = self.charged.fetch_add(bytes, SeqCst);
        if charged.saturating_add(bytes) <= self.most {
            return Ok(());
        }
        self.refund(bytes);
        Err(NotMapped::NoRoom)
    }

    /// Takes back a charge.
    pub(crate) fn refund(&self, bytes: u64) {
        self.charged.fetch_sub(bytes, SeqCst);
    }

    /// Returns how many bytes were charged.
    fn charged(&self) -> u64 {
        self.charged.load(SeqCst)
    }

    /// Returns the first of the next 128 from an LPI on of which one was mapped once.
    pub(crate) fn first_of_chunk_from(&self, next: IntId) -> Option<IntId> {
        let (id, _) = self.from(next).next()?;
        IntId::lpi(id.number() - (id.number() - IntId::FIRST_LPI) % CHUNK as u32)
    }

    /// Returns the INTIDs from one on that were mapped once, with their words, in ascending order.
    pub(crate) fn from(&self, first: IntId) -> impl Iterator<Item = (IntId, &Interrupt<P>)> {
        let first = first.number().max(IntId::FIRST_LPI);
        let index = (first - IntId::FIRST_LPI) as usize;
        let chunks = self.chunks.iter().enumerate().skip(index / CHUNK);
        chunks
            .filter_map(|(number, cell)| Some((number, cell.get()?)))
            .flat_map(|(number, chunk)| {
                let numbers = IntId::FIRST_LPI + (number * CHUNK) as u32..;
                numbers.zip(chunk).filter_map(|(id, lpi)| Some((IntId::lpi(id)?, lpi)))
            })
            .skip_while(move |(id, _)| id.number() < first)
    }
}

impl<P: Platform> Gic<P> {
    /// Returns the controller with room for LPIs. By the host, before anybody else has it.
    ///
    /// 16 bytes are allocated here for each 128 that there may be, and 16 for each of 128 when the
    /// first of them is mapped.
    ///
    /// # Errors
    /// If there are more than 928 SPIs.
    pub fn with_lpis(mut self, space: LpiSpace) -> Result<Self, BuildError> {
        if self.spis() > SPIS_BESIDE_LPIS {
            return Err(BuildError::SpisBesideLpis(self.spis()));
        }
        self.lpis = Lpis::new(space);
        Ok(self)
    }

    /// Returns how many bytes were allocated for LPIs that were mapped.
    pub fn lpi_bytes(&self) -> u64 {
        self.lpis.charged()
    }

    /// Returns an LPI that was mapped before, be it mapped now or not.
    ///
    /// # Errors
    /// If it never was.
    pub fn lpi(&self, id: IntId) -> Result<Lpi<'_, P>, NoSuch> {
        let word = self.lpis.get(id).ok_or(NoSuch::Interrupt(id))?;
        Ok(Lpi { gic: self, word, id })
    }

    /// Returns 128 LPIs from one on, of which one was mapped once.
    pub(crate) fn lpis_of_chunk(&self, first: IntId) -> impl Iterator<Item = Lpi<'_, P>> {
        let lpis = self.lpis.from(first).take(CHUNK);
        lpis.map(|(id, word)| Lpi { gic: self, word, id })
    }

    /// Maps an LPI to an event, to be signalled to a vCPU, or to none for the time being. Returns
    /// what the event's translation is to name. By any task, with nothing held. Allocates the
    /// first time, and does not sleep otherwise.
    ///
    /// # Errors
    /// If an event has it, there is no such LPI, or no room for it. Nothing has changed then.
    pub fn map_lpi(
        &self,
        id: IntId,
        target: Option<VcpuId>,
        config: LpiConfig,
        host: &mut impl Kick,
    ) -> Result<LpiMapping, NotMapped> {
        let word = self.lpis.get_or_new(id)?;
        let config = self.implemented(config);
        let change = word.map_lpi(target, config).ok_or(NotMapped::InUse(id))?;
        Lpi { gic: self, word, id }.tells(change, host);
        Ok(LpiMapping { id, generation: change.now.generation() })
    }

    /// Makes an LPI pending, as a message does that was translated. By anybody; does not sleep, and
    /// takes no lock.
    #[inline]
    pub fn send(&self, mapping: LpiMapping, host: &mut impl Kick) -> Sent {
        let Some(word) = self.lpis.get(mapping.id) else { return Sent::Dropped };
        // A redistributor that has LPIs disabled has no pending ones, but for this message if that
        // comes at the same time: it is signalled when LPIs are enabled again.
        let target = self.redistributors.get(word.state().target_number() as usize);
        let Some(target) = target.filter(|target| target.forwards_lpis()) else {
            return Sent::Dropped;
        };
        let Some(change) = word.latch_lpi(mapping.generation) else { return Sent::Dropped };
        if change.pushes && change.now.is_held_by(target.id()) {
            self.push_lpi_to(target, word, mapping.id, host);
        } else if change.pushes {
            self.push_lpi(word, mapping.id, change.now, host);
        } else if change.comes_again() {
            self.recall_for_lpi(change.now, host);
        }
        if change.was.is_latched() { Sent::Coalesced } else { Sent::Delivered }
    }

    /// Returns a configuration of which the bits of the priority are zero that the CPUs do not
    /// have.
    pub(crate) fn implemented(&self, config: LpiConfig) -> LpiConfig {
        let mask = (0xff_u32 << (8 - self.vtr.priority_bits())) as u8;
        LpiConfig { priority: Priority(config.priority.0 & mask), ..config }
    }

    /// Pushes an LPI onto the chain of its holder's news, and tells the holder if there was none.
    /// By whoever has just made it held.
    #[cold]
    fn push_lpi(&self, lpi: &Interrupt<P>, id: IntId, state: State, host: &mut impl Kick) {
        if let Some(redistributor) = self.redistributors.get(state.holder_number() as usize) {
            self.push_lpi_to(redistributor, lpi, id, host);
        }
    }

    #[inline]
    fn push_lpi_to(
        &self,
        redistributor: &Redistributor<P>,
        lpi: &Interrupt<P>,
        id: IntId,
        host: &mut impl Kick,
    ) {
        let news = &redistributor.news;
        let mut next = None;
        let _ = news.layout().publish_in(LPI_WORD, |was| {
            next = Chain::from_word(was).first();
            lpi.set_next_lpi(next);
            Chain::put_first(was, id)
        });
        // Whoever has pushed the first does this, for all that come before the chain is taken.
        if next.is_none() {
            redistributor.pass(news.published(), host);
            // Whoever has moved the LPI meanwhile, or powered its vCPU off, may have looked before
            // it was in the chain.
            self.unlink_lpis_of_off(redistributor, host);
        }
    }

    /// Makes the holder of an LPI fold, which has come again since a list register has it: that may
    /// have been acknowledged, and the guest stay. The fold sees that it is pending.
    #[cold]
    fn recall_for_lpi(&self, state: State, host: &mut impl Kick) {
        if let Some(redistributor) = self.redistributors.get(state.holder_number() as usize) {
            let _ = self.recall(redistributor, host);
        }
    }

    /// Gives an LPI that its holder has taken out of all lists to whom it is to go to.
    pub(crate) fn hand_lpi_over(&self, id: IntId, host: &mut impl Kick) {
        let Some(lpi) = self.lpis.get(id) else { return };
        if let Some(change) = lpi.hand_lpi_over()
            && change.pushes
        {
            self.push_lpi(lpi, id, change.now, host);
        }
    }

    /// Lets go of LPIs of a vCPU that is powered off: those that are for another one go there, the
    /// others stay pending. By whoever has taken the chain.
    pub(crate) fn unlink_lpis(
        &self,
        redistributor: &Redistributor<P>,
        chain: Chain,
        host: &mut impl Kick,
    ) {
        let mut chain = chain;
        while let Some(id) = chain.pop(&self.view(redistributor.id())) {
            let Some(lpi) = self.lpis.get(id) else { continue };
            if !lpi.unlink_lpi() {
                self.hand_lpi_over(id, host);
            } else if !redistributor.is_off()
                && let Some(change) = lpi.link_lpi()
                && change.pushes
            {
                // Whoever has powered it on since may have seen the LPI held, and left it alone.
                self.push_lpi(lpi, id, change.now, host);
            }
        }
    }

    /// Lets go of what is in the news of a vCPU that is powered off: its owner may be nowhere. By
    /// its owner, by whoever has moved an LPI that it holds, and by whoever has pushed one.
    #[inline]
    pub(crate) fn unlink_lpis_of_off(
        &self,
        redistributor: &Redistributor<P>,
        host: &mut impl Kick,
    ) {
        if redistributor.is_off() {
            self.unlink_news(redistributor, host);
        }
    }

    #[cold]
    fn unlink_news(&self, redistributor: &Redistributor<P>, host: &mut impl Kick) {
        let mut chain = Chain::EMPTY;
        // What else the word says is for when the vCPU is on again, which may be by now.
        let _ = redistributor.news.layout().publish_in(LPI_WORD, |was| {
            chain = Chain::from_word(was);
            Chain::without(was)
        });
        self.unlink_lpis(redistributor, chain, host);
    }

    /// Links the LPIs that are pending for a vCPU, and that nobody has linked: it was powered on,
    /// or its tables were read. As many steps as there are LPIs.
    pub(crate) fn link_lpis_of(&self, vcpu: VcpuId, host: &mut impl Kick) {
        for (id, lpi) in self.lpis.from(IntId::LPI) {
            let state = lpi.state();
            if state.is_candidate()
                && state.is_held_by(vcpu)
                && !state.is_held()
                && let Some(change) = lpi.link_lpi()
                && change.pushes
            {
                self.push_lpi(lpi, id, change.now, host);
            }
        }
    }
}

/// An LPI as its ITS has it.
///
/// Each change takes effect at once in its word. A vCPU that has the LPI in a list register is
/// kicked, and may signal it until it has folded: GICR_CTLR.RWP says so.
#[derive(Clone, Copy)]
pub struct Lpi<'a, P: Platform> {
    gic: &'a Gic<P>,
    word: &'a Interrupt<P>,
    id: IntId,
}

impl<P: Platform> Lpi<'_, P> {
    /// Returns what it is at this moment; what its holder's CPU has in a list register is not seen.
    pub fn state(&self) -> State {
        self.word.state()
    }

    /// Unmaps it: it is not pending any more. Returns whether it was mapped. By any task; does not
    /// sleep.
    pub fn unmap(&self, host: &mut impl Kick) -> bool {
        self.does(self.word.unmap_lpi(), host)
    }

    /// Makes it pending, or takes that back (INT, CLEAR). Returns whether it is mapped. By any
    /// task; does not sleep.
    pub fn set_pending(&self, pending: bool, host: &mut impl Kick) -> bool {
        self.does(self.word.set_lpi_pending(pending), host)
    }

    /// Configures it. Returns whether it is mapped. By any task; does not sleep.
    pub fn configure(&self, config: LpiConfig, host: &mut impl Kick) -> bool {
        self.does(self.word.configure_lpi(self.gic.implemented(config)), host)
    }

    /// Moves it to another vCPU, or to none for the time being, with what is pending. Returns
    /// whether it is mapped. By any task; does not sleep.
    pub fn move_to(&self, target: Option<VcpuId>, host: &mut impl Kick) -> bool {
        self.does(self.word.move_lpi(|_| true, target), host)
    }

    /// Moves it to another vCPU if it is to go to `from`. Returns whether it was. By any task; does
    /// not sleep.
    pub fn move_from(
        &self,
        from: Option<VcpuId>,
        target: Option<VcpuId>,
        host: &mut impl Kick,
    ) -> bool {
        self.does(self.word.move_lpi(|of| of == from, target), host)
    }

    fn does(&self, change: Option<LpiChange>, host: &mut impl Kick) -> bool {
        change.map(|change| self.tells(change, host)).is_some()
    }

    /// Does what is to be done about a change.
    fn tells(&self, change: LpiChange, host: &mut impl Kick) {
        let LpiChange { was, now, pushes } = change;
        if pushes {
            return self.gic.push_lpi(self.word, self.id, now, host);
        }
        let holder = self.gic.redistributors.get(now.holder_number() as usize);
        let Some(redistributor) = holder.filter(|_| now.is_held()) else { return };
        // What is pending in a list register, and is not to be signalled there any more.
        let is_over = !now.is_taken() || !now.is_enabled() || now.is_rerouted();
        if change.comes_again() {
            self.gic.recall_for_lpi(now, host);
        }
        if was.is_taken() && is_over && self.gic.recall(redistributor, host) {
            redistributor.begins_write();
        }
        if now.is_rerouted() || now.is_changed() && !was.is_changed() {
            redistributor.tell(MOVED, host);
            self.gic.unlink_lpis_of_off(redistributor, host);
        }
    }
}

impl<P: Platform> fmt::Debug for Lpi<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lpi").field("id", &self.id).field("state", &self.state()).finish()
    }
}
