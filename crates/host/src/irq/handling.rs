//! An interrupt is handled, disabled, enabled.
//!
//! ```text
//!   hard interrupt                    any task
//!   begin (flow)                      disable: depth 1, DISABLED
//!   calls the handlers, in a read     synchronize: waits until IN_PROGRESS is gone
//!     section of the actions          ...
//!   end: PENDING? calls again, or     enable: depth 0, takes DISABLED away
//!     says `resend`                     PENDING? says `resend`
//! ```
//!
//! One word decides who may call the handlers (`flow.rs`), and a list that is read under RCU says
//! which there are (`actions.rs`). What comes while the interrupt is disabled, or while another CPU
//! handles it, is pending, and whoever takes the reason away is responsible for it: so `handle` and
//! `enable` return what is left to do, and nothing is done under a lock.

use alloc::sync::Arc;
use core::fmt;
use core::mem;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::Platform;

use super::actions::{Freed, Handler, IrqReturn, LineTaken, NotRequested, Requested, Sharing};
use super::desc::{IrqDesc, WakeThread};
use super::flow::{Begin, End, Flow};

/// What is left to be done when an interrupt's handlers have been called, all of it with no lock
/// held.
#[must_use = "the thread, what has come meanwhile and a deferred move depend on this"]
pub struct Handling<P: Platform> {
    /// The thread is to be woken.
    pub wake: WakeThread<P>,
    /// The interrupt is disabled: to be [masked](IrqDesc::mask) in the device, so that it does not
    /// come again.
    pub mask: bool,
    /// The interrupt has come again, and has done so for some time: [`IrqDesc::handle`] is to be
    /// called once more when others have had their turn. (It is pending until then; if it comes
    /// first, that does it too.)
    #[doc(alias = "again")]
    pub resend: bool,
    /// The interrupt goes elsewhere from here on: [`IrqDesc::take_deferred`].
    pub moves: bool,
    /// More than 99,900 of the last 100,000 interrupts were nobody's, and the interrupt was
    /// disabled. Somebody who finds the driver at fault [enables](IrqDesc::enable) it again.
    #[doc(alias = "stuck")]
    pub spurious_disabled: bool,
}

doorbell_platform::opaque_debug!([P: Platform] Handling<P>; mask, resend, moves, spurious_disabled);

impl<P: Platform> Handling<P> {
    fn nothing() -> Self {
        Handling {
            wake: WakeThread::nobody(),
            mask: false,
            resend: false,
            moves: false,
            spurious_disabled: false,
        }
    }
}

/// What the handlers of a line have found, all together.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Found(u8);

impl Found {
    const HANDLED: Found = Found(1);
    const THREAD: Found = Found(2);
}

/// The interrupt is not disabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotDisabled;

impl fmt::Display for NotDisabled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the interrupt was enabled more often than it was disabled")
    }
}

impl core::error::Error for NotDisabled {}

/// What has become of an interrupt that was enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the device is still masked, and what came meanwhile is not handled"]
pub enum Enabled {
    /// Somebody else has disabled it too.
    Not,
    /// The interrupt is to be unmasked in the device.
    Unmask {
        /// The interrupt has come meanwhile: [`IrqDesc::handle`] is to be called, as if it had come
        /// now.
        resend: bool,
    },
}

impl<P: Platform> IrqDesc<P> {
    /// Adds a handler.
    ///
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// If there is one, and not both share the line.
    #[track_caller]
    pub fn request(
        &self,
        handler: Arc<dyn Handler>,
        sharing: Sharing,
    ) -> Result<Requested<P>, LineTaken> {
        self.actions.request(handler, sharing)
    }

