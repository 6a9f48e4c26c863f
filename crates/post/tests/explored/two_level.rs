//! Senders and an owner of bits that have a summary.

use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::removal::Program;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_hardware::posts::{Few, Posts, TwoWords};
use doorbell_hardware::vcpu::{self, A, Delivery};
use doorbell_platform::{Atomic, Platform};
use doorbell_post::{Layout, SoftwareGate};

use crate::gates::{nothing_pending, senders};

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("two levels: stays in the guest, two bits of a word", |m| {
            stays::<TwoWords>(m, &[0, 2])
        }),
        Program::new("two levels: stays in the guest, bits of two words", |m| {
            stays::<TwoWords>(m, &[0, 1])
        }),
        Program::new("two levels: stays in the guest, one bit twice", |m| {
            stays::<TwoWords>(m, &[0, 0])
        }),
        Program::new("two levels: runs and sleeps, two bits of a word", |m| {
            sleeps::<TwoWords>(m, &[0, 2], false)
        }),
        Program::new("two levels: runs and sleeps, bits of two words", |m| {
            sleeps::<TwoWords>(m, &[0, 1], false)
        }),
        Program::new("two levels: runs, sleeps and is preempted", |m| {
            sleeps::<TwoWords>(m, &[0], true)
        }),
        Program::new("two levels: finds a word empty while somebody posts", looks::<TwoWords>),
    ]
}

fn stays<L: Few>(m: &Machine, numbers: &[usize]) {
    let vcpu = Posts::<_, L>::new(SoftwareGate::new(), A, false);
    vcpu.takes_posted(false);
    vcpu::task(m, &vcpu, Delivery::stay);
    senders(m, &vcpu, numbers);
    nothing_pending(m, &vcpu, numbers.iter().fold(0, |wanted, number| wanted | 1 << number));
}

fn sleeps<L: Few>(m: &Machine, numbers: &[usize], preempted: bool) {
    let vcpu = Posts::<_, L>::new(SoftwareGate::new(), A, true);
    let wanted = numbers.iter().fold(0, |wanted, number| wanted | 1 << number);
    vcpu::task(m, &vcpu, move |vcpu| vcpu.run_and_sleep(wanted));
    senders(m, &vcpu, numbers);
    if preempted {
        vcpu::preempt(m, &vcpu, 1);
    }
    nothing_pending(m, &vcpu, wanted);
}

/// A vCPU that has taken a bit, looks for more while another bit of the word is posted, and stays
/// in the guest then.
fn looks<L: Few>(m: &Machine) {
    let vcpu = Posts::<_, L>::new(SoftwareGate::new(), A, false);
    vcpu.takes_posted(false);
    let _ = vcpu.post.post(L::bit(0));
    vcpu::task(m, &vcpu, |vcpu| {
        for _ in 0..2 {
            let _ = vcpu.post.synchronize(|bits| vcpu.take(bits));
        }
        vcpu.stay();
    });
    senders(m, &vcpu, &[2]);
    nothing_pending(m, &vcpu, 0b101);
}

type Word = <Sim as Platform>::AtomicU64;

/// A word of bits and its bit of a summary, in one of the wrong orders.
struct Wrong<const SUMMARY_FIRST: bool> {
    summary: Word,
    word: Word,
}

impl<const SUMMARY_FIRST: bool> Layout for Wrong<SUMMARY_FIRST> {
    type Bit = usize;

    fn publish(&self, bit: usize) -> bool {
        if SUMMARY_FIRST {
            self.summary.fetch_or(1, SeqCst);
            return self.word.fetch_or(1 << bit, SeqCst) >> bit & 1 == 0;
        }
        if self.word.fetch_or(1 << bit, SeqCst) >> bit & 1 != 0 {
            return false;
        }
        if self.summary.load(SeqCst) == 0 {
            self.summary.fetch_or(1, SeqCst);
        }
        true
    }

    fn any(&self) -> bool {
        self.summary.load(SeqCst) != 0 && self.word.load(SeqCst) != 0
    }
}

impl<const SUMMARY_FIRST: bool> Few for Wrong<SUMMARY_FIRST> {
    fn empty() -> Self {
        Wrong { summary: Word::new(0), word: Word::new(0) }
    }

    fn bit(number: usize) -> usize {
        number
    }

    fn take(&self) -> u64 {
        if self.summary.load(SeqCst) == 0 {
            return 0;
        }
        if SUMMARY_FIRST {
            self.summary.fetch_and(0, SeqCst);
            return self.word.swap(0, SeqCst);
        }
        let taken = self.word.swap(0, SeqCst);
        self.summary.fetch_and(0, SeqCst);
        taken
    }
}

/// What becomes of two senders to a vCPU that stays in the guest.
fn lost<L: Few>() -> bool {
    let report = Explore::new("two levels, wrong").run(|m: &Machine| stays::<L>(m, &[0, 1]));
    report.failure.is_some_and(|failure| failure.kind == FailureKind::Quiescence)
}

#[test]
fn a_sender_that_sets_the_summary_before_the_bit_loses_the_bit() {
    assert!(lost::<Wrong<true>>());
}

#[test]
fn an_owner_that_takes_the_word_before_it_clears_the_summary_loses_a_bit() {
    assert!(lost::<Wrong<false>>());
    assert!(!lost::<TwoWords>());
}
