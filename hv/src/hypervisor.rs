//! The VMs of a bundle, from the first to the last.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{CpuId, Platform};

use crate::bare::Bare;
use crate::bundle::{self, Bundle, Wrong};
use crate::stage2::BLOCK;
use crate::task::Task;
use crate::vm::{End, Plan, Vm};
use crate::watchdog::{self, Watchdog};
use crate::{input, machine, say, time, vcpu};

/// How many vCPUs there may be, so that there is a task for each.
const MOST_VCPUS: usize = 32;

/// Runs the VMs of the bundle that is in `-initrd`, until all are off. By the main task.
///
/// # Errors
/// Says in a line what is wrong.
pub fn run() -> Result<(), String> {
    vcpu::init();
    let memory = machine::memory();
    if memory.bundle.is_empty() {
        return Err("there is nothing to run: -initrd".into());
    }
    // SAFETY: the bootloader has put it there, and nobody writes to it.
    let file = unsafe {
        let start = core::ptr::with_exposed_provenance(memory.bundle.start);
        core::slice::from_raw_parts(start, memory.bundle.len())
    };
    let bundle = Bundle::parse(file).map_err(Wrong::text)?;
    let plans = plans(bundle, memory.free.start as u64, memory.free.end as u64)?;
    if let Some(seed) = bundle.migrate {
        say!("vCPUs move at random: migrate={seed}");
    }
    let lives: Result<Vec<_>, _> = plans.iter().map(|plan| Life::new(plan, 0)).collect();
    let mut lives: Vec<_> = lives?.into_iter().map(Some).collect();
    lives.iter().flatten().for_each(|life| life.begins(bundle.migrate));
    input::init();
    let mut watch = bundle.watchdog.map(Watch::new);
    while lives.iter().any(Option::is_some) {
        // What is typed is for the first VM that there is.
        if let Some(life) = lives.iter().flatten().next() {
            input::take(|| life.vm.has_room(), |byte| life.vm.receive(byte));
        }
        if watch.as_mut().is_some_and(Watch::is_due) {
            let ends = bundle.watchdog.is_some_and(|watchdog| watchdog.ends);
            lives.iter_mut().flatten().for_each(|life| life.checks(ends));
        }
        for (life, plan) in lives.iter_mut().zip(&plans) {
            let Some(end) = life.as_ref().and_then(Life::end) else { continue };
            let resets = life.as_ref().map_or(0, |life| life.resets);
            // Its memory is free before that of the next one is needed.
            *life = None;
            if end == End::Reset {
                life.insert(Life::new(plan, resets.wrapping_add(1))?).begins(bundle.migrate);
            }
        }
        // Whoever ends a life or types after that was looked at wakes this.
        if !lives.iter().flatten().any(|life| life.end().is_some())
            && lives.iter().any(Option::is_some)
        {
            if let Some(Watch { next, .. }) = watch {
                time::wake_at(next);
            }
            Bare::park();
        }
    }
    Ok(())
}

/// When the watchdogs check.
#[derive(Clone, Copy)]
struct Watch {
    /// How many ticks of the counter there are between two checks.
    period: u64,
    /// When the next one is.
    next: u64,
}

impl Watch {
    fn new(watchdog: bundle::Watchdog) -> Self {
        let period =
            (time::per_second() * watchdog.limit / 1000 / u64::from(watchdog::CHECKS)).max(1);
        Watch { period, next: time::now() + period }
    }

    /// Returns whether it is time, and if so, says when it is again.
    fn is_due(&mut self) -> bool {
        let now = time::now();
        let due = self.next <= now;
        if due {
            self.next = now + self.period;
        }
        due
    }
}

/// Returns a plan for each VM, with RAM of its own.
fn plans(bundle: Bundle<'static>, mut start: u64, end: u64) -> Result<Vec<Plan>, String> {
    let mut plans = Vec::new();
    for vm in bundle.vms() {
        let free = end.saturating_sub(start);
        if vm.memory > free {
            let (name, wanted) = (vm.name, vm.memory >> 20);
            return Err(format!(
                "{name} is to have {wanted} MiB of RAM, and {} MiB are free: -m",
                free >> 20
            ));
        }
        let next = (start + vm.memory).next_multiple_of(BLOCK);
        plans.push(
            Plan::new(vm, &bundle, start, plans.len() as u8 + 1)
                .map_err(|why| format!("{}: {why}", vm.name))?,
        );
        start = next;
    }
    let vcpus: usize = bundle.vms().map(|vm| vm.vcpus).sum();
    if vcpus > MOST_VCPUS {
        Err(format!("there are {vcpus} vCPUs: at most {MOST_VCPUS}"))
    } else {
        Ok(plans)
    }
}

/// A VM from its reset to the next one, with the tasks that run it.
struct Life {
    vm: Arc<Vm>,
    /// How many tasks there are.
    tasks: Arc<AtomicU32>,
    /// How many resets there were.
    resets: u32,
    watchdog: Watchdog,
}

impl Life {
    fn new(plan: &Plan, resets: u32) -> Result<Self, String> {
        let vm = Vm::new(plan, resets).map_err(|why| format!("{}: {why}", plan.name()))?;
        let vcpus = vm.vcpus().count();
        let tasks = Arc::new(AtomicU32::new(vcpus as u32));
        Ok(Life { vm, tasks, resets, watchdog: Watchdog::new(vcpus) })
    }

    /// Starts the tasks, one CPU after the other.
    fn begins(&self, seed: Option<u64>) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let supervisor = Task::current();
        for id in self.vm.vcpus() {
            let cpu = CpuId(NEXT.fetch_add(1, SeqCst) % Bare::cpu_count());
            let tasks = Arc::clone(&self.tasks);
            let spawned = vcpu::spawn(Arc::clone(&self.vm), id, cpu, seed, move || {
                tasks.fetch_sub(1, SeqCst);
                supervisor.wake();
            });
            assert!(spawned, "there is a task for each vCPU");
        }
    }

    /// Tells whether the VM is stalled. Ends it then, if it is to.
    fn checks(&mut self, ends: bool) {
        let Some(stall) = self.watchdog.check(self.vm.seen()).filter(|_| self.vm.end().is_none())
        else {
            return;
        };
        self.vm.tells(stall);
        if ends {
            self.vm.stop(End::Off, format_args!("it is stalled"));
        }
    }

    /// Returns how it has ended, when its tasks have.
    fn end(&self) -> Option<End> {
        self.vm.end().filter(|_| self.tasks.load(SeqCst) == 0)
    }
}
