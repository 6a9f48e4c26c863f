//! A CPU with a guest mode, what sends interrupts to it, and a vCPU that runs until its guest has got what it waits for.

use std::cell::Cell;
use std::rc::Rc;

use doorbell_explore::sim::{Model, local_irq_disable, local_irq_enable};
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd;
use doorbell_platform::{CpuId, IrqGuard, Platform, Vector};
use doorbell_post::{Coalescing, Destination, Gate, Guest, Layout, Level, Notice, Notification, Pending, Post};

pub const CPU: CpuId = CpuId(0);
/// What only makes a guest exit.
pub const KICK: Vector = Vector(0xf3);

pub type Bits = Pending<Sim, 1>;
pub type Bit = doorbell_post::Bit<1>;

pub fn bit(number: usize) -> Bit {
    Bit::new(number).expect("a small number")
}

pub fn coalescing() -> Coalescing<Sim> {
    Coalescing::new(Destination::x2apic(CPU.0), NOTIFY)
}

/// How a notification of a gate is sent.
pub trait Send: Gate<Sim> + 'static {
    fn send(notification: Self::Notification);
    /// What hardware does first when it takes a notification in guest mode.
    fn taken(&self) {}
}

impl Send for Coalescing<Sim> {
    fn send(notification: Notification) {
        Sim::send_ipi(CpuId(notification.destination.bits()), notification.vector);
    }
    fn taken(&self) {
        vtd::taken(self);
    }
}

impl Send for Level<Sim> {
    fn send(cpu: CpuId) {
        Sim::send_ipi(cpu, NOTIFY);
    }
}

pub struct Vcpu<G> {
    pub post: Post<Sim, Bits, G>,
    guest: Model<GuestState>,
    /// The vCPU's task, to be woken.
    task: Model<Option<<Sim as Platform>::Task>>,
    /// Of the CPU: its interrupts see what it does, others do not.
    in_guest: Cell<Option<bool>>,
    /// Requests that it has served.
    pub served: Cell<u32>,
}

#[derive(Default)]
struct GuestState {
    /// What it has got.
    got: u64,
    /// Whether it must exit.
    kicked: bool,
}

impl<G: Send> Vcpu<G> {
    pub fn new(m: &Machine, gate: G) -> Rc<Self> {
        let vcpu = Rc::new(Vcpu {
            post: Post::new(Bits::new(), gate),
            guest: Model::new("guest", GuestState::default()),
            task: Model::new("task", None),
            in_guest: Cell::new(None),
            served: Cell::new(0),
        });
        let this = Rc::clone(&vcpu);
        m.ipi_handler(CPU, NOTIFY, "notification", move || match this.in_guest.get() {
            Some(true) => {
                this.post.gate().taken();
                this.take();
            }
            // Posting is inactive: it is an interrupt like any other, and makes the guest exit.
            Some(false) => this.guest.change(|guest| guest.kicked = true),
            None => {}
        });
        let this = Rc::clone(&vcpu);
        m.ipi_handler(CPU, KICK, "kick", move || this.guest.change(|guest| guest.kicked = true));
        vcpu
    }

    fn take(&self) {
        let mut got = 0;
        self.post.layout().take(|bit| got |= 1u64 << bit.number());
        self.guest.change(|guest| guest.got |= got);
    }

    /// A sender.
    pub fn post(&self, number: usize) {
        self.act(self.post.post(bit(number)));
    }

    pub fn act(&self, notice: Notice<G::Notification>) {
        match notice {
            Notice::Nothing => {}
            Notice::Notify(notification) => G::send(notification),
            Notice::Kick(cpu) => Sim::send_ipi(cpu, KICK),
            Notice::Wake => self.wake(),
        }
    }

    pub fn wake(&self) {
        let task = self.task.observe(Clone::clone);
        Sim::wake(&task.expect("it sleeps, so it has begun"));
    }

    pub fn begin(&self) {
        self.task.change(|task| *task = Some(Sim::current_task()));
    }

    pub fn got(&self, wanted: u64) -> bool {
        self.guest.observe(|guest| guest.got & wanted == wanted)
    }

    /// Enters the guest, and leaves it as `until` says.
    pub fn run(&self, posted: bool, until: Until) -> Ran {
        let irqs = IrqGuard::<Sim>::new();
        let entering = match self.post.enter(&irqs, Guest { cpu: CPU, posted }) {
            Ok(entering) => entering,
            Err(requests) => {
                self.served.set(self.served.get() | requests.0);
                return Ran::Requested;
            }
        };
        let in_guest = entering.rescan(|_| self.take());
        self.in_guest.set(Some(posted));
        local_irq_enable();
        let ended = match until {
            Until::Halts => false,
            Until::Kicked => self.guest.serve(|guest| guest.kicked, |guest| guest.kicked = false).is_err(),
        };
        local_irq_disable();
        self.in_guest.set(None);
        drop(in_guest);
        if ended { Ran::Over } else { Ran::Exited }
    }

    /// Stays in the guest until nothing more can happen.
    pub fn stay(&self) {
        while self.run(true, Until::Kicked) != Ran::Over {}
    }

    /// Runs until the guest has got `wanted`, and sleeps between.
    pub fn run_and_sleep(&self, wanted: u64) {
        self.begin();
        while !self.got(wanted) {
            self.run(true, Until::Halts);
            if self.got(wanted) {
                return;
            }
            if let Ok(blocked) = self.post.block() {
                blocked.wait();
            }
        }
    }
}

/// How long a vCPU stays in the guest.
#[derive(Clone, Copy)]
pub enum Until {
    /// It exits at once.
    Halts,
    /// It stays there until it is kicked.
    Kicked,
}

/// Why it is in the host again.
#[derive(Clone, Copy, PartialEq)]
pub enum Ran {
    Exited,
    /// It did not enter, because something was requested of it.
    Requested,
    /// Nothing more can happen.
    Over,
}

/// Several of them, by their numbers.
pub fn senders<G: Send>(m: &Machine, vcpu: &Rc<Vcpu<G>>, numbers: &[usize]) {
    for &number in numbers {
        let vcpu = Rc::clone(vcpu);
        m.task(format!("sender {number}"), move || vcpu.post(number));
    }
}

/// Nothing is pending in the end.
pub fn nothing_pending<G: Send>(m: &Machine, vcpu: &Rc<Vcpu<G>>, wanted: u64) {
    let vcpu = Rc::clone(vcpu);
    m.at_quiescence("nothing that was posted is pending", move || {
        let got = vcpu.guest.observe(|guest| guest.got);
        let pending = vcpu.post.layout().any();
        if got == wanted && !pending { Ok(()) } else { Err(format!("the guest got {got:#b}, of {wanted:#b}")) }
    });
}
