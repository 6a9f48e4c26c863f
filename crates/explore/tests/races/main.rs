//! Plain memory: which accesses nothing orders, in whichever order they come.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{RaceCell, SimTask, local_irq_disable, local_irq_enable};
use doorbell_explore::sync::atomic::AtomicU32;
use doorbell_explore::trace::FailureKind::DataRace;
use doorbell_explore::{Explore, Machine, Report, Sim, render, spawn};
use doorbell_platform::{CpuId, LockClass, Mutex, Platform, ReadDomain, Vector, WaitType};

mod enumerated;

static MUTEX: LockClass = LockClass::new("mutex", WaitType::Sleep);

fn explore(program: impl Fn(&Machine) + Send + Sync) -> Report {
    Explore::new("races").run(program)
}

fn cell() -> Arc<RaceCell<u32>> {
    Arc::new(RaceCell::new(0).named("cell"))
}

#[test]
fn two_writes_without_any_step_race_and_the_page_names_both() {
    let report = explore(|m| {
        let cell = cell();
        let other = Arc::clone(&cell);
        m.task("one", move || cell.set(1));
        m.task("two", move || other.set(2));
    });
    let trace = &report.assert_found(DataRace).trace;
    let page = render::text(trace, &render::Options::default());
    assert!(page.starts_with("data race"), "{page}");
    assert!(page.contains("one writes cell at") && page.contains("two writes it at"), "{page}");
    assert_eq!(page.matches("races/main.rs:").count(), 2, "{page}");
}

#[test]
fn two_reads_do_not_race_and_neither_do_accesses_to_two_cells() {
    let report = explore(|m| {
        let (cell, one, two) = (cell(), cell(), cell());
        let other = Arc::clone(&cell);
        m.task("one", move || one.set(cell.get()));
        m.task("two", move || two.set(other.get()));
    });
    report.assert_exhausted();
}

#[test]
fn accesses_under_one_lock_do_not_race_and_one_before_the_lock_does() {
    let program = |before: bool| {
        move |m: &Machine| {
            let (cell, lock) = (cell(), Arc::new(Mutex::<Sim, ()>::new(&MUTEX, ())));
            for task in 0..2 {
                let (cell, lock) = (Arc::clone(&cell), Arc::clone(&lock));
                m.task(format!("{task}"), move || {
                    if before && task == 0 {
                        cell.set(1);
                    }
                    let _guard = lock.lock();
                    cell.set(2);
                });
            }
        }
    };
    explore(program(false)).assert_exhausted();
    // In the order that is run first the lock orders the two; only in the other it does not.
    explore(program(true)).assert_found(DataRace);
}

#[test]
fn what_is_published_by_a_word_is_ordered_and_what_is_written_after_it_is_not() {
    let program = |late: bool| {
        move |m: &Machine| {
            let (cell, ready) = (cell(), Arc::new(AtomicU32::new(0)));
            let (other, seen) = (Arc::clone(&cell), Arc::clone(&ready));
            m.task("publishes", move || {
                if !late {
                    cell.set(1);
                }
                ready.store(1, SeqCst);
                if late {
                    cell.set(1);
                }
            });
            m.task("reads", move || {
                if seen.load(SeqCst) == 1 {
                    other.get();
                }
            });
        }
    };
    explore(program(false)).assert_exhausted();
    explore(program(true)).assert_found(DataRace);
}

#[test]
fn spawn_and_join_order_also_by_way_of_a_third() {
    let program = |join: bool| {
        move |m: &Machine| {
            let (cell, ready) = (cell(), Arc::new(AtomicU32::new(0)));
            let (third, seen) = (Arc::clone(&cell), Arc::clone(&ready));
            m.task("parent", move || {
                cell.set(1);
                let (of_child, word) = (Arc::clone(&cell), AtomicU32::new(0));
                let child = spawn("child", move || {
                    of_child.set(2);
                    word.store(1, SeqCst);
                    // After the last step: no step says when this has happened.
                    of_child.set(3);
                });
                if join {
                    child.join();
                }
                ready.store(1, SeqCst);
            });
            m.task("third", move || {
                if seen.load(SeqCst) == 1 {
                    third.set(4);
                }
            });
        }
    };
    explore(program(true)).assert_exhausted();
    explore(program(false)).assert_found(DataRace);
}

#[test]
fn a_parent_and_the_child_that_it_has_not_joined_race() {
    let report = explore(|m| {
        let cell = cell();
        m.task("parent", move || {
            let of_child = Arc::clone(&cell);
            spawn("child", move || of_child.set(1));
            cell.get();
        });
    });
    report.assert_found(DataRace);
}

