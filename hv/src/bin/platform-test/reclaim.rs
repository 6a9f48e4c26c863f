//! RCU and SRCU.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU32};

use doorbell_hv::bare::Bare;
use doorbell_hv::scheduler;
use doorbell_platform::{Platform, RcuCell, ReadDomain};

use crate::each::{Checked, cpus, on_each, verdict};

const ALIVE: u32 = 0x600d_600d;

/// An object that says whether it is alive.
struct Witness {
    magic: AtomicU32,
    alive: Arc<AtomicU32>,
}

impl Witness {
    fn new(alive: &Arc<AtomicU32>) -> Box<Self> {
        alive.fetch_add(1, SeqCst);
        Box::new(Witness { magic: AtomicU32::new(ALIVE), alive: alive.clone() })
    }

    fn is_alive(&self) -> bool {
        self.magic.load(SeqCst) == ALIVE
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.magic.store(0, SeqCst);
        self.alive.fetch_sub(1, SeqCst);
    }
}

fn a_reader_never_sees_a_freed_value<D: ReadDomain>(may_sleep: bool) -> Checked {
    const ROUNDS: u32 = 300;
    let alive = Arc::new(AtomicU32::new(0));
    let domain = Arc::new(D::new("test"));
    let cell = RcuCell::<Bare, D, Witness>::new(&domain, Witness::new(&alive));
    let cell = Arc::new(cell);
    let (theirs, counted, stop) = (cell.clone(), alive.clone(), AtomicBool::new(false));
    let readers = Bare::cpu_count() - 1;
    let right = on_each(cpus(), move |cpu| {
        if cpu.0 != readers {
            let mut right = true;
            while !stop.load(SeqCst) {
                let read = theirs.read();
                right &= read.is_alive();
                if may_sleep {
                    scheduler::schedule();
                }
                Bare::cpu_relax();
                right &= read.is_alive();
                drop(read);
                // CPUs that take turns make way here.
                Bare::cpu_relax();
            }
            return right;
        }
        for round in 0..ROUNDS {
            let retired = theirs.replace(Witness::new(&counted));
            match round % 3 {
                0 => retired.reclaim_later(),
                1 => drop(retired.synchronize()),
                _ => drop(retired.synchronize_expedited()),
            }
        }
        stop.store(true, SeqCst);
        true
    });
    domain.barrier();
    verdict(right == Bare::cpu_count(), "a reader has seen a freed value")?;
    verdict(alive.load(SeqCst) == 1, "what was replaced is not freed")?;
    drop(cell);
    verdict(alive.load(SeqCst) == 0, "the last value is not freed")
}

pub fn a_reader_of_srcu_never_sees_a_freed_value() -> Checked {
    a_reader_never_sees_a_freed_value::<<Bare as Platform>::Srcu>(true)
}

pub fn a_reader_of_rcu_never_sees_a_freed_value() -> Checked {
    a_reader_never_sees_a_freed_value::<<Bare as Platform>::Rcu>(false)
}

pub fn callbacks_run_in_order() -> Checked {
    let domain = Arc::new(<Bare as Platform>::Srcu::new("test"));
    let (ran, wrong) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let mut asked = 0;
    for _ in 0..100 {
        let section = domain.read();
        for _ in 0..5 {
            let (ran, wrong, number) = (ran.clone(), wrong.clone(), asked);
            asked += 1;
            domain.call(Box::new(move || {
                if ran.fetch_add(1, SeqCst) != number {
                    wrong.store(true, SeqCst);
                }
            }));
        }
        verdict(ran.load(SeqCst) <= asked - 5, "a callback has run before the section has ended")?;
        drop(section);
        domain.barrier();
        verdict(ran.load(SeqCst) == asked, "the barrier has not waited")?;
    }
    verdict(!wrong.load(SeqCst), "the callbacks have run out of order")
}
