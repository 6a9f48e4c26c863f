//! INTx of an assigned device, as VFIO hands it to user space: a level that its handler masks, and
//! user space unmasks.
//!
//! "Masked" is a word here and a bit in the device, and nobody changes both in one step:
//!
//! ```text
//!   handler (fire)                    user space (unmask)
//!   masks the word                    unmasks the word
//!   has the device follow             has the device follow
//!   looks at the word again           looks at the word again
//! ```
//!
//! Whoever writes the device last has seen that the two agree, so a handler may interrupt an unmask
//! halfway. An interrupt that finds no trigger to tell is kept in the word until there is one.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform, RcuCell, ReadDomain, ReadGuard, Retired};

use crate::handover::{self, Handover};
use crate::msi::Signal;

/// Whether a device asserts its interrupt, masked or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "Pending")]
pub enum IntxPending {
    /// The device does not assert its interrupt.
    No,
    /// The device asserts its interrupt.
    Yes,
    /// The device cannot say. Its line is not shared then.
    Unknown,
}

/// What a device says about its interrupt, read at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Interrupt Status, which does not depend on the mask (PCI Local Bus 3.0, section 6.2.3, bit
    /// 3).
    pub pending: IntxPending,
    /// Interrupt Disable (section 6.2.2, bit 10), or the interrupt controller's mask of a line that
    /// is not shared.
    pub masked: bool,
}

/// The device's end of the line. Called from its handler, among others.
#[doc(alias = "Line")]
pub trait IntxLine: Send + Sync + 'static {
    /// Reads what the device says, at once.
    fn status(&self) -> Status;

    /// Masks or unmasks: when this returns, the device has it.
    fn set_masked(&self, masked: bool);
}

/// What a line is, to be saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IntxState {
    /// The line is in use.
    pub is_enabled: bool,
    /// The handler has masked the line, or user space has, which has not unmasked it since.
    pub is_masked: bool,
    /// There was an interrupt, and no trigger to tell.
    pub is_pending: bool,
}

/// The handler has masked the line, or user space wants it so, until user space unmasks it.
const MASKED: u32 = 1;
/// The line is out of use.
const DISABLED: u32 = 2;
/// There was an interrupt, and no trigger to tell.
const KEPT: u32 = 4;

/// The interrupt of a device, and the trigger that tells user space of it.
///
/// [`fire`](Intx::fire) is the handler. It masks the line at the device and has the trigger
/// signalled; user space serves the device and [unmasks](Intx::unmask), and if the device asserts
/// its interrupt still, is told at once instead. All calls may be concurrent; none takes a lock or
/// waits.
///
/// *Masked* is a word here and a bit in the device. Whoever changes the word has the device follow
/// it, and looks at the word again: the last one to write the device has seen that the two agree.
/// So a handler may interrupt an unmask halfway, on the same CPU or another.
///
/// **To take it down**, in this order (known race F07: an eventfd that was put while a handler and
/// an unmask could signal it): [`shut`](Intx::shut) it, which disables the line and takes the
/// trigger out; wait for the grace period that the former trigger asks for, after which no handler
/// and no work is signalling it; then free the interrupt in the host, and after that drop this. The
/// handler lives as long as this: called late, it finds nothing to do.
pub struct Intx<P: Platform, L, T: Signal> {
    word: P::AtomicU32,
    line: L,
    trigger: RcuCell<P, P::Rcu, Option<T>>,
}

doorbell_platform::opaque_debug!([P: Platform, L, T: Signal] Intx<P, L, T>);

/// What the handler says.
#[must_use = "user space learns of the interrupt by this"]
pub enum Fired<'a, P: Platform, L, T: Signal> {
    /// The interrupt is another device's, or none: leave it to who shares the line.
    NotOurs,
    /// The interrupt was this device's, whose line is masked now. There is nobody to tell if
    /// whoever has masked the line has told.
    Ours(Option<Tell<'a, P, L, T>>),
}

impl<P: Platform, L, T: Signal> fmt::Debug for Fired<'_, P, L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fired::NotOurs => f.write_str("NotOurs"),
            Fired::Ours(tell) => f.debug_tuple("Ours").field(tell).finish(),
        }
    }
}

