//! X08: a device is bound to a vCPU that moves meanwhile, and the IRTE says where it was.

use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::trace::FailureKind;
use doorbell_hardware::avic::{AvicCpu, Gate, Memory};
use doorbell_hardware::iommu_amd::{Entry, Iommu, Irte, Post};

use super::irq::IrqDesc;
use super::svm::{EntryWrite, Vcpu};
use crate::case::{self, variant};
use crate::{Case, Expected};

/// The case.
pub(crate) fn case() -> Case {
    let lost = Expected::Found(FailureKind::Quiescence);
    let fixed = Expected::Exhausted;
    Case::new(
        "avic-stale-irte",
        "an IRTE is bound while its vCPU moves: the doorbell rings where the vCPU was",
        "known-races X08: Linux f3cebc75e742, 4c08e737f056 (2023)",
        vec![
            variant(
                "as-reported",
                lost,
                "the IRTE says 'not running' until the next load, which for a vCPU that never leaves the guest never comes",
                Scope { bind: Bind::Blind, ..FIXED },
            ),
            variant(
                "looked-up-outside-lock",
                lost,
                "the vCPU moves between the look at its entry and the addition to its list, and walks a list without the IRTE",
                Scope { bind: Bind::LooksUp, ..FIXED },
            ),
            variant(
                "fixed",
                fixed,
                "with the list locked around look-up, IRTE and addition, a move comes wholly before or finds it listed",
                FIXED,
            ),
            variant(
                "leaf-lock",
                fixed,
                "binding the metadata before, under the descriptor's lock, takes nothing away: what the lock is for is the IRTE",
                Scope { bind: Bind::Leaf, ..FIXED },
            ),
            variant(
                "entry-before-lock",
                fixed,
                "load and put may write the entry before they lock the list: who binds in between reads it, or is walked over",
                Scope { entry_write: EntryWrite::Before, ..FIXED },
            ),
            variant(
                "entry-after-lock",
                lost,
                "who binds after the walk and before the entry is written has neither been walked over nor reads it",
                Scope { entry_write: EntryWrite::After, ..FIXED },
            ),
            variant(
                "fixed-split-post",
                fixed,
                "nor does an IOMMU lose anything that reads the entry, sets the IRR bit, and then reads anew where to ring",
                Scope { post: Post::GateAfterBit, ..FIXED },
            ),
            variant(
                "fixed-gate-read-early",
                lost,
                "no software helps if the IOMMU takes 'where to ring' from before it sets the IRR bit: what the fix relies on",
                Scope { post: Post::GateBeforeBit, ..FIXED },
            ),
        ],
    )
}

#[derive(Clone, Copy)]
enum Bind {
    Blind,
    LooksUp,
    UnderLock,
    Leaf,
}

#[derive(Clone, Copy)]
struct Scope {
    bind: Bind,
    entry_write: EntryWrite,
    post: Post,
}

const FIXED: Scope =
    Scope { bind: Bind::UnderLock, entry_write: EntryWrite::Locked, post: Post::AtOnce };

impl case::Scope for Scope {
    fn text(self) -> String {
        "1 vCPU that moves from CPU 0 to CPU 1 and stays in the guest; 1 binding, 1 MSI".to_owned()
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

/// The CPUs of the model: the vCPU's task stays in its column when its vCPU goes to another one.
const CPUS: [&str; 2] = ["pCPU 0", "pCPU 1"];

fn program(m: &Machine, scope: Scope) {
    let memory = Memory::new(1);
    let entry = Entry::new(&memory, Irte::HOST);
    let cpus: Rc<[AvicCpu]> = CPUS.map(AvicCpu::new).into();
    let vcpu = Rc::new(Vcpu::new(&memory, 0, Gate::Running(0), vec![], scope.entry_write));
    let iommu = Iommu::new(Rc::clone(&entry), scope.post, Rc::clone(&cpus));
    {
        let vcpu = Rc::clone(&vcpu);
        m.task("vCPU", move || {
            vcpu.put();
            vcpu.load(1);
            // Nothing interrupts it there.
            let _ = cpus[1].run(Some(&vcpu.page));
        });
    }
    {
        let vcpu = Rc::clone(&vcpu);
        let desc = IrqDesc::new(None, None);
        m.task("bind", move || match scope.bind {
            Bind::Blind => vcpu.bind_unlocked(&desc, &entry, false),
            Bind::LooksUp => vcpu.bind_unlocked(&desc, &entry, true),
            Bind::UnderLock => vcpu.bind_under_lock(&desc, &entry),
            Bind::Leaf => vcpu.bind_leaf(&desc, &entry),
        });
    }
    let injected = Rc::clone(&vcpu);
    let logs = Rc::clone(&iommu);
    m.hardware("device", move || iommu.msi(|| injected.inject(&iommu.cpus)));
    m.at_quiescence("a vCPU in guest mode has nothing pending", move || {
        match vcpu.page.pending() {
            // There is nobody to read the log: the vCPU does not sleep, so no entry asks for it.
            _ if logs.has_logged() => {
                Err("the IOMMU has logged the interrupt of a vCPU that does not sleep".to_owned())
            }
            0 => Ok(()),
            _ => Err("the interrupt is pending, and the doorbell rang elsewhere or not at all"
                .to_owned()),
        }
    });
}
