//! The guest's tables of LPIs: their configuration, a byte for each, and which are pending, a bit
//! for each, in a table of each redistributor (Arm IHI 0069H, section 5.1).
//!
//! The tables are read when LPIs are enabled, and pending ones written when they are disabled; in
//! between, the words say what is pending, and a configuration is read when the guest says that it
//! has changed. What cannot be read changes nothing. What cannot be written stays in the words, and
//! comes back from there.
//!
//! All LPIs of a vCPU may be many: 128 are looked at in one step, and an [`Access`] says that there
//! are more.

use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, Platform};

use crate::access::{Access, Step, What};
use crate::lpis::CHUNK;
use crate::vcpu_set::VcpuSet;
use crate::{Gic, Host, IntId, LpiConfig, Redistributor, VcpuId};

/// GICR_PENDBASER.PTZ: the table is zero (section 12.11, by its name).
pub(crate) const PTZ: u64 = 1 << 62;
/// GICR_PROPBASER.IDbits: one less than the bits of an INTID, of those that are in the tables.
const ID_BITS: u64 = 0x1f;
/// The address in GICR_PROPBASER, and in GICR_PENDBASER.
const PROPERTIES: u64 = 0xf_ffff_ffff_f000;
const PENDING: u64 = 0xf_ffff_ffff_0000;

/// What is done to all LPIs of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pass {
    /// LPIs are disabled: what is pending goes into the table.
    Disable,
    /// LPIs are enabled: what both tables say counts.
    Enable,
    /// The configurations count that the table says by now (GICR_INVALLR).
    Configure,
}

/// Where the tables of a redistributor are.
#[derive(Clone, Copy)]
struct Tables {
    properties: u64,
    pending: u64,
}

impl Tables {
    fn of<P: Platform>(redistributor: &Redistributor<P>) -> Tables {
        Tables {
            properties: redistributor.properties.load(SeqCst),
            pending: redistributor.pending.load(SeqCst),
        }
    }

    /// Returns whether the tables have an LPI.
    fn have(self, id: IntId) -> bool {
        u64::from(id.number()) >> ((self.properties & ID_BITS) + 1) == 0
    }

    /// Returns where the configuration of an LPI is.
    fn config_at(self, id: IntId) -> u64 {
        (self.properties & PROPERTIES) + u64::from(id.number() - IntId::LPI.number())
    }

    /// Returns where the byte is that has the bit of an LPI.
    fn pending_at(self, id: IntId) -> u64 {
        (self.pending & PENDING) + u64::from(id.number() / 8)
    }
}

impl<P: Platform> Gic<P> {
    /// Enables the LPIs of a vCPU, or disables them (GICR_CTLR.EnableLPIs). Ignored while somebody
    /// is about that, as RWP says.
    pub(crate) fn write_lpis(
        &self,
        redistributor: &Redistributor<P>,
        enabled: bool,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let changes = self.lpis.id_bits().is_some() && redistributor.forwards_lpis() != enabled;
        if !changes || !redistributor.begins_tables() {
            return Access::done(0);
        }
        if enabled {
            return self.passes(redistributor, Pass::Enable, VcpuSet::EMPTY, host);
        }
        // From here on no message makes one pending, but for those that come at the same time: they
        // are written, or stay in the words. What is in a list register comes out before that.
        redistributor.set_lpis(false);
        let mut recalled = VcpuSet::EMPTY;
        if self.recall(redistributor, host) {
            recalled.insert(redistributor.id());
        }
        self.passes(redistributor, Pass::Disable, recalled, host)
    }

    /// Reads the configurations of all LPIs of a vCPU (GICR_INVALLR).
    pub(crate) fn reads_all_configs(
        &self,
        redistributor: &Redistributor<P>,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        if !redistributor.forwards_lpis() {
            return Access::done(0);
        }
        self.passes(redistributor, Pass::Configure, VcpuSet::EMPTY, host)
    }

    /// Reads the configuration of an LPI of a vCPU (GICR_INVLPIR).
    pub(crate) fn reads_config(
        &self,
        redistributor: &Redistributor<P>,
        number: u32,
        host: &mut impl Host,
    ) {
        let Some(id) = IntId::lpi(number).filter(|_| redistributor.forwards_lpis()) else { return };
        let Ok(lpi) = self.lpi(id) else { return };
        let tables = Tables::of(redistributor);
        let mut byte = [0];
        if lpi.state().target() == Some(redistributor.id())
            && tables.have(id)
            && reads(host, tables.config_at(id), &mut byte)
        {
            lpi.configure(LpiConfig::from_byte(byte[0]), host);
        }
    }

