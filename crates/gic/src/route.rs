//! The way of an SPI to its vCPU.

use doorbell_platform::Platform;

use crate::groups::Groups;
use crate::interrupt::{Route, Settled};
use crate::{Gic, Group, IntId, Kick, Redistributor, State, VcpuId};

impl<P: Platform> Gic<P> {
    /// Returns which vCPU an SPI goes to: the one of that affinity, if there is one; or, of those
    /// that take part, the one that has it, else the next.
    pub(crate) fn choose(&self, state: State, route: Route) -> Option<VcpuId> {
        if !route.one_of_n {
            return self.vcpu_of(route.affinity);
        }
        let first = state.holder().map_or(0, VcpuId::index);
        let (before, after) = self.redistributors.split_at(first.min(self.vcpus()));
        let all = after.iter().chain(before);
        all.into_iter().find(|redistributor| redistributor.takes_part(state)).map(Redistributor::id)
    }

    /// Brings an SPI to the vCPU that it is to go to, or has it brought there by the holder, which
    /// has it in a list register or active. By anybody who has changed what
    /// [`choose`](Gic::choose) looks at, and by a holder that has let go.
    ///
    /// The holder in the word is the one vCPU that may signal it, and the exchange that replaces
    /// the holder sees what is pending. So it is never in two list registers, and whoever makes it
    /// pending before tells the former holder in vain, and after tells the new one.
    pub(crate) fn settle(&self, id: IntId, host: &mut impl Kick) {
        let Ok(line) = self.spi(id) else { return };
        match line.interrupt().settle(|state, route| self.choose(state, route)) {
            Settled::At(state) => {
                // Also one that has it in a list register, which any vCPU may have from now on: its
                // guest may have disabled the group.
                if state.is_enabled() && (state.reads_as_pending() || state.is_active()) {
                    self.post(state, id, host);
                }
            }
            // What is active stays. What is pending in a list register has to come out of there.
            Settled::Waits(state) => {
                if state.is_pending_inside() {
                    let _ = self.recall_holder(state, id, host);
                }
            }
        }
    }

    /// Chooses once more for what any vCPU may have: this one has begun or ceased to take part.
    pub(crate) fn choose_again(&self, vcpu: VcpuId, host: &mut impl Kick) {
        let Ok(redistributor) = self.redistributor(vcpu) else { return };
        for (number, spi) in (32..).zip(&self.spis) {
            let state = spi.state();
            let concerned = match state.holder() {
                Some(holder) => holder == vcpu,
                None => redistributor.takes_part(state),
            };
            if let Some(id) = IntId::new(number).filter(|_| concerned && state.is_one_of_n()) {
                self.settle(id, host);
            }
        }
    }

    /// Takes note of the groups that the guest was seen to have disabled in the CPU interface of a
    /// vCPU. By its owner.
    pub(crate) fn takes_part(&self, vcpu: VcpuId, apart: Groups, host: &mut impl Kick) {
        let Ok(redistributor) = self.redistributor(vcpu) else { return };
        let changed =
            Group::BOTH.map(|group| redistributor.set_apart(group, apart.contains(group)));
        if changed.contains(&true) {
            self.choose_again(vcpu, host);
        }
    }
}
