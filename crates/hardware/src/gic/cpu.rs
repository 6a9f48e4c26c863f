//! The virtual CPU interface of a simulated CPU: each use is a visible step.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use doorbell_explore::sim::{Model, fail, note};
use doorbell_explore::{Machine, TaskHandle};

use super::spec::Implementation;
use super::{Unpredictable, VirtualInterface};

/// The registers of a CPU, and whether a guest runs on it.
///
/// The hypervisor [loads](CpuInterface::load) what it has saved of a vCPU,
/// [enters](CpuInterface::enter) the guest, and after its [exit](CpuInterface::exit)
/// [saves](CpuInterface::save) what the guest has left. In between, list registers change under the
/// guest's hands alone.
pub struct CpuInterface {
    name: &'static str,
    state: Model<OnCpu>,
}

doorbell_platform::opaque_debug!([] CpuInterface; name);

struct OnCpu {
    registers: VirtualInterface,
    in_guest: bool,
    /// The maintenance interrupt has been taken to the CPU since the guest was entered.
    interrupts: bool,
}

/// A use that no hardware allows. The run has failed with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misuse {
    /// Somebody other than the guest uses the registers while it runs.
    GuestRuns,
    /// A guest that does not run uses the registers.
    NoGuest,
    /// The guest is entered with list registers that mean nothing.
    Unpredictable(Unpredictable),
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misuse::GuestRuns => {
                f.write_str("the list registers are on the CPU, and its guest runs")
            }
            Misuse::NoGuest => {
                f.write_str("the virtual CPU interface is used by a guest that does not run")
            }
            Misuse::Unpredictable(why) => write!(f, "UNPREDICTABLE: {why}"),
        }
    }
}

impl Error for Misuse {}

impl CpuInterface {
    /// Returns a CPU in the host, with nothing loaded.
    #[track_caller]
    pub fn new(name: &'static str, implementation: Implementation) -> Arc<Self> {
        let registers = VirtualInterface::new(implementation);
        let state = OnCpu { registers, in_guest: false, interrupts: false };
        Arc::new(CpuInterface { name, state: Model::new(name, state) })
    }

    /// Uses the registers in the hypervisor, on their CPU.
    ///
    /// # Errors
    /// If the guest runs.
    #[track_caller]
    pub fn host<R>(&self, f: impl FnOnce(&mut VirtualInterface) -> R) -> Result<R, Misuse> {
        self.state.change(|cpu| {
            if cpu.in_guest { misuse(Misuse::GuestRuns) } else { Ok(f(&mut cpu.registers)) }
        })
    }

    /// Writes all registers.
    ///
    /// # Errors
    /// If the guest runs.
    #[track_caller]
    pub fn load(&self, saved: VirtualInterface) -> Result<(), Misuse> {
        self.host(|registers| *registers = saved)
    }

    /// Reads all registers, and disables the interface: its maintenance interrupt is not asserted
    /// any more.
    ///
    /// # Errors
    /// If the guest runs.
    #[track_caller]
    pub fn save(&self) -> Result<VirtualInterface, Misuse> {
        self.host(|registers| {
            let disabled = VirtualInterface::new(registers.implementation());
            std::mem::replace(registers, disabled)
        })
    }

    /// Enters the guest.
    ///
    /// # Errors
    /// If it runs already, or its list registers are [`Unpredictable`].
    #[track_caller]
    pub fn enter(&self) -> Result<(), Misuse> {
        self.state.change(|cpu| {
            if cpu.in_guest {
                return misuse(Misuse::GuestRuns);
            }
            cpu.registers.check().or_else(|why| misuse(Misuse::Unpredictable(why)))?;
            (cpu.in_guest, cpu.interrupts) = (true, false);
            Ok(())
        })?;
        note(|| format!("enters the guest on {}", self.name));
        Ok(())
    }

    /// Leaves the guest.
    ///
    /// # Errors
    /// If it does not run.
    #[track_caller]
    pub fn exit(&self) -> Result<(), Misuse> {
        self.state.change(|cpu| {
            let ran = std::mem::take(&mut cpu.in_guest);
            if ran { Ok(()) } else { misuse(Misuse::NoGuest) }
        })?;
        note(|| format!("leaves the guest on {}", self.name));
        Ok(())
    }

    /// Does one access of the guest, of which the trace shows the result.
    ///
    /// # Errors
    /// If the guest does not run.
    ///
    /// # Errors
    /// If it does not run.
    #[track_caller]
    pub fn guest<R: fmt::Debug>(
        &self,
        access: impl FnOnce(&mut VirtualInterface) -> R,
    ) -> Result<R, Misuse> {
        let result = self.state.change(|cpu| {
            if cpu.in_guest { Ok(access(&mut cpu.registers)) } else { misuse(Misuse::NoGuest) }
        })?;
        note(|| format!("the guest on {} gets {result:?}", self.name));
        Ok(result)
    }

