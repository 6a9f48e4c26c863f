//! A vCPU of `doorbell-post` by itself, with any gate: hooks that do what the protocol asks of
//! them, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use doorbell_explore::{Machine, Sim};
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::{
    Bit, Destination, Gate, Guest, Layout, Mode, ModeGate, Notification, Pending, PiGate, Post,
    Requests, SoftwareGate, TwoLevel,
};

use crate::vcpu::{A, Delivery, Entry, Vcpu};
use crate::vmx::NOTIFY;
use crate::vtd::{self, WAKEUP};

/// Pending bits of simulated vCPUs.
pub type Bits = Pending<Sim, 1>;
/// Those of vCPUs that have some in two words.
pub type TwoWords = TwoLevel<Sim, 2>;

/// A layout as far as a simulated vCPU uses it: small numbers stand for its bits.
pub trait Few: Layout + Send + Sync + 'static {
    /// Returns one in which nothing is pending.
    fn empty() -> Self;

    /// Returns the bit of a number.
    fn bit(number: usize) -> Self::Bit;

    /// Takes what is pending: bit n of the result is that of number n.
    fn take(&self) -> u64;
}

impl<const WORDS: usize> Few for Pending<Sim, WORDS> {
    fn empty() -> Self {
        Pending::new()
    }

    fn bit(number: usize) -> Bit<WORDS> {
        Bit::new(number).expect("a small number")
    }

    fn take(&self) -> u64 {
        let mut taken = 0;
        Pending::take(self, |bit| taken |= 1 << bit.number());
        taken
    }
}

/// Even numbers are bits of the first word, and odd ones of the second.
impl Few for TwoWords {
    fn empty() -> Self {
        TwoWords::new()
    }

    fn bit(number: usize) -> Bit<2> {
        Bit::new(number / 2 + number % 2 * 64).expect("a small number")
    }

    fn take(&self) -> u64 {
        let mut taken = 0;
        TwoLevel::take(self, |bit| taken |= 1 << (bit.number() % 64 * 2 + bit.number() / 64));
        taken
    }
}

/// What hardware and hooks do with a gate.
pub trait Hooked: Gate<Sim> + Send + Sync + 'static {
    /// Tells a CPU of that vCPU.
    fn tell(vcpu: &Vcpu, notification: Self::Notification);

    /// Does what a CPU in guest mode does first when it is told.
    fn taken(&self) {}

    /// Says that the vCPU's task runs on a CPU.
    fn load(&self, cpu: CpuId, any: impl FnOnce() -> bool) {
        let _ = (cpu, any);
    }

    /// Says that the vCPU's task is switched away from, and waits for a CPU.
    fn suppress(&self) {}

    /// Says that the vCPU's task is switched away from on a CPU, and sleeps. Returns whether the
    /// CPU interrupts itself with the wake-up vector.
    fn wake_with(&self, cpu: CpuId, any: impl FnOnce() -> bool) -> bool {
        let _ = (cpu, any);
        false
    }
}

impl Hooked for PiGate<Sim> {
    fn tell(vcpu: &Vcpu, notification: Notification) {
        vcpu.interrupt(CpuId(notification.destination.bits()), notification.vector);
    }

    fn taken(&self) {
        vtd::taken(self);
    }

    fn load(&self, cpu: CpuId, any: impl FnOnce() -> bool) {
        self.run_on(Destination::x2apic(cpu.0), NOTIFY, any);
    }

    fn suppress(&self) {
        PiGate::suppress(self);
    }

    fn wake_with(&self, cpu: CpuId, any: impl FnOnce() -> bool) -> bool {
        PiGate::wake_with(self, Destination::x2apic(cpu.0), WAKEUP, any).0
    }
}

impl Hooked for ModeGate<Sim> {
    fn tell(vcpu: &Vcpu, cpu: CpuId) {
        vcpu.interrupt(cpu, NOTIFY);
    }
}

