//! Interrupts from CPU to CPU, and locks that handlers take.

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU32};

use doorbell_hv::bare::Bare;
use doorbell_hv::irq::{self, Handled};
use doorbell_platform::{Atomic, IrqGuard, Lock, LockClass, Platform, Vector, WaitType};

use crate::each::{Checked, cpus, on_each, spin_until, verdict};

/// How many interrupts of vector 2 have come to each CPU.
static COUNTS: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];
/// Whether a handler has found itself where it should not be.
static WRONG: AtomicBool = AtomicBool::new(false);

fn count() -> Handled {
    if !Bare::in_hardirq() || Bare::irqs_enabled() {
        WRONG.store(true, SeqCst);
    }
    COUNTS[Bare::current_cpu().0 as usize].fetch_add(1, SeqCst);
    Handled::Done
}

pub fn an_interrupt_reaches_each_cpu_from_each() -> Checked {
    irq::handle(2, count);
    for from in cpus() {
        let right = on_each([from].into_iter(), |_| {
            for to in cpus() {
                let before = COUNTS[to.0 as usize].load(SeqCst);
                Bare::send_ipi(to, Vector(2));
                spin_until(|| COUNTS[to.0 as usize].load(SeqCst) == before + 1);
            }
            true
        });
        verdict(right == 1, "the sender has not ended")?;
    }
    let each = COUNTS
        .iter()
        .take(Bare::cpu_count() as usize)
        .all(|count| count.load(SeqCst) == Bare::cpu_count());
    verdict(each, "an interrupt has come more than once")?;
    verdict(!WRONG.load(SeqCst), "a handler runs outside of hard-interrupt context")
}

pub fn an_interrupt_waits_for_interrupts_to_be_on() -> Checked {
    let right = on_each(cpus(), |cpu| {
        let seen = &COUNTS[cpu.0 as usize];
        (0..100).all(|_| {
            let outer = IrqGuard::<Bare>::new();
            let before = seen.load(SeqCst);
            Bare::send_ipi(cpu, Vector(2));
            drop(IrqGuard::<Bare>::new());
            let waited = seen.load(SeqCst) == before && !Bare::irqs_enabled();
            drop(outer);
            spin_until(|| seen.load(SeqCst) != before);
            waited && Bare::irqs_enabled()
        })
    });
    verdict(right == Bare::cpu_count(), "an interrupt has come too early")
}

static SPIN: LockClass = LockClass::new("test.spin", WaitType::Spin);
/// Two numbers that are equal while nobody has the lock.
static EQUAL: Lock<Bare, [u32; 2]> = Lock::constant(&SPIN, [0; 2]);
static TORN: AtomicBool = AtomicBool::new(false);
static HANDLED: AtomicU32 = AtomicU32::new(0);

fn increment() {
    let mut counts = EQUAL.lock_irqsave();
    counts[0] += 1;
    if counts[0] != counts[1] + 1 {
        TORN.store(true, SeqCst);
    }
    counts[1] += 1;
}

fn increment_in_handler() -> Handled {
    increment();
    HANDLED.fetch_add(1, SeqCst);
    Handled::Done
}

pub fn a_lock_excludes_handlers() -> Checked {
    const ROUNDS: u32 = 2_000;
    irq::handle(3, increment_in_handler);
    let right = on_each(cpus(), |cpu| {
        for round in 0..ROUNDS {
            increment();
            if round % 8 == 0 {
                let to = cpus().nth(((cpu.0 + round / 8) % Bare::cpu_count()) as usize);
                to.into_iter().for_each(|to| Bare::send_ipi(to, Vector(3)));
            }
        }
        true
    });
    // What was sent while one was pending has come with that one: wait until none is.
    on_each(cpus(), |cpu| {
        let before = COUNTS[cpu.0 as usize].load(SeqCst);
        Bare::send_ipi(cpu, Vector(2));
        spin_until(|| COUNTS[cpu.0 as usize].load(SeqCst) != before);
        true
    });
    let counts = *EQUAL.lock_irqsave();
    let handled = HANDLED.load(SeqCst);
    verdict(right == Bare::cpu_count() && !TORN.load(SeqCst), "two had the lock")?;
    verdict(handled > 0, "no handler has run")?;
    verdict(counts == [Bare::cpu_count() * ROUNDS + handled; 2], "an increment is lost")
}

pub fn words_of_128_bits_are_the_machines_own() -> Checked {
    verdict(<<Bare as Platform>::AtomicU128 as Atomic>::is_lock_free(), "they fall back to a lock")
}

/// A word that each of two CPUs writes before it looks at the other's.
static WRITTEN: [Word; 2] = [const { Word::ZERO }; 2];
/// What each has seen.
static SEEN: [Word; 2] = [const { Word::ZERO }; 2];
/// How far each has come.
static BEGUN: [Word; 2] = [const { Word::ZERO }; 2];
static ENDED: [Word; 2] = [const { Word::ZERO }; 2];

type Word = <Bare as Platform>::AtomicU32;

pub fn of_two_that_write_and_look_one_sees_the_other() -> Checked {
    const ROUNDS: u32 = 50_000;
    let right = on_each(cpus().take(2), |cpu| {
        let (me, other) = (cpu.0 as usize, 1 - cpu.0 as usize);
        (1..=ROUNDS)
            .filter(|&round| {
                let meet = |words: &[Word; 2]| {
                    words[me].store(round, SeqCst);
                    spin_until(|| words[other].load(SeqCst) >= round);
                };
                meet(&BEGUN);
                WRITTEN[me].store(round, SeqCst);
                let seen = WRITTEN[other].load(SeqCst);
                SEEN[me].store(seen, SeqCst);
                meet(&ENDED);
                SEEN.iter().all(|seen| seen.load(SeqCst) < round)
            })
            .count()
            == 0
    });
    verdict(right == 2, "neither has")
}
