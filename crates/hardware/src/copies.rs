//! A vCPU of `doorbell-post` of whose residency hardware reads copies, as AVIC has it (APM vol. 2,
//! section 15.29): what hardware and hooks do to one, each step by itself. Whoever sets it up says
//! when.

use std::sync::Arc;

use doorbell_explore::sim::{DropUnlocked, Model};
use doorbell_explore::{Ended, Sim};
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::{
    Guest, Layout, Mirror, ModeGate, Notice, Post, Requests, Residency, ResidencyCopies,
};

use crate::cpu::{self, Cpu};
use crate::posts::{Bits, Few};

/// The CPUs that vCPUs may be on, by their numbers, which are their APIC IDs, too.
pub type Cpus = Arc<[Cpu; 2]>;

/// Creates the CPUs.
#[track_caller]
pub fn cpus() -> Cpus {
    Arc::new(["CPU"; 2].map(Cpu::new))
}

/// The vCPU.
pub struct Vcpu<O: Mirror, M: Mirror> {
    /// The number of its backing page.
    pub page: u64,
    /// What is posted to it.
    pub post: Post<Sim, Bits, ModeGate<Sim>>,
    /// The copies of its residency.
    pub copies: ResidencyCopies<Sim, O, M>,
    cpus: Cpus,
    got: Model<u64>,
    woken: Model<bool>,
    _dropped: DropUnlocked,
}

doorbell_platform::opaque_debug!([O: Mirror, M: Mirror] Vcpu<O, M>; page);

impl<O: Mirror, M: Mirror> Vcpu<O, M> {
    /// Creates a vCPU that is on none of the CPUs. `own` is its own entry.
    #[track_caller]
    pub fn new(page: u64, own: O, cpus: &Cpus) -> Arc<Self> {
        Arc::new(Vcpu {
            page,
            post: Post::new(Bits::new(), ModeGate::new()),
            copies: ResidencyCopies::new(own),
            cpus: Arc::clone(cpus),
            got: Model::new("guest", 0),
            woken: Model::new("wake-up", false),
            _dropped: DropUnlocked("drops a vCPU"),
        })
    }

    /// Says that the vCPU's task runs on a CPU.
    pub fn load(&self, cpu: CpuId) {
        self.copies.set(Residency::Running { apic_id: cpu.0 });
    }

    /// Says that the vCPU's task is switched away from.
    pub fn put(&self) {
        self.copies.set(Residency::Away { log: false });
    }

    /// Stays in the guest on a CPU until nothing more can happen. If anything is requested of it,
    /// posting is inhibited from then on.
    pub fn stay(&self, on: CpuId) {
        let mut posted = true;
        loop {
            if !posted {
                self.copies.set(Residency::Away { log: true });
            }
            match self.run(on, posted) {
                Ok(Ok(())) => {}
                Ok(Err(Ended { .. })) => return,
                Err(Requests(_)) => posted = false,
            }
        }
    }

    /// Stays in the guest until it is kicked.
    fn run(&self, on: CpuId, posted: bool) -> Result<Result<(), Ended>, Requests> {
        let cpu = &self.cpus[on.0 as usize];
        let irqs = IrqGuard::<Sim>::new();
        cpu.irqs_off();
        let entering = self.post.enter(&irqs, Guest { cpu: on, posted });
        let (in_guest, _) = entering.inspect_err(|_| cpu.irqs_on())?.rescan(|_| {
            // What the CPU does not take itself is injected.
            if !posted {
                self.take();
            }
        });
        let kicked = cpu.enter(posted, || {
            // The CPU looks when it enters the guest, and when it hears the doorbell.
            if posted {
                self.take();
            }
            cpu.stay(|| self.take())
        });
        if kicked.is_ok() {
            in_guest.exited();
        } else {
            // It is in the guest for good.
            std::mem::forget(in_guest);
        }
        cpu.irqs_on();
        Ok(kicked)
    }

    /// Sleeps, if there is nothing to do, until it is woken.
    ///
    /// # Errors
    /// When the run is over: it sleeps for good.
    pub fn sleep(&self) -> Result<(), Ended> {
        self.copies.set(Residency::Away { log: true });
        let Ok(blocked) = self.post.block() else { return Ok(()) };
        let woken = self.woken.serve(|woken| *woken, |_| ());
        if woken.is_err() {
            std::mem::forget(blocked);
        }
        woken
    }

    /// Does what a sender is told to.
    pub fn act(&self, notice: Notice<CpuId>) {
        cpu::act(&*self.cpus, notice, || self.woken.change(|woken| *woken = true));
    }

    /// Rings the doorbell of a CPU, as hardware does that has read a copy.
    pub fn ring(&self, apic_id: u32) {
        self.cpus[apic_id as usize].ring();
    }

    /// Has somebody look at what is pending: an entry of the log says so, or an invalidation has
    /// completed.
    pub fn look(&self) {
        if self.post.layout().any() {
            self.act(self.post.run_state().kick());
        }
    }

    /// Returns what the guest has got.
    #[track_caller]
    pub fn got(&self) -> u64 {
        self.got.observe(|got| *got)
    }

    fn take(&self) {
        let taken = Few::take(self.post.layout());
        if taken != 0 {
            self.got.change(|got| *got |= taken);
        }
    }
}
