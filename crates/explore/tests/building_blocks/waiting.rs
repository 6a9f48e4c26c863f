//! Wait queues and completions: no wake-up is lost, and every waiter goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Model, SimTask};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report};
use doorbell_platform::{Atomic, Completion, ParkCompletion, ParkWaitQueue, Platform, WaitQueue};

use crate::host::{Host, Word, word};

/// Each of `conditions` has a task that makes it true and then wakes all, and `waiters` tasks that
/// wait for it.
fn all_go_on<Q: WaitQueue>(conditions: usize, waiters: usize) -> Report {
    Explore::new("wait queue").run(move |m: &Machine| {
        let queue = Arc::new(Q::new("queue"));
        for _ in 0..conditions {
            let ready = word();
            for _ in 0..waiters {
                let (queue, ready) = (queue.clone(), ready.clone());
                m.task("waits", move || {
                    queue.wait_until(|| ready.load(SeqCst) == 1);
                    assert_eq!(ready.load(SeqCst), 1);
                });
            }
            let queue = queue.clone();
            m.task("wakes", move || {
                ready.store(1, SeqCst);
                queue.wake_all();
            });
        }
    })
}

#[test]
fn a_wait_queue_loses_no_wake_up() {
    all_go_on::<ParkWaitQueue<Host>>(1, 1).assert_exhausted();
    all_go_on::<ParkWaitQueue<Host>>(1, 2).assert_exhausted();
    all_go_on::<ParkWaitQueue<Host>>(2, 1).assert_exhausted();
}

#[test]
fn a_task_that_waits_again_is_woken_again() {
    let report = Explore::new("wait queue").run(|m: &Machine| {
        let (queue, rounds) = (Arc::new(ParkWaitQueue::<Host>::new("queue")), word());
        let waker = (queue.clone(), rounds.clone());
        m.task("waits", move || {
            for round in 1..=2 {
                queue.wait_until(|| rounds.load(SeqCst) >= round);
            }
        });
        m.task("wakes", move || {
            for round in 1..=2 {
                waker.1.store(round, SeqCst);
                waker.0.wake_all();
            }
        });
    });
    report.assert_exhausted();
}

/// As `ParkWaitQueue`, with a list that is a model.
struct Listed<const FAULT: u8> {
    list: Model<Vec<SimTask>>,
    /// Whether the list is worth a look.
    any: Word,
}

const NO_FAULT: u8 = 0;
/// Looks at the condition, and then lists the task.
const LOOKS_FIRST: u8 = 1;
/// Says that the list is worth a look after the condition was looked at.
const COUNTS_LATER: u8 = 2;

impl<const FAULT: u8> Listed<FAULT> {
    fn enlist(&self) {
        self.list.change(|list| list.push(Host::current_task()));
    }
}

impl<const FAULT: u8> WaitQueue for Listed<FAULT> {
    fn new(name: &'static str) -> Self {
        Listed { list: Model::new(name, Vec::new()), any: Word::new(0) }
    }
    fn wait_until(&self, mut condition: impl FnMut() -> bool) {
        loop {
            if FAULT != LOOKS_FIRST {
                self.enlist();
            }
            if FAULT == NO_FAULT {
                self.any.store(1, SeqCst);
            }
            if condition() {
                return;
            }
            if FAULT == LOOKS_FIRST {
                self.enlist();
            }
            self.any.store(1, SeqCst);
            Host::park();
        }
    }
    fn wake_all(&self) {
        if self.any.swap(0, SeqCst) == 1 {
            self.list.change(std::mem::take).iter().for_each(Host::wake);
        }
    }
}

#[test]
fn a_task_that_is_listed_or_counted_after_its_look_sleeps_for_ever() {
    all_go_on::<Listed<LOOKS_FIRST>>(1, 1).assert_found(FailureKind::Deadlock);
    all_go_on::<Listed<COUNTS_LATER>>(1, 1).assert_found(FailureKind::Deadlock);
    all_go_on::<Listed<NO_FAULT>>(1, 2).assert_exhausted();
}

/// Two tasks wait for a completion, of which one asks before whether it is done.
fn completes<C: Completion>() -> Report {
    Explore::new("completion").run(|m: &Machine| {
        let (done, before) = (Arc::new(C::new("done")), word());
        for asks in [false, true] {
            let (done, before) = (done.clone(), before.clone());
            m.task("waits", move || {
                if !(asks && done.is_done()) {
                    done.wait();
                }
                assert!(done.is_done());
                assert_eq!(before.load(SeqCst), 1, "what came before the completion is seen");
            });
        }
        m.task("completes", move || {
            before.store(1, SeqCst);
            done.complete_all();
        });
    })
}

#[test]
fn a_completion_completes_everyone_who_waits_or_will_wait() {
    completes::<ParkCompletion<Host>>().assert_exhausted();
}

/// Wakes, and then says that it is done.
struct WakesFirst {
    done: Word,
    queue: ParkWaitQueue<Host>,
}

impl Completion for WakesFirst {
    fn new(name: &'static str) -> Self {
        WakesFirst { done: Word::new(0), queue: ParkWaitQueue::new(name) }
    }
    fn complete_all(&self) {
        self.queue.wake_all();
        self.done.store(1, SeqCst);
    }
    fn wait(&self) {
        self.queue.wait_until(|| self.is_done());
    }
    fn is_done(&self) -> bool {
        self.done.load(SeqCst) == 1
    }
}

#[test]
fn a_completion_that_wakes_before_it_is_done_is_waited_for_for_ever() {
    completes::<WakesFirst>().assert_found(FailureKind::Deadlock);
}
