//! The fast path: a memory of acquisitions that have nothing new to tell.
//!
//! The search repeats the same few hundred acquisitions millions of times. What the validator
//! learns from one depends on nothing but the event, and learning it twice changes nothing. So a
//! table that may forget is good enough: when four fingerprints fall into one bucket, a fifth
//! pushes one out, and that one's event takes the slow path once more.

use std::ptr;

use super::feed::{AcquireEvent, Held};

/// Fingerprints that share a bucket: half a cache line.
const WAYS: usize = 4;
/// Buckets to begin with (8 KiB, which stays in the first-level cache).
const FEWEST: usize = 1 << 8;
/// Buckets at most: 1 MiB.
const MOST: usize = 1 << 15;

/// Odd constants without structure, so that no field's ordinary value makes a factor zero.
const K: [u64; 8] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
    0x1d8e_4e27_c47d_124f,
];

/// Fingerprints of acquisitions that were fed already.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// A power of two of buckets; 0 is an empty place.
    buckets: Box<[[u64; WAYS]]>,
    /// How many places are taken.
    filled: usize,
}

impl Seen {
    pub(super) fn new() -> Self {
        // Programs without locks need none.
        Seen::of_size(1)
    }

    fn of_size(buckets: usize) -> Self {
        Seen { buckets: vec![[0; WAYS]; buckets].into(), filled: 0 }
    }

    #[inline]
    fn bucket(&self, print: u64) -> usize {
        (print >> 40) as usize & (self.buckets.len() - 1)
    }

    #[inline]
    pub(super) fn contains(&self, print: u64) -> bool {
        self.buckets[self.bucket(print)].contains(&print)
    }

    /// Remembers `print`, perhaps at another's expense.
    pub(super) fn insert(&mut self, print: u64) {
        // A third full, buckets begin to overflow.
        if self.filled * 3 > self.buckets.len() * WAYS && self.buckets.len() < MOST
            || self.buckets.len() < FEWEST
        {
            let mut larger = Seen::of_size((self.buckets.len() * 4).max(FEWEST));
            self.buckets
                .as_flattened()
                .iter()
                .filter(|known| **known != 0)
                .for_each(|known| larger.put(*known));
            *self = larger;
        }
        self.put(print);
    }

    fn put(&mut self, print: u64) {
        let bucket = &mut self.buckets[self.bucket(print)];
        match bucket.iter_mut().find(|place| **place == 0) {
            Some(place) => {
                *place = print;
                self.filled += 1;
            }
            // Bits that choose no bucket choose who goes.
            None => bucket[(print >> 8) as usize % WAYS] = print,
        }
    }
}

/// Multiplies to 128 bits and folds the halves together.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn held_print(held: &Held) -> u64 {
    let lock = held.lock.map_or(0, |lock| u64::from(lock.0) + 1);
    let how = lock << 5
        | u64::from(held.subclass.get()) << 2
        | u64::from(held.tried) << 1
        | u64::from(held.irqs_on);
    // Class and site are compared by address: a site that the compiler duplicates takes two places,
    // no more.
    let what = fold(
        ptr::from_ref(held.class).addr() as u64 ^ K[0],
        ptr::from_ref(held.site).addr() as u64 ^ K[1],
    );
    fold(what ^ K[2], how ^ K[3])
}

/// 64 bits of everything in the event. Two events share them with a probability of about 2^-63,
/// which is the only way in which the fast path can lose one.
///
/// The prints of the held locks do not depend on each other, so that a CPU computes them side by
/// side; only the cheap rotation that puts them in order is sequential.
#[inline]
pub(super) fn fingerprint(event: &AcquireEvent<'_>) -> u64 {
    let cpu = event.cpu.map_or(0, |cpu| u64::from(cpu.0) + 1);
    let who = u64::from(event.ctx.0)
        | (event.kind as u64) << 8
        | u64::from(event.atomic) << 10
        | cpu << 16;
    let under = event.under.map_or(0, |class| ptr::from_ref(class).addr() as u64);
    let mut print = fold(fold(who ^ K[4], event.after.0 ^ K[5]) ^ K[6], under ^ K[7]);
    print = print.rotate_left(23).wrapping_add(held_print(&event.taken));
    for held in event.held {
        print = print.rotate_left(23).wrapping_add(held_print(held));
    }
    // 0 marks an empty place.
    print | 1
}
