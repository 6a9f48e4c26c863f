//! The plain pool: what the search is told about it must not hide anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use doorbell_explore::sim::{GracePeriods, Managed, ManagedPool, Model, Pool, SimCompletion};
use doorbell_explore::{Explore, Machine, Schedules, Sim};
use doorbell_platform::{
    Completion, LockClass, Mutex, Platform, ReadDomain, WaitType, Work, WorkQueue,
};

static MUTEX: LockClass = LockClass::new("mutex", WaitType::Sleep);

/// What happened, in order.
#[derive(Clone)]
struct Log(Arc<Model<String>>);

impl Log {
    fn new(m: &Machine) -> Log {
        let log = Log(Arc::new(Model::new("log", String::new())));
        let told = log.clone();
        m.outcome(move || told.0.observe(String::clone));
        log
    }

    fn add(&self, what: char) {
        self.0.change(|log| log.push(what));
    }
}

/// The reduced search sees what brute force sees, and how many outcomes that are.
#[track_caller]
fn compare(program: impl Fn(&Machine) + Send + Sync + Copy) -> usize {
    let reduced = Explore::new("reduced").collect_outcomes().run(program);
    let brute = Explore::new("brute").collect_outcomes().schedules(Schedules::All).run(program);
    println!(
        "{} of {} executions, {} outcomes",
        reduced.executions,
        brute.executions,
        brute.outcomes.len()
    );
    assert_eq!(unnamed(&reduced.outcomes), unnamed(&brute.outcomes));
    brute.outcomes.len()
}

/// Strips outcomes of what differs between equivalent ones: who is left waiting is told by name,
/// but workers are alike, and objects are numbered as they come.
fn unnamed(outcomes: &BTreeSet<String>) -> BTreeSet<String> {
    let plain = |word: &str| match word.split_once(':') {
        Some((who, what)) => {
            let who = who.split('/').next().unwrap_or(who);
            let what = what.split(':').next().unwrap_or(what);
            format!("{who}:{what}")
        }
        None => word.to_owned(),
    };
    let sorted = |text: &String| {
        let mut words: Vec<String> = text.split(' ').map(plain).collect();
        words[1..].sort();
        words.join(" ")
    };
    outcomes.iter().map(sorted).collect()
}

#[test]
fn jobs_of_two_tasks_come_in_every_order_that_the_pool_allows() {
    for workers in [1, 2, 3] {
        let outcomes = compare(move |m: &Machine| {
            let log = Log::new(m);
            let pool = Pool::new(m, "pool", workers);
            for (task, jobs) in [("one", ['a', 'b']), ("two", ['c', 'd'])] {
                let (log, pool) = (log.clone(), pool.clone());
                m.task(task, move || {
                    for job in jobs.into_iter().take(if task == "one" { 2 } else { 1 }) {
                        let log = log.clone();
                        pool.spawn("job", Box::new(move || log.add(job)));
                    }
                });
            }
        });
        assert!(outcomes >= 3);
    }
}

#[test]
fn jobs_that_queue_jobs_come_in_every_order_that_the_pool_allows() {
    for workers in [1, 2] {
        compare(move |m: &Machine| {
            let log = Log::new(m);
            let pool = Pool::new(m, "pool", workers);
            for (first, second) in [('a', 'A'), ('b', 'B')] {
                let (log, next) = (log.clone(), pool.clone());
                pool.spawn(
                    "first",
                    Box::new(move || {
                        log.add(first);
                        next.spawn("second", Box::new(move || log.add(second)));
                    }),
                );
            }
        });
    }
}

#[test]
fn jobs_that_wait_for_jobs_exhaust_the_pool_in_the_reduced_search_as_they_do_by_brute_force() {
    for workers in [1, 2] {
        compare(move |m: &Machine| {
            let log = Log::new(m);
            let pool = Pool::new(m, "pool", workers);
            let done = Arc::new(SimCompletion::new("done"));
            done.released_by(pool.workers());
            let (completes, queue) = (Arc::clone(&done), pool.clone());
            m.task("one", move || {
                queue.spawn("completes", Box::new(move || completes.complete_all()))
            });
            for name in ['a', 'b'] {
                let (log, done) = (log.clone(), Arc::clone(&done));
                pool.spawn(
                    "waits",
                    Box::new(move || {
                        done.wait();
                        log.add(name);
                    }),
                );
            }
        });
    }
}

#[test]
fn the_rescuer_takes_what_is_its_own_at_every_moment_at_which_it_can() {
    compare(|m: &Machine| {
        let log = Log::new(m);
        let pool = Pool::new(m, "pool", 1);
        let rescued = pool.with_rescuer(m, "rescuer");
        let queue = log.clone();
        m.task("one", move || {
            for (name, handle) in [('a', &pool), ('b', &rescued), ('c', &pool)] {
                let log = queue.clone();
                handle.spawn("job", Box::new(move || log.add(name)));
            }
        });
    });
}

#[test]
fn work_that_is_cancelled_and_flushed_ends_in_every_way_in_which_it_can() {
    compare(|m: &Machine| {
        let log = Log::new(m);
        let pool = Pool::new(m, "pool", 2);
        let (logs, other) = (log.clone(), log.clone());
        let work = pool.work("work", move || logs.add('w'));
        let queued = work.clone();
        m.task("one", move || {
            queued.queue();
            queued.flush();
            log.add('f');
        });
        m.task("two", move || {
            let cancelled = work.cancel();
            other.add(if cancelled { 'c' } else { 'n' });
        });
    });
}

