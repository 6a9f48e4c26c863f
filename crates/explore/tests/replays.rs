//! Failing runs that are replayed until the process has no room for the stacks that they leave
//! behind. They have a process of their own.

use std::sync::Arc;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Limit, Machine, ReplayError, Sim, Verdict, sim};
use doorbell_platform::{LockClass, Mutex, WaitType};

static MUTEX: LockClass = LockClass::new("mutex", WaitType::Sleep);

/// One task waits for nothing in particular with a mutex held, and nineteen more for the mutex.
fn twenty_wait(m: &Machine) {
    let mutex = Arc::new(Mutex::<Sim, ()>::new(&MUTEX, ()));
    let flag = Arc::new(sim::Model::new("flag", false));
    for task in 0..20 {
        let (mutex, flag) = (Arc::clone(&mutex), Arc::clone(&flag));
        m.task(format!("task {task}"), move || {
            let _held = mutex.lock();
            flag.wait(|flag| *flag, |_| ());
        });
    }
}

#[test]
fn replays_that_leave_stacks_behind_are_refused_by_name_before_there_is_no_room_for_another() {
    let full = Limit::AbandonedByProcess(30_000);
    let explore = Explore::new("twenty wait");
    let failure = explore.run(twenty_wait).assert_found(FailureKind::Deadlock).clone();
    let mut replays = 0;
    let refused = loop {
        match explore.replay(&failure.token, twenty_wait) {
            Ok(again) => {
                assert_eq!((again.kind, &again.token), (FailureKind::Deadlock, &failure.token))
            }
            Err(refused) => break refused,
        }
        replays += 1;
    };
    assert_eq!(refused, ReplayError::NoRoom(full));
    assert_eq!(
        refused.to_string(),
        "no run can be replayed in this process any more: all searches of this process have left 30000 stacks behind, \
         which is the most for them"
    );
    // The run that fails, the one that counts its preemptions, the one of its token, and the one
    // that is shown come before these.
    assert_eq!(replays, 30_000 / 20 - 4);
    // A search could not tell what it finds.
    let report = explore.run(twenty_wait);
    assert_eq!(
        (report.verdict, report.limit, report.executions),
        (Verdict::BoundReached, Some(full), 0)
    );
}
