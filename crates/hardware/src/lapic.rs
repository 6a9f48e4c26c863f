//! Local APICs (Intel SDM vol. 3, chapter "Advanced Programmable Interrupt Controller"): which
//! vectors wait at a CPU, and which one it is given next.
//!
//! A message that arrives sets a bit of the IRR. When interrupts are enabled, the CPU is given the
//! highest vector of its IRR, whose bit moves to the ISR until the EOI. The entry code keeps
//! interrupts off, so the ISR has one bit at most.
//!
//! **Only a CPU itself can read its IRR.** [`Lapics::is_requested`] has no parameter that names a
//! CPU: it reads that of the CPU on which it is called, and hardware, which runs on none, may not
//! call it at all.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use doorbell_explore::sim::{Model, fail, note, remark};
use doorbell_explore::{HandlerHandle, Machine, Sim};
use doorbell_platform::{CpuId, Platform, Vector};

/// What the explorer knows the entry code of a CPU by. No message has it: vectors below 16 are
/// illegal.
const ENTRY: Vector = Vector(0);

/// A message to a local APIC, fixed delivery, edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// The CPU whose local APIC the message is for.
    pub cpu: CpuId,
    /// The vector of that CPU.
    pub vector: Vector,
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {:#x}", self.cpu, self.vector.0)
    }
}

/// The local APIC of each CPU, and the bus between them.
pub struct Lapics {
    each: Vec<Lapic>,
    /// Messages by the CPU that they fly to: those to different CPUs have nothing to do with each
    /// other.
    flying: Vec<Model<VecDeque<Message>>>,
}

doorbell_platform::opaque_debug!([] Lapics);

/// The registers are used in the steps in which the entry is raised, begins, or is looked at, and
/// in no others: so the search sees each use.
#[derive(Default)]
struct Lapic {
    entry: OnceCell<HandlerHandle>,
    irr: RefCell<BTreeSet<u8>>,
    isr: RefCell<Option<InService>>,
}

#[derive(Clone, Copy)]
struct InService {
    vector: u8,
    /// Something else was requested when it began. What is requested later raises the entry itself.
    more: bool,
}

impl Lapics {
    /// Creates the local APICs of CPUs 0 up to `cpus`, which take no interrupts yet.
    pub fn new(cpus: usize) -> Rc<Lapics> {
        let each = (0..cpus).map(|_| Lapic::default()).collect();
        let flying = (0..cpus).map(|_| Model::new("IPIs in flight", VecDeque::new())).collect();
        Rc::new(Lapics { each, flying })
    }

    /// Says what `cpu` does when it is given a vector, with interrupts off. It must end the
    /// interrupt with an [`eoi`](Lapics::eoi). Returns the entry, for who need not be given any.
    pub fn on_interrupt(
        self: &Rc<Self>,
        m: &Machine,
        cpu: CpuId,
        entry: impl Fn(Vector) + 'static,
    ) -> HandlerHandle {
        let this = Rc::clone(self);
        let handle = m.handler(cpu, ENTRY, "entry", move || {
            let vector = this.accept(cpu);
            note(|| format!("the handler of vector {:#x} begins", vector.0));
            entry(vector);
            if this.of(cpu).isr.borrow().is_some() {
                fail(format!("vector {:#x} is never ended", vector.0));
            }
        });
        assert!(self.of(cpu).entry.set(handle).is_ok(), "{cpu} has its entry already");
        handle
    }

    fn of(&self, cpu: CpuId) -> &Lapic {
        &self.each[cpu.0 as usize]
    }

    fn entry(&self, cpu: CpuId) -> HandlerHandle {
        *self.of(cpu).entry.get().expect("it is set before anything runs")
    }

    /// The highest vector goes from the IRR to the ISR. Part of the step in which the entry begins.
    fn accept(&self, cpu: CpuId) -> Vector {
        let lapic = self.of(cpu);
        let mut irr = lapic.irr.borrow_mut();
        let vector = irr.pop_last().expect("the entry is raised for a vector");
        *lapic.isr.borrow_mut() = Some(InService { vector, more: !irr.is_empty() });
        Vector(vector)
    }

    /// Takes a message, which arrives.
    #[track_caller]
    pub fn arrive(&self, message: Message) {
        self.entry(message.cpu).raise();
        self.of(message.cpu).irr.borrow_mut().insert(message.vector.0);
        note(|| format!("{:#x} in the IRR of {}", message.vector.0, message.cpu));
    }

    /// Returns whether the vector is in the IRR of the CPU on which this is called.
    #[track_caller]
    pub fn is_requested(&self, vector: Vector) -> bool {
        let cpu = Sim::current_cpu();
        self.entry(cpu).is_pending();
        let set = self.of(cpu).irr.borrow().contains(&vector.0);
        note(|| format!("own IRR {} vector {:#x}", if set { "has" } else { "has not" }, vector.0));
        set
    }

