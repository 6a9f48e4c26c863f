//! A hypervisor with one list register and two interrupts, explored: the guest acknowledges and
//! ends as it likes, and the maintenance interrupt comes when it comes.

use std::sync::{Arc, Mutex};

use doorbell_explore::sim::Model;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Report, Sim};
use doorbell_platform::{CpuId, IrqGuard};
use doorbell_post::Requests;

use super::spec::{Group, Implementation, IntId, ListRegister, Priority, State, hcr, vmcr};
use super::{CpuInterface, Physical, VirtualInterface};
use crate::vcpu::{self, A, Delivery, Entry, Vcpu};

/// A mistake of the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    /// Asks for no maintenance interrupt when something pending has no list register.
    NoNpie,
    /// Leaves active what the guest has ended without a list register.
    ForgetsCount,
    /// Takes the maintenance interrupt for news of the acknowledgement before it: the interrupt
    /// would still be active.
    TakesLateForPrompt,
}

/// An interrupt as the hypervisor knows it.
#[derive(Clone, Copy)]
struct Irq {
    priority: Priority,
    pending: bool,
    active: bool,
}

struct Irqs {
    each: [Irq; 2],
    saved: VirtualInterface,
    /// The numbers of those that are active in no list register, in the order in which the guest
    /// will end them.
    unlisted: Vec<usize>,
}

struct Hypervisor {
    vcpu: Vcpu,
    cpu: Arc<CpuInterface>,
    irqs: Model<Irqs>,
    /// What the guest has acknowledged and not ended. Of its task.
    handling: Mutex<Vec<IntId>>,
    flaw: Flaw,
}

const FIRST: u32 = 32;

fn intid(number: usize) -> IntId {
    IntId::new(FIRST + number as u32).expect("it is small")
}

impl Irqs {
    /// Gives the list register to the first that needs it: pending before active, then by priority.
    fn flush(&mut self, flaw: Flaw) -> VirtualInterface {
        let known = |irq: &Irq| irq.pending || irq.active;
        let mut waiting: Vec<usize> = (0..2).filter(|&number| known(&self.each[number])).collect();
        waiting.sort_by_key(|&number| (self.each[number].active, self.each[number].priority));
        let mut control = hcr::EN.mask();
        let mut lr = ListRegister::EMPTY;
        if !waiting.is_empty() {
            let number = waiting.remove(0);
            let irq = self.each[number];
            let state = match (irq.pending, irq.active) {
                (_, false) => State::Pending,
                (false, true) => State::Active,
                (true, true) => State::PendingAndActive,
            };
            lr = ListRegister::new(intid(number), irq.priority, Group::One).in_state(state);
        }
        let loadable = |irq: Irq| irq.pending && !irq.active;
        if waiting.iter().any(|&number| loadable(self.each[number])) && flaw != Flaw::NoNpie {
            control |= hcr::NPIE.mask();
        }
        self.unlisted = waiting.into_iter().filter(|&number| self.each[number].active).collect();
        if !self.unlisted.is_empty() {
            control |= hcr::LRENPIE.mask();
        }
        self.saved.set_hcr(control);
        self.saved.set_lr(0, lr).expect("there is one");
        self.saved.clone()
    }

    /// Learns what the guest has done. What has come meanwhile is pending all the same.
    fn fold(&mut self, saved: VirtualInterface, flaw: Flaw) {
        let before = std::mem::replace(&mut self.saved, saved).lr(0).expect("there is one");
        let after = self.saved.lr(0).expect("there is one");
        if before != ListRegister::EMPTY {
            let irq = &mut self.each[(before.intid().number() - FIRST) as usize];
            let acknowledged = before.state() == State::Pending && after.state() != State::Pending;
            irq.pending &= !acknowledged;
            irq.active =
                after.state().is_active() || acknowledged && flaw == Flaw::TakesLateForPrompt;
        }
        if flaw != Flaw::ForgetsCount {
            for number in self.unlisted.drain(..).take(hcr::EOICOUNT.get(self.saved.hcr()) as usize)
            {
                self.each[number].active = false;
            }
        }
    }
}

impl Hypervisor {
    fn raise(&self, number: usize) {
        self.irqs.change(|irqs| irqs.each[number].pending = true);
        self.vcpu.kick(A);
    }
}

