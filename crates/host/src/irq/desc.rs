//! IRQ descriptors: where an interrupt of the host goes, and who handles it.
//!
//! ```text
//!   set_affinity, under the lock         without it: `AffinityChange::act`
//!   decides the affinity and the CPU     wakes the thread, which moves itself
//!   stores to the remapping entry        calls the notifier
//!                                        returns what is left: the invalidation
//! ```
//!
//! The lock is a leaf, and may be taken in a hard interrupt. To wake the thread, or to call the
//! notifier, under it would put the scheduler's locks below it: that is the report of document 000.
//! So both are returned as a value. The store to the entry is the one thing done under the lock,
//! which orders changes: the last affinity that was set is the one that hardware has. Handling
//! itself takes no lock (`handling.rs`, `flow.rs`).

use alloc::sync::Arc;
use core::mem;

use doorbell_platform::{CpuId, Lock, LockClass, Platform, WaitType};

use super::actions::Actions;
use super::flow::Flow;
use super::threaded::{ThreadWork, Threaded};
use crate::CpuSet;

/// A leaf: whom to wake and what to call is decided under it, and done when it is gone. (Document
/// 000 is about a thread that was woken under it.)
pub(crate) static IRQ_DESC: LockClass = LockClass::new("host.irq_desc", WaitType::Spin).leaf();

/// Why an affinity was refused. The former one stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AffinityError {
    /// The affinity names no CPU.
    Empty,
    /// The affinity names no CPU that is online.
    Offline,
    /// The interrupt is managed, and this is not within its affinity; or a CPU goes offline, and
    /// none is left that is. Then the interrupt is shut down until one returns.
    Managed,
}

impl core::fmt::Display for AffinityError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            AffinityError::Empty => "an interrupt needs at least one CPU to go to",
            AffinityError::Offline => "none of the CPUs is online",
            AffinityError::Managed => "a managed interrupt goes to the CPUs of its affinity only",
        })
    }
}

impl core::error::Error for AffinityError {}

/// Another thread handles the interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HasThread;

impl core::fmt::Display for HasThread {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("another thread handles the interrupt")
    }
}

impl core::error::Error for HasThread {}

/// What is told that an interrupt goes elsewhere. Called in task context, with no lock held.
pub trait AffinityNotifier: Send + Sync {
    /// Tells that the interrupt goes elsewhere. Where, [`IrqDesc::cpu`] says: changes are announced
    /// in any order, so what one of them has changed may have changed again.
    fn moved(&self);
}

/// A descriptor of an interrupt of the host: who handles it, whether it is enabled, where it goes,
/// and its thread, if it has one.
pub struct IrqDesc<P: Platform> {
    pub(crate) state: Lock<P, State<P>>,
    pub(crate) threaded: Threaded<P>,
    pub(crate) flow: Flow<P>,
    pub(crate) actions: Actions<P>,
}

doorbell_platform::opaque_debug!([P: Platform] IrqDesc<P>);

pub(crate) struct State<P: Platform> {
    affinity: Arc<CpuSet>,
    /// The affinity stays, and no CPU beyond it is used.
    managed: bool,
    cpu: CpuId,
    thread: Option<P::Task>,
    notifier: Option<Arc<dyn AffinityNotifier>>,
    /// How often it was disabled, and not enabled.
    pub(crate) depth: u32,
    /// Where it may go from its next arrival on.
    deferred: Option<Arc<CpuSet>>,
}

/// What has to be done when an interrupt goes elsewhere, now that no lock is held.
#[must_use = "the interrupt's thread and notifier learn of the change by this"]
pub struct AffinityChange<P: Platform, R> {
    /// Where the interrupt goes now.
    pub cpu: CpuId,
    programmed: R,
    wake: Option<P::Task>,
    notify: Option<Arc<dyn AffinityNotifier>>,
}

doorbell_platform::opaque_debug!([P: Platform, R] AffinityChange<P, R>; cpu);

impl<P: Platform, R> AffinityChange<P, R> {
    /// Wakes the thread, so that it moves itself, and calls the notifier. Returns what hardware
    /// still has to be told.
    ///
    /// # Context
    /// Any task, with no lock held; sleeps if the notifier does.
    pub fn act(self) -> R {
        if let Some(thread) = &self.wake {
            P::wake(thread);
        }
        if let Some(notifier) = &self.notify {
            notifier.moved();
        }
        self.programmed
    }
}

