//! What the manual leaves open about an access.

use std::collections::BTreeSet;

use super::{Access, Gic};

/// Why the outcome of an access is not determined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// Not aligned, or of a size that need not be supported: UNPREDICTABLE within limits (section
    /// 12.1.3). Here it reads zero, or is ignored.
    Size,
    /// Another trigger for an interrupt that is enabled: UNPREDICTABLE (section 12.9,
    /// GICD_ICFGR<n>).
    TriggerWhileEnabled,
    /// Another trigger for an interrupt that is pending: UNKNOWN whether it is pending after that
    /// (section 12.9, GICD_ICFGR<n>).
    TriggerWhilePending,
    /// Another priority, group or route for an interrupt that is pending: signalled by the old one
    /// or the new one, once (section 12.9, GICD_IPRIORITYR<n>, GICD_IGROUPR<n>, GICD_IROUTER<n>).
    /// Reads return the new one.
    ChangeWhilePending,
    /// Another priority or group for an interrupt that is active. Here the running priority stays
    /// what it was at the acknowledgement.
    ChangeWhileActive,
    /// Inactive by a write, though a PE has acknowledged it and not dropped its priority. Here the
    /// running priority stays, and the interrupt can be pending alone.
    InactiveWhileRunning,
    /// ProcessorSleep set with a group enabled: UNPREDICTABLE (section 12.11, GICR_WAKER).
    SleepWhileEnabled,
}

impl Gic {
    /// Returns whether the manual says what an access does and reads.
    pub fn is_predictable(&self, access: &Access) -> bool {
        self.reasons(access).is_empty()
    }

    /// Returns what the manual leaves open about an access: found by doing it to a copy.
    pub fn reasons(&self, access: &Access) -> BTreeSet<Reason> {
        let mut reasons = BTreeSet::new();
        if !access.is_supported() {
            reasons.insert(Reason::Size);
        }
        let mut copy = self.clone();
        copy.access(access);
        for (pe, id) in self.interrupts() {
            let (old, new) = (self.interrupt(pe, id), copy.interrupt(pe, id));
            if old.edge != new.edge && old.enabled {
                reasons.insert(Reason::TriggerWhileEnabled);
            }
            if old.edge != new.edge && old.is_pending() {
                reasons.insert(Reason::TriggerWhilePending);
            }
            let other = old.priority != new.priority || old.group != new.group;
            if (other || old.route != new.route) && old.is_pending() {
                reasons.insert(Reason::ChangeWhilePending);
            }
            if other && old.active {
                reasons.insert(Reason::ChangeWhileActive);
            }
            if old.active && !new.active && self.acknowledged_by(pe, id).is_some() {
                reasons.insert(Reason::InactiveWhileRunning);
            }
        }
        for (old, new) in self.pes.iter().zip(&copy.pes) {
            if !old.asleep && new.asleep && old.interface.enabled != [false; 2] {
                reasons.insert(Reason::SleepWhileEnabled);
            }
        }
        reasons
    }
}
