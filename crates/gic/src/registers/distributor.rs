//! The registers of the distributor (Arm IHI 0069H, section 12.9).

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use crate::access::Access;
use crate::choices;
use crate::interrupt::Route;
use crate::registers::At;
use crate::registers::interrupts::Bank;
use crate::{Affinity, Gic, Host, IntId, Redistributor, Width};

const CTLR: u32 = 0x0000;
const TYPER: u32 = 0x0004;
const IIDR: u32 = 0x0008;
const PIDR2: u32 = 0xffe8;
const IROUTER: u32 = 0x6000;
const LAST_IROUTER: u32 = 0x7fff;

/// CTLR: EnableGrp0 and EnableGrp1.
const ENABLES: u32 = 0b11;
/// CTLR: ARE and DS, which read as one.
const ARE_AND_DS: u64 = 1 << 4 | 1 << 6;
/// CTLR: RWP.
const RWP: u64 = 1 << 31;
/// TYPER: A3V, and RSS.
const TYPER_FIXED: u64 = 1 << 24 | 1 << 26;
/// TYPER: LPIS, there are LPIs; and where IDbits is, one less than the bits of an INTID.
const LPIS: u64 = 1 << 17;
const ID_BITS_SHIFT: u32 = 19;
/// IROUTER: Interrupt_Routing_Mode.
const IRM: u64 = 1 << 31;

impl<P: Platform> Gic<P> {
    pub(super) fn read_distributor(&self, at: At, host: &mut impl Host) -> Access<'_, P> {
        let value = match at.offset {
            CTLR if at.width == Width::Word => {
                let pending = self.redistributors.iter().any(Redistributor::write_pending);
                u64::from(self.ctlr.load(SeqCst)) | ARE_AND_DS | if pending { RWP } else { 0 }
            }
            TYPER if at.width == Width::Word => {
                let ids = match self.lpis.id_bits() {
                    Some(bits) => LPIS | u64::from(bits - 1) << ID_BITS_SHIFT,
                    None => 9 << ID_BITS_SHIFT,
                };
                TYPER_FIXED | ids | u64::from((32 + self.spis()).div_ceil(32) - 1)
            }
            IIDR if at.width == Width::Word => choices::IIDR,
            PIDR2 if at.width == Width::Word => choices::PIDR2,
            IROUTER..=LAST_IROUTER => self.read_router(at),
            _ => return self.read_interrupts(Bank::Spis, at, host),
        };
        Access::done(value)
    }

    pub(super) fn write_distributor(
        &self,
        at: At,
        value: u64,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        match at.offset {
            CTLR if at.width == Width::Word => self.write_ctlr(value as u32 & ENABLES, host),
            IROUTER..=LAST_IROUTER => self.write_router(at, value, host),
            _ => self.write_interrupts(Bank::Spis, at, value, host),
        }
    }

    #[inline(never)]
    fn write_ctlr(&self, enables: u32, host: &mut impl Host) -> Access<'_, P> {
        let was = self.ctlr.swap(enables, SeqCst);
        if was == enables {
            return Access::done(0);
        }
        for redistributor in &self.redistributors {
            if was & !enables != 0 && self.recall(redistributor, host) {
                redistributor.begins_write();
            }
            if enables & !was != 0 {
                self.look_again(redistributor, host);
            }
        }
        Access::done(0)
    }

    /// Returns the SPI whose register it is.
    fn routed(at: At) -> Option<(IntId, u32)> {
        let id = IntId::new((at.offset - IROUTER) / 8)?;
        Some((id, IROUTER + id.number() * 8))
    }

    #[inline(never)]
    fn read_router(&self, at: At) -> u64 {
        let Some((id, base)) = Self::routed(at) else { return 0 };
        let (Ok(line), Some((shift, mask))) = (self.spi(id), at.half_of(base)) else { return 0 };
        router(line.interrupt().route()) >> shift & mask
    }

    #[inline(never)]
    fn write_router(&self, at: At, value: u64, host: &mut impl Host) -> Access<'_, P> {
        let done = Access::done(0);
        let Some((id, base)) = Self::routed(at) else { return done };
        let (Ok(line), Some((shift, mask))) = (self.spi(id), at.half_of(base)) else { return done };
        line.interrupt().set_route(|was| {
            let bits = router(was) & !(mask << shift) | (value & mask) << shift;
            Route { affinity: Affinity::from_mpidr(bits), one_of_n: bits & IRM != 0 }
        });
        self.settle(id, host);
        done
    }
}

/// Returns what IROUTER reads as.
fn router(route: Route) -> u64 {
    route.affinity.mpidr() | if route.one_of_n { IRM } else { 0 }
}
