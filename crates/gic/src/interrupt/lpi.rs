//! The word of an LPI.
//!
//! ```text
//!   a sender                            the holder
//!   one exchange: the latch, if the     takes the whole chain of its news
//!     LPI is still of this event        lists, puts into a list register, folds
//!   held was clear: sets it as well,    lets go: one exchange, which sees whether
//!     and pushes onto the holder's        the LPI is pending again, or another's
//!     chain                                 ▶ keeps it, hands it over, or clears held
//! ```
//!
//! "Held" says of an LPI that its holder has it linked: in the chain of its news, in its lists, or
//! in a list register. An LPI has one link, so whoever finds it held leaves it where it is, and the
//! holder sees what has become of it when its turn comes. That is also why nothing is freed, and
//! why an INTID that is mapped to another event, while it is linked somewhere, is none of an ABA:
//! it is the same object, and goes to its new vCPU when the former one lets go.
//!
//! No source gives a level here. Where the word of another interrupt says so, that of an LPI has
//! the vCPU that the LPI is to go to, and the generation of its mapping.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use doorbell_platform::{Atomic, Platform};

use super::{
    ACTIVE, CHANGED, EDGE, ENABLED, GROUP_ONE, HELD, HOLDER, HOLDER_SHIFT, LATCH, PRIORITY,
    PRIORITY_SHIFT, REROUTED, State, TAKEN,
};
use crate::{IntId, Interrupt, LpiConfig, VcpuId};

/// The vCPU that the LPI is to go to, as its holder is named.
const TARGET: u64 = HOLDER >> HOLDER_SHIFT;
/// How often it was mapped and unmapped: odd while it is mapped.
const GENERATION_SHIFT: u32 = 13;
const GENERATION: u64 = 0x7ffff << GENERATION_SHIFT;
const MAPPED: u64 = 1 << GENERATION_SHIFT;

/// The mapping of an LPI that is meant: a message that was translated by a former one is another
/// event's.
///
/// There are 2^18 before one comes again. A guest that maps an LPI so often, while one message
/// waits between its translation and its delivery, gets an LPI that nobody has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Generation(u32);

/// What an exchange of the word of an LPI has done.
#[derive(Clone, Copy, Debug)]
#[must_use = "what is to be pushed is linked nowhere"]
pub(crate) struct LpiChange {
    pub(crate) was: State,
    pub(crate) now: State,
    /// The LPI is held from here on, and whoever has changed it pushes it onto its holder's chain.
    pub(crate) pushes: bool,
}

impl LpiChange {
    /// Returns whether the LPI has become pending since a list register has it, or had it when the
    /// guest was entered.
    #[inline]
    pub(crate) const fn comes_again(self) -> bool {
        self.was.0 & (TAKEN | LATCH) == TAKEN && self.now.0 & (TAKEN | LATCH) == TAKEN | LATCH
    }
}

/// What became of an LPI that its holder had in a list, or in a list register.
#[derive(Clone, Copy, Debug)]
#[must_use = "what stays or leaves is still held"]
pub(crate) enum PutDown {
    /// The holder has let go of it.
    Gone,
    /// The LPI is pending, and stays with its holder, which lists it.
    Stays(State),
    /// The LPI is to go to another vCPU, or nowhere: its holder hands it over.
    Leaves,
}

impl State {
    /// Returns the generation of an LPI's mapping.
    pub(crate) const fn generation(self) -> Generation {
        Generation(((self.0 & GENERATION) >> GENERATION_SHIFT) as u32)
    }

    /// Returns the number of the vCPU that an LPI is to go to, or one that no vCPU has.
    #[inline]
    pub(crate) const fn target_number(self) -> u32 {
        (self.0 & TARGET) as u32
    }

    /// Returns the vCPU that an LPI is to go to, if there is one.
    pub(crate) const fn target(self) -> Option<VcpuId> {
        VcpuId::new(self.target_number())
    }

