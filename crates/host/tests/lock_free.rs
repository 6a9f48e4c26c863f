//! A platform whose words of 128 bits are guarded by a lock, as on a machine that cannot exchange
//! them.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use doorbell_host::{IrteMemory, NotLockFree, RemapTable};
use doorbell_platform::{Atomic, Counting, CpuId, Platform, Std, SystemQueue, Vector};

enum Locked {}

struct Word(Mutex<u128>);

impl Word {
    fn change(&self, new: impl FnOnce(u128) -> u128) -> u128 {
        let mut word = self.0.lock().unwrap();
        let new = new(*word);
        std::mem::replace(&mut *word, new)
    }
}

impl Atomic for Word {
    type Value = u128;
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait asks for it")]
    const ZERO: Self = Word(Mutex::new(0));

    fn is_lock_free() -> bool {
        false
    }
    fn new(value: u128) -> Self {
        Word(Mutex::new(value))
    }
    fn load(&self, _: Ordering) -> u128 {
        self.change(|word| word)
    }
    fn store(&self, value: u128, _: Ordering) {
        self.change(|_| value);
    }
    fn swap(&self, value: u128, _: Ordering) -> u128 {
        self.change(|_| value)
    }
    fn compare_exchange(
        &self,
        current: u128,
        new: u128,
        _: Ordering,
        _: Ordering,
    ) -> Result<u128, u128> {
        let before = self.change(|word| if word == current { new } else { word });
        if before == current { Ok(before) } else { Err(before) }
    }
    fn fetch_or(&self, value: u128, _: Ordering) -> u128 {
        self.change(|word| word | value)
    }
    fn fetch_and(&self, value: u128, _: Ordering) -> u128 {
        self.change(|word| word & value)
    }
}

type S = Std;

// SAFETY: all is as in `Std`, but for the words of 128 bits, which are whole under a lock.
unsafe impl Platform for Locked {
    type AtomicBool = <S as Platform>::AtomicBool;
    type AtomicU32 = <S as Platform>::AtomicU32;
    type AtomicU64 = <S as Platform>::AtomicU64;
    type AtomicU128 = Word;
    type AtomicPtr<T: 'static> = <S as Platform>::AtomicPtr<T>;
    type RawSpin = <S as Platform>::RawSpin;
    type RawMutex = <S as Platform>::RawMutex;
    type IrqState = <S as Platform>::IrqState;
    type Task = <S as Platform>::Task;
    type Completion = <S as Platform>::Completion;
    type WaitQueue = <S as Platform>::WaitQueue;
    type Rcu = <S as Platform>::Rcu;
    type Srcu = <S as Platform>::Srcu;
    type WorkQueue = <S as Platform>::WorkQueue;

    fn fence(order: Ordering) {
        S::fence(order);
    }
    fn cpu_relax() {
        S::cpu_relax();
    }
    fn current_cpu() -> CpuId {
        S::current_cpu()
    }
    fn cpu_count() -> u32 {
        S::cpu_count()
    }
    fn irq_save() -> Self::IrqState {
        S::irq_save()
    }
    fn irq_restore(state: Self::IrqState) {
        S::irq_restore(state);
    }
    fn irqs_enabled() -> bool {
        S::irqs_enabled()
    }
    fn in_hardirq() -> bool {
        S::in_hardirq()
    }
    fn preempt_disable() {
        S::preempt_disable();
    }
    fn preempt_enable() {
        S::preempt_enable();
    }
    fn send_ipi(cpu: CpuId, vector: Vector) {
        S::send_ipi(cpu, vector);
    }
    fn current_task() -> Self::Task {
        S::current_task()
    }
    fn park() {
        S::park();
    }
    fn wake(task: &Self::Task) {
        S::wake(task);
    }
}

impl SystemQueue for Locked {
    fn system_queue() -> Self::WorkQueue {
        S::system_queue()
    }
}

fn table<P: Platform>() -> Result<usize, NotLockFree>
where
    Box<[P::AtomicU128]>: IrteMemory<P>,
{
    let memory: Box<[P::AtomicU128]> = (0..4).map(|_| Atomic::new(0)).collect();
    RemapTable::<P, _>::new(memory).map(|table| table.free())
}

#[test]
fn a_table_whose_entries_would_be_changed_under_a_lock_is_refused_also_when_it_is_counted() {
    assert_eq!(
        (table::<Locked>(), table::<Counting<Locked>>()),
        (Err(NotLockFree), Err(NotLockFree))
    );
    let native = doorbell_platform::AtomicU128::is_lock_free();
    assert_eq!((table::<Std>().is_ok(), table::<Counting<Std>>().is_ok()), (native, native));
}