impl Hooked for SoftwareGate<Sim> {
    fn tell(vcpu: &Vcpu, cpu: CpuId) {
        vcpu.interrupt(cpu, NOTIFY);
    }
}

/// Creates a coalescing gate whose notifications go to [`A`].
pub fn coalescing() -> PiGate<Sim> {
    PiGate::new(Destination::x2apic(A.0), NOTIFY)
}

/// A vCPU of `doorbell-post`.
pub struct Posts<G, L = Bits> {
    /// What is explored.
    pub post: Post<Sim, L, G>,
    vcpu: Vcpu,
    /// Whether its CPU takes what is posted, the next time that it enters. Of its task.
    posted: AtomicBool,
}

doorbell_platform::opaque_debug!([G, L] Posts<G, L>);

impl<G: Hooked, L: Few> Posts<G, L> {
    /// Creates a vCPU with that gate, which begins on a CPU and [moves](Vcpu::new) or not.
    #[track_caller]
    pub fn new(gate: G, on: CpuId, moves: bool) -> Arc<Self> {
        let (post, vcpu) = (Post::new(L::empty(), gate), Vcpu::new(on, moves));
        Arc::new(Posts { post, vcpu, posted: AtomicBool::new(true) })
    }

    /// Says whether the vCPU's CPU takes what is posted from here on. Only the vCPU's task may call
    /// this.
    pub fn takes_posted(&self, takes: bool) {
        self.posted.store(takes, Ordering::Relaxed);
    }

    /// Posts a bit of that number, as software does.
    pub fn send(&self, number: usize) {
        self.act(self.post.post(L::bit(number)));
    }

    /// Takes what is pending, in the host or in its place.
    pub fn take(&self, bits: &L) {
        self.vcpu.gets(bits.take());
    }
}

impl Posts<PiGate<Sim>> {
    /// Posts a bit of that number, as an IOMMU does.
    pub fn device(&self, number: usize) {
        if let Some(notification) = vtd::publish(&self.post, number) {
            self.vcpu.interrupt(notification.cpu, notification.vector);
        }
    }

    /// Installs the handler of the wake-up vector, on a CPU.
    pub fn wakes_on(self: &Arc<Self>, m: &Machine, cpu: CpuId) {
        let sleeps = Arc::clone(self);
        m.handler(cpu, WAKEUP, "wake-up", move || {
            if sleeps.post.notified() {
                sleeps.vcpu.wake();
            }
        })
        .may_not_run();
    }
}

impl<G: Hooked, L: Few> Delivery for Posts<G, L> {
    type Notification = G::Notification;

    fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }

    fn enter(
        &self,
        irqs_off: &IrqGuard<Sim>,
        cpu: CpuId,
        guest: &mut dyn FnMut(Entry),
    ) -> Result<(), Requests> {
        let posted = self.posted.load(Ordering::Relaxed);
        let entering = self.post.enter(irqs_off, Guest { cpu, posted })?;
        let (in_guest, _taken) = entering.rescan(|bits| self.take(bits));
        guest(Entry { posted, intercepts_priority: false });
        in_guest.exited();
        Ok(())
    }

    fn block(&self, sleep: &mut dyn FnMut(&dyn Fn() -> bool)) {
        if let Ok(blocked) = self.post.block() {
            sleep(&|| blocked.asleep());
        }
    }

    fn load(&self, cpu: CpuId) {
        self.post.gate().load(cpu, || self.post.layout().any());
        self.post.run_state().resumed();
    }

    fn put(&self, cpu: CpuId, preempted: bool) {
        let (gate, state) = (self.post.gate(), self.post.run_state());
        if preempted || state.mode() != Mode::Blocked {
            gate.suppress();
            state.preempted();
        } else if gate.wake_with(cpu, || self.post.layout().any()) {
            self.vcpu.interrupt(cpu, WAKEUP);
        }
    }

    fn notify(&self, notification: G::Notification) {
        G::tell(&self.vcpu, notification);
    }

    fn told(&self) {
        self.post.gate().taken();
        self.take(self.post.layout());
    }
}
