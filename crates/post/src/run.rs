//! Where a vCPU is: who answers for what is pending.
//!
//! ```text
//!   host       the owner: it looks before it enters
//!   guest      the sender: it notifies, or kicks
//!   kicked     the owner: it is on its way out
//!   preempted  the owner: it looks before it enters
//!   blocked    the sender: the one that takes the mode back wakes
//! ```
//!
//! A sender sets its bit, passes a full barrier, and reads the mode; the owner stores the mode,
//! passes a full barrier, and looks for bits. So exactly one of them answers. Mode, CPU and whether
//! posting is active are one word, because a sender that read them one after the other could see
//! what never was.

use core::sync::atomic::Ordering::{Release, SeqCst};

use doorbell_platform::{Atomic, CpuId, IrqGuard, Platform};

use crate::Notice;

/// Where a vCPU is, and so who answers for its pending bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The vCPU's task runs, outside of the guest. The owner answers: it looks before it enters.
    Host,
    /// In the guest, or about to enter it with interrupts off. The sender answers: it notifies or
    /// kicks.
    Guest(Guest),
    /// Kicked out of the guest. The owner answers; another kick would tell it nothing.
    Kicked,
    /// The vCPU's task waits for a CPU. The owner answers: it looks before it enters.
    Preempted,
    /// The vCPU's task sleeps until something is pending. The sender answers: one of them wakes it.
    Blocked,
}

/// How a vCPU is in the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guest {
    /// On which CPU.
    pub cpu: CpuId,
    /// Whether the CPU takes what is posted without leaving the guest. If not (posting is
    /// inhibited, or there is no such hardware), whoever posts has to kick.
    pub posted: bool,
}

const HOST: u64 = 0;
const GUEST: u64 = 1;
const GUEST_POSTED: u64 = 2;
const KICKED: u64 = 3;
const PREEMPTED: u64 = 4;
const BLOCKED: u64 = 5;
const KIND: u64 = 7;
pub(crate) const CPU_SHIFT: u32 = 32;

impl Mode {
    #[inline]
    fn bits(self) -> u64 {
        match self {
            Mode::Host => HOST,
            Mode::Guest(Guest { cpu, posted }) => {
                u64::from(cpu.0) << CPU_SHIFT | if posted { GUEST_POSTED } else { GUEST }
            }
            Mode::Kicked => KICKED,
            Mode::Preempted => PREEMPTED,
            Mode::Blocked => BLOCKED,
        }
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Mode {
        let cpu = CpuId((bits >> CPU_SHIFT) as u32);
        match bits & KIND {
            GUEST => Mode::Guest(Guest { cpu, posted: false }),
            GUEST_POSTED => Mode::Guest(Guest { cpu, posted: true }),
            KICKED => Mode::Kicked,
            PREEMPTED => Mode::Preempted,
            BLOCKED => Mode::Blocked,
            _ => Mode::Host,
        }
    }
}

/// What becomes of the mode of a vCPU that is kicked out of the guest. On which CPU it was stays
/// for whoever [recalls](RunState::recall) it, and may not wait for the sender's interrupt.
#[inline]
pub(crate) fn kicked(seen: u64) -> u64 {
    seen & !KIND | KICKED
}

/// Requests to a vCPU, as bits whose meaning is the host's. The vCPU has taken them, and must serve
/// them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "nobody else will serve them"]
pub struct Requests(pub u32);

/// The run state of a vCPU: its mode, and the requests to it.
///
/// The mode is one word, so that a sender sees at once whether the vCPU is in the guest, on which
/// CPU, and whether posting is active there. (Two words have to be read in the right order: X06 is
/// about the wrong one.)
pub struct RunState<P: Platform> {
    mode: P::AtomicU64,
    requests: P::AtomicU32,
}

doorbell_platform::opaque_debug!([P: Platform] RunState<P>);

impl<P: Platform> RunState<P> {
    /// Creates the state of a vCPU that is in the host.
    pub fn new() -> Self {
        RunState { mode: P::AtomicU64::new(HOST), requests: P::AtomicU32::new(0) }
    }

    /// Returns where the vCPU is at this moment.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn mode(&self) -> Mode {
        Mode::from_bits(self.mode.load(SeqCst))
    }

    #[inline]
    pub(crate) fn mode_word(&self) -> &P::AtomicU64 {
        &self.mode
    }

