//! How many instructions it takes from an interrupt's entry to its handler and back, and to give
//! out and take back a vector when few are free and when many are. Callgrind counts, so the result
//! is the same each time. Fails if one takes more than it may.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench vectors
//! ```
//!
//! The host's read sections cost nothing, as a kernel's do: an interrupt handler is one.

use std::hint::black_box;
use std::sync::Arc;

use doorbell_bench::Kernel;
use doorbell_bench::callgrind::{self, Operation};
use doorbell_host::vector::{Affinity, Cleaned, Irq, Vectors};
use doorbell_host::{CpuSet, Handler, IrqDesc, IrqReturn, Sharing};
use doorbell_platform::CpuId;

/// One function for each operation: callgrind collects what runs inside of them. Not generic, or
/// they would not have these names.
mod measured {
    use super::*;
    use doorbell_host::Handling;
    use doorbell_host::vector::{Arrived, CpuVector, VectorError, VectorIrq};
    use doorbell_platform::Vector;

    #[inline(never)]
    pub fn entry(
        cpu: &VectorIrq<Kernel>,
        descs: &[IrqDesc<Kernel>],
        vector: Vector,
    ) -> Option<Handling<Kernel>> {
        match cpu.arrived(vector) {
            Arrived::Irq(Irq(irq)) => Some(descs[irq as usize].handle()),
            Arrived::Unhandled => None,
        }
    }

    /// Callgrind stops when a function of this module begins in another, and goes on when it
    /// returns. It does not return.
    #[inline(never)]
    pub fn stop() -> IrqReturn {
        std::process::exit(0)
    }

    #[inline(never)]
    pub fn activate(
        vectors: &Vectors<Kernel>,
        irq: Irq,
        to: Affinity<'_>,
    ) -> Result<CpuVector, VectorError> {
        vectors.activate(irq, to)
    }

    #[inline(never)]
    pub fn give_back(vectors: &Vectors<Kernel>, irq: Irq) -> Result<Cleaned, VectorError> {
        let cleanup = vectors.deactivate(irq)?;
        Ok(vectors.cleanup(cleanup.cpu(), |_| false))
    }
}

struct Driver;

impl Handler for Driver {
    fn handle(&self) -> IrqReturn {
        IrqReturn::Handled
    }
}

/// Ends the program when it is called, and with it what is counted.
struct Last;

impl Handler for Last {
    fn handle(&self) -> IrqReturn {
        measured::stop()
    }
}

const ROUNDS: u64 = 1000;

const TO_HANDLER: &str = "an interrupt's entry to its handler";
const AND_BACK: &str = "and back";

/// What is measured, on how many CPUs, how many vectors are taken before, and how many instructions
/// it may take.
const OPERATIONS: [(&str, u32, u32, u64); 10] = [
    (TO_HANDLER, 1, 0, 40),
    (AND_BACK, 1, 0, 70),
    ("activate anywhere, one CPU, all free", 1, 0, 310),
    ("activate anywhere, one CPU, one free", 1, 199, 310),
    ("activate anywhere, 256 CPUs, all free", 256, 0, 350),
    ("activate anywhere, 256 CPUs, one free", 256, 256 * 200 - 1, 350),
    ("activate on some of 256 CPUs, all free", 256, 0, 540),
    ("give back, one CPU, all free", 1, 0, 300),
    ("give back, one CPU, one free", 1, 199, 300),
    ("give back, 256 CPUs, one free", 256, 256 * 200 - 1, 330),
];

/// Does one operation, some rounds long; this is what runs under callgrind.
fn run(operation: &str) {
    let (_, cpus, taken, _) =
        OPERATIONS.into_iter().find(|(name, ..)| *name == operation).expect("a measurement");
    let irqs = taken + 1;
    let vectors = Vectors::<Kernel>::new(cpus, irqs, 0x20..=0x20 + 199).expect("not too many");
    for cpu in 0..cpus {
        consume(vectors.online(CpuId(cpu)).expect("it is offline"));
    }
    for irq in 0..taken {
        consume(vectors.activate(Irq(irq), Affinity::Anywhere).expect("one is free"));
    }
    let here = CpuSet::of([CpuId(0)]);
    let desc = IrqDesc::new(
        &std::sync::Arc::new(doorbell_platform::ReadDomain::new("irq")),
        here.clone(),
        &here,
    )
    .expect("it is online");
    let driver: Arc<dyn Handler> =
        if operation == TO_HANDLER { Arc::new(Last) } else { Arc::new(Driver) };
    desc.request(driver, Sharing::Exclusive).expect("it has none").synchronize();
    let descs = [desc];
    let all = CpuSet::of((0..cpus).map(CpuId));
    let to = if operation.contains("on some") { Affinity::In(&all) } else { Affinity::Anywhere };
    let irq = Irq(taken);
    if operation == TO_HANDLER || operation == AND_BACK {
        let place = vectors.activate(irq, to).expect("one is free");
        let cpu = vectors.cpu(place.cpu).expect("it is there");
        for _ in 0..ROUNDS {
            consume(measured::entry(black_box(cpu), black_box(&descs), black_box(place.vector)));
        }
        return;
    }
    for _ in 0..ROUNDS {
        if operation.starts_with("activate") {
            let place = measured::activate(black_box(&vectors), black_box(irq), black_box(to))
                .expect("one is free");
            consume(vectors.deactivate(irq));
            consume(vectors.cleanup(place.cpu, |_| false));
        } else {
            consume(vectors.activate(irq, to).expect("one is free"));
            consume(measured::give_back(black_box(&vectors), black_box(irq)));
        }
    }
}

fn consume<T>(value: T) {
    black_box(value);
}

fn main() {
    let rounds = |name| if name == TO_HANDLER { 1 } else { ROUNDS };
    let operations =
        OPERATIONS.map(|(name, _, _, limit)| Operation { name, rounds: rounds(name), limit });
    callgrind::table("vectors::measured", operations, run);
}
