//! The copies of a vCPU's mode that hardware reads.
//!
//! Hardware looks at an entry of its own to learn where a vCPU is: the physical ID table, and an
//! IRTE for each interrupt that is posted. They cannot change in one step, so that all of them are
//! written under the vCPU's one lock, a leaf that may be taken under the scheduler's: by whoever
//! says that the vCPU has moved, and by whoever adds a copy, which it writes with what the others
//! say. None stays behind (X08). In between two copies differ; each says what was true or is, and
//! the owner looks for bits when all are written.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::slice;

use doorbell_platform::{Lock, LockClass, Platform, WaitType, lock_reserving};

/// A leaf: what is written under it is what hardware reads, and nothing else is done there.
pub(crate) static COPIES: LockClass = LockClass::new("post.copies", WaitType::Spin).leaf();

/// Where hardware is told that a vCPU is: IsRunning and its companions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Residency {
    /// On a CPU of the host, of that APIC ID: a bit that is posted rings its doorbell.
    Running {
        /// The physical APIC ID of the CPU.
        apic_id: u32,
    },
    /// On none. The owner looks before it enters the guest; if the vCPU sleeps, hardware has to
    /// tell somebody.
    Away {
        /// Whether hardware is to make a log entry for a bit that is posted (GALogIntr of an IRTE;
        /// the entry of the physical ID table has no such field).
        log: bool,
    },
}

/// One copy: an entry of a table that hardware reads, such as an IRTE.
pub trait Mirror: Send + Sync + 'static {
    /// Writes the copy, in one store that hardware sees whole. It must not wait, wake, call or free
    /// anything.
    ///
    /// If it panics, the vCPU's other copies are written all the same, the lock is given back, and
    /// the panic goes on to whoever has told where the vCPU is. What it was to write counts as
    /// written: this copy stays as it was left until the vCPU is somewhere else. (If two of one
    /// vCPU panic, the second one aborts, as a panic in a destructor does.)
    fn reflect(&self, residency: Residency);
}

/// The copies of one vCPU's residency: its own entry in a table, and the IRTEs of what is posted to
/// it.
///
/// Each copy is written under the one lock of the vCPU, so that none stays behind: who adds a copy
/// writes it with what the others say (X08 is about one that was not).
#[doc(alias = "Copies")]
pub struct ResidencyCopies<P: Platform, O: Mirror, M: Mirror> {
    own: O,
    state: Lock<P, State<M>>,
}

doorbell_platform::opaque_debug!([P: Platform, O: Mirror, M: Mirror] ResidencyCopies<P, O, M>);

struct State<M> {
    residency: Residency,
    others: Vec<Arc<M>>,
}

/// The copies of a vCPU that have not been written yet: they are, also if one of them panics.
struct Unwritten<'a, O: Mirror, M: Mirror> {
    own: Option<&'a O>,
    others: slice::Iter<'a, Arc<M>>,
    residency: Residency,
}

impl<O: Mirror, M: Mirror> Unwritten<'_, O, M> {
    fn write(&mut self) {
        if let Some(own) = self.own.take() {
            own.reflect(self.residency);
        }
        self.others.by_ref().for_each(|copy| copy.reflect(self.residency));
    }
}

impl<O: Mirror, M: Mirror> Drop for Unwritten<'_, O, M> {
    fn drop(&mut self) {
        self.write();
    }
}

/// There is no copy that could be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "NotThere")]
pub struct NoSuchCopy;

impl core::fmt::Display for NoSuchCopy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("there is no such copy of where the vCPU is")
    }
}

impl core::error::Error for NoSuchCopy {}

impl<P: Platform, O: Mirror, M: Mirror> ResidencyCopies<P, O, M> {
    /// Creates the copies of a vCPU that is away. `own` is written so.
    pub fn new(own: O) -> Self {
        let residency = Residency::Away { log: false };
        own.reflect(residency);
        ResidencyCopies { own, state: Lock::new(&COPIES, State { residency, others: Vec::new() }) }
    }

    /// The vCPU's own entry.
    pub fn own(&self) -> &O {
        &self.own
    }

