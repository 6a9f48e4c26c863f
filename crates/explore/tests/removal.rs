//! What is found out about locks: whether nothing else orders two contexts that take one, and one
//! of them changes what it protects.

use std::sync::Arc;

use doorbell_explore::removal::{self, Program, Taken};
use doorbell_explore::{Machine, Sim, spawn};
use doorbell_platform::{CpuId, Lock, LockClass, Vector, WaitType};

static DATA: LockClass = LockClass::new("data", WaitType::Spin);
static OUTER: LockClass = LockClass::new("outer", WaitType::Spin);

type Data = Arc<Lock<Sim, u32>>;

fn data() -> Data {
    Arc::new(Lock::new(&DATA, 0))
}

/// The sites in this file where the lock of a program is taken, and whether something races there.
#[track_caller]
fn locks(program: impl Fn(&Machine) + Send + Sync + 'static) -> Vec<bool> {
    let rows = removal::locks(&[Program::new("locks", program)], "explore/tests/removal.rs");
    assert!(rows.iter().all(|row| row.site.taken == Taken::Exclusion));
    rows.iter().map(|row| row.found_by.is_some()).collect()
}

#[test]
fn a_lock_that_alone_orders_a_change_and_a_look_is_needed_by_both() {
    let races = locks(|m| {
        let data = data();
        let changes = Arc::clone(&data);
        m.task("changes", move || *changes.lock() += 1);
        m.task("looks", move || assert!(*data.lock() <= 1));
    });
    assert_eq!(races, [true, true]);
}

#[test]
fn two_who_only_look_do_not_need_the_lock() {
    let races = locks(|m| {
        let data = data();
        let looks = Arc::clone(&data);
        m.task("looks", move || assert_eq!(*looks.lock(), 0));
        m.task("looks, too", move || assert_eq!(*data.lock(), 0));
    });
    assert_eq!(races, [false, false]);
}

#[test]
fn who_comes_after_the_other_anyway_does_not_need_the_lock() {
    let races = locks(|m| {
        let data = data();
        m.task("changes", move || {
            *data.lock() += 1;
            let child = Arc::clone(&data);
            spawn("changes again", move || *child.lock() += 1).join();
            assert_eq!(*data.lock(), 2);
        });
    });
    assert_eq!(races, [false, false, false]);
}

#[test]
fn under_another_lock_it_is_that_one_that_is_needed() {
    let races = locks(|m| {
        let outer = Arc::new(Lock::<Sim, u32>::new(&OUTER, 0));
        let data = data();
        for name in ["one", "other"] {
            let (outer, data) = (Arc::clone(&outer), Arc::clone(&data));
            m.task(name, move || {
                let mut outer = outer.lock();
                *outer += 1;
                *data.lock() += 1;
            });
        }
    });
    assert_eq!(races, [true, false]);
}

#[test]
fn with_interrupts_off_a_handler_of_the_same_cpu_does_not_need_the_lock() {
    let races = locks(|m| {
        let data = data();
        let handles = Arc::clone(&data);
        let handler = m.handler(CpuId(0), Vector(0x41), "handler", move || *handles.lock() += 1);
        m.task_on(CpuId(0), "task", move || *data.lock_irqsave() += 1);
        m.hardware("device", move || handler.raise());
    });
    assert_eq!(races, [false, false]);
}