    /// Returns which of the lists of LPIs one belongs to: six bits of a priority are configured.
    #[inline]
    pub(crate) const fn lpi_list(self) -> u32 {
        (self.0 >> (PRIORITY_SHIFT + 2) & 0x3f) as u32
    }
}

/// Returns the word of an LPI that is to go to another vCPU, or to none.
const fn routed(word: u64, target: Option<VcpuId>) -> u64 {
    let target = match target {
        Some(vcpu) => vcpu.number() as u64,
        None => TARGET,
    };
    let word = word & !(TARGET | REROUTED) | target;
    if word & HELD == 0 {
        word & !HOLDER | target << HOLDER_SHIFT
    } else if word & HOLDER != target << HOLDER_SHIFT {
        word | REROUTED
    } else {
        word
    }
}

/// Returns the word of an LPI whose holder lets go of it: whom it is to go to has it.
const fn released(word: u64) -> u64 {
    let word = word & !(HELD | REROUTED | CHANGED | HOLDER);
    word | (word & TARGET) << HOLDER_SHIFT
}

/// Returns the word of an LPI that is configured otherwise.
const fn configured(word: u64, config: LpiConfig) -> u64 {
    let to = word & !(ENABLED | PRIORITY)
        | if config.enabled { ENABLED } else { 0 }
        | (config.priority.0 as u64) << PRIORITY_SHIFT;
    // In its holder's lists, it may be in the wrong one. What nobody has is listed as it is then.
    if word & HELD != 0 && (to ^ word) & PRIORITY != 0 { to | CHANGED } else { to }
}

impl<P: Platform> Interrupt<P> {
    /// Returns an LPI that is mapped to nothing.
    pub(crate) fn unmapped_lpi() -> Self {
        Interrupt {
            word: P::AtomicU64::new(GROUP_ONE | EDGE | HOLDER | TARGET),
            route: P::AtomicU64::new(0),
        }
    }

    /// Returns the LPI that comes after this one where it is linked. By whoever has it linked.
    #[inline]
    pub(crate) fn next_lpi(&self) -> Option<IntId> {
        // Ordered by the exchange of the chain that the LPI was taken with, or by nobody else's.
        IntId::lpi(self.route.load(Relaxed) as u32)
    }

    /// Says which LPI comes after this one. By whoever has it linked.
    #[inline]
    pub(crate) fn set_next_lpi(&self, next: Option<IntId>) {
        // The exchange that pushes it comes after, and says so to whoever takes the chain.
        self.route.store(next.map_or(0, |next| u64::from(next.number())), Relaxed);
    }

    /// Makes an LPI pending, if its mapping is still the one of that generation. By anybody, who
    /// pushes it then if that is to be done.
    ///
    /// The word is written even if that changes nothing: whoever takes the latch after it sees what
    /// the device has written before its message.
    #[inline]
    pub(crate) fn latch_lpi(&self, generation: Generation) -> Option<LpiChange> {
        self.change_lpi(|word| (State(word).generation() == generation).then_some(word | LATCH))
    }

    /// Makes an LPI that is mapped pending, or takes that back, also from a list register. By
    /// anybody, who pushes it, or recalls the holder.
    pub(crate) fn set_lpi_pending(&self, pending: bool) -> Option<LpiChange> {
        self.change_lpi(|word| {
            let to = if pending { word | LATCH } else { word & !(LATCH | TAKEN) };
            (word & MAPPED != 0).then_some(to)
        })
    }

    /// Maps an LPI, unless it is mapped. By anybody, who tells a holder that has it of another
    /// target.
    pub(crate) fn map_lpi(&self, target: Option<VcpuId>, config: LpiConfig) -> Option<LpiChange> {
        self.change_lpi(|word| {
            let mapped = configured(routed(word, target), config) | MAPPED;
            (word & MAPPED == 0).then_some(mapped)
        })
    }