    /// Removes a handler.
    ///
    /// An interrupt that is in some CPU's IRR by then, or comes later, finds the other handlers, or
    /// none. Its own driver has quieted the device before; who has not (VFIO) answers for what is
    /// lost.
    ///
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// If the handler is none of the line's.
    #[track_caller]
    pub fn free(&self, handler: &Arc<dyn Handler>) -> Result<Freed<'_, P>, NotRequested> {
        self.actions.free(handler, &self.threaded)
    }

    /// Handles an interrupt that has come: calls the handlers, unless another CPU does so already,
    /// which then calls them once more. For edges, which message-signalled interrupts are; the end
    /// of interrupt is the host's and may be before or after.
    ///
    /// # Context
    /// Hard interrupt; does not sleep.
    #[inline]
    #[track_caller]
    pub fn handle(&self) -> Handling<P> {
        if !self.flow.begin_if_idle() {
            return self.handle_unless_busy();
        }
        let found = self.call_handlers();
        if found == Found::HANDLED && self.flow.all_claimed() && self.flow.end_if_quiet() {
            return Handling::nothing();
        }
        self.finish(found)
    }

    #[inline]
    #[track_caller]
    fn call_handlers(&self) -> Found {
        // Goes when a handler panics, and only then.
        let in_progress = InProgress(&self.flow);
        let mut found = Found(0);
        for handler in &self.actions.list.read().handlers {
            found.0 |= match handler.handle() {
                IrqReturn::None => 0,
                IrqReturn::Handled => Found::HANDLED.0,
                IrqReturn::WakeThread => Found::THREAD.0,
            };
        }
        mem::forget(in_progress);
        found
    }

    #[cold]
    #[track_caller]
    fn handle_unless_busy(&self) -> Handling<P> {
        match self.flow.begin() {
            Begin::Run => self.finish(self.call_handlers()),
            Begin::Left => Handling::nothing(),
            Begin::Disabled => Handling { mask: true, ..Handling::nothing() },
        }
    }

    /// The handlers have been called once, and something is not as it usually is.
    #[cold]
    #[track_caller]
    fn finish(&self, mut found: Found) -> Handling<P> {
        let (mut rounds, mut thread, mut spurious_disabled) = (0, false, false);
        let (moves, resend) = loop {
            rounds += 1;
            thread |= found.0 & Found::THREAD.0 != 0;
            spurious_disabled |= self.flow.account(found != Found(0));
            match self.flow.end(rounds) {
                End::Again => found = self.call_handlers(),
                End::Done { moves, pending } => break (moves, pending),
            }
        };
        if spurious_disabled {
            self.disable();
        }
        let wake = if thread { self.wake_thread() } else { WakeThread::nobody() };
        Handling { wake, mask: spurious_disabled, resend, moves, spurious_disabled }
    }

    /// Disables the interrupt: the handlers are not called from here on, but may be running until
    /// [`synchronize`](IrqDesc::synchronize) returns. What comes is pending until the interrupt is
    /// enabled. Calls nest.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[track_caller]
    pub fn disable(&self) {
        let mut state = self.state.lock_irqsave();
        state.depth += 1;
        self.flow.disable();
    }

    /// Undoes one [`disable`](IrqDesc::disable).
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If the interrupt is not disabled.
    #[track_caller]
    pub fn enable(&self) -> Result<Enabled, NotDisabled> {
        let mut state = self.state.lock_irqsave();
        state.depth = state.depth.checked_sub(1).ok_or(NotDisabled)?;
        Ok(if state.depth > 0 {
            Enabled::Not
        } else {
            Enabled::Unmask { resend: self.flow.enable() }
        })
    }

    /// Returns whether the interrupt is disabled.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn is_disabled(&self) -> bool {
        self.flow.is_disabled()
    }

    /// Masks a disabled interrupt in the device, by `mask(true)`; undoes that if it was enabled
    /// meanwhile. Who has enabled it unmasks it too, but perhaps before it was masked.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[track_caller]
    pub fn mask(&self, mask: impl Fn(bool)) {
        mask(true);
        // Store buffering: here the mask is written and the word read, in `enable` the word is
        // written and then the mask.
        P::fence(SeqCst);
        if !self.flow.is_disabled() {
            mask(false);
        }
    }

    /// Waits until no handler of it is running: of those that began before this call, none is when
    /// it returns. Then until the interrupt's thread has handled what they, and those before, have
    /// left to it. It says nothing about interrupts that have arrived at a CPU and were not taken:
    /// no CPU can see another's IRR ([`vector`](crate::vector) is about that).
    ///
    /// # Context
    /// Any task, but neither a handler nor the interrupt's thread, and under no lock that one of
    /// them takes; may sleep.
    #[track_caller]
    pub fn synchronize(&self) {
        while self.flow.in_progress() {
            P::cpu_relax();
        }
        self.threaded.wait();
    }
}

