//! How SGIs are generated.

use super::Gic;

/// A register that generates SGIs when it is written (section 12.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiRegister {
    /// ICC_SGI0R_EL1.
    Sgi0R,
    /// ICC_SGI1R_EL1.
    Sgi1R,
    /// ICC_ASGI1R_EL1.
    Asgi1R,
}

impl SgiRegister {
    /// Returns whether a write to the register makes an SGI pending that its target has in that
    /// group (section 12.1.10, with GICD_CTLR.DS == 1). There is no other Security state for
    /// ICC_ASGI1R_EL1 to reach, and nothing keeps ICC_SGI1R_EL1 from group 0.
    pub fn reaches(self, group: usize) -> bool {
        match self {
            SgiRegister::Sgi0R | SgiRegister::Asgi1R => group == 0,
            SgiRegister::Sgi1R => true,
        }
    }
}

impl Gic {
    /// Does what a PE's write to one of the registers does (section 12.2, ICC_SGI1R_EL1, for the
    /// fields).
    pub fn generate(&mut self, from: usize, register: SgiRegister, value: u64) {
        let field = |shift: u32, bits: u32| (value >> shift & ((1 << bits) - 1)) as u32;
        let (target_list, id, range_selector) = (field(0, 16), field(24, 4), field(44, 4));
        let to_all_others = field(40, 1) == 1;
        let cluster = field(48, 8) << 24 | field(32, 8) << 16 | field(16, 8) << 8;
        for to in 0..self.pes.len() {
            let affinity = self.pes[to].affinity;
            let aff0 = affinity & 0xff;
            let listed = affinity & !0xff == cluster
                && aff0 / 16 == range_selector
                && target_list >> (aff0 % 16) & 1 == 1;
            let targeted = if to_all_others { to != from } else { listed };
            if targeted && register.reaches(self.interrupt(to, id).group) {
                self.latch(to, id);
            }
        }
    }
}
