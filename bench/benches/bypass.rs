//! What a registration with an IRQ bypass costs among few tokens and among many. Fails if it takes
//! more instructions, or more than three times as long, among 174,000 as among 10,000.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench bypass
//! ```
//!
//! Instructions are counted by callgrind, those of the allocator included. Times are means over all
//! registrations of a run, from none to so many. Each run is a process of its own, and *first* is
//! what it does first: all memory is new to it, so page faults are part of it. *Again* is the same
//! when all have left. Of nine runs the quickest stands for all, because what else the machine does
//! only adds; those of few and of many take turns.
//!
//! Tokens are numbers given out in turn, addresses of objects of 192 bytes, or arbitrary numbers:
//! the latter have no locality, so that many cost cache misses where few do not.

use std::env;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use doorbell_bench::callgrind;
use doorbell_host::{Bypass, Consumer, Followed, Producer, Token};
use doorbell_platform::Std;

struct Device;

impl Producer for Device {}

struct Irqfd;

impl Consumer<Device> for Irqfd {
    /// A link as large as a binding.
    type Link = [usize; 3];
    type Refusal = ();

    fn connect(&self, _: &Arc<Device>) -> Result<Self::Link, ()> {
        Ok([0; 3])
    }
    fn follow(&self, _: &mut Self::Link) -> Followed {
        Followed::by(|| ())
    }
    fn disconnect(&self, _: &Arc<Device>, _: Self::Link) {}
}

/// One function for each operation: callgrind collects what runs inside of them. Not generic, or
/// they would not have these names.
mod measured {
    use super::*;
    use doorbell_host::Produces;

    #[inline(never)]
    pub fn register(
        bypass: &Arc<Bypass<Std, Device, Irqfd>>,
        token: Token,
        device: &Arc<Device>,
    ) -> Produces<Std, Device, Irqfd> {
        bypass.produce(token, Arc::clone(device)).expect("nobody has it")
    }
}

type Tokens = (&'static str, fn(u64) -> u64);

const TOKENS: [Tokens; 3] = [
    ("in turn", |n| n),
    ("addresses", |n| 0xffff_8881_0000_0000 + 192 * n),
    ("arbitrary", |n| {
        let mixed = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    }),
];
const FEW: u64 = 10_000;
const MANY: u64 = 174_000;
const RUNS: usize = 9;

/// Registers so many, and returns nanoseconds for each: with a new bypass, and again when all have
/// left.
fn run(token: fn(u64) -> u64, many: u64) -> [f64; 2] {
    let bypass = Bypass::new();
    let device = Arc::new(Device);
    let mut all = Vec::with_capacity(many as usize);
    [(); 2].map(|()| {
        all.clear();
        let begun = Instant::now();
        all.extend(
            (0..many).map(|n| measured::register(black_box(&bypass), Token(token(n)), &device)),
        );
        begun.elapsed().as_nanos() as f64 / many as f64
    })
}

/// [`run`] in a process of its own.
fn run_apart(tokens: &str, many: u64) -> [f64; 2] {
    let this = env::current_exe().expect("this program");
    let output =
        Command::new(this).args(["run", tokens, &many.to_string()]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("two numbers");
    let mut times = text.split_whitespace().map(|time| time.parse().expect("a number"));
    [(); 2].map(|()| times.next().expect("two numbers"))
}

/// Returns the quickest runs of few and of many: first, and again.
fn quickest(tokens: &str) -> [[f64; 2]; 2] {
    let mut quickest = [[f64::INFINITY; 2]; 2];
    for _ in 0..RUNS {
        for (best, many) in quickest.iter_mut().zip([FEW, MANY]) {
            best.iter_mut()
                .zip(run_apart(tokens, many))
                .for_each(|(best, time)| *best = best.min(time));
        }
    }
    quickest
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if let [_, command, tokens, many] = &args[..]
        && command == "run"
    {
        let (_, token) = TOKENS.into_iter().find(|(name, _)| name == tokens).expect("some tokens");
        let [first, again] = run(token, many.parse().expect("a number"));
        return println!("{first} {again}");
    }
    if cfg!(debug_assertions) {
        return println!("bypass: only an optimised build says anything");
    }
    println!("each of 10,000 and of 174,000 registrations        10,000   174,000   times");
    let mut dearer = Vec::new();
    for (name, _) in TOKENS {
        let mut row = |what: &str, few: f64, many: f64, limit: f64| {
            let times = many / few;
            println!("  {name}: {what:36}{few:>10.0}{many:>10.0}{times:>8.2}, at most {limit}");
            if times > limit {
                dearer.push(format!("{name}: {what}"));
            }
        };
        // Twice as many registrations: first, and again.
        let counted = [FEW, MANY].map(|many| {
            callgrind::instructions("bypass::measured", &[name, &many.to_string()], 2 * many)
                .map(|count| count as f64)
        });
        match counted {
            [Some(few), Some(many)] => row("instructions", few, many, 1.25),
            _ => println!("  {name}: valgrind is not installed"),
        }
        let [few, many] = quickest(name);
        row("ns, first", few[0], many[0], 3.0);
        row("ns, again", few[1], many[1], 3.0);
    }
    assert!(dearer.is_empty(), "dearer with many tokens than it may be: {dearer:?}");
}
