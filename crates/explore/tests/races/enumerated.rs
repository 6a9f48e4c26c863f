//! All programs of two short tasks: a race is reported exactly if two accesses can overlap, which
//! is found out by making each of them two steps, and running all schedules.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::sim::{Model, RaceCell, fail};
use doorbell_explore::sync::atomic::AtomicU32;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Schedules, Sim, Verdict, spawn};
use doorbell_platform::Mutex;

use crate::MUTEX;

/// What a task does.
#[derive(Clone, Copy, Debug)]
enum Do {
    Read,
    Write,
    /// Writes under the lock.
    Locked,
    /// Takes the lock, and does nothing with it.
    Lock,
    /// Stores 1 in the word.
    Store,
    /// Ends the task unless the word holds 1.
    IfStored,
    /// Spawns a task that stores and then writes.
    Spawn,
    /// The same, and waits for its end.
    Join,
}

use Do::{IfStored, Join, Lock, Locked, Read, Spawn, Store, Write};

const ALL: [Do; 8] = [Read, Write, Locked, Lock, Store, IfStored, Spawn, Join];

/// Memory whose accesses are told to the search, or to the one who counts.
#[derive(Clone)]
enum Memory {
    Cell(Arc<RaceCell<u32>>),
    /// How many read it just now, and how many write.
    Steps(Arc<Model<(u32, u32)>>),
}

impl Memory {
    fn access(&self, writes: bool) {
        match self {
            Memory::Cell(cell) if writes => cell.set(1),
            Memory::Cell(cell) => _ = cell.get(),
            Memory::Steps(model) => {
                let others = model.change(|(reads, writing)| {
                    let others = *writing + if writes { *reads } else { 0 };
                    if writes {
                        *writing += 1
                    } else {
                        *reads += 1
                    }
                    others
                });
                if others > 0 {
                    fail("two accesses overlap");
                }
                model.change(|(reads, writing)| if writes { *writing -= 1 } else { *reads -= 1 });
            }
        }
    }
}

#[derive(Clone)]
struct Shared {
    memory: Memory,
    lock: Arc<Mutex<Sim, ()>>,
    word: Arc<AtomicU32>,
}

fn run(actions: &[Do], shared: &Shared) {
    for action in actions {
        match action {
            Read => shared.memory.access(false),
            Write => shared.memory.access(true),
            Locked => {
                let _guard = shared.lock.lock();
                shared.memory.access(true);
            }
            Lock => drop(shared.lock.lock()),
            Store => shared.word.store(1, SeqCst),
            IfStored if shared.word.load(SeqCst) == 1 => {}
            IfStored => return,
            Spawn | Join => {
                let with_child = shared.clone();
                let child = spawn("child", move || run(&[Store, Write], &with_child));
                if matches!(action, Join) {
                    child.join();
                }
            }
        }
    }
}

fn program(m: &Machine, tasks: [&[Do]; 2], steps: bool) {
    let memory = match steps {
        true => Memory::Steps(Arc::new(Model::new("accesses", (0, 0)))),
        false => Memory::Cell(Arc::new(RaceCell::new(0))),
    };
    let lock = Arc::new(Mutex::new(&MUTEX, ()));
    let shared = Shared { memory, lock, word: Arc::new(AtomicU32::new(0)) };
    for (name, actions) in ["one", "two"].into_iter().zip(tasks) {
        let (shared, actions) = (shared.clone(), actions.to_vec());
        m.task(name, move || run(&actions, &shared));
    }
}

#[test]
fn a_race_is_found_exactly_where_two_accesses_can_overlap() {
    let mut bodies: Vec<Vec<Do>> = ALL.iter().map(|&one| vec![one]).collect();
    for one in ALL {
        bodies.extend(ALL.iter().map(|&two| vec![one, two]));
    }
    let (mut races, mut none) = (0, 0);
    for (index, first) in bodies.iter().enumerate() {
        for second in bodies.iter().skip(index) {
            let tasks = [&first[..], &second[..]];
            let found = Explore::new("cell").minimise(false).run(|m| program(m, tasks, false));
            let expected = Explore::new("steps")
                .schedules(Schedules::All)
                .minimise(false)
                .run(|m| program(m, tasks, true));
            let overlap = expected.verdict == Verdict::Found;
            assert_eq!(found.verdict, expected.verdict, "{tasks:?}");
            if let Some(failure) = &found.failure {
                assert_eq!(failure.kind, FailureKind::DataRace, "{tasks:?}");
            }
            *(if overlap { &mut races } else { &mut none }) += 1;
        }
    }
    assert!(races > 50 && none > 50, "{races} programs race, {none} do not");
}
