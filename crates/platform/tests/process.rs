//! What `Std` emulates of a kernel.
#![cfg(feature = "std")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use doorbell_platform::*;

#[test]
fn interrupt_state_nests_and_belongs_to_the_thread() {
    static CLASS: LockClass = LockClass::new("test", WaitType::Spin);
    let lock = Lock::<Std, ()>::new(&CLASS, ());
    assert!(Std::irqs_enabled());
    let outer = IrqGuard::<Std>::new();
    let inner = lock.lock_irqsave();
    assert!(!Std::irqs_enabled());
    thread::scope(|s| drop(s.spawn(|| assert!(Std::irqs_enabled()))));
    drop(inner);
    assert!(!Std::irqs_enabled());
    drop(outer);
    assert!(Std::irqs_enabled());
}

#[test]
#[cfg(debug_assertions)]
#[should_panic = "out of order"]
fn restoring_interrupts_out_of_order_panics_in_debug_builds() {
    let outer = Std::irq_save();
    let _inner = Std::irq_save();
    Std::irq_restore(outer);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic = "sleeps with interrupts off"]
fn sleeping_with_interrupts_off_panics_in_debug_builds() {
    let _off = IrqGuard::<Std>::new();
    Std::park();
}

#[test]
#[cfg(debug_assertions)]
#[should_panic = "more often"]
fn turning_preemption_on_too_often_panics_in_debug_builds() {
    Std::preempt_enable();
}

#[test]
fn a_thread_keeps_its_cpu_and_it_exists() {
    for _ in 0..64 {
        let check = || {
            let cpu = Std::current_cpu();
            assert!(cpu.0 < Std::cpu_count());
            assert_eq!(Std::current_cpu(), cpu);
        };
        thread::spawn(check).join().unwrap();
    }
}

#[test]
fn an_ipi_reaches_the_handler_of_its_cpu_and_vector_until_that_is_dropped() {
    let done = Arc::new(<Std as Platform>::Completion::new("test"));
    let runs = Arc::new(AtomicUsize::new(0));
    let handler = Std::on_ipi(CpuId(0), Vector(0xf2), {
        let (done, runs) = (done.clone(), runs.clone());
        move || {
            runs.fetch_add(1, SeqCst);
            done.complete_all();
        }
    });
    Std::send_ipi(CpuId(0), Vector(0xf3));
    Std::send_ipi(CpuId(1), Vector(0xf2));
    Std::send_ipi(CpuId(0), Vector(0xf2));
    done.wait();
    drop(handler);
    Std::send_ipi(CpuId(0), Vector(0xf2));
    let again = Std::on_ipi(CpuId(0), Vector(0xf2), || ());
    drop(again);
    assert_eq!(runs.load(SeqCst), 1);
}

#[test]
fn dropping_a_handler_waits_for_a_run_that_has_begun() {
    let (begin, begun) = std::sync::mpsc::channel();
    let ended = Arc::new(AtomicUsize::new(0));
    let handler = Std::on_ipi(CpuId(0), Vector(0xf5), {
        let ended = ended.clone();
        move || {
            begin.send(()).unwrap();
            (0..100).for_each(|_| thread::yield_now());
            ended.store(1, SeqCst);
        }
    });
    Std::send_ipi(CpuId(0), Vector(0xf5));
    begun.recv().unwrap();
    drop(handler);
    assert_eq!(ended.load(SeqCst), 1);
}

#[test]
#[should_panic = "has a handler"]
fn a_second_handler_of_one_vector_is_refused() {
    let _first = Std::on_ipi(CpuId(0), Vector(0xf4), || ());
    let _second = Std::on_ipi(CpuId(0), Vector(0xf4), || ());
}

#[test]
fn all_128_bits_change_at_once() {
    let word = <Std as Platform>::AtomicU128::new(0);
    let ones = u128::MAX;
    thread::scope(|s| {
        s.spawn(|| (0..10_000).for_each(|n| word.store(if n % 2 == 0 { ones } else { 0 }, SeqCst)));
        for _ in 0..10_000 {
            let seen = word.load(SeqCst);
            assert!(seen == 0 || seen == ones, "half of a store: {seen:x}");
        }
    });
}

#[test]
#[should_panic = "another domain"]
fn a_read_section_of_another_domain_is_refused() {
    let domain = || Arc::new(<Std as Platform>::Srcu::new("test"));
    let (ours, theirs) = (domain(), domain());
    let cell = RcuCell::<Std, _, u32>::new(&ours, Box::new(1));
    let section = theirs.read();
    let _ = cell.get(&section);
}

#[test]
fn a_mutex_can_be_a_static() {
    static CLASS: LockClass = LockClass::new("test", WaitType::Sleep);
    static COUNT: Mutex<Std, u32> = Mutex::<Std, u32>::constant(&CLASS, 0);
    *COUNT.lock() += 1;
    assert_eq!(*COUNT.lock(), 1);
}