impl<P: Platform, L: IntxLine, T: Signal> Intx<P, L, T> {
    /// Creates a line that is out of use, and masked at the device. Triggers are signalled in read
    /// sections of `domain`.
    pub fn new(line: L, domain: &Arc<P::Rcu>) -> Self {
        let intx = Intx {
            word: P::AtomicU32::new(DISABLED).named("INTx"),
            line,
            trigger: RcuCell::new(domain, Box::new(None)).named("trigger"),
        };
        intx.follow();
        intx
    }

    /// The device's end of the line.
    pub fn line(&self) -> &L {
        &self.line
    }

    /// Handles an interrupt of the line.
    ///
    /// # Context
    /// Hard interrupt; does not sleep.
    pub fn fire(&self) -> Fired<'_, P, L, T> {
        let Status { pending, masked } = self.line.status();
        // Masked, it does not assert the line, whatever it says.
        if pending == IntxPending::No || masked {
            return Fired::NotOurs;
        }
        let before = self.word.fetch_or(MASKED, SeqCst);
        self.follow();
        // Who has set the bit has told, or has asked for silence; an unmask finds what the device
        // says then.
        Fired::Ours((before & (MASKED | DISABLED) == 0).then_some(Tell(self)))
    }

    /// Unmasks the line, because user space has served the device; or, if the device asserts its
    /// interrupt still, tells again.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep. An unmask eventfd calls this.
    pub fn unmask(&self) -> Option<Tell<'_, P, L, T>> {
        if self.word.load(SeqCst) & (MASKED | DISABLED) != MASKED {
            return None;
        }
        if self.line.status().pending == IntxPending::Yes {
            return Some(Tell(self));
        }
        self.clear(MASKED);
        None
    }

    /// Masks the line until user space unmasks it, because user space wants silence. What fires at
    /// this moment may be told still.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn mask(&self) {
        self.set(MASKED);
    }

    /// Puts the line into use, not masked: what the device asserts by now fires.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn enable(&self) {
        self.clear(DISABLED | MASKED | KEPT);
    }

    /// Exchanges the trigger. An interrupt that finds none is pending for the next one, one that
    /// the former was told of is its reader's, who is to unmask.
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    pub fn set_trigger(&self, trigger: Option<T>) -> Exchanged<'_, P, L, T> {
        let some = trigger.is_some();
        let former = self.trigger.replace(Box::new(trigger));
        let tell = some && self.take_pending();
        Exchanged { tell: tell.then_some(Tell(self)), former }
    }

    /// Takes the line out of use, and its trigger away.
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    pub fn shut(&self) -> Exchanged<'_, P, L, T> {
        self.set(DISABLED);
        self.set_trigger(None)
    }

    /// Returns what the line is, and takes nothing of it. A host that saves a device stops the
    /// guest and the device before, so that nobody fires or unmasks.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn save(&self) -> IntxState {
        let word = self.word.load(SeqCst);
        let [masked, disabled, pending] = [MASKED, DISABLED, KEPT].map(|bit| word & bit != 0);
        IntxState { is_enabled: !disabled, is_masked: masked, is_pending: pending }
    }

    /// Makes a line what another was, and has the device follow. By the host, in this order: before
    /// it requests the interrupt, so that nothing fires, and before it [sets a
    /// trigger](Intx::set_trigger), which is told of what is pending.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn restore(&self, state: IntxState) {
        let IntxState { is_enabled, is_masked, is_pending } = state;
        let bits = [(!is_enabled, DISABLED), (is_masked, MASKED), (is_pending, KEPT)];
        let word = bits.into_iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum();
        self.word.store(word, SeqCst);
        self.follow();
    }

    fn set(&self, bits: u32) {
        self.word.fetch_or(bits, SeqCst);
        self.follow();
    }

    fn clear(&self, bits: u32) {
        self.word.fetch_and(!bits, SeqCst);
        self.follow();
    }

    /// Makes the device's mask what the word says. It goes round again only if somebody has changed
    /// the word meanwhile, who does the same: of all, the last one to write the device looks at the
    /// word after that.
    fn follow(&self) {
        loop {
            let masked = self.is_masked();
            self.line.set_masked(masked);
            if self.is_masked() == masked {
                return;
            }
        }
    }

    fn is_masked(&self) -> bool {
        self.word.load(SeqCst) & (MASKED | DISABLED) != 0
    }

    fn take_pending(&self) -> bool {
        self.word.fetch_and(!KEPT, SeqCst) & KEPT != 0
    }
}