    /// Ends the interrupt that the CPU is in. The CPU is given the next one, if one waits, when
    /// interrupts are on again.
    #[track_caller]
    pub fn eoi(&self) {
        let cpu = Sim::current_cpu();
        let ended = self.of(cpu).isr.borrow_mut().take();
        match ended {
            None => fail("an EOI of no interrupt"),
            Some(InService { more: true, .. }) => {
                self.entry(cpu).raise();
                note(|| "EOI; the next vector follows".to_owned());
            }
            Some(InService { vector, .. }) => {
                remark(|| format!("EOI of {vector:#x}"));
            }
        }
    }

    /// Lets IPIs be sent: each is in flight for some time.
    pub fn carry_ipis(self: &Rc<Self>, m: &Machine) {
        for cpu in 0..self.each.len() {
            let this = Rc::clone(self);
            m.hardware("IPI", move || {
                while let Ok(message) =
                    this.flying[cpu].serve(|flying| !flying.is_empty(), VecDeque::pop_front)
                {
                    let message = message.expect("one is in flight");
                    note(|| format!("an IPI comes to {message}"));
                    this.arrive(message);
                }
            })
            .may_not_run();
        }
    }

    /// Sends an IPI, which the sender's own CPU may be the target of.
    #[track_caller]
    pub fn send_ipi(&self, message: Message) {
        self.flying[message.cpu.0 as usize].change(|flying| flying.push_back(message));
        note(|| format!("sends an IPI to {message}"));
    }
}

#[cfg(test)]
mod tests {
    use doorbell_explore::trace::FailureKind;
    use doorbell_explore::{Explore, Report};

    use super::*;

    const LOW: Vector = Vector(0x31);
    const HIGH: Vector = Vector(0x41);
    const CPU: CpuId = CpuId(0);

    /// The vectors that CPU 0 is given, in their order, of those that `stimuli` have arrive.
    fn given(stimuli: impl Fn(&Machine, Rc<Lapics>) + Send + Sync) -> Report {
        Explore::new("lapic").collect_outcomes().jobs(1).run(|m| {
            let lapics = Lapics::new(2);
            let given = Rc::new(RefCell::new(Vec::new()));
            for cpu in [0, 1].map(CpuId) {
                let (apic, given) = (Rc::clone(&lapics), Rc::clone(&given));
                let entry = lapics.on_interrupt(m, cpu, move |vector| {
                    given.borrow_mut().push(vector.0);
                    apic.eoi();
                });
                // What comes where is told by the outcomes.
                entry.may_not_run();
            }
            stimuli(m, lapics);
            m.outcome(move || format!("{:x?}", given.borrow()));
        })
    }

    fn arrive(lapics: &Lapics, vector: Vector) {
        lapics.arrive(Message { cpu: CPU, vector });
    }

    fn outcomes(report: &Report) -> Vec<&str> {
        report.assert_exhausted();
        report.outcomes.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_cpu_is_given_the_highest_vector_first() {
        let report = given(|m, lapics| {
            m.task_on(CPU, "task", move || {
                let off = Sim::irq_save();
                arrive(&lapics, LOW);
                arrive(&lapics, HIGH);
                Sim::irq_restore(off);
            });
        });
        assert_eq!(outcomes(&report), ["[41, 31]"]);
    }

    #[test]
    fn a_vector_that_arrives_twice_before_the_cpu_takes_it_is_given_once_or_twice() {
        let report = given(|m, lapics| {
            m.hardware("device", move || {
                arrive(&lapics, LOW);
                arrive(&lapics, LOW);
            });
        });
        assert_eq!(outcomes(&report), ["[31, 31]", "[31]"]);
    }

    #[test]
    fn no_vector_is_given_twice_or_not_at_all_in_whatever_order_they_arrive() {
        let report = given(|m, lapics| {
            let other = Rc::clone(&lapics);
            m.hardware("one", move || arrive(&lapics, LOW));
            m.hardware("other", move || arrive(&other, HIGH));
        });
        assert_eq!(outcomes(&report), ["[31, 41]", "[41, 31]"]);
    }

    #[test]
    fn a_cpu_sees_its_own_requests_and_an_ipi_comes_when_it_comes() {
        let report = given(|m, lapics| {
            lapics.carry_ipis(m);
            m.task_on(CPU, "task", move || {
                let off = Sim::irq_save();
                lapics.send_ipi(Message { cpu: CPU, vector: HIGH });
                arrive(&lapics, LOW);
                assert!(lapics.is_requested(LOW));
                Sim::irq_restore(off);
            });
        });
        assert_eq!(outcomes(&report), ["[31, 41]", "[41, 31]"]);
    }

    #[test]
    fn hardware_cannot_ask_what_is_requested() {
        let report = given(|m, lapics| {
            m.hardware("device", move || {
                lapics.is_requested(LOW);
            });
        });
        report.assert_found(FailureKind::LockRule);
    }

    #[test]
    fn an_interrupt_that_is_not_ended_is_reported() {
        let report = Explore::new("no EOI").run(|m| {
            let lapics = Lapics::new(1);
            lapics.on_interrupt(m, CPU, |_| ());
            m.hardware("device", move || arrive(&lapics, LOW));
        });
        report.assert_found(FailureKind::Invariant);
    }
}
