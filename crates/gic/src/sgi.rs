//! Software-generated interrupts: a vCPU interrupts others.

use doorbell_platform::Platform;

use crate::{Affinity, Gic, Group, IntId, Kick, Redistributor, VcpuId};

/// The system register that an SGI was generated with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiRegister {
    /// ICC_SGI0R_EL1: group 0.
    Sgi0R,
    /// ICC_SGI1R_EL1: group 1.
    Sgi1R,
    /// ICC_ASGI1R_EL1: group 1 of the other security state, of which there is none here.
    Asgi1R,
}

impl<P: Platform> Gic<P> {
    /// Generates an SGI, as a write of the register by a vCPU does (section 12.2). By the vCPU's
    /// owner, outside of the guest, with nothing held. Tells up to all vCPUs.
    ///
    /// # Errors
    /// If there is no such vCPU.
    pub fn generate_sgi(
        &self,
        by: VcpuId,
        register: SgiRegister,
        value: u64,
        host: &mut impl Kick,
    ) -> Result<(), crate::NoSuch> {
        let _ = self.redistributor(by)?;
        let Some(id) = IntId::new((value >> 24 & 0xf) as u32) else { return Ok(()) };
        // IRM: all but itself.
        if value >> 40 & 1 != 0 {
            for redistributor in
                self.redistributors.iter().filter(|redistributor| redistributor.id() != by)
            {
                self.sgi(redistributor, id, register, host);
            }
            return Ok(());
        }
        let cluster =
            (value >> 48 & 0xff) << 24 | (value >> 32 & 0xff) << 16 | (value >> 16 & 0xff) << 8;
        // RS: which 16 of the values of Aff0 the target list is for.
        let first = (value >> 44 & 0xf) << 4;
        let mut targets = value & 0xffff;
        while targets != 0 {
            let aff0 = first | u64::from(targets.trailing_zeros());
            targets &= targets - 1;
            let target = self.vcpu_of(Affinity((cluster | aff0) as u32));
            if let Some(redistributor) = target.and_then(|vcpu| self.redistributor(vcpu).ok()) {
                self.sgi(redistributor, id, register, host);
            }
        }
        Ok(())
    }

    fn sgi(
        &self,
        redistributor: &Redistributor<P>,
        id: IntId,
        register: SgiRegister,
        host: &mut impl Kick,
    ) {
        let Ok(line) = self.private(redistributor.id(), id) else { return };
        // The target's configuration decides, and it is forwarded if that is the register's group.
        let group = line.state().group();
        let forwarded = match register {
            SgiRegister::Sgi0R | SgiRegister::Asgi1R => group == Group::Zero,
            SgiRegister::Sgi1R => true,
        };
        if forwarded {
            line.edge(host);
        }
    }
}
