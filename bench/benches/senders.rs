//! Posts per second: senders to a vCPU of their own each, and several senders to one vCPU that
//! runs.
//!
//! ```text
//! cargo bench -p doorbell-bench --bench senders
//! ```

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use doorbell_bench::args::{About, Format};
use doorbell_bench::table::rate;
use doorbell_platform::{CachePadded, CpuId, IrqGuard, Std, Vector};
use doorbell_post::{Destination, Guest, Pending, PiDescriptor, PiGate};

type Vcpu = CachePadded<PiDescriptor<Std>>;

const GUEST: Guest = Guest { cpu: CpuId(0), posted: true };

fn vcpu() -> Vcpu {
    CachePadded(PiDescriptor::new(
        Pending::new(),
        PiGate::new(Destination::x2apic(0), Vector(0xf2)),
    ))
}

/// Posts of `senders` threads to as many vCPUs. Each sender takes what it has posted itself, as the
/// vCPU would.
fn apart(senders: usize, time: Duration) -> f64 {
    let vcpus: Vec<Vcpu> = (0..senders).map(|_| vcpu()).collect();
    run(senders, time, |sender, stop| {
        let post = &vcpus[sender];
        let irqs_off = IrqGuard::<Std>::new();
        let (in_guest, _) =
            post.enter(&irqs_off, GUEST).expect("nothing is requested").rescan(|_| ());
        let (mut posts, mut taken) = (0, 0);
        while !stop.load(Relaxed) {
            for vector in 0x40..0x60 {
                let _ = black_box(post.post(vector.into()));
                let _taken = post.synchronize(|pir| pir.take_words(|_, bits| taken |= bits));
                posts += 1;
            }
        }
        in_guest.exited();
        black_box(taken);
        posts
    })
}

/// Posts of `senders` threads to one vCPU, whose owner takes what was posted all the time.
fn together(senders: usize, time: Duration) -> f64 {
    let post = vcpu();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let irqs_off = IrqGuard::<Std>::new();
            let (in_guest, _) =
                post.enter(&irqs_off, GUEST).expect("nothing is requested").rescan(|_| ());
            let mut taken = 0;
            while !over.load(Relaxed) {
                let _taken = post.synchronize(|pir| pir.take_words(|_, bits| taken |= bits));
                std::hint::spin_loop();
            }
            in_guest.exited();
            black_box(taken);
        });
        let posts = run(senders, time, |sender, stop| {
            let (mut posts, first) = (0, 0x40 + 0x30 * sender as u8);
            while !stop.load(Relaxed) {
                for vector in first..first + 0x20 {
                    let _ = black_box(post.post(vector.into()));
                    posts += 1;
                }
            }
            posts
        });
        over.store(true, SeqCst);
        posts
    })
}

/// What `threads` threads do together in a second.
fn run(threads: usize, time: Duration, work: impl Fn(usize, &AtomicBool) -> u64 + Sync) -> f64 {
    let (stop, total, ready) =
        (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(threads + 1));
    let elapsed = thread::scope(|scope| {
        for number in 0..threads {
            let (stop, total, ready, work) = (&stop, &total, &ready, &work);
            scope.spawn(move || {
                ready.wait();
                total.fetch_add(work(number, stop), SeqCst);
            });
        }
        ready.wait();
        let started = Instant::now();
        thread::sleep(time);
        stop.store(true, SeqCst);
        started.elapsed()
    });
    total.into_inner() as f64 / elapsed.as_secs_f64()
}

fn main() {
    let about = About {
        name: "senders",
        what: "Posts per second, of senders to vCPUs of their own and of several to one vCPU.",
        option: Some(("--seconds", "time for one measurement [default: 1]")),
    };
    let args = about.args();
    let time = Duration::from_secs_f64(args.number.unwrap_or(1.0));
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let tell = |what: &str, senders: usize, result: Result<f64, String>| match (args.format, result)
    {
        (Format::Table, Ok(posts)) => println!("{what:<9} {senders} senders {:>14}", rate(posts)),
        (Format::Table, Err(why)) => println!("{what:<9} {senders} senders   skipped: {why}"),
        (Format::Json, Ok(posts)) => {
            println!(
                "{}",
                serde_json::json!({ "what": what, "senders": senders, "per_second": posts })
            );
        }
        (Format::Json, Err(why)) => {
            println!("{}", serde_json::json!({ "what": what, "senders": senders, "skipped": why }));
        }
    };
    let needs = |threads: usize| match threads {
        _ if threads <= cpus => Ok(()),
        _ => Err(format!("it takes {threads} CPUs, and there are {cpus}")),
    };
    for senders in [1, 4] {
        // One CPU more, for whatever else runs.
        let enough = needs(if senders == 1 { 1 } else { senders + 1 });
        tell("apart", senders, enough.map(|()| apart(senders, time)));
    }
    for senders in [1, 2, 3] {
        tell("together", senders, needs(senders + 1).map(|()| together(senders, time)));
    }
}
