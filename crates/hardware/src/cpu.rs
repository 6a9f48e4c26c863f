//! A CPU as far as what ends or reaches guest mode goes: doorbells of AVIC (APM vol. 2, section
//! 15.29), the notification vector of VMX, kicks. What the guest does is somebody else's.

use doorbell_explore::Ended;
use doorbell_explore::sim::{Model, local_irq_disable, local_irq_enable, note};
use doorbell_platform::CpuId;
use doorbell_post::Notice;

/// A CPU, and whether it would hear what it is told.
pub struct Cpu(Model<State>);

doorbell_platform::opaque_debug!([] Cpu);

#[derive(Default)]
struct State {
    /// A vCPU is loaded there.
    taken: bool,
    irqs_off: bool,
    /// In guest mode; and whether it takes there what is posted.
    guest: Option<bool>,
    doorbell: bool,
    /// The notification vector is pending.
    notified: bool,
    kicked: bool,
}

impl Cpu {
    /// Creates a CPU in the host, where no vCPU is loaded.
    #[track_caller]
    pub fn new(name: &'static str) -> Self {
        Cpu(Model::new(name, State::default()))
    }

    /// Waits until no vCPU is loaded there, and loads one.
    #[track_caller]
    pub fn take(&self) {
        self.0.take(|cpu| !cpu.taken, |cpu| cpu.taken = true);
    }

    /// Frees the CPU: nothing is loaded there any more.
    #[track_caller]
    pub fn free(&self) {
        self.0.change(|cpu| *cpu = State::default());
    }

    /// Turns interrupts off: a kick from here on ends the guest that is entered next.
    #[track_caller]
    pub fn irqs_off(&self) {
        self.0.change(|cpu| cpu.irqs_off = true);
    }

    /// Enters guest mode, in which it takes what is posted, or does not, and returns what `guest`
    /// does there. Interrupts, which are off, are on meanwhile. What comes then is the caller's: to
    /// [leave](Cpu::leave), unless interrupts are turned [on](Cpu::irqs_on) in the host at once.
    #[track_caller]
    pub fn enter<R>(&self, posted: bool, guest: impl FnOnce() -> R) -> R {
        self.0.change(|cpu| cpu.guest = Some(posted));
        note(|| {
            let how = if posted { "posts are taken" } else { "posts are not taken" };
            format!("enters the guest: {how}")
        });
        local_irq_enable();
        let result = guest();
        local_irq_disable();
        result
    }

    /// Stays in guest mode until it is kicked, and does what `told` does whenever it is told
    /// something.
    ///
    /// # Errors
    /// When the run is over.
    #[track_caller]
    pub fn stay(&self, mut told: impl FnMut()) -> Result<(), Ended> {
        while !self.hear()? {
            told();
        }
        Ok(())
    }

    /// Leaves guest mode. Kicks are remembered until interrupts are on.
    #[track_caller]
    pub fn leave(&self) {
        self.0.change(|cpu| cpu.guest = None);
    }

    /// Puts the CPU into the host, with interrupts on: nothing of what it has heard is left.
    #[track_caller]
    pub fn irqs_on(&self) {
        self.0.change(|cpu| *cpu = State { taken: cpu.taken, ..State::default() });
    }

    /// Returns whether the CPU is in guest mode, or was and has not told yet.
    #[track_caller]
    pub fn in_guest(&self) -> bool {
        self.0.observe(|cpu| cpu.guest.is_some())
    }

    /// Rings the CPU's doorbell, which is heard in guest mode with AVIC only.
    #[track_caller]
    pub fn ring(&self) {
        let heard = self.0.change(|cpu| {
            cpu.doorbell |= cpu.guest == Some(true);
            cpu.doorbell
        });
        note(|| format!("rings the doorbell{}", if heard { "" } else { ": not heard" }));
    }

    /// Sends the notification vector of VMX: it is taken in guest mode, also if it came when
    /// interrupts were off. If posting is inactive there, it is an interrupt like any other, and
    /// ends guest mode.
    #[track_caller]
    pub fn notify(&self) {
        self.0.change(|cpu| cpu.notified |= cpu.irqs_off || cpu.guest.is_some());
    }

    /// Sends an interrupt of the host, which ends guest mode and does nothing else.
    #[track_caller]
    pub fn kick(&self) {
        let kicked = self.0.change(|cpu| {
            cpu.kicked |= cpu.irqs_off || cpu.guest.is_some();
            cpu.kicked
        });
        note(|| format!("kicks the CPU{}", if kicked { "" } else { ", which is in the host" }));
    }

    /// Returns whether it was kicked, and must leave guest mode.
    #[track_caller]
    pub fn is_kicked(&self) -> bool {
        self.0.observe(|cpu| cpu.kicked)
    }

    /// Stays in guest mode until it is told something or kicked: `true` if it is kicked, and must
    /// leave.
    ///
    /// # Errors
    /// When the run is over.
    #[track_caller]
    pub fn hear(&self) -> Result<bool, Ended> {
        self.0.serve(
            |cpu| cpu.doorbell || cpu.notified || cpu.kicked,
            |cpu| {
                cpu.doorbell = false;
                let notified = std::mem::take(&mut cpu.notified);
                cpu.kicked || notified && cpu.guest == Some(false)
            },
        )
    }
}

/// Does to one of the CPUs, which have the numbers from 0 on, what a sender is told to, or has
/// `wake` wake the vCPU's task. Who is notified is so by the doorbell.
#[track_caller]
pub fn act(cpus: &[Cpu], notice: Notice<CpuId>, wake: impl FnOnce()) {
    match notice {
        Notice::Nothing => {}
        Notice::Notify(cpu) => cpus[cpu.0 as usize].ring(),
        Notice::Kick(cpu) => cpus[cpu.0 as usize].kick(),
        Notice::Wake => wake(),
    }
}