/// The thread of an interrupt must be woken.
#[must_use = "the interrupt is not handled before its thread runs"]
pub struct WakeThread<P: Platform>(Option<P::Task>);

doorbell_platform::opaque_debug!([P: Platform] WakeThread<P>);

impl<P: Platform> WakeThread<P> {
    pub(crate) fn nobody() -> Self {
        WakeThread(None)
    }

    /// Wakes the thread.
    ///
    /// # Context
    /// Any task or hard interrupt, with no lock held that a wake-up may need; does not sleep.
    pub fn act(self) {
        if let Some(thread) = &self.0 {
            P::wake(thread);
        }
    }
}

impl<P: Platform> IrqDesc<P> {
    /// Returns the descriptor of an interrupt that goes to the first CPU of `affinity` that is in
    /// `online`. Its handlers are read in sections of `rcu`, which any number of descriptors may
    /// have in common.
    ///
    /// # Errors
    /// See [`AffinityError`].
    pub fn new(
        rcu: &Arc<P::Rcu>,
        affinity: CpuSet,
        online: &CpuSet,
    ) -> Result<Self, AffinityError> {
        Self::of(rcu, affinity, online, false)
    }

    /// Returns the descriptor of a [managed](crate::vector::Vectors::manage) interrupt, which goes
    /// to CPUs of `affinity` only, whatever is asked for.
    ///
    /// # Errors
    /// See [`AffinityError`].
    pub fn managed(
        rcu: &Arc<P::Rcu>,
        affinity: CpuSet,
        online: &CpuSet,
    ) -> Result<Self, AffinityError> {
        Self::of(rcu, affinity, online, true)
    }

    fn of(
        rcu: &Arc<P::Rcu>,
        affinity: CpuSet,
        online: &CpuSet,
        managed: bool,
    ) -> Result<Self, AffinityError> {
        let cpu = target(&affinity, online)?;
        let affinity = Arc::new(affinity);
        let state = State {
            affinity,
            managed,
            cpu,
            thread: None,
            notifier: None,
            depth: 0,
            deferred: None,
        };
        Ok(IrqDesc {
            state: Lock::new(&IRQ_DESC, state),
            threaded: Threaded::new(),
            flow: Flow::new(),
            actions: Actions::new(rcu),
        })
    }

