//! Accesses to the active state: what is acknowledged and ended is known to the vCPU's CPU alone,
//! until the vCPU has folded.

use doorbell_platform::Platform;

use crate::access::{Access, Step, What};
use crate::registers::interrupts::Bank;
use crate::vcpu_set::VcpuSet;
use crate::{Ended, Gic, Host, IntId, Line, State, VcpuId};

impl<P: Platform> Gic<P> {
    pub(super) fn read_active(
        &self,
        bank: Bank,
        first: u32,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        self.after_recall(bank, first, u32::MAX, What::ReadActive { bank, first }, host)
    }

    pub(super) fn write_active(
        &self,
        bank: Bank,
        first: u32,
        bits: u32,
        active: bool,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        self.after_recall(bank, first, bits, What::WriteActive { bank, first, bits, active }, host)
    }

    /// Deactivates an SPI that another vCPU may have acknowledged.
    pub(crate) fn deactivate_elsewhere(
        &self,
        by: VcpuId,
        id: IntId,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let bank = if id.is_spi() { Bank::Spis } else { Bank::Private(by) };
        self.after_recall(bank, id.number(), 1, What::Deactivate { bank, id }, host)
    }

    /// Recalls the holders of some interrupts. If there is nobody to wait for, the access takes
    /// effect.
    fn after_recall(
        &self,
        bank: Bank,
        first: u32,
        bits: u32,
        what: What,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let mut recalled = None;
        self.each_line(bank, first, bits, |line, _| {
            if let Some(holder) = self.recall_holder(line.state(), line.id(), host) {
                let _ = recalled.get_or_insert(VcpuSet::EMPTY).insert(holder);
            }
        });
        match recalled {
            None => match self.recalled(what, host) {
                Step::Done(value) => Access::done(value),
                Step::More(what) => Access::new(self, what, VcpuSet::EMPTY),
            },
            Some(recalled) => Access::new(self, what, recalled),
        }
    }

    /// Does what was asked for, now that the holders have folded since.
    pub(crate) fn recalled(&self, what: What, host: &mut impl Host) -> Step {
        let mut value = 0;
        match what {
            What::ReadActive { bank, first } => {
                value = self.bits_of(bank, first, State::is_active).into()
            }
            What::WriteActive { bank, first, bits, active: true } => {
                self.each_line(bank, first, bits, |line, _| {
                    let was = line.interrupt().set_active(true);
                    if !was.is_active() {
                        self.post(was, line.id(), host);
                    }
                })
            }
            What::WriteActive { bank, first, bits, active: false } => {
                self.each_line(bank, first, bits, |line, _| {
                    let _ = self.makes_inactive(&line, host);
                })
            }
            What::Deactivate { bank, id } => self.each_line(bank, id.number(), 1, |line, _| {
                let was = self.makes_inactive(&line, host);
                if was.is_active() && was.tells_of_level() {
                    host.ended(Ended::Level(id));
                }
            }),
            What::Lpis { vcpu, pass, next } => return self.steps(vcpu, pass, next, host),
        }
        Step::Done(value)
    }

    fn makes_inactive(&self, line: &Line<'_, P>, host: &mut impl Host) -> State {
        let was = line.interrupt().set_active(false);
        if was.is_active() {
            if was.is_physical() {
                self.ends_physically(line, host);
            }
            // The holder forgets that it is active, and signals it if it is pending again. If
            // nobody has it, there is nobody else to hand it over.
            if was.is_rerouted() && !was.is_held() {
                self.settle(line.id(), host);
            } else {
                self.post(was, line.id(), host);
            }
        }
        was
    }
}
