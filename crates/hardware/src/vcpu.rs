//! One vCPU: the task that runs it, the CPUs that its scheduler puts it on, and the interrupt that
//! preempts it at any moment.
//!
//! A [`Delivery`] is the code that is explored; what it is given here is the same for every layout
//! and gate. The task stays on one simulated CPU, with the interrupt that preempts it. Where the
//! vCPU is, is what the hooks say: notifications and kicks go to one of two [CPUs](Cpu), and do
//! something there only if the vCPU is there by then.

use std::sync::{Arc, Mutex, MutexGuard};

use doorbell_explore::sim::Model;
use doorbell_explore::{Machine, Sim};
use doorbell_platform::{CpuId, IrqGuard, Platform, Vector};
use doorbell_post::{Notice, Requests};

use crate::cpu::Cpu;
use crate::vmx::NOTIFY;

/// The CPU on which a vCPU's task is simulated, wherever its hooks say that it is. (RCU's callbacks
/// have CPU 0.)
pub const A: CpuId = CpuId(1);
/// The other CPU that a vCPU may be on. Its handlers run while the task does, so whoever sleeps
/// here is woken at any moment.
pub const B: CpuId = CpuId(2);

/// On which a CPU is asked to switch tasks.
const PREEMPT: Vector = Vector(0x20);

/// A vCPU, without the code that delivers interrupts to it.
pub struct Vcpu {
    cpus: [Cpu; 2],
    /// Whether it runs on the other CPU when it was switched away from.
    moves: bool,
    got: Model<u64>,
    task: Model<Option<<Sim as Platform>::Task>>,
    /// Used by its task, and by what interrupts it: on one simulated CPU, so their order is visible
    /// without steps of this.
    place: Mutex<Place>,
}

doorbell_platform::opaque_debug!([] Vcpu; moves);

#[derive(Clone, Copy)]
struct Place {
    on: CpuId,
    /// Switched away from.
    away: bool,
    in_guest: bool,
    /// To be preempted when it is out of the guest.
    preempt: bool,
}

impl Vcpu {
    /// Creates a vCPU that begins on one of the two CPUs, and either stays there or, whenever it is
    /// switched away from, `moves` to the other one.
    #[track_caller]
    pub fn new(on: CpuId, moves: bool) -> Self {
        let place = Place { on, away: true, in_guest: false, preempt: false };
        Vcpu {
            cpus: ["CPU A", "CPU B"].map(Cpu::new),
            moves,
            got: Model::new("guest", 0),
            task: Model::new("task", None),
            place: Mutex::new(place),
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("no panic while it is held")
    }

    /// One of the CPUs, or one that the vCPU never runs on.
    fn cpu(&self, cpu: CpuId) -> Option<&Cpu> {
        self.cpus.get((cpu.0 as usize).checked_sub(A.0 as usize)?)
    }

    /// Returns where the vCPU's hooks have put it last. Only its task may call this, with
    /// interrupts off.
    pub fn on(&self) -> CpuId {
        self.place().on
    }

    /// Sends an interrupt of the host. On a CPU that the vCPU may be on, the [notification](NOTIFY)
    /// is taken by what runs there; any other vector has a handler.
    #[track_caller]
    pub fn interrupt(&self, cpu: CpuId, vector: Vector) {
        match self.cpu(cpu) {
            Some(cpu) if vector == NOTIFY => cpu.notify(),
            _ => Sim::send_ipi(cpu, vector),
        }
    }

    /// Rings the doorbell of a CPU.
    #[track_caller]
    pub fn ring(&self, cpu: CpuId) {
        if let Some(cpu) = self.cpu(cpu) {
            cpu.ring();
        }
    }

    /// Interrupts a CPU in the host's name, which ends guest mode there. Nothing happens on a CPU
    /// that the vCPU never runs on.
    #[track_caller]
    pub fn kick(&self, cpu: CpuId) {
        if let Some(cpu) = self.cpu(cpu) {
            cpu.kick();
        }
    }

    /// Returns whether the CPU that it is in the guest on was kicked. By its task.
    #[track_caller]
    pub fn is_kicked(&self) -> bool {
        self.cpu(self.on()).is_some_and(Cpu::is_kicked)
    }

    /// Gives the guest these bits.
    #[track_caller]
    pub fn gets(&self, bits: u64) {
        if bits != 0 {
            self.got.change(|got| *got |= bits);
        }
    }

    /// Returns what the guest has got.
    #[track_caller]
    pub fn got(&self) -> u64 {
        self.got.observe(|got| *got)
    }

    /// Says that this task is the vCPU's: it is the one that is woken.
    #[track_caller]
    pub fn begins(&self) {
        self.task.change(|task| *task = Some(Sim::current_task()));
    }

    /// Wakes its task. One that has not begun does not sleep.
    #[track_caller]
    pub fn wake(&self) {
        if let Some(task) = self.task.observe(Clone::clone) {
            Sim::wake(&task);
        }
    }
}

/// What the code says when a guest is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Whether the CPU takes what is posted in guest mode.
    pub posted: bool,
    /// Whether the guest exits when it lowers its task priority.
    pub intercepts_priority: bool,
}

