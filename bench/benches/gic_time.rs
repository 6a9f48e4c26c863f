//! How long the GIC takes: an SPI from its injection to its end, an entry and exit with nothing to
//! do, each of 32 SPIs through 4 list registers, and injections of several threads to a vCPU of
//! their own each. Beside a read-modify-write of a word that nobody else uses, taken in the same
//! run: the share of time that a machine of another speed takes, too.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench gic_time
//! ```
//!
//! The guests and their registers are memory here, and cost nothing. Each number is the median of
//! some thousand turns, so that what else runs on the machine does not count, nor that threads wait
//! for a CPU where there are fewer of those. What the numbers are aimed at holds where a
//! read-modify-write takes 6 ns; nothing fails if they are missed.

mod gic_vm;

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use doorbell_bench::Kernel;
use doorbell_bench::args::{About, Format};
use doorbell_gic::Gic;

use gic_vm::{Nobody, SPIS, Vcpu, spi};

/// How often something is done in a turn: enough for the clock.
const TIMES: u32 = 32;
const SENDERS: u32 = 4;

/// The nanoseconds that each of `TIMES` takes: the median of turns. `before` is done before each,
/// and not measured.
fn median<T>(
    time: Duration,
    turn: &mut T,
    before: impl Fn(&mut T),
    measured: impl Fn(&mut T),
) -> f64 {
    let (mut turns, end) = (Vec::new(), Instant::now() + time);
    while turns.is_empty() || Instant::now() < end {
        before(turn);
        let started = Instant::now();
        measured(turn);
        turns.push(started.elapsed());
    }
    turns.sort_unstable();
    turns[turns.len() / 2].as_nanos() as f64 / f64::from(TIMES)
}

fn fetch_or(time: Duration) -> f64 {
    let mut word = AtomicU64::new(0);
    median(
        time,
        &mut word,
        |_| (),
        |word| {
            (0..TIMES).for_each(|bit| _ = black_box(black_box(&*word).fetch_or(1 << bit, SeqCst)))
        },
    )
}

/// A vCPU of a VM, and the first of its SPIs.
struct Machine<'a> {
    gic: &'a Gic<Kernel>,
    vcpu: Vcpu,
    first: u32,
}

impl<'a> Machine<'a> {
    fn new(gic: &'a Gic<Kernel>, vcpu: u32) -> Self {
        Machine { gic, vcpu: Vcpu::new(gic, vcpu), first: 32 + SPIS * vcpu }
    }

    fn inject(&self, count: u32) {
        (self.first..self.first + count)
            .for_each(|number| spi(black_box(self.gic), number).edge(&mut Nobody));
    }

    /// Runs until the guest has handled what was injected.
    fn handles(&mut self, count: u32) {
        let mut left = u64::from(count);
        while left > 0 {
            left -= self.vcpu.runs(self.gic, |registers| registers.handle_all());
        }
    }

    /// Runs until nothing is left that was injected.
    fn handles_rest(&mut self) {
        while self.vcpu.runs(self.gic, |registers| registers.handle_all()) != 0 {}
    }
}

/// The time of an injection, of so many threads at once to a vCPU of their own each.
fn injects(senders: u32, time: Duration) -> f64 {
    let gic = gic_vm::gic(4, SENDERS, |_| 0x80);
    let ready = Barrier::new(senders as usize);
    let (gic, ready) = (&gic, &ready);
    let all: Vec<f64> = thread::scope(|scope| {
        let sender = |number| {
            scope.spawn(move || {
                let mut machine = Machine::new(gic, number);
                ready.wait();
                median(
                    time,
                    &mut machine,
                    |machine| machine.handles_rest(),
                    |machine| machine.inject(TIMES),
                )
            })
        };
        let senders: Vec<_> = (0..senders).map(sender).collect();
        senders.into_iter().map(|sender| sender.join().expect("it does not panic")).collect()
    });
    all.iter().sum::<f64>() / all.len() as f64
}

fn main() {
    let about = About {
        name: "gic_time",
        what: "How long the GIC takes, beside a read-modify-write.",
        option: Some(("--seconds", "time for one measurement [default: 1]")),
    };
    let args = about.args();
    let time = Duration::from_secs_f64(args.number.unwrap_or(1.0));
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let rmw = fetch_or(time);
    let tell = |what: &str, nanos: f64, aim: Option<f64>| match args.format {
        Format::Table => {
            let aim = aim.map_or_else(String::new, |aim| format!("{:>10.1}", aim / 6.0));
            println!("{what:<46}{nanos:>8.1}{:>10.1}{aim}", nanos / rmw);
        }
        Format::Json => {
            let aim = aim.map(|aim| aim / 6.0);
            println!(
                "{}",
                serde_json::json!({ "what": what, "ns": nanos, "ratio": nanos / rmw, "aim": aim })
            );
        }
    };
    if matches!(args.format, Format::Table) {
        println!("{:46}{:>8}{:>10}{:>10}", "", "ns", "ratio", "aim");
    }
    tell("an uncontended fetch_or", rmw, None);

    let gic = gic_vm::gic(4, 1, |_| 0x80);
    let mut machine = Machine::new(&gic, 0);
    let spi = |machine: &mut Machine| {
        machine.inject(1);
        machine.handles(1);
    };
    let cycle = median(time, &mut machine, spi, |machine| (0..TIMES).for_each(|_| spi(machine)));
    tell("an SPI, injected, flushed, ended and folded", cycle, Some(50.0));
    let idle = median(time, &mut machine, Machine::handles_rest, |machine| {
        for _ in 0..TIMES {
            let Machine { gic, vcpu, .. } = black_box(&mut *machine);
            vcpu.runs(gic, |registers| _ = black_box(registers));
        }
    });
    tell("idle flush and fold", idle, Some(3.0));
    let through_four = median(time, &mut machine, Machine::handles_rest, |machine| {
        machine.inject(TIMES);
        machine.handles(TIMES);
    });
    tell("each of 32 SPIs through 4 list registers", through_four, Some(70.0));

    let alone = injects(1, time);
    tell("an injection, of one thread", alone, None);
    let together = injects(SENDERS, time);
    let what = format!("an injection, of {SENDERS} threads to {SENDERS} vCPUs");
    tell(&what, together, None);
    if matches!(args.format, Format::Table) {
        println!(
            "{SENDERS} threads take {:.2} times as long as one, and should at most 1.3.",
            together / alone
        );
        if cpus < SENDERS as usize {
            println!("The machine has {cpus} CPUs: only so many of the threads ran at once.");
        }
    }
}