/// The handlers are being called.
struct InProgress<'a, P: Platform>(&'a Flow<P>);

impl<P: Platform> Drop for InProgress<'_, P> {
    #[cold]
    fn drop(&mut self) {
        self.0.abandon();
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::sync::atomic::AtomicU32;

    use doorbell_platform::{CpuId, ReadDomain, Std};

    use super::*;
    use crate::CpuSet;

    struct Driver {
        claims: IrqReturn,
        calls: AtomicU32,
    }

    impl Handler for Driver {
        fn handle(&self) -> IrqReturn {
            self.calls.fetch_add(1, SeqCst);
            self.claims
        }
    }

    fn driver(claims: IrqReturn) -> Arc<Driver> {
        Arc::new(Driver { claims, calls: AtomicU32::new(0) })
    }

    fn desc() -> IrqDesc<Std> {
        let here = CpuSet::of([CpuId(0)]);
        IrqDesc::new(&Arc::new(ReadDomain::new("irq")), here.clone(), &here).unwrap()
    }

    #[test]
    fn a_line_is_shared_by_those_only_that_all_say_so() {
        let desc = desc();
        let [one, other] = [driver(IrqReturn::None), driver(IrqReturn::Handled)];
        desc.request(one.clone(), Sharing::Shared).unwrap().synchronize();
        assert_eq!(desc.request(other.clone(), Sharing::Exclusive).err(), Some(LineTaken));
        desc.request(other.clone(), Sharing::Shared).unwrap().synchronize();
        let handling = desc.handle();
        assert!(!handling.spurious_disabled && !handling.mask && !handling.resend);
        assert_eq!((one.calls.load(SeqCst), other.calls.load(SeqCst)), (1, 1));
        let one: Arc<dyn Handler> = one;
        let freed = desc.free(&one).unwrap();
        assert!(!freed.last());
        freed.synchronize();
        assert_eq!(desc.free(&one).err(), Some(NotRequested), "freed twice");
        let other: Arc<dyn Handler> = other;
        let freed = desc.free(&other).unwrap();
        assert!(freed.last());
        freed.synchronize();
        desc.request(one.clone(), Sharing::Exclusive).unwrap().reclaim_later();
        assert_eq!(desc.request(one, Sharing::Shared).err(), Some(LineTaken));
    }

    #[test]
    fn who_is_freed_is_called_no_more_and_the_others_are() {
        let desc = desc();
        let [one, other] = [driver(IrqReturn::Handled), driver(IrqReturn::Handled)];
        desc.request(one.clone(), Sharing::Shared).unwrap().synchronize();
        desc.request(other.clone(), Sharing::Shared).unwrap().synchronize();
        let handler: Arc<dyn Handler> = other.clone();
        desc.free(&handler).unwrap().synchronize();
        let _ = desc.handle();
        assert_eq!((one.calls.load(SeqCst), other.calls.load(SeqCst)), (1, 0));
    }

    #[test]
    fn a_disabled_interrupt_is_masked_and_comes_when_the_last_one_enables_it() {
        let desc = desc();
        let driver = driver(IrqReturn::Handled);
        desc.request(driver.clone(), Sharing::Exclusive).unwrap().synchronize();
        desc.disable();
        desc.disable();
        assert!(desc.handle().mask);
        assert_eq!(desc.enable(), Ok(Enabled::Not));
        assert_eq!(desc.enable(), Ok(Enabled::Unmask { resend: true }));
        assert_eq!(desc.enable(), Err(NotDisabled));
        assert_eq!(driver.calls.load(SeqCst), 0);
        assert!(!desc.handle().mask);
        assert_eq!(driver.calls.load(SeqCst), 1);
    }

    #[test]
    fn a_handler_that_claims_nothing_100000_times_is_called_no_more() {
        let desc = desc();
        let driver = driver(IrqReturn::None);
        desc.request(driver.clone(), Sharing::Exclusive).unwrap().synchronize();
        let stuck = (0..100_010)
            .map(|_| desc.handle())
            .filter(|handling| handling.spurious_disabled && handling.mask)
            .count();
        assert_eq!((stuck, driver.calls.load(SeqCst)), (1, 100_000));
        assert!(desc.is_disabled());
        assert_eq!(
            desc.enable(),
            Ok(Enabled::Unmask { resend: true }),
            "the device may well have raised one"
        );
    }

    #[test]
    fn a_handler_may_leave_its_work_to_the_thread() {
        let desc = desc();
        desc.request(driver(IrqReturn::WakeThread), Sharing::Exclusive).unwrap().synchronize();
        desc.attach_thread(Std::current_task()).unwrap().act();
        desc.handle().wake.act();
        assert!(desc.take_work().unwrap().run);
    }

    #[test]
    fn the_thread_is_woken_for_any_round_of_the_handlers() {
        struct Again(std::sync::OnceLock<Arc<IrqDesc<Std>>>, AtomicU32);
        impl Handler for Again {
            fn handle(&self) -> IrqReturn {
                if self.1.fetch_add(1, SeqCst) > 0 {
                    return IrqReturn::Handled;
                }
                // It comes at another CPU.
                let _ = self.0.get().unwrap().handle();
                IrqReturn::WakeThread
            }
        }
        let (desc, again) =
            (Arc::new(desc()), Arc::new(Again(std::sync::OnceLock::new(), AtomicU32::new(0))));
        assert!(again.0.set(desc.clone()).is_ok());
        desc.request(again.clone(), Sharing::Exclusive).unwrap().synchronize();
        desc.handle().wake.act();
        assert_eq!(again.1.load(SeqCst), 2);
        assert!(desc.take_work().is_some_and(|work| work.run));
    }

    #[test]
    fn a_handler_that_claims_one_of_500_is_called_on() {
        struct Some(AtomicU32);
        impl Handler for Some {
            fn handle(&self) -> IrqReturn {
                if self.0.fetch_add(1, SeqCst) % 500 == 499 {
                    IrqReturn::Handled
                } else {
                    IrqReturn::None
                }
            }
        }
        let desc = desc();
        desc.request(Arc::new(Some(AtomicU32::new(0))), Sharing::Exclusive).unwrap().synchronize();
        assert!(!(0..250_000).any(|_| desc.handle().spurious_disabled));
    }

    #[test]
    fn what_was_enabled_before_it_was_masked_does_not_stay_masked() {
        let desc = desc();
        let masked = AtomicU32::new(0);
        desc.disable();
        desc.mask(|mask| {
            masked.store(mask.into(), SeqCst);
            if mask {
                assert_eq!(desc.enable(), Ok(Enabled::Unmask { resend: false }));
            }
        });
        assert_eq!(masked.load(SeqCst), 0);
    }

    #[test]
    fn an_interrupt_whose_handler_panics_can_come_again_and_is_not_waited_for() {
        struct Wrong(AtomicU32);
        impl Handler for Wrong {
            fn handle(&self) -> IrqReturn {
                assert!(self.0.fetch_add(1, SeqCst) > 0, "a handler that is wrong");
                IrqReturn::Handled
            }
        }
        let (desc, wrong) = (desc(), Arc::new(Wrong(AtomicU32::new(0))));
        desc.request(wrong.clone(), Sharing::Exclusive).unwrap().synchronize();
        let handle = std::panic::AssertUnwindSafe(|| desc.handle().resend);
        assert!(std::panic::catch_unwind(handle).is_err());
        assert!(!desc.flow.in_progress(), "or this waits for ever");
        desc.synchronize();
        desc.disable();
        assert_eq!(desc.enable(), Ok(Enabled::Unmask { resend: true }), "it was not handled");
        assert!(!desc.handle().resend);
        assert_eq!(wrong.0.load(SeqCst), 2);
        let wrong: Arc<dyn Handler> = wrong;
        desc.free(&wrong).unwrap().synchronize();
    }

    /// A thread of the interrupt, which says when it handles and goes on when it is told to.
    fn thread(
        desc: Arc<IrqDesc<Std>>,
        told: std::sync::mpsc::Receiver<bool>,
        said: std::sync::mpsc::Sender<()>,
    ) {
        desc.attach_thread(Std::current_task()).unwrap().act();
        said.send(()).unwrap();
        while told.recv().unwrap() {
            while let Some(work) = desc.take_work() {
                assert!(work.run);
                said.send(()).unwrap();
                // It may have taken what was meant for the next thread.
                if !told.recv().unwrap() {
                    return desc.end_work();
                }
            }
        }
        desc.end_work();
    }

    #[test]
    fn who_frees_and_who_synchronizes_waits_for_the_thread() {
        for frees in [false, true] {
            let desc = Arc::new(desc());
            let driver = driver(IrqReturn::WakeThread);
            desc.request(driver.clone(), Sharing::Exclusive).unwrap().synchronize();
            let ((tell, told), (says, said)) =
                (std::sync::mpsc::channel(), std::sync::mpsc::channel());
            let irq_thread = std::thread::spawn({
                let desc = desc.clone();
                move || thread(desc, told, says)
            });
            said.recv().unwrap();
            desc.handle().wake.act();
            tell.send(true).unwrap();
            said.recv().unwrap();
            // It handles, and was asked once more.
            desc.handle().wake.act();
            let waited = Arc::new(AtomicU32::new(0));
            let waits = std::thread::spawn({
                let (desc, waited) = (desc.clone(), waited.clone());
                move || {
                    let driver: Arc<dyn Handler> = driver;
                    if frees {
                        desc.free(&driver).unwrap().synchronize()
                    } else {
                        desc.synchronize()
                    }
                    waited.store(1, SeqCst);
                }
            });
            (0..200).for_each(|_| std::thread::yield_now());
            assert_eq!(waited.load(SeqCst), 0);
            tell.send(true).unwrap();
            said.recv().unwrap();
            (0..200).for_each(|_| std::thread::yield_now());
            assert_eq!(waited.load(SeqCst), 0, "it handles what came before");
            tell.send(true).unwrap();
            waits.join().unwrap();
            assert!(desc.detach_thread().is_some());
            // What comes now is left to the next thread; nobody waits for that.
            let _ = desc.wake_thread();
            desc.synchronize();
            tell.send(false).unwrap();
            irq_thread.join().unwrap();
        }
    }

    /// A device whose interrupt comes again, at another CPU, each time that it is handled, so many
    /// times.
    struct Repeats {
        desc: std::sync::OnceLock<Arc<IrqDesc<Std>>>,
        more: AtomicU32,
        claims: IrqReturn,
        calls: AtomicU32,
    }

    impl Handler for Repeats {
        fn handle(&self) -> IrqReturn {
            self.calls.fetch_add(1, SeqCst);
            if self.more.fetch_update(SeqCst, SeqCst, |more| more.checked_sub(1)).is_ok() {
                assert!(!self.desc.get().unwrap().handle().resend);
            }
            self.claims
        }
    }

    fn repeats(claims: IrqReturn) -> (Arc<IrqDesc<Std>>, Arc<Repeats>) {
        let no = || AtomicU32::new(0);
        let repeats =
            Arc::new(Repeats { desc: std::sync::OnceLock::new(), more: no(), claims, calls: no() });
        let desc = Arc::new(desc());
        assert!(repeats.desc.set(desc.clone()).is_ok());
        desc.request(repeats.clone(), Sharing::Exclusive).unwrap().synchronize();
        (desc, repeats)
    }

    #[test]
    fn one_that_comes_all_the_time_is_to_be_handled_again_when_others_had_their_turn() {
        let (desc, device) = repeats(IrqReturn::Handled);
        device.more.store(20, SeqCst);
        assert!(desc.handle().resend);
        assert_eq!(device.calls.load(SeqCst), 16);
        assert!(!desc.handle().resend);
        assert_eq!(device.calls.load(SeqCst), 16 + 5);
    }

    #[test]
    fn each_round_of_the_handlers_counts_among_those_that_are_nobodys() {
        let (desc, device) = repeats(IrqReturn::None);
        let stuck = (1..=60_000).find(|_| {
            device.more.store(1, SeqCst);
            desc.handle().spurious_disabled
        });
        assert_eq!((stuck, device.calls.load(SeqCst)), (Some(50_000), 100_000));
    }
}