impl Delivery for Hypervisor {
    type Notification = ();

    fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }

    fn enter(
        &self,
        _irqs_off: &IrqGuard<Sim>,
        _cpu: CpuId,
        guest: &mut dyn FnMut(Entry),
    ) -> Result<(), Requests> {
        let loaded = self.irqs.change(|irqs| irqs.flush(self.flaw));
        self.cpu.load(loaded).expect("the guest does not run");
        self.cpu.enter().expect("the guest does not run");
        guest(Entry { posted: false, intercepts_priority: false });
        self.cpu.exit().expect("the guest runs");
        let saved = self.cpu.save().expect("the guest does not run");
        self.irqs.change(|irqs| irqs.fold(saved, self.flaw));
        Ok(())
    }

    fn runs(&self, _entry: Entry) -> bool {
        let mut handling = self.handling.lock().expect("no panic while it is held");
        loop {
            if self.vcpu.is_kicked() {
                return true;
            }
            let given = self
                .cpu
                .guest(|icv| icv.read_iar(Group::One))
                .expect("it runs")
                .expect("it is not trapped");
            if given != IntId::SPURIOUS {
                handling.push(given);
                continue;
            }
            if self.vcpu.is_kicked() {
                return true;
            }
            let Some(ended) = handling.pop() else { return false };
            let done = self.cpu.guest(|icv| icv.write_eoir(Group::One, ended)).expect("it runs");
            assert_eq!(done, Ok(Physical::Untouched));
            self.vcpu.gets(1 << (ended.number() - FIRST));
        }
    }

    fn block(&self, _sleep: &mut dyn FnMut(&dyn Fn() -> bool)) {}

    fn load(&self, _cpu: CpuId) {}

    fn put(&self, _cpu: CpuId, _preempted: bool) {}

    fn notify(&self, (): ()) {}

    fn told(&self) {}
}

/// Sets up an interrupt that is pending, and one that preempts it, at any moment.
fn two_interrupts(m: &Machine, flaw: Flaw) {
    let implementation = Implementation::new(1, 5, 5).expect("it is legal");
    let mut saved = VirtualInterface::new(implementation);
    saved.set_vmcr(vmcr::VENG1.mask() | vmcr::VPMR.mask());
    let irq = |priority, pending| Irq { priority: Priority(priority), pending, active: false };
    let each = [irq(0x80, true), irq(0x40, false)];
    let hypervisor = Arc::new(Hypervisor {
        vcpu: Vcpu::new(A, false),
        cpu: CpuInterface::new("CPU A's GIC", implementation),
        irqs: Model::new("interrupts", Irqs { each, saved, unlisted: Vec::new() }),
        handling: Mutex::new(Vec::new()),
        flaw,
    });
    let raised = Arc::clone(&hypervisor);
    m.hardware("device", move || raised.raise(1));
    let interrupted = Arc::clone(&hypervisor);
    hypervisor.cpu.run_maintenance(m, move || interrupted.vcpu.kick(A));
    vcpu::task(m, &hypervisor, Delivery::stay);
    vcpu::has_got(m, &hypervisor, 0b11);
    m.at_quiescence("the hypervisor knows of nothing pending or active", move || {
        let left = hypervisor.irqs.observe(|irqs| irqs.each.map(|irq| (irq.pending, irq.active)));
        (left == [(false, false); 2]).then_some(()).ok_or(format!("(pending, active): {left:?}"))
    });
}

fn explored(flaw: Flaw) -> Report {
    Explore::new("one list register").jobs(1).run(move |m| two_interrupts(m, flaw))
}

#[test]
fn two_interrupts_share_a_list_register_whenever_the_maintenance_interrupt_comes() {
    explored(Flaw::None).assert_exhausted();
}

#[test]
fn without_a_maintenance_interrupt_the_second_waits_for_ever() {
    explored(Flaw::NoNpie).assert_found(FailureKind::Quiescence);
}

#[test]
fn what_is_ended_without_a_list_register_stays_active_unless_it_is_counted() {
    explored(Flaw::ForgetsCount).assert_found(FailureKind::Quiescence);
}

#[test]
fn a_maintenance_interrupt_that_is_late_finds_the_interrupt_ended() {
    explored(Flaw::TakesLateForPrompt).assert_found(FailureKind::Quiescence);
}