    /// Tells hardware where the vCPU is.
    ///
    /// The caller passes a full barrier after it and looks at the pending bits before it relies on
    /// hardware: the lock's release is not one, the store of the mode
    /// ([`Post::enter`](crate::Post::enter), [`Post::block`](crate::Post::block)) is.
    ///
    /// # Context
    /// The owner, or its scheduler's hooks, with any locks held; does not sleep.
    pub fn set(&self, residency: Residency) {
        self.decide(|| residency);
    }

    /// Tells hardware where the vCPU is, as [`set`](ResidencyCopies::set) does: what `residency`
    /// says under the lock, with interrupts off, so that the vCPU cannot be switched away from
    /// between what `residency` reads or writes there and the copies. It must do no more than that.
    /// If it panics, nothing has changed.
    ///
    /// # Context
    /// The owner, or its scheduler's hooks, with any locks held; does not sleep.
    pub fn decide(&self, residency: impl FnOnce() -> Residency) {
        let mut state = self.state.lock_irqsave();
        let residency = residency();
        if state.residency == residency {
            return;
        }
        state.residency = residency;
        Unwritten { own: Some(&self.own), others: state.others.iter(), residency }.write();
    }

    /// Adds a copy. `program` makes the entry refer to this vCPU, with the residency that it is
    /// given, in one store.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// Those of `program`: then it was not added, and the entry is as `program` left it. Just so if
    /// it panics.
    pub fn add<E>(
        &self,
        copy: Arc<M>,
        program: impl FnOnce(&M, Residency) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state =
            lock_reserving(|| self.state.lock_irqsave(), |state| Some(&mut state.others));
        let programmed = program(&copy, state.residency);
        if programmed.is_ok() {
            state.others.push(copy);
        }
        programmed
    }

    /// Removes a copy. `program` makes the entry refer to no vCPU, in one store. Hardware may use
    /// what it has cached of the entry until it was told to forget it; bits that it sets until then
    /// are this vCPU's to find.
    ///
    /// # Context
    /// Any task; does not sleep.
    ///
    /// # Errors
    /// If the copy is not there: then `program` was not called. (If that panics, the copy is still
    /// there.)
    pub fn remove(&self, copy: &Arc<M>, program: impl FnOnce(&M)) -> Result<(), NoSuchCopy> {
        let mut state = self.state.lock_irqsave();
        let at =
            state.others.iter().position(|other| Arc::ptr_eq(other, copy)).ok_or(NoSuchCopy)?;
        program(copy);
        let removed = state.others.swap_remove(at);
        drop(state);
        drop(removed);
        Ok(())
    }