    /// Returns where the interrupt goes.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn cpu(&self) -> CpuId {
        self.state.lock_irqsave().cpu
    }

    /// Returns where the interrupt may go.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn affinity(&self) -> Arc<CpuSet> {
        Arc::clone(&self.state.lock_irqsave().affinity)
    }

    /// Has the interrupt handled by a thread from now on, also what has come before.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If another thread handles it: that one is to be [detached](IrqDesc::detach_thread) first.
    pub fn attach_thread(&self, thread: P::Task) -> Result<WakeThread<P>, HasThread> {
        let mut state = self.state.lock_irqsave();
        if state.thread.is_some() {
            return Err(HasThread);
        }
        state.thread = Some(thread.clone());
        self.threaded.attach(true);
        drop(state);
        // Whoever found no thread, or the former one, has published its work before: look for it.
        let pending = self.threaded.has_work();
        Ok(WakeThread(Some(thread).filter(|_| pending)))
    }

    /// Detaches the thread, which will not be woken any more. The host ends the thread, and waits
    /// for that, before it attaches another: of two that take work, one would take what is the
    /// other's, such as that it has to move itself. What the thread has not taken is left for the
    /// next.
    ///
    /// # Context
    /// Any task, with no lock held; does not sleep.
    pub fn detach_thread(&self) -> Option<P::Task> {
        let thread = {
            let mut state = self.state.lock_irqsave();
            self.threaded.attach(false);
            state.thread.take()
        };
        self.threaded.has_detached();
        thread
    }

    /// Has a notifier told of each change of where the interrupt goes; returns the former one.
    ///
    /// # Context
    /// Any task; does not sleep.
    pub fn set_notifier(
        &self,
        notifier: Option<Arc<dyn AffinityNotifier>>,
    ) -> Option<Arc<dyn AffinityNotifier>> {
        mem::replace(&mut self.state.lock_irqsave().notifier, notifier)
    }

    /// Changes where the interrupt may go: to the CPU where it goes now if that is possible, else
    /// to the first of them that is online. `None` if it stays there.
    ///
    /// `program` has hardware follow: it stores to the remapping entry
    /// ([`AmdInterrupt::set_host`](crate::AmdInterrupt::set_host)), under the lock that orders
    /// changes, so that the last one is the one that stays. It must do no more than that: what it
    /// returns (the invalidation) is for later. If it panics, nothing has changed but what it has
    /// stored.
    ///
    /// The affinity of a managed interrupt stays what it is: `affinity` says to which CPUs of it
    /// the interrupt goes for now.
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    ///
    /// # Errors
    /// See [`AffinityError`].
    pub fn set_affinity<R>(
        &self,
        affinity: CpuSet,
        online: &CpuSet,
        program: impl FnOnce(CpuId) -> R,
    ) -> Result<Option<AffinityChange<P, R>>, AffinityError> {
        self.change(Arc::new(affinity), online, program)
    }

    /// Changes the affinity as [`set_affinity`](IrqDesc::set_affinity) does, but only when the
    /// interrupt comes next: for devices that can be given a new message only while none is on its
    /// way, which is when one has arrived. A later call takes the place of one whose time has not
    /// come. The handler is told by [`Handling::moves`](crate::Handling), and calls
    /// [`take_deferred`](IrqDesc::take_deferred).
    ///
    /// # Context
    /// Any task; does not sleep, but allocates.
    ///
    /// # Errors
    /// See [`AffinityError`].
    pub fn defer_affinity(&self, affinity: CpuSet, online: &CpuSet) -> Result<(), AffinityError> {
        target(&affinity, online)?;
        let affinity = Some(Arc::new(affinity));
        let mut state = self.state.lock_irqsave();
        state.allows(affinity.as_deref())?;
        let former = mem::replace(&mut state.deferred, affinity);
        // Under the lock: who takes the one takes the other.
        self.flow.defer_move();
        drop(state);
        drop(former);
        Ok(())
    }

    /// Takes a deferred affinity, once the interrupt has come: where the interrupt may go from here
    /// on.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn take_deferred(&self) -> Option<Arc<CpuSet>> {
        self.state.lock_irqsave().deferred.take()
    }

    /// Moves the interrupt off a CPU that goes offline: if the interrupt goes there, it goes to
    /// another CPU, one of its affinity if there is one in `online`, any of `online` if not. The
    /// affinity stays what it was, for when the CPU returns. Returns `None` if the interrupt goes
    /// elsewhere anyway.
    ///
    /// # Errors
    /// If `online` names no CPU beside `cpu`; if the interrupt is managed, and none is left that it
    /// may go to: [`Managed`](AffinityError::Managed).
    #[doc(alias = "leave")]
    pub fn migrate_off<R>(
        &self,
        cpu: CpuId,
        online: &CpuSet,
        program: impl FnOnce(CpuId) -> R,
    ) -> Result<Option<AffinityChange<P, R>>, AffinityError> {
        let mut state = self.state.lock_irqsave();
        if state.cpu != cpu {
            return Ok(None);
        }
        let other =
            |set: &CpuSet| set.iter().find(|other| *other != cpu && online.contains(*other));
        let to = match other(&state.affinity) {
            None if state.managed => return Err(AffinityError::Managed),
            None => other(online).ok_or(AffinityError::Offline)?,
            Some(to) => to,
        };
        Ok(Some(self.goes_to(&mut state, to, program)))
    }

    /// Changes the affinity as [`set_affinity`](IrqDesc::set_affinity) does, to a set that is
    /// allocated already.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// See [`AffinityError`].
    pub fn change<R>(
        &self,
        affinity: Arc<CpuSet>,
        online: &CpuSet,
        program: impl FnOnce(CpuId) -> R,
    ) -> Result<Option<AffinityChange<P, R>>, AffinityError> {
        let first = target(&affinity, online)?;
        let mut state = self.state.lock_irqsave();
        state.allows(Some(&affinity))?;
        let stays = affinity.contains(state.cpu) && online.contains(state.cpu);
        // First what may panic: then nothing has changed.
        let change = (!stays).then(|| self.goes_to(&mut state, first, program));
        let former =
            if state.managed { affinity } else { mem::replace(&mut state.affinity, affinity) };
        drop(state);
        drop(former);
        Ok(change)
    }

    fn goes_to<R>(
        &self,
        state: &mut State<P>,
        cpu: CpuId,
        program: impl FnOnce(CpuId) -> R,
    ) -> AffinityChange<P, R> {
        let programmed = program(cpu);
        state.cpu = cpu;
        // Under the lock: a thread that is attached after this finds it.
        self.threaded.ask_to_move();
        AffinityChange {
            cpu,
            programmed,
            wake: state.thread.clone(),
            notify: state.notifier.clone(),
        }
    }

    /// Has the interrupt's thread handle an interrupt that has come: returns what wakes the thread.
    ///
    /// Without a thread, whoever attaches one is responsible for it.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn wake_thread(&self) -> WakeThread<P> {
        if !self.threaded.ask_to_run() {
            return WakeThread(None);
        }
        WakeThread(self.state.lock_irqsave().thread.clone())
    }

    /// Takes what the thread has to do; `None` if there is nothing, so that it may sleep. The
    /// thread calls this, and has handled what it has taken before by then.
    ///
    /// # Context
    /// The interrupt's thread; does not sleep.
    pub fn take_work(&self) -> Option<ThreadWork> {
        self.threaded.take()
    }

    /// Says that the thread has handled what it has taken, and does not [take](IrqDesc::take_work)
    /// more, because it ends or has something else to do first.
    ///
    /// # Context
    /// The interrupt's thread; does not sleep.
    pub fn end_work(&self) {
        let _ = self.threaded.end();
    }
}

