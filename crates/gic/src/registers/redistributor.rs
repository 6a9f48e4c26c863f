//! The registers of a redistributor (Arm IHI 0069H, section 12.11).

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use crate::access::Access;
use crate::choices;
use crate::lpi_tables::PTZ;
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

const PROPBASER: u32 = 0x0070;
const PENDBASER: u32 = 0x0078;
const INVLPIR: u32 = 0x00a0;
const INVALLR: u32 = 0x00b0;
const SYNCR: u32 = 0x00c0;

/// CTLR: EnableLPIs; CES, it can be cleared again; and IR, there are INVLPIR and INVALLR.
const ENABLE_LPIS: u64 = 1 << 0;
const CES: u64 = 1 << 1;
const IR: u64 = 1 << 2;
/// CTLR: RWP.
const RWP: u64 = 1 << 3;
/// CTLR: of DPG0; DPG1NS is the next bit.
const DPG_SHIFT: u32 = 24;
/// TYPER: PLPIS, there are LPIs; Last, and DPGS: the DPG bits are there.
const PLPIS: u64 = 1 << 0;
const LAST: u64 = 1 << 4;
const DPGS: u64 = 1 << 5;
/// PROPBASER: IDbits, the attributes of the memory, and the address.
const PROPERTIES: u64 = 0x1f | 0x7 << 7 | 0x3 << 10 | 0xf_ffff_ffff_f000 | 0x7 << 56;
/// PENDBASER: the attributes of the memory, the address, and PTZ.
const PENDING: u64 = 0x7 << 7 | 0x3 << 10 | 0xf_ffff_ffff_0000 | 0x7 << 56 | PTZ;
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
                let ces = if self.lpis.id_bits().is_some() { CES | IR } else { 0 };
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
            (PROPBASER..INVLPIR, _) => self.read_tables(redistributor, at),
            (SYNCR, Width::Word) if self.lpis.id_bits().is_some() => {
                redistributor.write_pending().into()
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
                return self.write_lpis(redistributor, value & ENABLE_LPIS != 0, host);
            }
            (WAKER, Width::Word) => {
                self.write_waker(redistributor, value & PROCESSOR_SLEEP != 0, host)
            }
            (PROPBASER..INVLPIR, _) => self.write_tables(redistributor, at, value),
            (INVLPIR, Width::Word | Width::Double) => {
                self.reads_config(redistributor, value as u32, host)
            }
            (INVALLR, Width::Word | Width::Double) => {
                return self.reads_all_configs(redistributor, host);
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

    fn read_tables(&self, redistributor: &Redistributor<P>, at: At) -> u64 {
        let of = |base: u32, value: u64| {
            at.half_of(base).map_or(0, |(shift, mask)| value >> shift & mask)
        };
        of(PROPBASER, redistributor.properties.load(SeqCst))
            | of(PENDBASER, redistributor.pending.load(SeqCst) & !PTZ)
    }

    /// Writes PROPBASER or PENDBASER: ignored while LPIs are enabled, where that is UNPREDICTABLE.
    fn write_tables(&self, redistributor: &Redistributor<P>, at: At, value: u64) {
        let control = redistributor.control();
        if self.lpis.id_bits().is_none() || control.has_lpis() || control.is_busy() {
            return;
        }
        let put = |base: u32, word: &P::AtomicU64, writable: u64| {
            let Some((shift, mask)) = at.half_of(base) else { return };
            let written = (value & mask) << shift & writable;
            let kept = !(mask << shift);
            let _ = word.fetch_update(SeqCst, SeqCst, |was| Some(was & kept | written));
        };
        put(PROPBASER, &redistributor.properties, PROPERTIES);
        put(PENDBASER, &redistributor.pending, PENDING);
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