/// Why a vCPU is in the host again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ran {
    /// The vCPU has exited, or was kicked.
    Exited,
    /// The vCPU did not enter, because something was requested of it.
    Requested(Requests),
    /// Nothing more can happen.
    Over,
}

/// How long a vCPU stays in the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// The vCPU exits at once.
    Halts,
    /// The vCPU stays there until it is kicked.
    Kicked,
}

/// The code of a vCPU that is explored, and what hardware does for it.
pub trait Delivery: 'static {
    /// How a vCPU in guest mode is told.
    type Notification;

    /// The vCPU whose code this is.
    fn vcpu(&self) -> &Vcpu;

    /// Enters the guest on a CPU, calls `guest` there, and leaves.
    ///
    /// # Errors
    /// If it does not enter, because something was requested.
    fn enter(
        &self,
        irqs_off: &IrqGuard<Sim>,
        cpu: CpuId,
        guest: &mut dyn FnMut(Entry),
    ) -> Result<(), Requests>;

    /// Begins to sleep; calls `sleep` if there is no reason not to, which asks whether it still
    /// sleeps.
    fn block(&self, sleep: &mut dyn FnMut(&dyn Fn() -> bool));

    /// Tells the hook that the vCPU's task runs on a CPU. Interrupts are off.
    fn load(&self, cpu: CpuId);

    /// Tells the hook that the vCPU's task is switched away from on a CPU, `preempted` or because
    /// it sleeps. Interrupts are off.
    fn put(&self, cpu: CpuId, preempted: bool);

    /// Serves requests.
    fn serve(&self, requests: Requests) {
        let _ = requests;
    }

    /// Tells a CPU in guest mode.
    fn notify(&self, notification: Self::Notification);

    /// Takes what is pending, because the vCPU's CPU, in guest mode, was told.
    fn told(&self);

    /// Does what the guest does by itself once it has been entered, and returns whether it exits by
    /// that.
    fn runs(&self, entry: Entry) -> bool {
        let _ = entry;
        false
    }

    /// Acts as a sender is told to.
    fn act(&self, notice: Notice<Self::Notification>) {
        match notice {
            Notice::Nothing => {}
            Notice::Notify(notification) => self.notify(notification),
            Notice::Kick(cpu) => self.vcpu().kick(cpu),
            Notice::Wake => self.vcpu().wake(),
        }
    }

    /// Begins to run: this task is the vCPU's.
    fn begin(&self) {
        self.vcpu().begins();
        let _irqs = IrqGuard::<Sim>::new();
        self.arrive();
    }

    /// Does what comes when the task runs again.
    #[doc(hidden)]
    fn arrive(&self) {
        let vcpu = self.vcpu();
        let on = vcpu.on();
        self.load(on);
        vcpu.place().away = false;
    }

    /// Does what comes when the task is switched away from.
    #[doc(hidden)]
    fn depart(&self, preempted: bool) {
        let vcpu = self.vcpu();
        let on = vcpu.on();
        vcpu.place().away = true;
        self.put(on, preempted);
        if vcpu.moves {
            vcpu.place().on = if on == A { B } else { A };
        }
    }

    /// Takes an interrupt that asks the CPU of the vCPU's task to switch: the guest exits for it;
    /// the task, unless it is off its CPU, waits for one, and gets it.
    fn preempted(&self) {
        let vcpu = self.vcpu();
        let place = *vcpu.place();
        if place.in_guest {
            vcpu.place().preempt = true;
            vcpu.kick(place.on);
        } else if !place.away {
            self.depart(true);
            self.arrive();
        }
    }

    /// Enters the guest, and leaves it as `until` says.
    fn run(&self, until: Until) -> Ran {
        let vcpu = self.vcpu();
        let irqs = IrqGuard::<Sim>::new();
        let on = vcpu.on();
        let cpu = vcpu.cpu(on).expect("it is on one of its CPUs");
        let mut ran = Ran::Exited;
        cpu.irqs_off();
        let entered = self.enter(&irqs, on, &mut |entry| {
            vcpu.place().in_guest = true;
            cpu.enter(entry.posted, || {
                if !self.runs(entry) && until == Until::Kicked {
                    ran = cpu.stay(|| self.told()).map_or(Ran::Over, |()| Ran::Exited);
                }
            });
            vcpu.place().in_guest = false;
        });
        cpu.irqs_on();
        if std::mem::take(&mut vcpu.place().preempt) {
            self.depart(true);
            self.arrive();
        }
        drop(irqs);
        entered.map_or_else(Ran::Requested, |()| ran)
    }

    /// Stays in the guest until nothing more can happen, but for what is requested.
    fn stay(&self) {
        loop {
            match self.run(Until::Kicked) {
                Ran::Exited => {}
                Ran::Requested(requests) => self.serve(requests),
                Ran::Over => return,
            }
        }
    }

    /// Sleeps, if there is no reason not to: its task is switched away from until it is woken.
    fn sleep(&self) {
        self.block(&mut |asleep| {
            while asleep() {
                {
                    let _irqs = IrqGuard::<Sim>::new();
                    self.depart(false);
                }
                Sim::park();
                let _irqs = IrqGuard::<Sim>::new();
                self.arrive();
            }
        });
    }

    /// Runs until the guest has got `wanted`, and sleeps between.
    fn run_and_sleep(&self, wanted: u64) {
        while self.vcpu().got() & wanted != wanted {
            match self.run(Until::Halts) {
                Ran::Requested(requests) => self.serve(requests),
                Ran::Over => return,
                Ran::Exited if self.vcpu().got() & wanted == wanted => return,
                Ran::Exited => self.sleep(),
            }
        }
    }
}

/// Raises interrupts that ask the CPU of a vCPU's task to switch: `times`, at any moment.
pub fn preempt<D: Delivery>(m: &Machine, delivery: &Arc<D>, times: u32) {
    let preempted = Arc::clone(delivery);
    let handler = m.handler(A, PREEMPT, "preemption", move || preempted.preempted());
    m.hardware("timer", move || (0..times).for_each(|_| handler.raise()));
}

/// Starts the task of a vCPU.
pub fn task<D: Delivery>(m: &Machine, delivery: &Arc<D>, run: impl FnOnce(&D) + 'static) {
    let delivery = Arc::clone(delivery);
    m.task_on(A, "vCPU", move || {
        delivery.begin();
        run(&delivery);
    });
}

/// Demands that in the end the guest has got what is `wanted`, and nothing else.
pub fn has_got<D: Delivery>(m: &Machine, delivery: &Arc<D>, wanted: u64) {
    let delivery = Arc::clone(delivery);
    m.at_quiescence("the guest has got all that was posted", move || {
        let got = delivery.vcpu().got();
        (got == wanted).then_some(()).ok_or(format!("it has got {got:#b}, of {wanted:#b}"))
    });
}
