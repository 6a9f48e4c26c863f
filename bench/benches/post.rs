//! How many instructions a post takes, up to the returned notice, under callgrind's eyes: the
//! result is the same each time. Fails if one takes more than it may.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench post
//! ```

use std::hint::black_box;

use doorbell_bench::callgrind::{self, Operation};
use doorbell_platform::{CpuId, IrqGuard, Std, Vector};
use doorbell_post::{Destination, Guest, ModeGate, Pending, PiDescriptor, PiGate, Post};

type Avic = Post<Std, Pending<Std, 4>, ModeGate<Std>>;

/// One function for each operation: callgrind collects what runs inside of them. Not generic, or
/// they would not have these names.
mod measured {
    use super::{Avic, PiDescriptor, Std};
    use doorbell_platform::CpuId;
    use doorbell_post::{Notice, Notification};

    #[inline(never)]
    pub fn vmx(post: &PiDescriptor<Std>, vector: u8) -> Notice<Notification> {
        post.post(vector.into())
    }

    #[inline(never)]
    pub fn level(post: &Avic, vector: u8) -> Notice<CpuId> {
        post.post(vector.into())
    }

    #[inline(never)]
    pub fn vmx_drain(post: &PiDescriptor<Std>, taken: &mut [u64; 4]) {
        let _taken = post.synchronize(|pir| pir.take_words(|index, bits| taken[index] |= bits));
    }

    #[inline(never)]
    pub fn level_drain(post: &Avic, taken: &mut [u64; 4]) {
        let _taken = post.synchronize(|pir| pir.take_words(|index, bits| taken[index] |= bits));
    }
}

const ROUNDS: u64 = 1000;

/// What is measured, and how many instructions it may take.
const OPERATIONS: [(&str, u64); 10] = [
    ("vmx: to a running vCPU", 30),
    ("vmx: the same vector again", 30),
    ("vmx: another vector while one is outstanding", 30),
    ("vmx: to a vCPU in the host", 30),
    ("vmx: draining an empty set", 10),
    ("vmx: draining a set of one", 26),
    ("level: to a running vCPU", 30),
    ("level: the same vector again", 30),
    ("level: draining an empty set", 10),
    ("level: draining a set of one", 26),
];

/// Does one operation, some rounds long; this is what runs under callgrind.
fn run(operation: &str) {
    let gate = PiGate::new(Destination::x2apic(3), Vector(0xf2));
    let vmx = PiDescriptor::<Std>::new(Pending::new(), gate);
    let level = Avic::new(Pending::new(), ModeGate::new());
    let (vmx, level) = (black_box(&vmx), black_box(&level));
    let mut taken = [0; 4];
    let irqs_off = IrqGuard::new();
    let guest = Guest { cpu: CpuId(3), posted: true };
    for _ in 0..ROUNDS {
        let (a, b) = (black_box(0x41), black_box(0xe2));
        let in_guest = (operation != "vmx: to a vCPU in the host")
            .then(|| vmx.enter(&irqs_off, guest).unwrap().rescan(|_| ()).0);
        let (level_in_guest, _) = level.enter(&irqs_off, guest).unwrap().rescan(|_| ());
        match operation {
            "vmx: to a running vCPU" | "vmx: to a vCPU in the host" => {
                consume(measured::vmx(vmx, a))
            }
            "vmx: the same vector again" => {
                consume(vmx.post(a.into()));
                consume(measured::vmx(vmx, a));
            }
            "vmx: another vector while one is outstanding" => {
                consume(vmx.post(a.into()));
                consume(measured::vmx(vmx, b));
            }
            "vmx: draining an empty set" => measured::vmx_drain(vmx, &mut taken),
            "vmx: draining a set of one" => {
                consume(vmx.post(a.into()));
                measured::vmx_drain(vmx, &mut taken);
            }
            "level: to a running vCPU" => consume(measured::level(level, a)),
            "level: the same vector again" => {
                consume(level.post(a.into()));
                consume(measured::level(level, a));
            }
            "level: draining an empty set" => measured::level_drain(level, &mut taken),
            "level: draining a set of one" => {
                consume(level.post(a.into()));
                measured::level_drain(level, &mut taken);
            }
            other => panic!("no such measurement: {other}"),
        }
        drop((in_guest, level_in_guest));
        let _taken = vmx.synchronize(|pir| pir.take_words(|index, bits| taken[index] |= bits));
        let _taken = level.synchronize(|bits| bits.take_words(|index, bits| taken[index] |= bits));
    }
    consume(taken);
}

fn consume<T>(value: T) {
    black_box(value);
}

fn main() {
    let operations = OPERATIONS.map(|(name, limit)| Operation { name, rounds: ROUNDS, limit });
    callgrind::table("post::measured", operations, run);
}
