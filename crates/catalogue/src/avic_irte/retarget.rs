//! The guest moves its interrupt from vCPU A to vCPU B, without masking it, while A goes elsewhere:
//! whom does a post find that comes in between?

use std::fmt;
use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_hardware::avic::{AvicCpu, Gate, Memory};
use doorbell_hardware::iommu_amd::{Entry, Iommu, Post};

use super::irq::IrqDesc;
use super::svm::{EntryWrite, Vcpu, irte_of};

/// The parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retarget {
    pub order: Order,
    pub a: Goes,
    pub post: Post,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Off A's list, then bound to B with B's list locked around it: the code of the report.
    UnlistThenBind,
    /// Off A's list, then bound to B as proposed.
    UnlistThenBindLeaf,
    /// Bound to B, then off A's list.
    BindLeafThenUnlist,
    /// Off A's list and to the host in one critical section, then bound to B.
    Unbind { waits: bool, looks: bool },
}

/// Where A goes meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goes {
    Nowhere,
    ToAnotherCpu,
    Halts,
}

/// The CPUs of the model: a vCPU's task stays in its column when its vCPU goes to another one.
const CPUS: [&str; 3] = ["pCPU 0", "pCPU 1", "pCPU 2"];

impl Retarget {
    pub(super) fn program(self, m: &Machine) {
        let memory = Memory::new(2);
        let entry = Entry::new(&memory, irte_of(0, Gate::Running(0)));
        let cpus: Rc<[AvicCpu]> = CPUS.map(AvicCpu::new).into();
        let a = Rc::new(Vcpu::new(
            &memory,
            0,
            Gate::Running(0),
            vec![Rc::clone(&entry)],
            EntryWrite::Locked,
        ));
        let b = Rc::new(Vcpu::new(&memory, 1, Gate::Running(2), vec![], EntryWrite::Locked));
        let iommu = Iommu::new(entry, self.post, Rc::clone(&cpus));
        {
            let (a, cpus) = (Rc::clone(&a), Rc::clone(&cpus));
            m.task("vCPU A", move || {
                let cpu = match self.a {
                    Goes::Nowhere => 0,
                    Goes::ToAnotherCpu => {
                        a.put();
                        a.load(1);
                        1
                    }
                    Goes::Halts if a.halt_until_interrupt(1) => 1,
                    Goes::Halts => return,
                };
                // Nothing interrupts it there.
                let _ = cpus[cpu].run(Some(&a.page));
            });
        }
        {
            let b = Rc::clone(&b);
            m.task("vCPU B", move || {
                let _ = cpus[2].run(Some(&b.page));
            });
        }
        {
            let (a, b, iommu) = (Rc::clone(&a), Rc::clone(&b), Rc::clone(&iommu));
            let desc = IrqDesc::new(None, None);
            m.task("retarget", move || self.order.run(&desc, &a, &b, &iommu));
        }
        // Entries ask for it while a vCPU sleeps.
        if self.a == Goes::Halts {
            let (a, b, iommu) = (Rc::clone(&a), Rc::clone(&b), Rc::clone(&iommu));
            m.task("GA log", move || {
                while let Ok(tag) = iommu.next_log_entry() {
                    [&a, &b][tag as usize].wake();
                }
            });
        }
        let (injected, logs) = (Rc::clone(&b), Rc::clone(&iommu));
        m.hardware("device", move || iommu.msi(|| injected.inject(&iommu.cpus)));
        m.at_quiescence("whoever has an interrupt pending has been told", move || {
            if logs.has_logged() {
                return Err("nobody reads the log".to_owned());
            }
            match [("A", &a), ("B", &b)].iter().find(|(_, vcpu)| vcpu.page.pending() != 0) {
                None => Ok(()),
                Some((name, _)) => Err(format!(
                    "the interrupt is pending in vCPU {name}, and nobody rings or wakes it"
                )),
            }
        });
    }
}

impl Order {
    fn run(self, desc: &IrqDesc, a: &Vcpu, b: &Vcpu, iommu: &Iommu) {
        let entry = &iommu.entry;
        match self {
            Order::UnlistThenBind => {
                a.unlist(entry);
                b.bind_under_lock(desc, entry);
            }
            Order::UnlistThenBindLeaf => {
                a.unlist(entry);
                b.bind_leaf(desc, entry);
            }
            Order::BindLeafThenUnlist => {
                b.bind_leaf(desc, entry);
                a.unlist(entry);
            }
            Order::Unbind { waits, looks } => {
                a.unbind(entry);
                if waits {
                    iommu.invalidate();
                }
                if looks {
                    a.look_again(iommu);
                }
                b.bind_leaf(desc, entry);
            }
        }
    }
}

impl fmt::Display for Retarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goes = match self.a {
            Goes::Nowhere => "stays there, too",
            Goes::ToAnotherCpu => "goes to another CPU once",
            Goes::Halts => "halts once",
        };
        let post =
            if self.post == Post::AtOnce { "posted in one step" } else { "posted in three steps" };
        write!(f, "2 vCPUs, B in guest mode, A {goes}; 1 retarget A → B, 1 MSI, {post}")
    }
}