/// The trigger is to be signalled.
#[must_use = "the line is masked, and user space does not know"]
pub struct Tell<'a, P: Platform, L, T: Signal>(&'a Intx<P, L, T>);

doorbell_platform::opaque_debug!(['a, P: Platform, L, T: Signal] Tell<'a, P, L, T>);

impl<P: Platform, L: IntxLine, T: Signal> Tell<'_, P, L, T> {
    /// Signals the trigger that is there now, in a read section of its own: work that does this
    /// later needs no flush. If there is none, [`set_trigger`](Intx::set_trigger) answers for the
    /// interrupt.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn act(self) {
        let section = self.0.trigger.domain().read();
        if let Some((trigger, count)) =
            handover::raise(&Triggered { intx: self.0, section: &section })
        {
            trigger.signal(count);
        }
    }
}

/// A look at the trigger, in a read section.
struct Triggered<'a, P: Platform, L, T: Signal> {
    intx: &'a Intx<P, L, T>,
    section: &'a ReadGuard<'a, P::Rcu>,
}

impl<'a, P: Platform, L: IntxLine, T: Signal> Handover for Triggered<'a, P, L, T> {
    type To = &'a T;

    fn open(&self) -> Option<&'a T> {
        self.intx.trigger.get(self.section).as_ref()
    }

    fn pend(&self) {
        self.intx.word.fetch_or(KEPT, SeqCst);
    }

    fn take(&self) -> u64 {
        u64::from(self.intx.take_pending())
    }
}

/// The trigger has been exchanged.
#[must_use = "the new trigger has an interrupt to be told of, and the former one is to be waited for"]
pub struct Exchanged<'a, P: Platform, L, T: Signal> {
    tell: Option<Tell<'a, P, L, T>>,
    former: Retired<P::Rcu, Option<T>>,
}