    /// Returns how many copies there are beside the vCPU's own.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn len(&self) -> usize {
        self.state.lock_irqsave().others.len()
    }

    /// Returns whether there are no copies beside the vCPU's own.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what hardware was told.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn residency(&self) -> Residency {
        self.state.lock_irqsave().residency
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::vec;

    use doorbell_platform::Std;

    use super::*;

    /// What was written, in order.
    #[derive(Default)]
    struct Written(Mutex<Vec<Residency>>);

    impl Mirror for Written {
        fn reflect(&self, residency: Residency) {
            self.0.lock().unwrap().push(residency);
        }
    }

    impl Written {
        fn take(&self) -> Vec<Residency> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    const AWAY: Residency = Residency::Away { log: false };
    const ASLEEP: Residency = Residency::Away { log: true };
    const RUNNING: Residency = Residency::Running { apic_id: 3 };

    fn reflects(copy: &Written, residency: Residency) -> Result<(), NoSuchCopy> {
        copy.reflect(residency);
        Ok(())
    }

    #[test]
    fn each_copy_is_written_once_for_each_change_and_a_new_one_with_what_the_others_say() {
        let copies = ResidencyCopies::<Std, _, _>::new(Written::default());
        let one = Arc::new(Written::default());
        copies.add(Arc::clone(&one), reflects).unwrap();
        copies.set(AWAY);
        copies.set(RUNNING);
        copies.set(RUNNING);
        let two = Arc::new(Written::default());
        copies.add(Arc::clone(&two), reflects).unwrap();
        copies.decide(|| ASLEEP);
        let all = vec![AWAY, RUNNING, ASLEEP];
        assert_eq!(
            (copies.own().take(), one.take(), two.take()),
            (all.clone(), all, vec![RUNNING, ASLEEP])
        );
        assert_eq!((copies.residency(), copies.len(), copies.is_empty()), (ASLEEP, 2, false));
    }

    #[test]
    fn a_removed_copy_is_not_written_any_more_and_can_be_removed_once() {
        let copies = ResidencyCopies::<Std, _, _>::new(Written::default());
        let all: Vec<_> = (0..9).map(|_| Arc::new(Written::default())).collect();
        all.iter()
            .for_each(|copy| copies.add(Arc::clone(copy), |_, _| Ok::<_, NoSuchCopy>(())).unwrap());
        copies.remove(&all[4], |copy| copy.reflect(AWAY)).unwrap();
        assert_eq!(copies.remove(&all[4], |_| panic!("it is not there")), Err(NoSuchCopy));
        copies.set(RUNNING);
        for (number, copy) in all.iter().enumerate() {
            assert_eq!(copy.take(), if number == 4 { [AWAY] } else { [RUNNING] }, "{number}");
        }
        for copy in &all {
            let _ = copies.remove(copy, |_| ());
        }
        assert!(copies.is_empty() && all.iter().all(|copy| Arc::strong_count(copy) == 1));
    }

    #[test]
    fn a_copy_that_could_not_be_programmed_was_not_added() {
        let copies = ResidencyCopies::<Std, Written, Written>::new(Written::default());
        assert_eq!(copies.add(Arc::new(Written::default()), |_, _| Err("full")), Err("full"));
        assert!(copies.is_empty());
    }

    /// A copy that panics once it is told to.
    #[derive(Default)]
    struct Wrong(Written, AtomicBool);

    impl Mirror for Wrong {
        fn reflect(&self, residency: Residency) {
            assert!(!self.1.load(Ordering::SeqCst), "a copy that is wrong");
            self.0.reflect(residency);
        }
    }

    #[test]
    fn a_copy_that_panics_keeps_no_other_from_being_written_whichever_it_is() {
        for wrong in 0..4 {
            let copies = ResidencyCopies::<Std, _, _>::new(Wrong::default());
            let others: Vec<_> = (0..3).map(|_| Arc::new(Wrong::default())).collect();
            others.iter().for_each(|copy| {
                copies.add(Arc::clone(copy), |_, _| Ok::<_, NoSuchCopy>(())).unwrap()
            });
            let all = || core::iter::once(copies.own()).chain(others.iter().map(|copy| &**copy));
            copies.own().0.take();
            let panics = |yes| all().nth(wrong).unwrap().1.store(yes, Ordering::SeqCst);
            panics(true);
            assert!(
                catch_unwind(AssertUnwindSafe(|| copies.set(RUNNING))).is_err(),
                "who has told hears of it"
            );
            assert_eq!(copies.residency(), RUNNING, "the lock is free");
            panics(false);
            copies.set(ASLEEP);
            for (number, copy) in all().enumerate() {
                let written = if number == wrong { vec![ASLEEP] } else { vec![RUNNING, ASLEEP] };
                assert_eq!(copy.0.take(), written, "copy {number}, and {wrong} is wrong");
            }
        }
    }

    #[test]
    fn what_is_asked_under_the_lock_and_panics_leaves_all_as_it_was() {
        let copies = ResidencyCopies::<Std, _, _>::new(Written::default());
        let copy = Arc::new(Written::default());
        copies.own().take();
        let caught = |f: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
        caught(&|| copies.decide(|| panic!("an owner that is wrong")));
        caught(&|| {
            _ = copies.add(Arc::clone(&copy), |_, _| -> Result<(), NoSuchCopy> {
                panic!("a wrong entry")
            })
        });
        assert!(copies.is_empty() && copies.residency() == AWAY && copies.own().take().is_empty());
        copies.add(Arc::clone(&copy), |_, _| Ok::<_, NoSuchCopy>(())).unwrap();
        caught(&|| _ = copies.remove(&copy, |_| panic!("a wrong entry")));
        copies.set(RUNNING);
        assert_eq!((copy.take(), copies.len()), (vec![RUNNING], 1));
    }
}