#[test]
fn parking_and_waking_order() {
    let program = |early: bool| {
        move |m: &Machine| {
            let cell = cell();
            let (other, slot) = (Arc::clone(&cell), Arc::new(RaceCell::new(None::<SimTask>)));
            let ready = Arc::new(AtomicU32::new(0));
            let (waker, is_ready) = (Arc::clone(&slot), Arc::clone(&ready));
            m.task("sleeps", move || {
                let me = Sim::current_task();
                // SAFETY: the word says when the other task may read it.
                slot.with_mut(|slot| unsafe { *slot = Some(me) });
                ready.store(1, SeqCst);
                Sim::park();
                cell.get();
            });
            m.task("wakes", move || {
                while is_ready.load(SeqCst) == 0 {
                    Sim::cpu_relax();
                }
                // SAFETY: it was written before the word.
                let task = waker.with(|slot| unsafe { (*slot).clone() });
                let task = task.expect("it is there");
                if early {
                    Sim::wake(&task);
                    other.set(1);
                } else {
                    other.set(1);
                    Sim::wake(&task);
                }
            });
        }
    };
    explore(program(false)).assert_exhausted();
    explore(program(true)).assert_found(DataRace);
}

#[test]
fn a_handler_races_with_whom_it_interrupts_unless_interrupts_are_off() {
    let program = |off: bool| {
        move |m: &Machine| {
            let cell = cell();
            let handlers = Arc::clone(&cell);
            let handler = m.handler(CpuId(0), Vector(0x20), "counts", move || {
                handlers.set(handlers.get() + 1);
            });
            m.task_on(CpuId(0), "task", move || {
                if off {
                    local_irq_disable();
                }
                cell.set(0);
                if off {
                    local_irq_enable();
                }
            });
            m.hardware("device", move || handler.raise());
        }
    };
    explore(program(true)).assert_exhausted();
    explore(program(false)).assert_found(DataRace);
}

#[test]
fn an_ipi_orders_its_sender_before_its_handler() {
    let program = |late: bool| {
        move |m: &Machine| {
            let cell = cell();
            let handlers = Arc::clone(&cell);
            m.ipi_handler(CpuId(1), Vector(0x30), "reads", move || _ = handlers.get());
            m.task_on(CpuId(0), "sends", move || {
                if !late {
                    cell.set(1);
                }
                Sim::send_ipi(CpuId(1), Vector(0x30));
                if late {
                    cell.set(1);
                }
            });
            m.task_on(CpuId(1), "is interrupted", || ());
        }
    };
    explore(program(false)).assert_exhausted();
    explore(program(true)).assert_found(DataRace);
}

#[test]
fn a_grace_period_orders_the_readers_before_it() {
    let program = |waits: bool| {
        move |m: &Machine| {
            let (cell, gone) = (cell(), Arc::new(AtomicU32::new(0)));
            let (read, seen) = (Arc::clone(&cell), Arc::clone(&gone));
            let domain = Arc::new(<Sim as Platform>::Rcu::new("domain"));
            let readers = Arc::clone(&domain);
            m.task("reads", move || {
                let _section = readers.read();
                if seen.load(SeqCst) == 0 {
                    read.get();
                }
            });
            m.task("reclaims", move || {
                gone.store(1, SeqCst);
                if waits {
                    domain.synchronize();
                }
                cell.set(1);
            });
        }
    };
    explore(program(true)).assert_exhausted();
    explore(program(false)).assert_found(DataRace);
}

#[test]
fn an_access_lasts_as_long_as_its_closure() {
    let report = explore(|m| {
        let (cell, go) = (cell(), Arc::new(AtomicU32::new(0)));
        let (other, may) = (Arc::clone(&cell), Arc::clone(&go));
        m.task("lasts", move || {
            cell.with_mut(|_| go.store(1, SeqCst));
        });
        m.task("comes between", move || {
            if may.load(SeqCst) == 1 {
                other.get();
            }
        });
    });
    report.assert_found(DataRace);
}

#[test]
fn a_race_is_found_by_samples_under_a_bound_and_on_two_threads_and_replayed() {
    let program = |m: &Machine| {
        let (cell, word) = (cell(), Arc::new(AtomicU32::new(0)));
        for task in 0..2 {
            let (cell, word) = (Arc::clone(&cell), Arc::clone(&word));
            m.task(format!("{task}"), move || {
                word.fetch_add(1, SeqCst);
                cell.set(task);
                word.fetch_add(1, SeqCst);
            });
        }
    };
    let explore = Explore::new("replayed");
    let found = explore.run(program);
    let token = &found.assert_found(DataRace).token;
    assert_eq!(explore.replay(token, program).map(|failure| failure.kind), Ok(DataRace));
    let schedules = doorbell_explore::Schedules::Uniform { seed: 1 };
    Explore::new("samples").schedules(schedules).run(program).assert_found(DataRace);
    Explore::new("bound").bound(Some(1)).run(program).assert_found(DataRace);
    Explore::new("jobs").jobs(2).run(program).assert_found(DataRace);
}
