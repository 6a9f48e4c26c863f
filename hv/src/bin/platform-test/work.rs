//! The work queue.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU32};

use doorbell_hv::bare::Bare;
use doorbell_hv::irq::{self, Handled};
use doorbell_platform::{
    Completion, OnceCell, ParkCompletion, Platform, PoolWork, SystemQueue, Vector, Work, WorkQueue,
};

use crate::each::{Checked, cpus, on_each, spin_until, verdict};

pub fn work_that_is_flushed_has_run() -> Checked {
    let (runs, at_once) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (counted, inside) = (runs.clone(), at_once.clone());
    let twice = Arc::new(AtomicBool::new(false));
    let seen_twice = twice.clone();
    let work = Bare::system_queue().work("test", move || {
        if inside.fetch_add(1, SeqCst) != 0 {
            seen_twice.store(true, SeqCst);
        }
        counted.fetch_add(1, SeqCst);
        inside.fetch_sub(1, SeqCst);
    });
    let flushed = on_each(cpus(), move |_| {
        (0..300).all(|_| {
            let before = runs.load(SeqCst);
            work.queue();
            work.flush();
            runs.load(SeqCst) > before
        })
    });
    verdict(flushed == Bare::cpu_count(), "a flush has not waited")?;
    verdict(!twice.load(SeqCst), "it has run twice at once")
}

static QUEUED_BY_HANDLER: OnceCell<Bare, PoolWork<Bare>> = OnceCell::new();

fn queue() -> Handled {
    if let Some(work) = QUEUED_BY_HANDLER.get() {
        work.queue();
    }
    Handled::Done
}

pub fn work_that_is_queued_by_a_handler_runs() -> Checked {
    let runs = Arc::new(AtomicU32::new(0));
    let (counted, in_task) = (runs.clone(), Arc::new(AtomicBool::new(true)));
    let told = in_task.clone();
    let work = Bare::system_queue().work("test", move || {
        if Bare::in_hardirq() {
            told.store(false, SeqCst);
        }
        counted.fetch_add(1, SeqCst);
    });
    let _ = QUEUED_BY_HANDLER.set(Box::new(work));
    irq::handle(4, queue);
    for cpu in cpus().cycle().take(200) {
        let before = runs.load(SeqCst);
        Bare::send_ipi(cpu, Vector(4));
        spin_until(|| runs.load(SeqCst) > before);
    }
    verdict(in_task.load(SeqCst), "it runs in the handler")
}

pub fn work_that_is_cancelled_does_not_run_any_more() -> Checked {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let work = Bare::system_queue().work("test", move || {
        counted.fetch_add(1, SeqCst);
    });
    for _ in 0..300 {
        let before = runs.load(SeqCst);
        work.queue();
        let cancelled = work.cancel();
        verdict(
            runs.load(SeqCst) == before + u32::from(!cancelled),
            "it was cancelled, and has run",
        )?;
    }
    let done = Arc::new(ParkCompletion::<Bare>::new("done"));
    let theirs = done.clone();
    Bare::system_queue().spawn("test", Box::new(move || theirs.complete_all()));
    done.wait();
    Ok(())
}