    /// Asks the vCPU for something before it enters the guest again.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn request<N>(&self, requests: Requests) -> Notice<N> {
        if self.requests.fetch_or(requests.0, SeqCst) & requests.0 == requests.0 {
            return Notice::Nothing;
        }
        self.kick()
    }

    /// Makes the vCPU look: out of the guest, or out of its sleep.
    ///
    /// # Context
    /// Any task or hard interrupt that has published something before; does not sleep.
    #[inline]
    pub fn kick<N>(&self) -> Notice<N> {
        self.kick_out_of(self.mode.load(SeqCst))
    }

    /// [`kick`](RunState::kick) out of the mode that was seen.
    #[inline(never)]
    fn kick_out_of<N>(&self, seen: u64) -> Notice<N> {
        let (to, notice) = match Mode::from_bits(seen) {
            Mode::Guest(Guest { cpu, .. }) => (kicked(seen), Notice::Kick(cpu)),
            Mode::Blocked => (HOST, Notice::Wake),
            Mode::Host | Mode::Kicked | Mode::Preempted => return Notice::Nothing,
        };
        // Whoever changes the mode has to act on it. If it has changed since it was read, which was
        // after the publication, somebody else did: another sender, who acts, or the owner, which
        // looks after each change.
        match self.mode.compare_exchange(seen, to, SeqCst, SeqCst) {
            Ok(_) => notice,
            Err(_) => Notice::Nothing,
        }
    }

    /// Wakes a vCPU that sleeps, and leaves any other alone. Returns whether the caller must wake
    /// its task.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    #[must_use = "the vCPU's task sleeps on until it is woken"]
    pub fn wake(&self) -> bool {
        self.mode() == Mode::Blocked
            && self.mode.compare_exchange(BLOCKED, HOST, SeqCst, SeqCst).is_ok()
    }

    /// After a sender's publication and announcement.
    #[inline]
    pub(crate) fn notice<N>(&self, notification: impl FnOnce(CpuId) -> N) -> Notice<N> {
        let seen = self.mode.load(SeqCst);
        // Before the others are told apart.
        if seen & KIND == GUEST_POSTED {
            return Notice::Notify(notification(CpuId((seen >> CPU_SHIFT) as u32)));
        }
        if seen & KIND == HOST {
            return Notice::Nothing;
        }
        self.kick_out_of(seen)
    }

    /// Takes the requests.
    ///
    /// # Context
    /// The owner; does not sleep.
    #[inline]
    pub fn take_requests(&self) -> Option<Requests> {
        // Only the owner takes them, so what was seen is still there, and perhaps more: the
        // exchange takes that, too.
        if self.requests.load(SeqCst) == 0 {
            return None;
        }
        Some(Requests(self.requests.swap(0, SeqCst)))
    }

    /// Says that the vCPU's task is switched away from; if it was about to sleep, it still is.
    ///
    /// # Context
    /// The scheduler's hooks of the owner, with preemption off; does not sleep.
    pub fn preempted(&self) {
        // A load and a store: no sender changes the mode of a vCPU that is in the host, the owner
        // stands still, and no other hook can come between.
        if self.mode() == Mode::Host {
            self.mode.store(PREEMPTED, Release);
        }
    }

    /// Says that the vCPU's task runs again.
    ///
    /// # Context
    /// The scheduler's hooks of the owner, with preemption off; does not sleep.
    pub fn resumed(&self) {
        // As in `preempted`: nobody else changes the mode of a vCPU that is preempted.
        if self.mode() == Mode::Preempted {
            self.mode.store(HOST, Release);
        }
    }

    /// Stored before anything that the owner loads next (both SeqCst): the full barrier of the
    /// owner's side. Senders change the mode of a vCPU that is in the guest or blocked only, so no
    /// change is overwritten.
    #[inline]
    pub(crate) fn enter(&self, _irqs_off: &IrqGuard<P>, guest: Guest) {
        self.mode.store(Mode::Guest(guest).bits(), SeqCst);
    }

    /// As [`enter`](RunState::enter).
    #[inline]
    pub(crate) fn block(&self) {
        self.mode.store(BLOCKED, SeqCst);
    }

    /// No barrier: a sender that does not see it yet notifies or kicks in vain, and the owner looks
    /// before it enters. What is overwritten is what the owner has entered, or what a sender has
    /// made of that and acts upon; hooks leave both alone.
    #[inline]
    pub(crate) fn host(&self) {
        self.mode.store(HOST, Release);
    }

    #[inline]
    pub(crate) fn requested(&self) -> bool {
        self.requests.load(SeqCst) != 0
    }
}

impl<P: Platform> Default for RunState<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use doorbell_platform::Std;

    use super::*;

    #[test]
    fn a_mode_is_what_its_bits_say() {
        let guest = |posted| Mode::Guest(Guest { cpu: CpuId(u32::MAX), posted });
        for mode in
            [Mode::Host, guest(false), guest(true), Mode::Kicked, Mode::Preempted, Mode::Blocked]
        {
            assert_eq!(Mode::from_bits(mode.bits()), mode);
        }
    }

    #[test]
    fn one_of_several_kicks_sends_an_interrupt_and_one_of_several_wakes_wakes() {
        let run = RunState::<Std>::new();
        assert_eq!(run.kick::<()>(), Notice::Nothing);
        run.enter(&IrqGuard::new(), Guest { cpu: CpuId(3), posted: true });
        assert_eq!((run.kick::<()>(), run.kick::<()>()), (Notice::Kick(CpuId(3)), Notice::Nothing));
        run.host();
        run.block();
        assert_eq!((run.kick::<()>(), run.kick::<()>()), (Notice::Wake, Notice::Nothing));
        assert_eq!(run.mode(), Mode::Host);
    }

    #[test]
    fn a_request_is_taken_once() {
        let run = RunState::<Std>::new();
        run.enter(&IrqGuard::new(), Guest { cpu: CpuId(0), posted: false });
        assert_eq!(run.request::<()>(Requests(6)), Notice::Kick(CpuId(0)));
        assert_eq!(run.request::<()>(Requests(4)), Notice::Nothing);
        assert_eq!(run.take_requests(), Some(Requests(6)));
        assert_eq!(run.take_requests(), None);
    }

    #[test]
    fn a_vcpu_that_is_switched_away_from_on_its_way_to_sleep_still_sleeps() {
        let run = RunState::<Std>::new();
        run.block();
        run.preempted();
        run.resumed();
        assert_eq!(run.mode(), Mode::Blocked);
        run.host();
        run.preempted();
        assert_eq!(run.mode(), Mode::Preempted);
        run.resumed();
        assert_eq!(run.mode(), Mode::Host);
    }
}