    /// Lets the maintenance interrupt come: while it is asserted in the guest, `interrupt` may be
    /// called at any moment, once for each entry, and must end guest mode. What the guest does
    /// until then, it does; if it takes the condition away, none comes. `interrupt` may come too
    /// late as well, when the guest is out.
    #[track_caller]
    pub fn run_maintenance(
        self: &Arc<Self>,
        m: &Machine,
        interrupt: impl Fn() + 'static,
    ) -> TaskHandle {
        let this = Arc::clone(self);
        let due = |cpu: &OnCpu| cpu.in_guest && !cpu.interrupts && cpu.registers.maintenance();
        m.hardware("maintenance", move || {
            while let Ok(misr) = this.state.serve(due, |cpu| {
                cpu.interrupts = true;
                cpu.registers.misr()
            }) {
                note(|| format!("maintenance interrupt of {}, MISR {misr:#x}", this.name));
                interrupt();
            }
        })
    }
}

fn misuse<T>(misuse: Misuse) -> Result<T, Misuse> {
    fail(misuse);
    Err(misuse)
}

#[cfg(test)]
mod tests {
    use doorbell_explore::trace::FailureKind;
    use doorbell_explore::{Explore, Report};

    use super::super::spec::{Group, IntId, ListRegister, PhysicalIntId, Priority};
    use super::super::{Trapped, Undefined};
    use super::*;

    fn explored(use_it: impl Fn(&CpuInterface) + Clone + Send + Sync + 'static) -> Report {
        Explore::new("misuse").run(move |m| {
            let cpu = CpuInterface::new("CPU", Implementation::new(4, 5, 5).expect("it is legal"));
            let use_it = use_it.clone();
            m.task("hypervisor", move || use_it(&cpu));
        })
    }

    #[test]
    fn what_is_loaded_comes_back_as_the_guest_has_left_it() {
        let report = explored(|cpu| {
            let mut saved =
                VirtualInterface::new(Implementation::new(4, 5, 5).expect("it is legal"));
            saved.set_vmcr(u64::MAX);
            cpu.load(saved.clone()).expect("no guest runs");
            cpu.enter().expect("no guest runs");
            cpu.guest(|icv| icv.write_pmr(Priority(0x40)))
                .expect("it runs")
                .expect("it is not trapped");
            cpu.exit().expect("it runs");
            saved.write_pmr(Priority(0x40)).expect("it is not trapped");
            assert_eq!(cpu.save(), Ok(saved));
        });
        report.assert_exhausted();
    }

    #[test]
    fn each_error_says_what_is_wrong() {
        let intid = IntId::new(1021).expect("it is small");
        let physical = PhysicalIntId::new(48).expect("it is small");
        let errors: [(&dyn Error, &str); 8] = [
            (&Misuse::GuestRuns, "its guest runs"),
            (&Misuse::NoGuest, "a guest that does not run"),
            (&Misuse::Unpredictable(Unpredictable::Special(intid)), "the special INTID 1021"),
            (&Unpredictable::Twice(intid), "vINTID 1021"),
            (&Unpredictable::TwicePhysical(physical), "pINTID 48"),
            (&Unpredictable::PendingAndActive(physical), "48 is pending and active"),
            (&Undefined, "UNDEFINED"),
            (&Trapped::Deactivation, "TDIR"),
        ];
        for (error, said) in errors {
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn nobody_but_the_guest_uses_the_registers_while_it_runs() {
        let report = explored(|cpu| {
            cpu.enter().expect("no guest runs");
            assert_eq!(cpu.save(), Err(Misuse::GuestRuns));
        });
        report.assert_found(FailureKind::Invariant);
    }

    #[test]
    fn a_guest_that_does_not_run_uses_nothing() {
        let report = explored(|cpu| {
            assert_eq!(cpu.guest(|icv| icv.read_iar(Group::One)), Err(Misuse::NoGuest));
        });
        report.assert_found(FailureKind::Invariant);
    }

    #[test]
    fn a_guest_is_not_entered_with_an_interrupt_in_two_list_registers() {
        let report = explored(|cpu| {
            let intid = IntId::new(32).expect("it is small");
            let lr = ListRegister::new(intid, Priority(0), Group::One);
            for number in [0, 1] {
                cpu.host(|ich| ich.set_lr(number, lr))
                    .expect("no guest runs")
                    .expect("it is there");
            }
            assert_eq!(cpu.enter(), Err(Misuse::Unpredictable(Unpredictable::Twice(intid))));
        });
        report.assert_found(FailureKind::Invariant);
    }
}