impl<P: Platform> State<P> {
    /// Returns whether it may be asked for.
    fn allows(&self, affinity: Option<&CpuSet>) -> Result<(), AffinityError> {
        let within =
            !self.managed || affinity.is_none_or(|affinity| affinity.is_subset_of(&self.affinity));
        within.then_some(()).ok_or(AffinityError::Managed)
    }
}

fn target(affinity: &CpuSet, online: &CpuSet) -> Result<CpuId, AffinityError> {
    if affinity.is_empty() {
        return Err(AffinityError::Empty);
    }
    affinity.first_common(online).ok_or(AffinityError::Offline)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use doorbell_platform::{ReadDomain, Std};

    use super::*;

    fn rcu() -> Arc<<Std as Platform>::Rcu> {
        Arc::new(ReadDomain::new("irq"))
    }

    fn cpus<const N: usize>(cpus: [u32; N]) -> CpuSet {
        CpuSet::of(cpus.map(CpuId))
    }

    #[test]
    fn an_interrupt_stays_where_it_is_as_long_as_it_may() {
        let online = cpus([0, 1, 70]);
        let desc = IrqDesc::<Std>::new(&rcu(), cpus([1, 70]), &online).unwrap();
        assert_eq!(desc.cpu(), CpuId(1));
        assert!(
            desc.set_affinity(cpus([0, 1]), &online, |_| panic!("it stays")).unwrap().is_none()
        );
        let change =
            desc.set_affinity(cpus([5, 70]), &online, |cpu| cpu).unwrap().expect("1 is not in it");
        assert_eq!((change.cpu, desc.cpu(), change.act()), (CpuId(70), CpuId(70), CpuId(70)));
    }

    #[test]
    fn an_affinity_without_an_online_cpu_is_refused_and_changes_nothing() {
        let online = cpus([0]);
        let desc = IrqDesc::<Std>::new(&rcu(), cpus([0]), &online).unwrap();
        assert_eq!(
            desc.set_affinity(CpuSet::none(), &online, drop).err(),
            Some(AffinityError::Empty)
        );
        assert_eq!(
            desc.set_affinity(cpus([64]), &online, drop).err(),
            Some(AffinityError::Offline)
        );
        assert_eq!((desc.cpu(), desc.affinity()), (CpuId(0), Arc::new(cpus([0]))));
    }

    #[test]
    fn an_interrupt_leaves_a_cpu_that_is_online_still() {
        let online = cpus([0, 1, 2]);
        let desc = IrqDesc::<Std>::new(&rcu(), cpus([0, 2]), &online).unwrap();
        assert_eq!(
            desc.migrate_off(CpuId(0), &online, drop).unwrap().map(|change| change.cpu),
            Some(CpuId(2))
        );
        assert!(desc.migrate_off(CpuId(0), &online, drop).unwrap().is_none(), "it goes elsewhere");
        assert_eq!(
            desc.migrate_off(CpuId(2), &cpus([1, 2]), drop).unwrap().map(|change| change.cpu),
            Some(CpuId(1))
        );
        assert_eq!(
            desc.migrate_off(CpuId(1), &cpus([1]), drop).err(),
            Some(AffinityError::Offline)
        );
        assert_eq!(*desc.affinity(), cpus([0, 2]));
    }

    #[test]
    fn of_two_that_are_deferred_the_later_stays() {
        let desc = IrqDesc::<Std>::new(&rcu(), cpus([0]), &cpus([0, 1])).unwrap();
        desc.defer_affinity(cpus([0]), &cpus([0, 1])).unwrap();
        desc.defer_affinity(cpus([1]), &cpus([0, 1])).unwrap();
        assert_eq!(desc.defer_affinity(cpus([2]), &cpus([0, 1])), Err(AffinityError::Offline));
        assert!(desc.handle().moves);
        assert_eq!(desc.take_deferred().as_deref(), Some(&cpus([1])));
        assert!(!desc.handle().moves && desc.take_deferred().is_none());
    }

    #[test]
    fn a_managed_interrupt_goes_nowhere_beyond_its_affinity() {
        let online = cpus([0, 1, 2]);
        let desc = IrqDesc::<Std>::managed(&rcu(), cpus([0, 2]), &online).unwrap();
        let beyond = [cpus([1]), cpus([0, 1])];
        for affinity in beyond {
            assert_eq!(
                desc.set_affinity(affinity.clone(), &online, drop).err(),
                Some(AffinityError::Managed)
            );
            assert_eq!(desc.defer_affinity(affinity, &online), Err(AffinityError::Managed));
        }
        assert_eq!(
            desc.set_affinity(cpus([2]), &online, |cpu| cpu).unwrap().map(|change| change.cpu),
            Some(CpuId(2))
        );
        assert_eq!(*desc.affinity(), cpus([0, 2]), "that stays");
        assert_eq!(
            desc.migrate_off(CpuId(2), &online, |cpu| cpu).unwrap().map(|change| change.cpu),
            Some(CpuId(0))
        );
        assert_eq!(
            desc.migrate_off(CpuId(0), &cpus([0, 1]), drop).err(),
            Some(AffinityError::Managed)
        );
        assert_eq!(desc.cpu(), CpuId(0));
    }

    #[test]
    fn what_is_programmed_and_panics_changes_nothing() {
        let online = cpus([0, 1]);
        let desc = IrqDesc::<Std>::new(&rcu(), cpus([0]), &online).unwrap();
        let caught = |f: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
        caught(&|| {
            drop(desc.set_affinity(cpus([1]), &online, |_| panic!("an entry that is wrong")))
        });
        caught(&|| drop(desc.migrate_off(CpuId(0), &online, |_| panic!("an entry that is wrong"))));
        assert_eq!((desc.cpu(), desc.affinity()), (CpuId(0), Arc::new(cpus([0]))));
        assert!(desc.take_work().is_none(), "no thread is asked to move");
    }

    #[test]
    fn a_descriptor_is_small_on_any_number_of_cpus() {
        assert!(size_of::<IrqDesc<Std>>() <= 256, "{}", size_of::<IrqDesc<Std>>());
    }

    struct Told(AtomicU32);
    impl AffinityNotifier for Told {
        fn moved(&self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn the_thread_and_the_notifier_learn_of_a_change_when_the_lock_is_gone() {
        let online = cpus([0, 1]);
        let desc = IrqDesc::<Std>::new(&rcu(), cpus([0]), &online).unwrap();
        let told = Arc::new(Told(AtomicU32::new(0)));
        assert!(desc.set_notifier(Some(told.clone())).is_none());
        assert!(desc.attach_thread(Std::current_task()).unwrap().0.is_none());
        assert_eq!(desc.attach_thread(Std::current_task()).err(), Some(HasThread));
        desc.set_affinity(cpus([1]), &online, drop).unwrap().expect("it moves").act();
        assert_eq!(told.0.load(SeqCst), 1);
        assert_eq!(desc.take_work(), Some(ThreadWork { run: false, moved: true }));
        assert_eq!(desc.take_work(), None);
    }

    #[test]
    fn interrupts_that_come_before_the_thread_takes_them_wake_it_once() {
        let desc = IrqDesc::<Std>::new(&rcu(), cpus([0]), &cpus([0])).unwrap();
        assert!(desc.wake_thread().0.is_none(), "there is no thread yet");
        let wake = desc.attach_thread(Std::current_task()).unwrap();
        assert!(wake.0.is_some(), "the interrupt has come before");
        assert_eq!(desc.take_work(), Some(ThreadWork { run: true, moved: false }));
        assert!(desc.wake_thread().0.is_some());
        assert!(desc.wake_thread().0.is_none());
    }
}