doorbell_platform::opaque_debug!(['a, P: Platform, L, T: Signal] Exchanged<'a, P, L, T>);

impl<P: Platform, L: IntxLine, T: Signal> Exchanged<'_, P, L, T> {
    /// Tells the new trigger of an interrupt that was pending. What is returned has the former
    /// trigger, after a grace period: until then a handler, or work that it has queued, may signal
    /// it.
    pub fn act(self) -> Retired<P::Rcu, Option<T>> {
        if let Some(tell) = self.tell {
            tell.act();
        }
        self.former
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use doorbell_platform::Std;

    use super::*;

    #[derive(Default)]
    struct Device {
        pending: AtomicBool,
        masked: AtomicBool,
        mute: bool,
    }

    impl IntxLine for Device {
        fn status(&self) -> Status {
            let pending = match self.pending.load(SeqCst) {
                _ if self.mute => IntxPending::Unknown,
                true => IntxPending::Yes,
                false => IntxPending::No,
            };
            Status { pending, masked: self.masked.load(SeqCst) }
        }

        fn set_masked(&self, masked: bool) {
            self.masked.store(masked, SeqCst);
        }
    }

    type Event = Arc<AtomicU64>;
    struct Trigger(Event);

    impl Signal for Trigger {
        fn signal(&self, count: u64) {
            self.0.fetch_add(count, SeqCst);
        }
    }

    type TestIntx = Intx<Std, Device, Trigger>;

    fn intx(device: Device) -> (TestIntx, Event) {
        let intx = Intx::new(device, &Arc::new(<Std as Platform>::Rcu::new("triggers")));
        assert!(intx.line().masked.load(SeqCst), "it is out of use");
        let event = Event::default();
        assert!(intx.set_trigger(Some(Trigger(Arc::clone(&event)))).act().synchronize().is_none());
        intx.enable();
        (intx, event)
    }

    fn fires(intx: &TestIntx) -> bool {
        match intx.fire() {
            Fired::NotOurs => false,
            Fired::Ours(tell) => {
                tell.unwrap().act();
                true
            }
        }
    }

    fn unmasks(intx: &TestIntx) -> bool {
        intx.unmask().map(Tell::act).is_some()
    }

    #[test]
    fn what_fires_is_masked_until_user_space_has_served_it() {
        let (intx, event) = intx(Device::default());
        assert!(!unmasks(&intx), "it is not masked");
        intx.line().pending.store(true, SeqCst);
        assert!(fires(&intx));
        assert!(intx.line().masked.load(SeqCst));
        assert_eq!(event.load(SeqCst), 1);
        assert!(unmasks(&intx), "the device asserts it still");
        assert_eq!((event.load(SeqCst), intx.line().masked.load(SeqCst)), (2, true));
        intx.line().pending.store(false, SeqCst);
        assert!(!unmasks(&intx));
        assert!(!intx.line().masked.load(SeqCst));
    }

    #[test]
    fn an_interrupt_of_another_device_on_the_line_is_not_ours_6_2_3() {
        let (intx, event) = intx(Device::default());
        assert!(!fires(&intx));
        intx.line().pending.store(true, SeqCst);
        intx.mask();
        assert!(!fires(&intx), "pending, but masked: it does not assert the line");
        assert_eq!(event.load(SeqCst), 0);
    }

    #[test]
    fn a_handler_that_comes_before_the_device_has_followed_masks_it_and_tells_nobody() {
        let (intx, event) = intx(Device::default());
        intx.mask();
        intx.line().pending.store(true, SeqCst);
        // Whoever has set the word is about to write this.
        intx.line().masked.store(false, SeqCst);
        assert!(matches!(intx.fire(), Fired::Ours(None)));
        assert_eq!((event.load(SeqCst), intx.line().masked.load(SeqCst)), (0, true));
    }

    #[test]
    fn a_device_that_cannot_say_has_a_line_of_its_own_and_is_unmasked_without_a_look() {
        let (intx, event) = intx(Device { mute: true, ..Device::default() });
        assert!(fires(&intx));
        assert!(!unmasks(&intx));
        assert!(!intx.line().masked.load(SeqCst));
        assert_eq!(event.load(SeqCst), 1);
    }

    #[test]
    fn an_interrupt_without_a_trigger_is_kept_for_the_next_one() {
        let (intx, event) = intx(Device::default());
        let former = intx.set_trigger(None).act().synchronize().expect("there was one");
        intx.line().pending.store(true, SeqCst);
        assert!(fires(&intx));
        assert_eq!(event.load(SeqCst), 0);
        assert!(intx.set_trigger(Some(former)).act().synchronize().is_none());
        assert_eq!(event.load(SeqCst), 1);
    }

    #[test]
    fn a_line_that_is_saved_and_restored_tells_its_next_trigger_of_what_was_kept_and_stays_masked()
    {
        let (saved, _) = intx(Device::default());
        let former = saved.set_trigger(None).act().synchronize();
        saved.line().pending.store(true, SeqCst);
        assert!(fires(&saved));
        let state = saved.save();
        let all = IntxState { is_enabled: true, is_masked: true, is_pending: true };
        assert_eq!((state, saved.save()), (all, all), "reading takes nothing");
        drop(former);
        let intx: TestIntx =
            Intx::new(Device::default(), &Arc::new(<Std as Platform>::Rcu::new("triggers")));
        assert!(!intx.save().is_enabled);
        intx.restore(state);
        assert!(intx.line().masked.load(SeqCst));
        let event = Event::default();
        assert!(intx.set_trigger(Some(Trigger(Arc::clone(&event)))).act().synchronize().is_none());
        assert_eq!(event.load(SeqCst), 1);
        assert_eq!(intx.save(), IntxState { is_pending: false, ..all });
        assert!(!unmasks(&intx) && !intx.line().masked.load(SeqCst));
    }

    #[test]
    fn a_line_that_is_shut_is_masked_and_told_of_by_nobody_until_it_is_enabled() {
        let (intx, event) = intx(Device::default());
        let former = intx.shut().act().synchronize();
        intx.line().pending.store(true, SeqCst);
        intx.mask();
        assert!(!fires(&intx) && !unmasks(&intx));
        assert!(intx.set_trigger(*former).act().synchronize().is_none());
        assert_eq!(event.load(SeqCst), 0);
        intx.enable();
        assert!(fires(&intx), "it asserts it still");
        assert_eq!(event.load(SeqCst), 1);
    }
}