#[test]
fn grace_periods_on_a_pool_come_in_every_order() {
    for workers in [1, 2] {
        compare(move |m: &Machine| {
            let log = Log::new(m);
            let pool = Pool::new(m, "pool", workers);
            m.grace_periods(GracePeriods::OnPool(pool));
            let domain = Arc::new(<Sim as Platform>::Srcu::new("domain"));
            let (reads, calls, reader, caller) =
                (Arc::clone(&domain), Arc::clone(&domain), log.clone(), log.clone());
            m.task("reader", move || {
                let _section = reads.read();
                reader.add('r');
            });
            m.task("caller", move || {
                let called = caller.clone();
                calls.call(Box::new(move || called.add('c')));
            });
        });
    }
}

#[test]
fn workers_that_contend_for_a_mutex_do_so_in_every_order() {
    compare(|m: &Machine| {
        let log = Log::new(m);
        let pool = Pool::new(m, "pool", 2);
        let mutex = Arc::new(Mutex::<Sim, ()>::new(&MUTEX, ()));
        for name in ['a', 'b', 'c'] {
            let (log, mutex) = (log.clone(), Arc::clone(&mutex));
            pool.spawn(
                "job",
                Box::new(move || {
                    let _held = mutex.lock();
                    log.add(name);
                }),
            );
        }
    });
}

/// A small random program.
#[derive(Clone, Debug)]
struct Program {
    workers: usize,
    /// Per task, per job: what it does.
    tasks: Vec<Vec<Vec<Deed>>>,
    managed: Option<Managed>,
    rescuer: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Deed {
    Log(char),
    Mutex,
    Read,
    Synchronize,
    Call(char),
    Spawn(char),
}

impl Program {
    fn random(seed: u64) -> Program {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut names = ('a'..='z').cycle();
        let mut left = 4;
        let tasks = (0..1 + draw(2))
            .map(|_| {
                (0..1 + draw(2))
                    .map(|_| {
                        let deeds = draw(3).min(left);
                        left -= deeds;
                        (0..deeds)
                            .map(|_| {
                                let name = names.next().unwrap_or('a');
                                match draw(6) {
                                    0 => Deed::Mutex,
                                    1 => Deed::Read,
                                    2 => Deed::Synchronize,
                                    3 => Deed::Call(name),
                                    4 => Deed::Spawn(name),
                                    _ => Deed::Log(name),
                                }
                            })
                            .collect()
                    })
                    .collect()
            })
            .collect();
        let creatable = draw(2) as usize;
        let managed =
            (draw(2) == 0).then(|| Managed { creatable, ..Managed::new(1 + draw(2) as usize) });
        Program { workers: 1 + draw(2) as usize, tasks, managed, rescuer: draw(4) == 0 }
    }

    fn run(&self, m: &Machine) {
        type Job = Box<dyn FnOnce() + Send>;
        let log = Log::new(m);
        let spawn: Arc<dyn Fn(Job) + Send + Sync> = match self.managed {
            None => {
                let pool = Pool::new(m, "pool", self.workers);
                let graces =
                    if self.rescuer { pool.with_rescuer(m, "rescuer") } else { pool.clone() };
                m.grace_periods(GracePeriods::OnPool(graces));
                Arc::new(move |job| pool.spawn("job", job))
            }
            Some(how) => {
                let pool = ManagedPool::new(m, "pool", how);
                let graces = pool.queue(9);
                let graces = if self.rescuer { graces.with_rescuer(m, "rescuer") } else { graces };
                m.grace_periods(GracePeriods::OnQueue(graces));
                let queue = pool.queue(2);
                Arc::new(move |job| queue.spawn("job", job))
            }
        };
        let domain = Arc::new(<Sim as Platform>::Srcu::new("domain"));
        let mutex = Arc::new(Mutex::<Sim, ()>::new(&MUTEX, ()));
        for (number, jobs) in self.tasks.iter().enumerate() {
            let jobs: Vec<Job> = jobs
                .iter()
                .map(|deeds| {
                    let (deeds, log, spawn) = (deeds.clone(), log.clone(), Arc::clone(&spawn));
                    let (domain, mutex) = (Arc::clone(&domain), Arc::clone(&mutex));
                    Box::new(move || {
                        for deed in deeds {
                            let log = log.clone();
                            match deed {
                                Deed::Log(name) => log.add(name),
                                Deed::Mutex => drop(mutex.lock()),
                                Deed::Read => drop(domain.read()),
                                Deed::Synchronize => domain.synchronize(),
                                Deed::Call(name) => domain.call(Box::new(move || log.add(name))),
                                Deed::Spawn(name) => spawn(Box::new(move || log.add(name))),
                            }
                        }
                    }) as Job
                })
                .collect();
            let spawn = Arc::clone(&spawn);
            m.task(format!("task {number}"), move || jobs.into_iter().for_each(|job| spawn(job)));
        }
    }
}

#[test]
fn random_programs_on_pools_have_the_outcomes_that_brute_force_finds() {
    let mut compared = 0;
    for seed in seeds() {
        let program = Program::random(seed);
        let explore = Explore::new("random").collect_outcomes();
        let brute =
            explore.clone().schedules(Schedules::All).max_executions(5_000).run(|m| program.run(m));
        if brute.verdict != doorbell_explore::Verdict::Exhausted {
            continue;
        }
        let reduced = explore.run(|m| program.run(m));
        assert_eq!(
            unnamed(&reduced.outcomes),
            unnamed(&brute.outcomes),
            "seed {seed}: {program:?}"
        );
        compared += 1;
    }
    println!("{compared} programs compared");
}

/// A few hundred: runs that end in a deadlock leave their stacks behind.
fn seeds() -> std::ops::Range<u64> {
    let first = std::env::var("FIRST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    first..first + 300
}