    fn passes(
        &self,
        redistributor: &Redistributor<P>,
        pass: Pass,
        recalled: VcpuSet,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let what = What::Lpis { vcpu: redistributor.id(), pass, next: IntId::LPI };
        match Access::new(self, what, recalled).complete(host) {
            Ok(value) => Access::done(value),
            Err(access) => access,
        }
    }

    /// Does a step of a pass: to the next LPIs that there are.
    pub(crate) fn steps(
        &self,
        vcpu: VcpuId,
        pass: Pass,
        next: IntId,
        host: &mut impl Host,
    ) -> Step {
        let Ok(redistributor) = self.redistributor(vcpu) else { return Step::Done(0) };
        let tables = Tables::of(redistributor);
        let Some(first) = self.lpis.first_of_chunk_from(next).filter(|&first| tables.have(first))
        else {
            return self.ends_pass(redistributor, pass, host);
        };
        match pass {
            Pass::Disable => self.writes_pending(vcpu, tables, first, host),
            Pass::Enable => {
                self.reads_configs(vcpu, tables, first, host);
                if tables.pending & PTZ == 0 {
                    self.reads_pending(vcpu, tables, first, host);
                }
            }
            Pass::Configure => self.reads_configs(vcpu, tables, first, host),
        }
        match IntId::lpi(first.number() + CHUNK as u32) {
            Some(next) => Step::More(What::Lpis { vcpu, pass, next }),
            None => self.ends_pass(redistributor, pass, host),
        }
    }

    fn ends_pass(
        &self,
        redistributor: &Redistributor<P>,
        pass: Pass,
        host: &mut impl Host,
    ) -> Step {
        if pass == Pass::Enable {
            redistributor.set_lpis(true);
            self.look_again(redistributor, host);
        }
        if pass != Pass::Configure {
            redistributor.ends_tables();
        }
        Step::Done(0)
    }

    fn reads_configs(&self, vcpu: VcpuId, tables: Tables, first: IntId, host: &mut impl Host) {
        let mut bytes = [0; CHUNK];
        if !reads(host, tables.config_at(first), &mut bytes) {
            return;
        }
        for (lpi, byte) in self.lpis_of_chunk(first).zip(bytes) {
            if lpi.state().target() == Some(vcpu) {
                lpi.configure(LpiConfig::from_byte(byte), host);
            }
        }
    }

    fn reads_pending(&self, vcpu: VcpuId, tables: Tables, first: IntId, host: &mut impl Host) {
        let mut bytes = [0; CHUNK / 8];
        if !reads(host, tables.pending_at(first), &mut bytes) {
            return;
        }
        for (at, lpi) in self.lpis_of_chunk(first).enumerate() {
            if bytes[at / 8] >> (at % 8) & 1 != 0 && lpi.state().target() == Some(vcpu) {
                lpi.set_pending(true, host);
            }
        }
    }

    fn writes_pending(&self, vcpu: VcpuId, tables: Tables, first: IntId, host: &mut impl Host) {
        let is_pending = |lpi: &crate::Lpi<'_, P>| {
            let state = lpi.state();
            state.is_latched() && state.target() == Some(vcpu)
        };
        let mut bytes = [0; CHUNK / 8];
        for (at, _) in self.lpis_of_chunk(first).enumerate().filter(|(_, lpi)| is_pending(lpi)) {
            bytes[at / 8] |= 1 << (at % 8);
        }
        let address = tables.pending_at(first);
        if host.memory().is_none_or(|memory| memory.write(address, &bytes).is_err()) {
            return;
        }
        // What has become pending since stays in its word.
        for (at, lpi) in self.lpis_of_chunk(first).enumerate() {
            if bytes[at / 8] >> (at % 8) & 1 != 0 {
                lpi.set_pending(false, host);
            }
        }
    }
}

/// Reads from the guest's memory. Returns whether it could be read.
fn reads(host: &mut impl Host, address: u64, bytes: &mut [u8]) -> bool {
    host.memory().is_some_and(|memory| memory.read(address, bytes).is_ok())
}
