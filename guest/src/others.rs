//! What the other CPUs do: what the first one tells them.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::boot::{call, secondary_entry};
use crate::cpu::{self, Each, MOST_CPUS};
use crate::gic::{self, Route};
use crate::handler::{counts, irqs_off, irqs_on, relax, wait_unless, wait_until};
use crate::{hostile, stall};

/// The SGI that makes a CPU look at what it is told.
const LOOK: u32 = 15;
/// The SGI that goes round.
pub const TOKEN: u32 = 14;
/// The SPI that is routed elsewhere, and which any CPU may have.
pub const ROUTED: u32 = 72;

/// What a CPU is told. Each has its own word, which the first CPU writes: the job, and how many
/// there were before.
static TOLD: [AtomicU32; MOST_CPUS] = [const { AtomicU32::new(0) }; MOST_CPUS];
/// What each has done, as it was told.
static DONE: Each = Each::new();
/// How often each has begun.
pub static BEGUN: Each = Each::new();
/// How often each has passed the token on.
static PASSED: Each = Each::new();
/// Ends what goes on until it is over. Written by the first CPU.
pub static OVER: AtomicU32 = AtomicU32::new(0);
/// How many SGIs a CPU sends. Written by the first CPU.
pub static ROUNDS: AtomicU32 = AtomicU32::new(0);

/// A job.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Job {
    /// Nothing.
    Rest,
    /// Passes the SGI that goes round to the next CPU, each time that it comes.
    Pass,
    /// Sends an SGI to each other CPU, again and again; the next one when the last was taken.
    Storm,
    /// Routes an SPI to one CPU after the other.
    Route,
    /// Turns itself off.
    Off,
    /// Writes garbage to every register.
    Garbage,
    /// Spins for ever, with interrupts masked.
    Spin,
    /// Takes its time, and waits now and then.
    Slow,
    /// Runs at EL0 for a while.
    AtEl0,
}

const JOBS: [Job; 9] = [
    Job::Rest,
    Job::Pass,
    Job::Storm,
    Job::Route,
    Job::Off,
    Job::Garbage,
    Job::Spin,
    Job::Slow,
    Job::AtEl0,
];

/// Tells a CPU what to do. By the first CPU.
pub fn tell(cpu: usize, job: Job) {
    let before = TOLD[cpu].load(Relaxed) >> 8;
    TOLD[cpu].store((before + 1) << 8 | job as u32, Relaxed);
    gic::send_sgi(cpu, LOOK);
}

/// Returns whether a CPU has done what it was told. By the first CPU.
pub fn has_done(cpu: usize) -> bool {
    DONE.of(cpu) == TOLD[cpu].load(Relaxed)
}

/// Turns a CPU on. By the first CPU. Returns what the firmware says.
pub fn turn_on(cpu: usize) -> u64 {
    call(0xc400_0003, [cpu as u64, secondary_entry(), cpu as u64])
}

/// Returns whether the firmware says that a CPU is on, off, or about to be on.
pub fn power_of(cpu: usize) -> u64 {
    call(0xc400_0004, [cpu as u64, 0, 0])
}

/// Begins, on another CPU.
pub extern "C" fn secondary() -> ! {
    let this = cpu::number();
    gic::init_this();
    BEGUN.count();
    irqs_on();
    loop {
        let told = TOLD[this].load(Relaxed);
        if told == DONE.of(this) {
            wait_unless(|| TOLD[this].load(Relaxed) != told);
            continue;
        }
        match JOBS[told as usize % 256 % JOBS.len()] {
            Job::Rest => {}
            Job::Pass => pass(),
            Job::Storm => storm(),
            Job::Route => change_routes(),
            Job::Off => {
                irqs_off();
                DONE.set(told);
                call(0x8400_0002, [0; 3]);
            }
            Job::Garbage => hostile::garbage(),
            Job::Spin => stall::spin(),
            Job::Slow => stall::slow(),
            Job::AtEl0 => stall::at_el0(),
        }
        DONE.set(told);
    }
}

/// Passes the token on, until it is over.
pub fn pass() {
    let (this, cpus) = (cpu::number(), gic::count_cpus());
    // It may have come before this.
    let waits = || counts(TOKEN).of(this) == PASSED.of(this);
    while OVER.load(Relaxed) == 0 {
        if waits() {
            wait_unless(|| !waits() || OVER.load(Relaxed) != 0);
        } else {
            PASSED.count();
            gic::send_sgi((this + 1) % cpus, TOKEN);
        }
    }
}

/// Sends SGIs of this CPU's number to all others.
pub fn storm() {
    let (this, cpus) = (cpu::number(), gic::count_cpus());
    let came = counts(this as u32);
    let others = || (0..cpus).filter(move |&cpu| cpu != this);
    let mut before = [0; MOST_CPUS];
    for _ in 0..ROUNDS.load(Relaxed) {
        for cpu in others() {
            before[cpu] = came.of(cpu);
            gic::send_sgi(cpu, this as u32);
        }
        for cpu in others() {
            wait_until(|| came.of(cpu) != before[cpu]);
        }
    }
}

fn change_routes() {
    let cpus = gic::count_cpus();
    let mut to = 0;
    while OVER.load(Relaxed) == 0 {
        to = (to + 1) % (cpus + 1);
        relax();
        gic::route(ROUTED, if to == cpus { Route::Any } else { Route::Cpu(to) });
    }
}
