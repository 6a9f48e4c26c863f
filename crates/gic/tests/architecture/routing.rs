//! Where an SPI may go.

use std::collections::BTreeSet;

use super::registers::ANY;
use super::{Gic, PRIVATE};

impl Gic {
    /// Returns the PEs that an SPI may go to as it is routed, whatever else it is.
    ///
    /// With the routing mode 0 that is the PE of its affinity (section 2.3.1). With 1 that is any
    /// PE which takes part (section 2.3.2): it is on and awake, its CPU interface has enabled the
    /// group, and GICR_CTLR.DPG* does not exclude it. The choice is IMPLEMENTATION DEFINED.
    pub fn legal_targets(&self, id: u32) -> BTreeSet<usize> {
        assert!(id >= PRIVATE, "only SPIs are routed");
        let spi = self.interrupt(0, id);
        let affinity = (spi.route >> 32) as u32 & 0xff;
        let affinity = affinity << 24 | spi.route as u32 & 0xff_ffff;
        let is_target = |&pe: &usize| {
            let pe = &self.pes[pe];
            if spi.route & ANY == 0 {
                pe.affinity == affinity
            } else {
                pe.on
                    && !pe.asleep
                    && pe.interface.enabled[spi.group]
                    && !pe.not_selected[spi.group]
            }
        };
        (0..self.pes.len()).filter(is_target).collect()
    }

    /// Returns whether an interrupt that may be signalled to a PE may as well be signalled to
    /// another, and is not there then.
    pub fn may_go_elsewhere(&self, id: u32) -> bool {
        id >= PRIVATE && self.legal_targets(id).len() > 1
    }
}