    /// Unmaps an LPI: it is not pending any more, and no message of its event makes it so. By
    /// anybody, who recalls a holder that has it in a list register.
    pub(crate) fn unmap_lpi(&self) -> Option<LpiChange> {
        self.change_lpi(|word| {
            let next = (word & GENERATION).wrapping_add(MAPPED) & GENERATION;
            let gone = word & !(LATCH | TAKEN | ENABLED | GENERATION) | next;
            (word & MAPPED != 0).then_some(routed(gone, None))
        })
    }

    /// Moves an LPI that is mapped to another vCPU, or to none, if `of` says so of the one that it
    /// goes to now. By anybody, who tells a holder that has it.
    pub(crate) fn move_lpi(
        &self,
        of: impl Fn(Option<VcpuId>) -> bool,
        to: Option<VcpuId>,
    ) -> Option<LpiChange> {
        self.change_lpi(|word| {
            let moves = word & MAPPED != 0 && of(State(word).target());
            moves.then_some(routed(word, to))
        })
    }

    /// Configures an LPI that is mapped. By anybody, who pushes it or tells a holder that has it.
    pub(crate) fn configure_lpi(&self, config: LpiConfig) -> Option<LpiChange> {
        self.change_lpi(|word| (word & MAPPED != 0).then_some(configured(word, config)))
    }

    /// Gives an LPI that is held to whom it is to go to: it is that one's, who has to hear of it if
    /// it can be signalled. By the holder, which has it linked no more.
    pub(crate) fn hand_lpi_over(&self) -> Option<LpiChange> {
        self.change_lpi(|word| Some(released(word)))
    }

    /// Lets go of an LPI that is held, and leaves it pending: whoever powers its vCPU on links it.
    /// Does nothing if it is to go elsewhere, and returns whether it has let go. By whoever has it
    /// linked no more.
    pub(crate) fn unlink_lpi(&self) -> bool {
        let was = self.change(|word| if word & REROUTED == 0 { released(word) } else { word });
        !was.is_rerouted()
    }

    /// Has an LPI linked that can be signalled, and that nobody has linked. By anybody, who pushes
    /// it then.
    pub(crate) fn link_lpi(&self) -> Option<LpiChange> {
        self.change_lpi(Some)
    }

    /// Takes an LPI out of a list or a list register, which was pending there and not acknowledged,
    /// if `back` says so: then that comes back, unless somebody has taken it back meanwhile. By the
    /// holder.
    #[inline]
    pub(crate) fn put_lpi_down(&self, back: bool) -> PutDown {
        let to = |word: u64| {
            let latch = if back && word & TAKEN != 0 { LATCH } else { 0 };
            // In no list now, so in none that is wrong.
            let word = word & !(TAKEN | CHANGED) | latch;
            let keeps = word & REROUTED != 0 || word & (LATCH | ENABLED) == LATCH | ENABLED;
            if keeps { word } else { word & !HELD }
        };
        let now = State(to(self.change(to).0));
        if now.is_rerouted() {
            PutDown::Leaves
        } else if now.is_held() {
            PutDown::Stays(now)
        } else {
            PutDown::Gone
        }
    }

    /// Writes what `to` makes of the word of an LPI, unless `to` refuses. If the LPI can be
    /// signalled then, and nobody has it linked, it is held from here on.
    #[inline]
    fn change_lpi(&self, to: impl Fn(u64) -> Option<u64>) -> Option<LpiChange> {
        let mut seen = self.word.load(SeqCst);
        loop {
            let to = to(seen)?;
            let pushes = to & (LATCH | ENABLED | HELD) == LATCH | ENABLED && to & HOLDER != HOLDER;
            let new = if pushes { to | HELD } else { to };
            match self.word.compare_exchange(seen, new, SeqCst, SeqCst) {
                Ok(_) => return Some(LpiChange { was: State(seen), now: State(new), pushes }),
                Err(now) => seen = now,
            }
        }
    }
}

const _: () = assert!(ACTIVE & (TARGET | GENERATION) == 0 && TARGET & GENERATION == 0);
