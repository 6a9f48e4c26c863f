//! Tasks: their CPUs, park and wake, time slices.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU32};

use doorbell_hv::bare::Bare;
use doorbell_hv::task::Task;
use doorbell_hv::{scheduler, time};
use doorbell_platform::{CpuId, LockClass, Mutex, OnceCell, Platform, PreemptGuard, WaitType};

use crate::each::{Checked, cpus, on_each, spin_until, verdict};

pub fn each_cpu_runs_its_tasks() -> Checked {
    // All are there at once: each waits for the others.
    let there = AtomicU32::new(0);
    let right = on_each(cpus(), move |cpu| {
        there.fetch_add(1, SeqCst);
        spin_until(|| there.load(SeqCst) == Bare::cpu_count());
        Bare::current_cpu() == cpu && Bare::irqs_enabled() && !Bare::in_hardirq()
    });
    verdict(right == Bare::cpu_count(), "a task is elsewhere, or not as a task should be")
}

pub fn tasks_that_have_ended_are_used_again() -> Checked {
    let rounds = 100;
    let right: u32 = (0..rounds).map(|_| on_each(cpus(), |_| true)).sum();
    verdict(right == rounds * Bare::cpu_count(), "a task has not run")
}

pub fn a_wake_up_before_a_park_is_not_lost() -> Checked {
    let woken = on_each(cpus(), |_| {
        for _ in 0..1000 {
            let task = Bare::current_task();
            Bare::wake(&task);
            Bare::wake(&task);
            // Sleeps for ever if the wake-up is lost.
            Bare::park();
        }
        true
    });
    verdict(woken == Bare::cpu_count(), "a task has not come back")
}

/// A ball that one of two tasks has.
struct Game {
    ball: AtomicU32,
    players: [OnceCell<Bare, &'static Task>; 2],
}

pub fn two_tasks_wake_each_other() -> Checked {
    const ROUNDS: u32 = 5_000;
    let last = CpuId(Bare::cpu_count() - 1);
    // On two CPUs, and on one.
    for cpus in [[CpuId(0), last], [last, last]] {
        let players = [const { OnceCell::new() }; 2];
        let game = Arc::new(Game { ball: AtomicU32::new(0), players });
        let number = AtomicU32::new(0);
        let played = on_each(cpus.into_iter(), move |_| {
            let me = number.fetch_add(1, SeqCst) as usize;
            let _ = game.players[me].set(Box::new(Bare::current_task()));
            while game.players[1 - me].get().is_none() {
                scheduler::schedule();
            }
            let Some(other) = game.players[1 - me].get() else { return false };
            for _ in 0..ROUNDS {
                while game.ball.load(SeqCst) as usize != me {
                    Bare::park();
                }
                // For no reason: so the other one may just be about to look when it counts.
                Bare::wake(other);
                game.ball.store(1 - me as u32, SeqCst);
                Bare::wake(other);
            }
            true
        });
        verdict(played == 2, "a player has given up")?;
    }
    Ok(())
}

pub fn a_busy_task_makes_way() -> Checked {
    let cpu = CpuId(Bare::cpu_count() - 1);
    let flag = AtomicBool::new(false);
    let number = AtomicU32::new(0);
    // The first spins until the second, on the same CPU, has run.
    let right = on_each([cpu, cpu].into_iter(), move |_| {
        if number.fetch_add(1, SeqCst) == 0 {
            spin_until(|| flag.load(SeqCst));
        } else {
            flag.store(true, SeqCst);
        }
        true
    });
    verdict(right == 2, "a task is missing")
}

pub fn nobody_makes_way_with_preemption_off() -> Checked {
    let cpu = CpuId(Bare::cpu_count() - 1);
    let (flag, number) = (AtomicBool::new(false), AtomicU32::new(0));
    let right = on_each([cpu, cpu].into_iter(), move |_| {
        if number.fetch_add(1, SeqCst) != 0 {
            flag.store(true, SeqCst);
            return true;
        }
        let pinned = PreemptGuard::<Bare>::new();
        let end = time::now() + 3 * time::slice();
        spin_until(|| time::now() > end);
        let alone = !flag.load(SeqCst);
        drop(pinned);
        spin_until(|| flag.load(SeqCst));
        alone
    });
    verdict(right == 2, "another task has run")
}

pub fn a_task_moves_to_another_cpu() -> Checked {
    let moved = on_each(cpus(), |cpu| {
        (0..200).all(|step| {
            let to = CpuId((cpu.0 + step) % Bare::cpu_count());
            scheduler::move_to(to);
            Bare::current_cpu() == to
        })
    });
    verdict(moved == Bare::cpu_count(), "a task is where it is not to be")
}

static MUTEX: LockClass = LockClass::new("test.mutex", WaitType::Sleep);

pub fn a_mutex_excludes() -> Checked {
    const ROUNDS: u32 = 2_000;
    let mutex = Arc::new(Mutex::<Bare, [u32; 2]>::new(&MUTEX, [0; 2]));
    let theirs = mutex.clone();
    let equal = on_each(cpus().chain(cpus()), move |_| {
        (0..ROUNDS).all(|round| {
            let mut counts = theirs.lock();
            counts[0] += 1;
            if round % 64 == 0 {
                scheduler::schedule();
            }
            counts[1] += 1;
            counts[0] == counts[1]
        })
    });
    let counts = *mutex.lock();
    let all = 2 * Bare::cpu_count();
    verdict(equal == all && counts == [all * ROUNDS; 2], "two tasks had the mutex")
}
