//! The registers of a redistributor (Arm IHI 0069H, section 12.11).

use doorbell_platform::Platform;

use crate::access::Access;
use crate::choices;
use crate::registers::interrupts::Bank;
use crate::registers::{At, Width};
use crate::{Gic, Host, Redistributor};

const CTLR: u32 = 0x0000;
const IIDR: u32 = 0x0004;
const TYPER: u32 = 0x0008;
const TYPER_HIGH: u32 = 0x000c;
const WAKER: u32 = 0x0014;
const PIDR2: u32 = 0xffe8;
/// Where SGI_base begins, whose registers are those of the distributor for the first 32 INTIDs.
const SGI_BASE: u32 = 0x1_0000;

/// CTLR: EnableLPIs, and CES: that can be cleared again.
const ENABLE_LPIS: u64 = 1 << 0;
const CES: u64 = 1 << 1;
/// CTLR: RWP.
const RWP: u64 = 1 << 3;
/// CTLR: of DPG0; DPG1NS is the next bit.
const DPG_SHIFT: u32 = 24;
/// TYPER: PLPIS, there are LPIs; Last, and DPGS: the DPG bits are there.
const PLPIS: u64 = 1 << 0;
const LAST: u64 = 1 << 4;
const DPGS: u64 = 1 << 5;
/// WAKER: ProcessorSleep and ChildrenAsleep.
const PROCESSOR_SLEEP: u64 = 1 << 1;
const CHILDREN_ASLEEP: u64 = 1 << 2;

impl<P: Platform> Gic<P> {
    #[inline(never)]
    pub(super) fn read_redistributor(
        &self,
        redistributor: &Redistributor<P>,
        at: At,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let value = match (at.offset, at.width) {
            (CTLR, Width::Word) => {
                let rwp = if redistributor.write_pending() { RWP } else { 0 };
                let lpis = if redistributor.forwards_lpis() { ENABLE_LPIS } else { 0 };
                let ces = if self.lpis.id_bits().is_some() { CES } else { 0 };
                u64::from(redistributor.dpg()) << DPG_SHIFT | rwp | ces | lpis
            }
            (IIDR, Width::Word) => choices::IIDR,
            (TYPER | TYPER_HIGH, _) => {
                let id = redistributor.id();
                let lpis = if self.lpis.id_bits().is_some() { PLPIS } else { 0 };
                let last = if id.index() + 1 == self.vcpus() { LAST } else { 0 };
                let typer = u64::from(redistributor.affinity().0) << 32
                    | u64::from(id.number()) << 8
                    | DPGS
                    | lpis
                    | last;
                at.half_of(TYPER).map_or(0, |(shift, mask)| typer >> shift & mask)
            }
            (WAKER, Width::Word) => {
                match (redistributor.is_asleep(), redistributor.write_pending()) {
                    (false, _) => 0,
                    (true, true) => PROCESSOR_SLEEP,
                    (true, false) => PROCESSOR_SLEEP | CHILDREN_ASLEEP,
                }
            }
            (PIDR2, Width::Word) => choices::PIDR2,
            (SGI_BASE.., _) => {
                let at = At { offset: at.offset - SGI_BASE, ..at };
                return self.read_interrupts(Bank::Private(redistributor.id()), at, host);
            }
            _ => 0,
        };
        Access::done(value)
    }

    #[inline(never)]
    pub(super) fn write_redistributor(
        &self,
        redistributor: &Redistributor<P>,
        at: At,
        value: u64,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        match (at.offset, at.width) {
            (CTLR, Width::Word) => {
                self.write_dpg(redistributor, (value >> DPG_SHIFT) as u32 & 3, host);
                self.write_lpis(redistributor, value & ENABLE_LPIS != 0, host);
            }
            (WAKER, Width::Word) => {
                self.write_waker(redistributor, value & PROCESSOR_SLEEP != 0, host)
            }
            (SGI_BASE.., _) => {
                let at = At { offset: at.offset - SGI_BASE, ..at };
                return self.write_interrupts(Bank::Private(redistributor.id()), at, value, host);
            }
            _ => {}
        }
        Access::done(0)
    }

    fn write_dpg(&self, redistributor: &Redistributor<P>, dpg: u32, host: &mut impl Host) {
        if redistributor.set_dpg(dpg) {
            self.choose_again(redistributor.id(), host);
            self.recalls_for_write(redistributor, host);
        }
    }

    /// Enables LPIs, or disables them: what is pending then stays so, for when they are enabled
    /// again, and the write is complete when none is in a list register.
    fn write_lpis(&self, redistributor: &Redistributor<P>, enabled: bool, host: &mut impl Host) {
        if self.lpis.id_bits().is_some() && redistributor.set_lpis(enabled) {
            if enabled {
                self.look_again(redistributor, host);
            } else {
                self.recalls_for_write(redistributor, host);
            }
        }
    }

    fn write_waker(&self, redistributor: &Redistributor<P>, sleeps: bool, host: &mut impl Host) {
        if redistributor.set_asleep(sleeps) {
            self.choose_again(redistributor.id(), host);
            if sleeps {
                self.recalls_for_write(redistributor, host);
            } else {
                self.look_again(redistributor, host);
            }
        }
    }

    /// Recalls a vCPU for a write that is complete when it has folded.
    pub(super) fn recalls_for_write(&self, redistributor: &Redistributor<P>, host: &mut impl Host) {
        if self.recall(redistributor, host) {
            redistributor.begins_write();
        }
    }
}
